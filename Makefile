# make run    set everything up in .venv and run the demo to results/demo/report.html
# make test   set everything up in .venv and pass the tests

PYTHON ?= python3
CORES ?= all
KILLS ?= 20
WRITER_KILLS ?= 50
REPETITIONS ?= 10
# The folder of real images; its tests say that they are skipped where it isn't.
REAL_DATA ?= $(or $(JAISP_REAL_DATA),$(wildcard ../shared/data))
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: run test fast-test lint real real-wide ruler ablations drill drill-writers drills bench-warp bench-store \
        bench-scaling bench-plan bench-loader bench-memory bench-simulate bench-bound bench-train \
        bench-fetch bench-publish bench-rates drill-embed figures clean

run: .venv/run.stamp
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake --cores $(CORES)

test: .venv/test.stamp
	PATH="$(CURDIR)/$(BIN):$$PATH" JAISP_REAL_DATA="$(abspath $(REAL_DATA))" $(BIN)/pytest -n auto

# What every commit passes: no workflow, no real data.
fast-test: .venv/test.stamp
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -n auto -m "not workflow and not realdata"

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake --lint
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake -s workflow/ablations.smk --lint

# The three small real fields to their reports (minutes), and the nine-band field (longer).
SMALL_FIELDS := kids_viking_galex euclid_des hsc_hst
real: $(SMALL_FIELDS:%=real-%)

real-%: .venv/run.stamp
	PATH="$(CURDIR)/$(BIN):$$PATH" JAISP_DATA="$(abspath $(REAL_DATA))" \
	  $(BIN)/snakemake --cores $(CORES) --configfile config/$*.yaml

real-wide: real-kids_viking_wide

# The demo on all of its patches, with several copies of injected sources.
ruler: .venv/run.stamp
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake --cores $(CORES) --configfile config/ruler.yaml

# What each part of the model and the objective is worth, to docs/ablations.md. Hours on two cores;
# it may be stopped at any moment, and goes on from there. An arm that fails leaves the others be.
ablations: .venv/run.stamp
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake -s workflow/ablations.smk --cores $(CORES) \
	  --keep-going || { $(BIN)/jaisp ablate --arms config/ablations.yaml --table; exit 1; }

# A run killed with -9 at 20 random moments ends with the store of an undisturbed one.
drill: .venv/test.stamp
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python benchmarks/kill_drill.py --kills $(KILLS)

# The writer of a group killed with -9 at 50 random instants of its writing, likewise.
drill-writers: .venv/test.stamp
	$(BIN)/python benchmarks/writer_drill.py --kills $(WRITER_KILLS)

# Token grids and maps are the same bytes whatever workers, threads and kills made them.
drill-embed: .venv/test.stamp
	$(BIN)/python benchmarks/embed_drill.py --kills $(KILLS) --out docs/embed_drill.json

# Everything that dies, ten times each, to docs/drills.md: kills, full disks, flipped bytes.
drills: .venv/test.stamp
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.drills --repetitions $(REPETITIONS) \
	  --out docs/drills.json

# Resampling and the warp stage against their peers (SWarp where it is installed).
bench-warp: .venv/test.stamp
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python benchmarks/warp.py --out docs/benchmarks/warp.json

# The store's size, speed and accuracy against other formats.
bench-store: .venv/test.stamp
	$(BIN)/python benchmarks/store.py --out docs/benchmarks/store.json

# Time a patch of warping and publishing, from 10² to 10³ patches.
bench-scaling: .venv/test.stamp
	$(BIN)/python benchmarks/scaling.py --out docs/benchmarks/scaling.json

# Publishing and opening a store of 10⁴ to 10⁶ tiny patches: seconds and memory.
bench-publish: .venv/test.stamp
	$(BIN)/python benchmarks/publish.py --out docs/benchmarks/publish.json

# The rates of `jaisp plan --estimate`: all stages, and encoders on this machine's GPU or else its CPU.
bench-rates: .venv/test.stamp
	$(BIN)/python benchmarks/rates.py encoders
	$(BIN)/python benchmarks/rates.py stages

# A dry run over 10³ and 10⁴ cells.
bench-plan: .venv/test.stamp
	$(BIN)/python benchmarks/plan.py --out docs/benchmarks/plan.json

# The memory of warping a mosaic of 19200² pixels, plain and packed.
bench-memory: .venv/test.stamp
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python benchmarks/memory.py --out docs/benchmarks/memory.json

# A PSF fit against the Cramér–Rao bound, and the floor that the warp leaves under positions.
bench-bound: .venv/test.stamp
	$(BIN)/python benchmarks/bound.py --out docs/benchmarks/bound.json

# Loading batches of patches, against memmaps and zarr.
bench-loader: .venv/test.stamp
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python benchmarks/loader.py --out docs/benchmarks/loader.json

# The simulation's speed and accuracy against GalSim's per-object drawing.
bench-simulate: .venv/test.stamp
	$(BIN)/python benchmarks/simulate.py --out docs/benchmarks/simulate.json

# Training: patches a second, the share of a matrix product's rate, time waiting on data.
bench-train: .venv/test.stamp
	$(BIN)/python benchmarks/train.py --out docs/benchmarks/train.json

# Fetching from nginx on this machine, against curl.
bench-fetch: .venv/test.stamp
	$(BIN)/python benchmarks/fetch.py --out docs/benchmarks/fetch.json

# README's pictures and figures, from the results of `make run`.
figures: .venv/run.stamp
	$(BIN)/python benchmarks/readme_figures.py

clean:
	rm -rf .venv results .snakemake

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "JAISP needs Python 3.11 or newer; name one: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/run.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) install -q -c constraints.txt -e .
	@touch $@

.venv/test.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) install -q -c constraints.txt -e '.[test]'
	@touch $@ .venv/run.stamp
