"""The page: what a run holds, section by section; what is missing is said in one line."""

import logging
from pathlib import Path
from typing import Any

import jinja2
from astropy.coordinates import Angle

from jaisp.archives.table import read_tiles
from jaisp.archives.tile import Tile
from jaisp.config import Config
from jaisp.config.geometry import Moc
from jaisp.errors import UserError
from jaisp.files import read_json, read_problems, write_text
from jaisp.report import curves, field, images, provenance, summary, tables
from jaisp.store.reader import Store, open_store

log = logging.getLogger(__name__)

OVERVIEW = "overview.png"


def report(config: Config) -> Path:
    """Write results/RUN/report.html and results/RUN/figures/overview.png; returns the page's path.

    The page holds its pictures, loads nothing from a network and asks nothing of the reader's
    machine. Whatever the run lacks so far (metrics, maps, a history) is said in one line.
    """
    store = _store(config)
    overview = None
    if store is not None:
        overview = images.write_overview(config, store)
    metrics = _metrics(config)
    found = summary.findings(metrics)
    tiles = _tiles(config)
    groups, figures = _groups(config, metrics)
    page = _template().render(
        run=config.run,
        sky=_sky(config),
        surveys={name: survey.bands for name, survey in config.surveys.items()},
        token_arcsec=config.model.token_arcsec,
        patch_arcsec=config.patch.arcsec,
        findings=found,
        measured=bool(metrics),
        verdict=summary.verdict(found),
        overview=images.inline_file(overview, "Overview") if overview else None,
        store=store,
        splits=field.split_counts(store) if store else {},
        coverage=field.coverage_map(config, store, tiles) if store else "",
        examples=images.examples(config, store) if store else [],
        curves=_curves(config),
        maps=images.maps(config),
        groups=groups,
        figures=figures,
        problems=read_problems(config),
        config_yaml=provenance.resolved_config(config),
        versions=provenance.versions(),
        stages=provenance.stages(config),
        tiles=provenance.tiles_by_survey(config, tiles),
        config_hash=metrics.get("config_hash", ""),
    )
    path = config.results / "report.html"
    write_text(path, page)
    log.info("%s: %.1f MB", path, path.stat().st_size / 1e6)
    return path


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaisp.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


def _store(config: Config) -> Store | None:
    try:
        return open_store(config.results / "patches.zarr")
    except UserError:
        return None


def _metrics(config: Config) -> dict[str, Any]:
    path = config.results / "metrics.json"
    return read_json(path) if path.is_file() else {}


def _tiles(config: Config) -> list[Tile]:
    """Verified tiles, else planned ones, else none."""
    for fetched in (True, False):
        try:
            if found := read_tiles(config, fetched=fetched):
                return found
        except (UserError, OSError, KeyError):
            continue
    return []


def _curves(config: Config) -> str:
    path = config.results / "history.jsonl"
    history = curves.read_history(path) if path.is_file() else []
    return curves.training_curves(history) if history else ""


def _groups(
    config: Config, metrics: dict[str, Any]
) -> tuple[list[tables.Group], list[images.Panel]]:
    """Groups of metrics, each with the figures named after it; then the figures of no group."""
    groups = tables.metric_groups(metrics)
    left: list[images.Panel] = []
    for path in sorted((config.results / "figures").glob("*.png")):
        if path.name == OVERVIEW:
            continue
        plain = path.stem.replace("_", " ").capitalize()
        name, title = tables.FIGURES.get(path.stem, (path.stem.partition("_")[0], plain))
        home = next((group for group in groups if group.name == name), None)
        (home.figures if home else left).append(images.inline_file(path, title))
    return groups, left


def _sky(config: Config) -> str:
    """The field in words."""
    if isinstance(config.sky, Moc):
        return f"the sky of {config.sky.moc.name}"
    region = config.sky[0]
    ra = Angle(region.ra, "deg").to_string("hourangle", sep="hms", precision=1, pad=True)
    dec = Angle(region.dec, "deg").to_string(
        "deg", sep=("°", "′", "″"), precision=0, alwayssign=True, pad=True
    )
    size = f"{region.width_arcmin:g}′ × {region.height_arcmin:g}′"
    more = f" and {len(config.sky) - 1} more" if len(config.sky) > 1 else ""
    return f"{size} around {ra} {dec.replace('-', chr(0x2212))}{more}"
