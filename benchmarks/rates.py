"""The rates that `jaisp plan --estimate` multiplies with: written to jaisp/rates.json.

    python benchmarks/rates.py stages       CPU seconds and bytes of every stage but the encoders'
    python benchmarks/rates.py encoders     training and embedding on this machine's GPU, else CPU
        [--sizes tiny small] [--token-arcsec 1.6] [--batch 6] [--crop 28]
    python benchmarks/rates.py told         a training of which only the time is known
        --machine NAME --took SECONDS --steps 1000 --batch 32 --crop 48 --token-arcsec 0.8 …
    all: [--out jaisp/rates.json]

stages: the demo's surveys on two fields. Each stage's command on the small one tells what the start
of a job takes; on the large one the stages run in this process, which has run all of them before.
[--without inject evaluate] leaves these as they are in the file. encoders: steps of a training, and
the embedding of a made-up field, timed on the GPU by the clock and on the CPU by its own; a row of
the same device, size and token replaces an earlier one. The rest of the file stays.
"""

import argparse
import datetime
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from machine import machine
from made_up import make_store
from train import device_name, make_config

import jaisp.estimate
from jaisp.cli import app
from jaisp.config import Config, load_config
from jaisp.config.evaluate import PARTS
from jaisp.embedding import embed_cells
from jaisp.estimate import Amounts, Sky, simulated_megapixels
from jaisp.files import read_json, receipt_path, write_json
from jaisp.model import save_model
from jaisp.sky import cells
from jaisp.store.reader import open_store
from jaisp.train.fresh import new_model
from jaisp.train.loop import Run
from jaisp.train.patches import Patches, measure_noise

RATES = Path(jaisp.estimate.__file__).with_name("rates.json")
SMALL, LARGE = 2.6, 6.0  # arcmin
FIELD = {
    "split": {"test": 0.3, "validation": 0.0},
    "surveys": {
        "rubin": {
            "bands": ["u", "g", "r", "i", "z", "y"],
            "pixel_arcsec": 0.2,
            "archive": {"kind": "simulated"},
        },
        "euclid_q1": {
            "bands": ["VIS", "Y", "J", "H"],
            "pixel_arcsec": 0.1,
            "archive": {"kind": "simulated"},
        },
    },
    "inject": {"patches": 22},
    "model": {"size": "tiny", "token_arcsec": 1.6},
    "train": {"steps": 20},
    "evaluate": {"patches": 8, "band_patches": 3, "withheld_patches": 2, "edge_tokens": 6},
}
STAGES = {
    "simulate": ["simulate"],
    "plan": ["plan"],
    "fetch": ["fetch"],
    "warp": ["warp"],
    "publish": ["publish"],
    "inject": ["inject"],
    "train": ["train"],
    "embed": ["embed"],
    "basis": ["embed", "--basis"],
    "maps": ["embed", "--maps"],
    "evaluate": ["evaluate"],
}


def measure_stages(rates: dict[str, Any], without: list[str]) -> dict[str, Any]:
    """CPU seconds a job and a unit, and bytes a unit."""
    encoders = encoders_seconds(rates)
    rates = rates["stages"]
    small, _, large = (
        measure_field("commands", SMALL, command, without),
        measure_field("warm", SMALL, in_process, without),
        measure_field("large", LARGE, in_process, without),
    )
    core_s = dict(rates.get("core_s", {}))
    for stage, amount in large["amounts"].items():
        if stage not in without:
            unit = large["core_s"][stage] / amount
            start = small["core_s"][stage] - unit * small["amounts"][stage]
            # One command goes over all skies and surveys; of evaluating, each part starts alone.
            jobs = len(PARTS) if stage == "evaluate" else 1
            core_s[stage] = {"a_job": max(start, 0.0) / jobs, "a_unit": unit}
    for what, unit in encoders.items():
        start = small["core_s"][what] - unit * small["encoded"][what]
        core_s[what] = {"a_job": max(start, 0.0)}
    return {
        "machine": machine(),
        "date": today(),
        "run": f"the demo's surveys on {SMALL:g}′ and {LARGE:g}′",
        "core_s": {stage: rounded(took) for stage, took in core_s.items()},
        "bytes": rounded(large["bytes"]),
    }


