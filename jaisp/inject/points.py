"""Skies of injected point sources: `empty`, `crowded`, `pairs`, and the second field's `empty`.

Sources are drawn into the run's tiles, or into tiles without any other source, before these are
warped and published as any other; what the tiles' own pixels allow is worked out on the way.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from astropy.table import Table
from jaxtyping import Float32, Float64, Int

from jaisp.archives import Tile
from jaisp.archives.table import read_tiles
from jaisp.config import Config
from jaisp.files import remove_folder
from jaisp.inject.likelihood import Stamps
from jaisp.inject.measure import measured_columns
from jaisp.inject.names import CROWDED, PAIRS, kind_of
from jaisp.inject.optics import colours, draw_temperatures
from jaisp.inject.pairs import add_pairs, components_of
from jaisp.inject.placement import BOTH, EACH, add_levels, patches_with_sources, place_sources
from jaisp.inject.register import register
from jaisp.inject.tiles import centroids, empty_tile, starlight, write_tile
from jaisp.inject.views import View, add_data, native_flux, stamps_of, views_of
from jaisp.progress import track
from jaisp.simulate.seeds import generator
from jaisp.sky import cells
from jaisp.warp import warp

PAIR_EDGE_ARCSEC = 3.0  # from a patch's edge, so that one patch shows all of a pair


@dataclass(frozen=True)
class Points:
    """What is drawn: `share` of source `source`'s flux at `away` arcsec (west, north) from it."""

    source: Int[np.ndarray, " point"]
    away: Float64[np.ndarray, "point 2"]
    share: Float64[np.ndarray, " point"]


@dataclass
class Seen:
    """One band: its tiles, what they allow, true fluxes (nJy) and windowed centroids (arcsec
    (west, north) from the truth)."""

    views: list[View]
    stamps: Stamps
    flux: Float64[np.ndarray, " source"]
    centroid: Float64[np.ndarray, "source 2"]


def inject_points(home: Config, derived: Config, name: str) -> Table:
    """Warp a sky of point sources, group by group, into the derived run's store.

    home: whose tiles the sources are drawn into, or tell geometry, noise and masks. Returns the
    table of sources. Raises TileError where a tile can't be used.
    """
    kind = kind_of(name)
    rng = generator(home.inject.seed, "inject", name)
    sources, points = _drawn(home, kind, rng)
    seen = _seen(home, sources)
    _set_fluxes(home, sources, seen)
    for survey in home.surveys:
        bands = {b: own for (s, b), own in seen.items() if s == survey}
        _inject_survey(home, derived, name, survey, bands, points)
    for (survey, band), own in seen.items():
        sources[f"flux_{survey}_{band}"] = own.flux
    if kind != PAIRS:
        groups = {s: [own for (t, _), own in seen.items() if t == s] for s in home.surveys}
        for column, values in measured_columns(sources, groups, home, rng).items():
            sources[column] = values
    return sources


def _drawn(home: Config, kind: str, rng: np.random.Generator) -> tuple[Table, Points]:
    """The table's first columns, and what is drawn."""
    edge = PAIR_EDGE_ARCSEC if kind == PAIRS else 0.0
    sources = place_sources(home, rng, edge)
    add_levels(sources, (EACH,) if kind == PAIRS else (EACH, BOTH), rng)
    sources["temperature"] = draw_temperatures(len(sources), rng)
    if kind == PAIRS:
        add_pairs(sources, rng)
        return sources, Points(*components_of(sources))
    count = len(sources)
    return sources, Points(np.arange(count), np.zeros((count, 2)), np.ones(count))


