"""What a run would take, before anything is fetched: files, bytes, core-hours and GPU-hours.

Rates were measured by `benchmarks/rates.py` and stand in `rates.json` beside this module, with
their machines and dates. Nothing is asked of any archive.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import numpy as np

from jaisp.archives.files import local_files
from jaisp.archives.table import read_tiles, tile_planes, tiles_path
from jaisp.blocks import cell_batches
from jaisp.config import Config
from jaisp.config.evaluate import PARTS
from jaisp.embedding.layout import CHUNK, COMPONENTS, MOST_FILES
from jaisp.fetch import BATCHES
from jaisp.inject.names import sky_names
from jaisp.sampling import evenly
from jaisp.sky import Cell, cells
from jaisp.store.layout import patches_per_shard
from jaisp.transfer.address import is_address

SAMPLED = 48  # cells whose patches are counted, for the mean of all
PLANES = 3  # flux, noise, mask: a shard of each
SMALL_FILES = 14  # of a group beside its shards: metadata and tables
HOUR = 3600.0


@dataclass(frozen=True)
class Row:
    """One stage: its jobs, and what it writes. None: not known."""

    stage: str
    jobs: int
    files: float = 0.0
    bytes: float | None = 0.0
    core_hours: float | None = 0.0
    gpu_hours: float | None = 0.0


@dataclass(frozen=True)
class Estimate:
    """A run's stages, and what they follow from. exact: no cell's patches are a mean."""

    cells: int
    patches: float
    area_deg2: float
    exact: bool
    rows: list[Row]
    notes: list[str] = field(default_factory=list)


def read_rates() -> dict[str, Any]:
    """The rates that came with the package."""
    content: dict[str, Any] = json.loads((files("jaisp") / "rates.json").read_text("utf-8"))
    return content


def estimate(config: Config, rates: dict[str, Any] | None = None) -> Estimate:
    """Foresee a run of the config.

    Core-hours of `train` and `embed` are those of a run without GPU, GPU-hours those of one with.
    """
    rates = read_rates() if rates is None else rates
    sky = Sky(config, cells(config))
    amounts = Amounts(config, sky)
    notes = [_measured_on(rates)]
    rows = list(_rows(config, sky, amounts, rates, notes))
    return Estimate(
        len(sky.cells), sky.patches, sky.area_deg2, sky.exact, rows, [n for n in notes if n]
    )


class Sky:
    """How many patches, and how large their rectangles, without working out those of every cell.

    Of cells that lie wholly in the sky, and of those that its edge cuts, at most SAMPLED are looked
    at.
    """

    def __init__(self, config: Config, sky_cells: list[Cell]) -> None:
        self.cells = sky_cells
        self.exact = len(sky_cells) <= SAMPLED
        self.patches = 0.0
        self.rectangles: list[tuple[float, np.ndarray]] = []  # cells like it; rows, columns
        for kind in (True, False):
            own = [cell for cell in sky_cells if cell.whole is kind]
            sampled = [own[place] for place in evenly(len(own), SAMPLED)] if own else []
            for cell in sampled:
                share = len(own) / len(sampled)
                self.patches += share * len(cell)
                sides = np.rint(np.ptp(cell.centres, axis=0) / config.patch.arcsec) + 1
                self.rectangles.append((share, sides[::-1]))
        self.area_deg2 = self.patches * (config.patch.arcsec / 3600) ** 2


class Amounts:
    """What stages go over: the units of rates.

    megapixels: of all bands of the store. trained, evaluated, injected: likewise of the views of
    all steps, the patches that are measured (the mean of test and training sky), those of all skies
    that hold sources.
    tokens: of all surveys; grid_tokens: with those outside of the sky, for grids are rectangles.
    """

    def __init__(self, config: Config, sky: Sky) -> None:
        surveys = {
            name: (len(survey.bands), config.patch_pixels(name))
            for name, survey in config.surveys.items()
        }
        self.pixels_a_patch = sum(bands * side**2 for bands, side in surveys.values()) / 1e6
        self.megapixels = sky.patches * self.pixels_a_patch
        self.groups = len(sky.cells) * len(surveys)
        self.tokens = sky.patches * config.patch_tokens**2 * len(surveys)
        self.store_files = self.grid_files = self.grid_tokens = 0.0
        for share, patches in sky.rectangles:
            # As many whole shards as a cell of such a rectangle's mean number of patches has.
            mean = int(np.ceil(sky.patches / len(sky.cells)))
            shards = [np.ceil(mean / patches_per_shard(*s, mean)) for s in surveys.values()]
            self.store_files += share * (PLANES * sum(shards) + SMALL_FILES * len(surveys))
            rows, columns = np.ceil(patches * config.patch_tokens / CHUNK)
            arrays = 2 * len(surveys)
            self.grid_files += (
                share * arrays * (rows if rows * columns > MOST_FILES else rows * columns)
            )
            self.grid_tokens += share * len(surveys) * float(np.prod(patches * config.patch_tokens))
        crop = min(config.train.crop_tokens, config.patch_tokens - 2) / config.patch_tokens
        self.trained = config.train.steps * config.train.batch * crop**2 * self.pixels_a_patch
        drawn = config.split.test if isinstance(config.split.test, float) else 0.0
        held_out = sum(r.width_arcmin * r.height_arcmin for r in _regions(config.split.test))
        share = drawn or min(1.0, held_out / 3600 / sky.area_deg2)
        test = min(config.evaluate.patches_of("test"), share * sky.patches)
        train = min(config.evaluate.patches_of("train"), (1 - share) * sky.patches)
        # Probes look at as much training sky as test sky where rates are measured.
        self.evaluated = (test + train) / 2 * self.pixels_a_patch
        skies = len(sky_names(config, sky.cells))
        self.injected = skies * min(config.inject.patches, sky.patches) * self.pixels_a_patch
        self.skies = skies


def _regions(test: Any) -> list:
    return test if isinstance(test, list) else []


def _rows(
    config: Config, sky: Sky, amounts: Amounts, rates: dict[str, Any], notes: list[str]
) -> Iterator[Row]:
    stages = rates["stages"]
    sizes = stages["bytes"]
    starts = {stage: took["a_job"] for stage, took in stages["core_s"].items()}

    def hours(stage: str, jobs: int, amount: float) -> float:
        took = stages["core_s"][stage]
        return (jobs * took["a_job"] + amount * took["a_unit"]) / HOUR

    jobs = len(cell_batches(sky.cells, len(config.surveys))) * len(config.surveys)
    tile_megapixels = simulated_megapixels(config)
    if tile_megapixels:
        made = tile_megapixels * 1e6 * sizes["tile_pixel"]
        bands = sum(len(s.bands) for s in config.surveys.values() if s.archive.kind == "simulated")
        tiles = float(bands * config.simulate.tiles_per_side**2 * len(_regions(config.sky)))
        yield Row("simulate", 1, tiles, made, hours("simulate", 1, tile_megapixels))
    told = _download(config, notes)
    here = sum(path.stat().st_size for path in local_files(config) if path.is_file())
    here += tile_megapixels * 1e6 * sizes["tile_pixel"]
    verifying = None if told is None else hours("fetch", BATCHES, (told + here) / 1e9)
    yield Row("fetch", BATCHES, 0.0, told, verifying)
    stored = amounts.megapixels * 1e6 * sizes["store_pixel"]
    in_store = amounts.store_files + amounts.groups  # and a note of each group
    yield Row("warp", jobs, in_store, stored, hours("warp", jobs, amounts.megapixels))
    yield Row("publish", 1, float(len(sky.cells)), 0.0, hours("publish", 1, stored / 1e9))
    injected = hours("inject", amounts.skies, amounts.injected)
    kept = amounts.injected * 1e6 * sizes["store_pixel"]
    yield Row("inject", amounts.skies, 0.0, kept, injected)
    for device, name in (("cpu", "core"), ("gpu", "GPU")):
        notes.append(_encoders_measured_on(config, rates, device, name))
    cpu, gpu = (_encoders(config, rates, device) for device in ("cpu", "gpu"))
    yield Row("train", 1, 0.0, 0.0, *_hours(cpu, gpu, "train", starts["train"], amounts.trained))
    vectors = amounts.tokens * config.model.dimensions * 2 * sizes["token_byte"]
    embedded = _hours(cpu, gpu, "embed", jobs * starts["embed"], amounts.megapixels)
    yield Row("embed", jobs, amounts.grid_files + 4 * amounts.groups, vectors, *embedded)
    drawn = amounts.grid_tokens * (4 * COMPONENTS + sizes["picture_token"])
    drawing = hours("maps", jobs + 1, amounts.grid_tokens / 1e6)
    yield Row("maps", jobs, 4.0 * amounts.groups, drawn, drawing)
    yield Row("evaluate", len(PARTS), 0.0, 0.0, hours("evaluate", len(PARTS), amounts.evaluated))


def simulated_megapixels(config: Config) -> float:
    """Pixels of the tiles that are made, in all bands; without their turn and borders."""
    made = [s for s in config.surveys.values() if s.archive.kind == "simulated"]
    overlap = (config.simulate.tiles_per_side - 1) * config.simulate.overlap_arcsec
    arcsec2 = sum(
        (60 * r.width_arcmin + overlap) * (60 * r.height_arcmin + overlap)
        for r in _regions(config.sky)
    )
    return sum(len(s.bands) * arcsec2 / s.pixel_arcsec**2 for s in made) / 1e6


def _download(config: Config, notes: list[str]) -> float | None:
    """Bytes that come over a network, as far as a plan of this run told of them."""
    far = [n for n, s in config.surveys.items() if s.archive.kind not in ("files", "simulated")]
    if not tiles_path(config).is_file():
        if far:
            notes.append(f"fetch: what {', '.join(far)} would bring is known after `jaisp plan`.")
        return None if far else 0.0
    planes = {p.path: p for t in read_tiles(config) for p in tile_planes(t).values()}
    brought = [plane for path, plane in planes.items() if is_address(path)]
    unknown = sum(not (plane.bytes or plane.estimate) for plane in brought)
    if unknown:
        notes.append(f"fetch: {unknown} of {len(brought)} files are of a size that nobody tells.")
    return float(sum(plane.bytes or plane.estimate for plane in brought))


def _encoders(config: Config, rates: dict[str, Any], device: str) -> dict[str, Any] | None:
    """The measured rates of encoders of this size, of the tokens nearest to the config's."""
    known = [
        r for r in rates["encoders"] if (r["device"], r["size"]) == (device, config.model.size)
    ]
    wanted = config.model.token_arcsec
    return min(known, key=lambda r: abs(np.log(r["token_arcsec"] / wanted)), default=None)