def encoders_seconds(rates: dict[str, Any]) -> dict[str, float]:
    """A CPU's seconds a megapixel of the encoders that the fields are run with."""
    size, token_arcsec = FIELD["model"]["size"], FIELD["model"]["token_arcsec"]
    for row in rates["encoders"]:
        if (row["device"], row["size"], row["token_arcsec"]) == ("cpu", size, token_arcsec):
            return {what: row[f"{what}_s_a_megapixel"] for what in ("train", "embed")}
    sys.exit(f"rates.json has no `{size}` encoders at {token_arcsec}″: measure encoders first")


def rounded(values: dict[str, float]) -> dict[str, float]:
    """Four digits are more than is known."""
    return {name: float(f"{value:.4g}") for name, value in values.items()}


def measure_field(
    name: str, side: float, run: Callable[..., float], without: list[str]
) -> dict[str, Any]:
    """Run a field's stages one after another."""
    sky = {"ra": 53.13, "dec": -28.10, "width_arcmin": side, "height_arcmin": side}
    Path(f"{name}.yaml").write_text(yaml.safe_dump({"run": name, "sky": sky, **FIELD}))
    config = load_config(Path(f"{name}.yaml"))
    wanted = {stage: words for stage, words in STAGES.items() if stage not in without}
    core_s = {stage: run(config, *words) for stage, words in wanted.items()}
    print(name, core_s, flush=True)
    amounts = Amounts(config, Sky(config, cells(config)))
    tile_megapixels = simulated_megapixels(config)
    stored = size_of(config.results / "patches.zarr")
    tiles = size_of(config.results / "simulated")
    pictures = sum(path.stat().st_size for path in (config.results / "maps").glob("*.png"))
    tokens = sum(
        read_json(receipt_path(config, "embed", f"field.{survey}"))["tokens"]
        for survey in config.surveys
    )
    vectors = size_of(config.results / "embeddings.zarr")
    return {
        "core_s": core_s,
        "amounts": {
            "simulate": tile_megapixels,
            "fetch": tiles / 1e9,
            "warp": amounts.megapixels,
            "publish": stored / 1e9,
            "inject": amounts.injected,
            "maps": amounts.grid_tokens / 1e6,
            "evaluate": amounts.evaluated,
        },
        "encoded": {"train": amounts.trained, "embed": amounts.megapixels},
        "bytes": {
            "tile_pixel": tiles / tile_megapixels / 1e6,
            "store_pixel": stored / amounts.megapixels / 1e6,
            "token_byte": vectors / (tokens * config.model.dimensions * 2),
            "picture_token": pictures / amounts.grid_tokens,
        },
    }


