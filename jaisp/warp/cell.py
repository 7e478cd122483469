"""The stage `warp`: one cell × one survey → one group of the patch store."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from astropy.wcs import WCS
from jaxtyping import Float32

import jaisp
from jaisp.archives.table import read_tiles, tile_planes
from jaisp.archives.tile import Tile
from jaisp.config import Config, group_hash
from jaisp.errors import TileError, UserError
from jaisp.files import (
    clear_problems,
    folder_sha256,
    partial_dir,
    record_problem,
    replace_folder,
)
from jaisp.progress import track
from jaisp.sky import Cell, patch_wcs, plane_wcs
from jaisp.store.layout import Flag
from jaisp.store.writer import GroupWriter, PatchPlanes, withdraw
from jaisp.warp.correlation import MOST_PATCHES, NoiseCorrelation
from jaisp.warp.kept import kept_receipt, made_from, note_receipt
from jaisp.warp.overlap import Planes, combine
from jaisp.warp.pixel_map import PixelMap, pixel_map
from jaisp.warp.planes import warp_tile
from jaisp.warp.reach import geometry, part_needed, rows_near, tiles_near
from jaisp.warp.scratch import Scratch
from jaisp.warp.sky_noise import background_noise
from jaisp.warp.tile import TileReader

log = logging.getLogger(__name__)

# Files are limited (often to 1024 a process): tiles beyond this number open when they are needed.
MOST_OPEN = 64


@dataclass
class Source:
    """A tile that reaches the cell: its reader, the rows that it may cover, what it gave."""

    reader: TileReader
    rows: frozenset[int]
    geometry: str
    facts: dict
    patches: int = 0
    failed: bool = False
    last_row: int = field(init=False)

    def __post_init__(self) -> None:
        self.last_row = max(self.rows)

    @property
    def tile(self) -> Tile:
        """What the archive told of it."""
        return self.reader.tile


def warp(
    config: Config,
    cell: Cell,
    survey: str,
    strict: bool = False,
    threads: int = 1,
    rows: frozenset[int] | None = None,
    tiles: list[Tile] | None = None,
) -> dict:
    """Cut every patch of a cell from a survey's tiles; returns what the receipt says.

    A tile that can't be used is set down as a problem and left out; with `strict` it is a
    UserError. `threads` resample, compress and write. rows: only these patches, the others stay
    uncovered. tiles: what was fetched, where it has been read already.
    """
    fetched = read_tiles(config, fetched=True) if tiles is None else tiles
    # A tile elsewhere has no say in a cell: it is neither opened nor noted.
    tiles = tiles_near([tile for tile in fetched if tile.survey == survey], cell)
    final = config.results / "patches.zarr" / cell.name / survey
    origin = made_from(config, cell, survey, tiles)
    kept = kept_receipt(config, cell, survey, origin, final)
    if kept is not None:
        log.info("%s %s: whole and up to date, kept", cell.name, survey)
        return kept
    clear_problems(config, _stage(cell), survey)
    job = _Job(config, cell, survey, tiles, strict, threads, rows)
    partial = partial_dir(config) / cell.name / survey
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        covered = job.write(partial)
    finally:
        job.close()
    withdraw(config.results / "patches.zarr")
    replace_folder(partial, final)
    receipt = {
        "cell": cell.name,
        "survey": survey,
        "hash": group_hash(config, survey, cell),
        "patches": len(cell),
        "covered": covered,
        "tiles": [source.facts for source in job.used()],
        "sha256": folder_sha256(final),
    }
    note_receipt(config, cell, survey, origin, receipt)
    log.info("%s %s: %d of %d patches covered", cell.name, survey, covered, len(cell))
    return receipt


def _stage(cell: Cell) -> str:
    """The stage's name in the list of problems."""
    return f"warp {cell.name}"