def _hours(
    cpu: dict[str, Any] | None,
    gpu: dict[str, Any] | None,
    what: str,
    start_s: float,
    megapixels: float,
) -> tuple[float | None, ...]:
    """On a CPU and on a GPU: `start_s` of all jobs, and what encoders take."""
    rates = [None if row is None else row[f"{what}_s_a_megapixel"] for row in (cpu, gpu)]
    return tuple(None if r is None else (start_s + r * megapixels) / HOUR for r in rates)


def _measured_on(rates: dict[str, Any]) -> str:
    stages = rates["stages"]
    return f"Rates of stages: {stages['machine']}, {stages['date']}, {stages['run']}."


def _encoders_measured_on(config: Config, rates: dict[str, Any], device: str, name: str) -> str:
    found, size = _encoders(config, rates, device), config.model.size
    if found is None:
        return f"{name}-hours of `{size}` encoders: not measured; see docs/scale.md."
    other = ""
    if found["token_arcsec"] != config.model.token_arcsec:
        other = f", at {found['token_arcsec']:g}″ rather than {config.model.token_arcsec:g}″"
    return f"{name}-hours of `{size}` encoders: {found['machine']}, {found['date']}{other}."


def show(run: str, found: Estimate) -> None:
    """Print it as a table."""
    from rich.console import Console
    from rich.table import Table

    about = "" if found.exact else "about "
    title = (
        f"{run}: {found.cells:,} cells, {about}{found.patches:,.0f} patches, "
        f"{found.area_deg2:,.{1 if found.area_deg2 > 10 else 4}f} deg²"
    )
    table = Table(title=title)
    for name in ("stage", "jobs", "files", "bytes", "core-hours", "or GPU-hours"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for row in found.rows:
        gpu = "" if row.gpu_hours == 0 else _number(row.gpu_hours)
        core = _number(row.core_hours)
        table.add_row(row.stage, f"{row.jobs:,}", _count(row.files), _size(row.bytes), core, gpu)
    written = sum(row.bytes or 0.0 for row in found.rows)
    cores = sum(row.core_hours or 0.0 for row in found.rows)
    gpus = sum(row.gpu_hours or 0.0 for row in found.rows)
    table.add_section()
    jobs, count = sum(row.jobs for row in found.rows), sum(row.files for row in found.rows)
    total = (f"{jobs:,}", _count(count), _size(written), _number(cores), _number(gpus))
    table.add_row("together", *total)
    console = Console()
    console.print(table)
    for note in found.notes:
        console.print(note, highlight=False)


def _number(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value else ""


def _size(value: float | None) -> str:
    if value is None:
        return "?"
    for factor, unit in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value / 1e6:.3g} MB" if value else ""