def _seen(home: Config, sources: Table) -> dict[tuple[str, str], Seen]:
    """Every band of every survey: which tiles show the sources, through how much noise."""
    sky_cells = {cell.name: cell for cell in cells(home)}
    sky_cells = {name: sky_cells[name] for name in np.unique(np.asarray(sources["cell"]))}
    by_band: dict[tuple[str, str], list[Tile]] = defaultdict(list)
    for tile in read_tiles(home, fetched=True):
        by_band[tile.survey, tile.band].append(tile)
    seen = {}
    wanted = [(s, b) for s, content in home.surveys.items() for b in content.bands]
    for survey, band in track(wanted, "inject: see"):
        views = views_of(home, by_band[survey, band], sky_cells, sources)
        stamps = stamps_of(survey, band, views)
        for view in views:
            view.reader.close()
        nowhere = np.full((len(sources), 2), np.nan)
        seen[survey, band] = Seen(views, stamps, np.zeros(len(sources)), nowhere)
    return seen


def _set_fluxes(home: Config, sources: Table, seen: Mapping[tuple[str, str], Seen]) -> None:
    """True fluxes: each kind's S/N holds exactly for the pixels that can be used."""
    snr = np.asarray(sources["snr"], float)
    power = {survey: np.zeros(len(sources)) for survey in home.surveys}
    for survey, content in home.surveys.items():
        shape = colours(home, survey, np.asarray(sources["temperature"], float))
        for number, band in enumerate(content.bands):
            own = seen[survey, band]
            own.flux = shape[:, number]
            power[survey] += (own.flux * own.stamps.sensitivity()) ** 2
    together = np.sum(list(power.values()), axis=0)
    for (survey, _), own in seen.items():
        alone = np.asarray(sources["kind"]) == EACH
        total = np.where(alone, power[survey], together)
        lit = power[survey] > 0
        own.flux = np.where(lit, own.flux * snr / np.sqrt(np.where(lit, total, 1.0)), 0.0)


def _inject_survey(
    home: Config,
    derived: Config,
    name: str,
    survey: str,
    bands: Mapping[str, Seen],
    points: Points,
) -> None:
    """Write the tiles of one survey, warp them, and remove them again."""
    folder = derived.results / "tiles"
    tiles = []
    for band, own in track(list(bands.items()), f"inject {name} {survey}"):
        for number, view in enumerate(own.views):
            view = replace(view, reader=view.reader.opened())
            path = folder / f"{survey}_{band}_{number}.fits"
            tiles.append((_write(home, name, view, own, points, path), view.reader))
            view.reader.close()
    register(derived, tiles)
    rows = patches_with_sources(home, cells(home))
    some = sum(map(len, rows.values())) >= home.inject.patches
    for cell in cells(derived):
        only = frozenset(rows[cell.name].tolist()) if some else None
        warp(derived, cell, survey, rows=only)
    remove_folder(folder)


def _write(home: Config, name: str, view: View, own: Seen, points: Points, path) -> Tile:
    """Write one tile, and keep what its pixels show of the sources that it owns."""
    light = starlight(view, points.source, points.away, own.flux[points.source] * points.share)
    unit = np.float32(view.unit)
    if kind_of(name) == CROWDED:
        science, sigma = view.reader.science() + light / unit, None
    else:
        rng = generator(
            home.inject.seed, "noise", name, view.tile.survey, view.tile.band, view.tile.id
        )
        science, sigma = empty_tile(view, rng)
        science += light / unit
        if view.tile.noise is not None and not view.noise_includes_sources:
            sigma = None
    if kind_of(name) == CROWDED:
        _look(view, own, native_flux(view) + view.to_native(light))
    elif kind_of(name) != PAIRS:
        _look(view, own, view.to_native(science * unit))
    return write_tile(view, science, sigma, path)


def _look(view: View, own: Seen, flux: Float32[np.ndarray, "y x"]) -> None:
    """Keep the pixels (native, nJy) of the sources that a tile owns, and their centroids."""
    add_data(own.stamps, view, flux)
    rows = np.flatnonzero(own.stamps.seen & view.owned)
    if len(rows):
        width = own.stamps.fwhm_arcsec[rows] / view.psf.psf.pixel_arcsec
        away = centroids(flux, view.native[rows], width) - view.native[rows]
        own.centroid[rows] = np.linalg.solve(view.jacobian[rows], away[..., None])[..., 0]