class _Job:
    def __init__(
        self,
        config: Config,
        cell: Cell,
        survey: str,
        tiles: list[Tile],
        strict: bool,
        threads: int,
        only: frozenset[int] | None,
    ) -> None:
        self.config, self.cell, self.survey, self.strict = config, cell, survey, strict
        self.threads, self.only = threads, only
        self.bands = config.surveys[survey].bands
        _, self.grid_arcsec = config.grid(survey)
        self.pixels = config.patch_pixels(survey)
        self.sources: dict[str, list[Source]] = {band: [] for band in self.bands}
        self.scratch = Scratch(partial_dir(config))
        try:
            for tile in tiles:
                if tile.band in self.sources:
                    self._consider(tile)
        except BaseException:
            self.close()
            raise
        stamps = [s.reader.psf_stamp for s in self._all() if s.reader.psf_stamp is not None]
        self.psf_size = max((len(stamp) for stamp in stamps), default=0)
        self.correlations = {band: NoiseCorrelation() for band in self.bands}
        # The patch at hand: memory in use is faster than fresh memory.
        shape = (len(self.bands), self.pixels, self.pixels)
        self.flux, self.noise = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self.mask = np.empty(shape, np.uint8)

    def write(self, path: Path) -> int:
        """Write the group; returns the number of patches with any data."""
        config, cell = self.config, self.cell
        covered = 0
        # Patches are cut shard by shard in the order of rows, each tile open while it is needed.
        every = -(-len(cell) // MOST_PATCHES)
        with GroupWriter(
            path,
            self.bands,
            self.pixels,
            len(cell),
            self.grid_arcsec,
            config.store.flux,
            {"hash": group_hash(config, self.survey, cell), "version": jaisp.__version__},
            self.threads,
        ) as group:
            for row in track(range(len(cell)), f"warp {cell.name} {self.survey}"):
                planes = self._patch(row, measure_noise=row % every == 0)
                covered += planes is not None
                group.write(row, planes)
                for source in self._all():
                    if source.last_row == row:
                        source.reader.close()
            measured = [self.correlations[band].result() for band in self.bands]
            group.finish(np.stack([ratio for ratio, _ in measured]), self._attributes(measured))
        return covered

    def used(self) -> list[Source]:
        """The tiles that gave pixels."""
        return [source for source in self._all() if source.patches]

    def close(self) -> None:
        """Close every file."""
        for source in self._all():
            source.reader.close()

    def _all(self) -> list[Source]:
        return [source for band in self.bands for source in self.sources[band]]

    def _consider(self, tile: Tile) -> None:
        try:
            reader = TileReader(tile, self.scratch)
        except TileError as error:
            self._set_aside(tile, str(error))
            return
        rows = rows_near(reader, self.cell)
        if self.only is not None:
            rows &= self.only
        if rows:
            reader.need(*part_needed(reader, self.cell, rows))
            self.sources[tile.band].append(Source(reader, rows, geometry(reader), _facts(tile)))
        if not rows or len(self._all()) > MOST_OPEN:
            reader.close()

    def _set_aside(self, tile: Tile, reason: str) -> None:
        if self.strict:
            raise UserError(f"{tile.survey} {tile.band} {tile.id}: {reason}")
        log.warning("%s %s %s is left out: %s", tile.survey, tile.band, tile.id, reason)
        record_problem(self.config, _stage(self.cell), tile.survey, tile.band, tile.id, reason)

    def _patch(self, row: int, measure_noise: bool) -> PatchPlanes | None:
        flux, noise, mask = self.flux, self.noise, self.mask
        fwhm = np.full(len(self.bands), np.nan, np.float32)
        psf = np.full((len(self.bands), self.psf_size, self.psf_size), np.nan, np.float32)
        output = patch_wcs(self.cell, row, self.grid_arcsec, self.pixels)
        maps: dict[str, PixelMap] = {}
        covered = False
        for number, band in enumerate(self.bands):
            found = self._band(band, row, output, maps)
            if found is None:
                flux[number], noise[number], mask[number] = np.nan, np.nan, Flag.EDGE
                continue
            covered = True
            planes, fwhm[number], stamp = found
            flux[number], noise[number], mask[number] = planes.flux, planes.noise, planes.flags
            if stamp is not None:
                psf[number] = _padded(stamp, self.psf_size)
            if measure_noise:
                self.correlations[band].add(
                    flux[number], noise[number], mask[number], self.grid_arcsec
                )
        if not covered:
            return None
        return PatchPlanes(flux, noise, mask, fwhm, psf if self.psf_size else None)

    def _band(
        self, band: str, row: int, output: WCS, maps: dict[str, PixelMap]
    ) -> tuple[Planes, float, Float32[np.ndarray, "k k"] | None] | None:
        """One band of one patch, with FWHM and stamp of the tile that gave most of it."""
        warped: list[tuple[Planes, float, Source]] = []
        deepest = None
        candidates = self._deepest_first(band, row, output, maps)
        for number, (source, positions) in enumerate(candidates):
            try:
                found = self._warp(source, output, positions, deepest)
            except TileError as error:
                source.failed = True
                self._set_aside(source.tile, str(error))
                continue
            if found is None:
                continue
            warped.append((*found, source))
            if self.config.warp.combine == "margin" and number + 1 < len(candidates):
                # What lies less deep in another tile will not be taken from there.
                valid = np.isfinite(found[0].flux)
                held = np.where(valid, found[0].margin, np.float32(-np.inf))
                deepest = held if deepest is None else np.maximum(held, deepest)
        if not warped:
            return None
        planes, owner = combine([planes for planes, _, _ in warped], self.config.warp.combine)
        pixels = [np.count_nonzero(owner == number) for number in range(len(warped))]
        if not any(pixels):
            return None
        for count, (_, _, source) in zip(pixels, warped, strict=True):
            source.patches += bool(count)
        if any(source.reader.noise_includes_sources for _, _, source in warped):
            noise = background_noise(planes.flux, planes.noise, self.grid_arcsec)
            planes = replace(planes, noise=noise)
        _, fwhm, main = warped[int(np.argmax(pixels))]
        return planes, fwhm, main.reader.psf_stamp

    def _deepest_first(
        self, band: str, row: int, output: WCS, maps: dict[str, PixelMap]
    ) -> list[tuple[Source, PixelMap]]:
        """Tiles that may reach a patch, those first in which its centre lies deepest."""
        centre = self.pixels // 2
        found = []
        for source in self.sources[band]:
            if row not in source.rows or source.failed:
                continue
            try:
                reader = source.reader = source.reader.opened()
            except TileError as error:
                source.failed = True
                self._set_aside(source.tile, str(error))
                continue
            if source.geometry not in maps:
                maps[source.geometry] = pixel_map(output, (self.pixels,) * 2, reader.wcs)
            positions = maps[source.geometry]
            if not positions.reaches(reader.shape):
                continue
            x, y = positions.at(centre, centre)
            rows, columns = reader.shape
            depth = min(x, columns - 1 - x, y, rows - 1 - y)
            found.append((-depth if np.isfinite(depth) else np.inf, source, positions))
        found.sort(key=lambda item: item[0])
        return [(source, positions) for _, source, positions in found]

    def _warp(
        self,
        source: Source,
        output: WCS,
        positions: PixelMap,
        deeper_than: Float32[np.ndarray, "y x"] | None,
    ) -> tuple[Planes, float] | None:
        """A tile on a patch, and its FWHM at the patch's centre; None where it gives nothing."""
        reader = source.reader
        planes = warp_tile(
            reader, output, positions, self.config.warp.kernel, deeper_than, self.threads
        )
        if planes is None:
            return None
        centre = self.pixels // 2
        return planes, reader.psf_fwhm_arcsec(*positions.at(centre, centre))

    def _attributes(
        self, measured: list[tuple[Float32[np.ndarray, " aperture"], list[int]]]
    ) -> dict:
        used = {band: [s for s in self.sources[band] if s.patches] for band in self.bands}
        uncalibrated = [b for b in self.bands if any(s.tile.zeropoint is None for s in used[b])]
        attributes = {
            "cell": _cell_wcs(self.cell, self.grid_arcsec),
            "units": "uncalibrated" if uncalibrated == self.bands else "nJy",
            "uncalibrated_bands": uncalibrated,
            "kernel": self.config.warp.kernel,
            "tiles": [source.facts for source in self.used()],
            "noise_includes_sources": {
                band: any(s.reader.noise_includes_sources for s in sources)
                for band, sources in used.items()
            },
            "noise_correlation_apertures": {
                band: counts for band, (_, counts) in zip(self.bands, measured, strict=True)
            },
            "psf_source": {
                band: sorted({s.reader.psf_source for s in used[band]}) for band in self.bands
            },
        }
        if self.psf_size:
            attributes["psf_pixel_arcsec"] = {
                band: used[band][0].reader.pixel_arcsec for band in self.bands if used[band]
            }
        return attributes


def _facts(tile: Tile) -> dict:
    """What a group keeps of a tile: no paths, which differ between machines."""
    return {
        "band": tile.band,
        "id": tile.id,
        "zeropoint": tile.zeropoint,
        "noise_kind": tile.noise_kind,
        "subtract_sky": tile.subtract_sky,
        "psf_moffat_beta": tile.psf_moffat_beta,
        "sha256": {name: plane.sha256 for name, plane in tile_planes(tile).items()},
    }


def _cell_wcs(cell: Cell, grid_arcsec: float) -> dict:
    """FITS header of the mosaic of all patches of the cell."""
    half = cell.patch_arcsec / 2
    low, high = cell.centres.min(axis=0) - half, cell.centres.max(axis=0) + half
    columns, rows = np.rint((high - low) / grid_arcsec).astype(int).tolist()
    wcs = plane_wcs(cell, grid_arcsec, float(low[0]), float(low[1]), (rows, columns))
    header = wcs.to_header()
    return {"NAXIS1": columns, "NAXIS2": rows, **{key: header[key] for key in header if key}}


def _padded(stamp: Float32[np.ndarray, "k k"], size: int) -> Float32[np.ndarray, "size size"]:
    before = (size - len(stamp)) // 2
    after = size - len(stamp) - before
    return np.pad(stamp, (before, after))