def in_process(config: Config, *words: str) -> float:
    """The same in this process; CPU seconds of it and its children."""
    before, cpu = resource.getrusage(resource.RUSAGE_CHILDREN), time.process_time()
    app([*words, "--config", f"{config.run}.yaml"], standalone_mode=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    children = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.process_time() - cpu + children


def command(config: Config, *words: str) -> float:
    """`jaisp WORDS` to its end; CPU seconds of it and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = [sys.executable, "-c", "from jaisp.cli import main; main()", *words]
    done = subprocess.run([*run, "--config", f"{config.run}.yaml"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure_encoders(size: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds a megapixel, of all bands, of training and of embedding."""
    config = encoders_config(size, options)
    store = open_store(make_store(config))
    numbers = store.where("train")
    noise = measure_noise(store, numbers)
    patches = Patches(store, numbers, noise, 8.0, "read patches")
    model = new_model(store, config.model, noise, seed=1)
    run = Run(model, patches, patches, config.train, Path.cwd() / size, "benchmark")
    run._begin(range(1, options.steps + 3))
    for step in (1, 2):  # warm up
        run._step(step)
    steps = [seconds(partial(run._step, step)) for step in range(3, options.steps + 3)]
    amounts = Amounts(config, Sky(config, cells(config)))
    save_model(model, config.results / "model", "A benchmark's.")
    (cell,) = cells(config)
    embedded = [seconds(partial(embed_cells, config, [cell], name)) for name in config.surveys]
    train_s = float(np.median(steps)) / (amounts.trained / config.train.steps)
    return {
        "device": "gpu" if torch.cuda.is_available() else "cpu",
        **row_of(size, options, device_name(), train_s),
        "embed_s_a_megapixel": sum(embedded) / amounts.megapixels,
    }


def row_of(size: str, options: argparse.Namespace, where: str, train_s: float) -> dict[str, Any]:
    """What is kept of a training: where, of what, and its seconds a megapixel."""
    return {
        "machine": where,
        "date": options.date or today(),
        "size": size,
        "token_arcsec": options.token_arcsec,
        "precision": options.precision,
        "batch": options.batch,
        "crop_tokens": options.crop,
        "train_s_a_megapixel": train_s,
        "embed_s_a_megapixel": None,
    }


def told(options: argparse.Namespace) -> dict[str, Any]:
    """A row of a GPU's training of the demo's surveys, from its whole time."""
    (size,) = options.sizes
    config = encoders_config(size, options)
    amounts = Amounts(config, Sky(config, cells(config)))
    row = row_of(size, options, options.machine, options.took / amounts.trained)
    return {"device": "gpu", **row}


def encoders_config(size: str, options: argparse.Namespace) -> Config:
    config = make_config(Path.cwd(), size, options)
    train = {"crop_tokens": options.crop, "steps": options.steps}
    return config.model_copy(update={"train": config.train.model_copy(update=train)})


def seconds(call: Callable[[], Any]) -> float:
    """Of the clock where a GPU works, of all cores together where none does."""
    gpu = torch.cuda.is_available()
    clock = time.perf_counter if gpu else time.process_time
    began = clock()
    call()
    if gpu:
        torch.cuda.synchronize()
    return clock() - began


def today() -> str:
    return datetime.date.today().isoformat()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("stages", "encoders", "told"))
    parser.add_argument("--out", type=Path, default=RATES)
    parser.add_argument("--without", nargs="*", default=[], choices=("inject", "evaluate"))
    parser.add_argument("--sizes", nargs="+", default=["tiny", "small"])
    parser.add_argument("--token-arcsec", type=float, default=1.6)
    parser.add_argument("--batch", type=int, default=6, help="patches of a step")
    parser.add_argument("--crop", type=int, default=28, help="tokens along a view's side")
    parser.add_argument("--patches", type=int, default=36)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--machine", help="told: what it ran on")
    parser.add_argument("--took", type=float, help="told: seconds of all steps")
    parser.add_argument("--date", help="told: when; default: today")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.set_defaults(compile=False)  # what `make_config` asks, and trainings do by default
    options = parser.parse_args()
    out, home = options.out.absolute(), Path.cwd()
    rates = json.loads(out.read_text()) if out.is_file() else {"stages": {}, "encoders": []}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["JAISP_CACHE"] = f"{folder}/cache"
        if options.what == "stages":
            rates["stages"] = measure_stages(rates, options.without)
        else:
            for size in options.sizes:
                measure = told if options.what == "told" else partial(measure_encoders, size)
                row = measure(options)
                print(row, flush=True)
                same = ("device", "size", "token_arcsec")
                rates["encoders"] = [
                    r for r in rates["encoders"] if any(r[k] != row[k] for k in same)
                ]
                rates["encoders"].append(row)
        os.chdir(home)
    rates["encoders"].sort(key=lambda r: (r["device"], r["size"], r["token_arcsec"]))
    write_json(out, rates)


if __name__ == "__main__":
    main()
