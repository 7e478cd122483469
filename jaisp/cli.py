"""The command line: one command a stage, and the words in which it answers."""

import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jaisp import __version__
from jaisp.config import Config, load_config
from jaisp.disk import disk_error
from jaisp.errors import LAUNCHED, LOST, STOPPED, LostProcessError, StoppedError, UserError
from jaisp.files import batch_receipt, locked, partial_dir, write_problems, write_receipt
from jaisp.process import is_first, log, set_threads, start_log, tell

if TYPE_CHECKING:
    from jaisp.sky import Cell

app = typer.Typer(
    help="JAISP: from survey tiles to joint embeddings, one command a stage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigOption = Annotated[Path, typer.Option("--config", help="The run's config file.")]
LogOption = Annotated[Path | None, typer.Option("--log", help="Also write the log here.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Stop at the first bad tile.")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads.")]
CellOption = Annotated[
    str | None, typer.Option("--cell", help="Only this cell, or these: o7p0001024n0128.")
]
SurveyOption = Annotated[str | None, typer.Option("--survey", help="Only this survey.")]
GatherOption = Annotated[bool, typer.Option("--gather", help="Sum up what the jobs have done.")]


def main() -> None:
    """Run a command; what the user did wrong becomes one line and exit status 2."""
    # Thousands of modules come with torch, and none is garbage.
    gc.set_threshold(50_000, 20, 50)
    try:
        app()
    except UserError as error:
        tell(logging.ERROR, error)
        sys.exit(2)
    except LostProcessError as error:
        if LAUNCHED in os.environ and "RANK" in os.environ:
            sys.exit(LOST)
        tell(logging.ERROR, error)
        sys.exit(1)
    except StoppedError as error:
        if is_first():
            tell(logging.WARNING, error)
        sys.exit(STOPPED)
    except Exception as error:
        message = disk_error(error)
        if message is None:
            raise
        tell(logging.ERROR, message)
        sys.exit(2)
    except KeyboardInterrupt:
        print("jaisp: stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


@app.command()
def simulate(config: ConfigOption, log_file: LogOption = None) -> None:
    """Make the archive of simulated tiles, with truth beside them."""
    run = _start(config, log_file)
    from jaisp.simulate import simulate as stage

    with locked(partial_dir(run) / "simulate.lock"):
        write_receipt(run, "simulate", "all", stage(run))


@app.command()
def plan(
    config: ConfigOption,
    estimate: Annotated[
        bool,
        typer.Option("--estimate", help="Only foresee files, bytes and hours; asks no archive."),
    ] = False,
    log_file: LogOption = None,
) -> None:
    """Find the tiles that cover the sky of the config."""
    run = _start(config, log_file)
    if estimate:
        from jaisp.estimate import estimate as foresee
        from jaisp.estimate import show

        show(run.run, foresee(run))
        return
    from jaisp.plan import plan as stage

    write_receipt(run, "plan", "all", stage(run))


@app.command()
def fetch(
    config: ConfigOption,
    batch: Annotated[int | None, typer.Option(help="Only this batch of tiles.")] = None,
    gather: GatherOption = False,
    strict: StrictOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say which files, and how long they are.")
    ] = False,
    log_file: LogOption = None,
) -> None:
    """Bring every tile into the cache, verified."""
    run = _start(config, log_file)
    from jaisp.fetch import BATCHES, fetch_all, foreseen, gather_fetched, show_foreseen
    from jaisp.fetch import fetch as stage

    if dry_run:
        show_foreseen(foreseen(run))
        return

    if batch is not None and not 0 <= batch < BATCHES:
        raise UserError(f"--batch: {batch} is not one of 0…{BATCHES - 1}")

    def done(number: int, content: dict) -> None:
        write_receipt(run, "fetch", f"batch{number}", content)

    if batch is not None and not gather:
        done(batch, stage(run, batch, strict=strict))
    elif not gather:
        fetch_all(run, done, strict=strict)
    if gather or batch is None:
        write_receipt(run, "fetch", "all", gather_fetched(run))


@app.command()
def warp(
    config: ConfigOption,
    cell: CellOption = None,
    survey: SurveyOption = None,
    gather: GatherOption = False,
    strict: StrictOption = False,
    threads: ThreadsOption = None,
    log_file: LogOption = None,
) -> None:
    """Cut the patches of each cell from each survey's tiles."""
    run = _start(config, log_file, threads)
    if not gather:
        from jaisp.archives.table import read_tiles
        from jaisp.warp import warp as stage

        jobs = list(_jobs(run, cell, survey))
        tiles = read_tiles(run, fetched=True)

        def warped(one_cell: "Cell", name: str) -> dict:
            with locked(partial_dir(run) / f"{one_cell.name}.{name}.lock"):
                return stage(run, one_cell, name, strict, threads or 1, tiles=tiles)

        for job, sky_cells, name in jobs:
            receipts = [warped(one_cell, name) for one_cell in sky_cells]
            write_receipt(run, "warp", job, batch_receipt(receipts))
    if gather or (cell is None and survey is None):
        write_receipt(run, "warp", "all", {"problems": write_problems(run)})


@app.command()
def publish(
    config: ConfigOption, threads: ThreadsOption = None, log_file: LogOption = None
) -> None:
    """Check every group of the store, write its index and split, and open it for training."""
    run = _start(config, log_file, threads)
    from jaisp.store.publish import publish as stage

    with locked(partial_dir(run) / "publish.lock"):
        write_receipt(run, "publish", "all", stage(run, threads or 1))


@app.command()
def inject(
    config: ConfigOption,
    sky: Annotated[str | None, typer.Option("--sky", help="Only this sky.")] = None,
    gather: GatherOption = False,
    threads: ThreadsOption = None,
    log_file: LogOption = None,
) -> None:
    """Make the skies with known answers: sources injected into tiles, before the warp."""
    run = _start(config, log_file, threads)
    from jaisp.inject.names import sky_names
    from jaisp.inject.stage import gather_injected
    from jaisp.inject.stage import inject as stage
    from jaisp.sky import cells

    if not gather:
        for name in sky_names(run, cells(run)) if sky is None else [sky]:
            write_receipt(run, "inject", name, stage(run, name))
    if gather or sky is None:
        write_receipt(run, "inject", "all", gather_injected(run))


@app.command()
def train(
    config: ConfigOption,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Start so many, one a GPU, that train together.")
    ] = None,
    threads: ThreadsOption = None,
    log_file: LogOption = None,
) -> None:
    """Train the encoders.

    A SIGTERM or SIGUSR1 ends it after the step at hand, with a checkpoint and status 75.
    """
    from jaisp.train.launch import is_launched

    if processes is not None and is_launched(processes):
        _train_together(config, processes, threads, log_file)
        return
    run = _start(config, log_file, threads)
    from jaisp.train import train as stage

    # A job whose Snakemake was killed may still be at it when the next one comes.
    with locked(partial_dir(run) / "train.lock") if is_first() else nullcontext():
        content = stage(run, threads=threads)
        if is_first():
            write_receipt(run, "train", "all", content)


def _train_together(
    config: Path, processes: int, threads: int | None, log_file: Path | None
) -> None:
    options = {"--config": config, "--threads": threads, "--log": log_file}
    given = [str(word) for pair in options.items() if pair[1] is not None for word in pair]
    from jaisp.train.launch import launch

    # The first process of those started begins the file anew.
    start_log(log_file, mode="a")
    status = launch([sys.executable, sys.argv[0], "train", *given], processes, threads)
    if status:
        sys.exit(status)


@app.command()
def embed(
    config: ConfigOption,
    cell: CellOption = None,
    survey: SurveyOption = None,
    basis: Annotated[
        bool, typer.Option("--basis", help="Only fit the colours, once all is embedded.")
    ] = False,
    maps: Annotated[bool, typer.Option("--maps", help="Only draw what is embedded.")] = False,
    gather: GatherOption = False,
    threads: ThreadsOption = None,
    log_file: LogOption = None,
) -> None:
    """Turn whole cells into token grids with a WCS, and these into maps."""
    run = _start(config, log_file, threads)
    from jaisp.blocks import cell_receipts
    from jaisp.embedding import draw_maps, embed_cells, fit_maps, gather_maps
    from jaisp.sky import cells

    if basis + maps + gather > 1:
        raise UserError("jaisp embed: give one of --basis, --maps or --gather")
    whole = not (basis or maps or gather)
    if whole:
        for job, sky_cells, name in _jobs(run, cell, survey):
            content = batch_receipt(embed_cells(run, sky_cells, name, threads=threads))
            write_receipt(run, "embed", job, content)
    whole = whole and cell is None and survey is None
    if basis or whole:
        write_receipt(run, "maps", "basis", fit_maps(run))
    if maps or whole:
        for job, sky_cells, name in _jobs(run, cell, survey):
            content = batch_receipt(draw_maps(run, [c.name for c in sky_cells], name))
            write_receipt(run, "maps", job, content)
    if gather or whole:
        drawn = cell_receipts(run, "maps", cells(run))
        write_receipt(run, "embed", "all", gather_maps(run, drawn.values()))


@app.command()
def evaluate(
    config: Annotated[Path | None, typer.Option("--config", help="The run's config file.")] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Set the RUNS side by side, each beside the first.")
    ] = False,
    runs: Annotated[
        list[str] | None, typer.Argument(help="With --compare: names of runs, or their folders.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="With --compare: write here; else comparison.json in the first run."),
    ] = None,
    part: Annotated[str | None, typer.Option("--part", help="Only this part.")] = None,
    gather: GatherOption = False,
    threads: ThreadsOption = None,
    log_file: LogOption = None,
) -> None:
    """Measure the frozen encoders, with controls, on sky that training did not see.

    Or compare runs that have been measured: jaisp evaluate --compare A B
    """
    if compare:
        start_log(log_file)
        from jaisp.evaluate.compare import compare as side_by_side

        side_by_side(runs or [], out)
        return
    if config is None or runs or out:
        raise UserError("jaisp evaluate: give --config FILE, or --compare RUN RUN …")
    run = _start(config, log_file, threads)
    from jaisp.config.evaluate import PARTS
    from jaisp.evaluate.gather import gather_evaluated

    if not gather:
        from jaisp.evaluate.stage import evaluate_part

        for name in PARTS if part is None else [part]:
            write_receipt(run, "evaluate", name, evaluate_part(run, name, threads=threads))
    if gather or part is None:
        gather_evaluated(run)


@app.command()
def report(config: ConfigOption, log_file: LogOption = None) -> None:
    """Write the report: one HTML page."""
    run = _start(config, log_file)
    from jaisp.report import report as stage

    path = stage(run)
    problems = write_problems(run)
    if problems:
        log.warning("%d tiles were set aside: %s", problems, run.results / "problems.ecsv")
    log.info("report: %s", path)


@app.command()
def ablate(
    arms: Annotated[Path, typer.Option("--arms", help="The file that lists the arms.")],
    arm: Annotated[str | None, typer.Option("--arm", help="Train and measure this arm.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Only with this seed.")] = None,
    table: Annotated[
        bool, typer.Option("--table", help="Write the page, of what is done so far.")
    ] = False,
    threads: ThreadsOption = None,
    log_file: LogOption = None,
) -> None:
    """Run one arm of a list of ablations, or write the page of all."""
    set_threads(threads)
    start_log(log_file)
    from jaisp.ablations.arms import load_ablations

    if (arm is None) == (not table) or (table and seed is not None):
        raise UserError("jaisp ablate: give --arm NAME, with --seed N or without, or --table")
    ablations = load_ablations(arms)
    if arm is None:
        from jaisp.ablations.page import write_page

        write_page(ablations)
        log.info("page: %s", ablations.listed.page)
        return
    from jaisp.ablations.one import run_arm

    listed = ablations.seeds(arm)
    if seed not in (None, *listed):
        raise UserError(f"--seed: {arm} has {', '.join(map(str, listed))}, not {seed}")
    for number in listed if seed is None else [seed]:
        run_arm(ablations, arm, number, threads=threads)


@app.command("config")
def show_config(
    config: Annotated[Path | None, typer.Option("--config", help="Show it resolved.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema.")] = False,
    reference: Annotated[bool, typer.Option("--reference", help="Print docs/config.md.")] = False,
) -> None:
    """Print the config's schema, every key with its meaning, or a config with every default."""
    from jaisp.config.schema import reference_text, schema_text

    if schema + reference + (config is not None) != 1:
        raise UserError("jaisp config: give one of --schema, --reference or --config FILE")
    if schema:
        print(schema_text(), end="")
    elif reference:
        print(reference_text(), end="")
    elif config is not None:
        from jaisp.config import dump_config

        print(dump_config(load_config(config)), end="")


def _version(asked: bool) -> None:
    if asked:
        print(f"jaisp {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None: ...


def _start(path: Path, log_file: Path | None, threads: int | None = None) -> Config:
    """Read the config and set up the log and the threads of this process."""
    set_threads(threads)
    start_log(log_file)
    return load_config(path)


def _jobs(
    run: Config, cell: str | None, survey: str | None
) -> Iterator[tuple[str, list["Cell"], str]]:
    """A job's name, its cells and its survey, of all that the options leave."""
    from jaisp.blocks import chosen_batches
    from jaisp.sky import cells

    for name, sky_cells in chosen_batches(run, cells(run), cell).items():
        for chosen in _chosen(run, survey):
            yield f"{name}.{chosen}", sky_cells, chosen


def _chosen(run: Config, survey: str | None) -> list[str]:
    if survey is not None and survey not in run.surveys:
        raise UserError(f"--survey: {survey!r} is not one of {', '.join(run.surveys)}")
    return [survey] if survey else list(run.surveys)
