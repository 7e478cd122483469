"""Stage embed, at its end: the token grids of a run drawn in one set of colours.

`fit_maps` fits the colours, `draw_maps` draws some cells of one survey with them, and `gather_maps`
sums up what has been drawn; `embed_maps` does all three.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from astropy.io import fits
from jaxtyping import Float, Float32
from threadpoolctl import threadpool_limits

from jaisp.config import Config
from jaisp.embedding.kept import map_origin, read_note, write_note
from jaisp.embedding.layout import COMPONENTS
from jaisp.embedding.mosaic import Mosaic
from jaisp.embedding.picture import colour_bands, component_rgb, image_rgb, save_png, shrink
from jaisp.errors import UserError
from jaisp.files import (
    atomic_write,
    locked,
    partial_dir,
    read_json,
    sha256,
    write_json,
)
from jaisp.progress import track
from jaisp.sky import cells
from jaisp.store.reader import Store, open_store

log = logging.getLogger(__name__)

# Colours need no more sky, and one thread half a minute for a cell of 256 dimensions at 0.8″.
BASIS_CELLS = 32
SOURCE_SNR = 5.0
# Tokens with a source carry this share of the weight, however much empty sky lies between them.
SOURCE_SHARE = 0.9


@dataclass(frozen=True)
class TokenGrid:
    """One cell and survey of embeddings.zarr.

    tokens: the Zarr array, float16 [dimension, y, x]. wcs: FITS cards of the grid's WCS.
    """

    cell: str
    survey: str
    wcs: dict[str, Any]
    tokens: Any
    signal_to_noise: Float32[np.ndarray, "y x"]


@dataclass(frozen=True)
class Basis:
    """Principal components of the run's tokens.

    mean: of all tokens, weighted. components: orthonormal rows, the leading one first.
    variance: weighted, along each row. total: over all dimensions.
    """

    mean: Float[np.ndarray, " dimension"]
    components: Float[np.ndarray, "component dimension"]
    variance: Float[np.ndarray, " component"]
    total: float

    @property
    def spread(self) -> Float[np.ndarray, " component"]:
        """Standard deviation along each component, never 0."""
        return np.sqrt(np.maximum(self.variance, 1e-12))

    def project(
        self, tokens: Float[np.ndarray, "dimension ..."]
    ) -> Float32[np.ndarray, "component ..."]:
        """Coordinates of tokens along the components; NaN stays NaN."""
        flat = tokens.reshape(len(tokens), -1).astype(np.float64)
        with threadpool_limits(1, "blas"):
            along = self.components @ (flat - self.mean[:, None])
        return along.reshape(-1, *tokens.shape[1:]).astype(np.float32)


class _Moments:
    """Sums over tokens, for a weighted mean and covariance."""

    def __init__(self) -> None:
        self.count = 0
        self.first: np.ndarray | float = 0.0
        self.second: np.ndarray | float = 0.0

    def add(self, tokens: Float[np.ndarray, "dimension token"]) -> None:
        self.count += tokens.shape[1]
        self.first = self.first + tokens.sum(axis=1)
        self.second = self.second + tokens @ tokens.T


def embed_maps(config: Config) -> dict:
    """Draw every token grid of the run; returns the content of the stage's receipt."""
    fit_maps(config)
    drawn = [
        receipt
        for survey in config.surveys
        for receipt in draw_maps(config, [c for c, s in embedded(config) if s == survey], survey)
    ]
    return gather_maps(config, drawn)


def fit_maps(config: Config) -> dict:
    """Fit the components that all maps show; writes results/RUN/maps/basis.json.

    Of all token grids, or, of a wide sky, those of BASIS_CELLS cells spread evenly over it.
    Returns the receipt's content.
    """
    sky_cells = sorted({cell for cell, _ in embedded(config)})
    if not sky_cells:
        raise UserError(
            f"{config.results}/embeddings.zarr: nothing embedded yet; run `jaisp embed`"
        )
    places = np.linspace(0, len(sky_cells) - 1, min(len(sky_cells), BASIS_CELLS)).round()
    chosen = {sky_cells[int(place)] for place in places}
    path = config.results / "maps" / "basis.json"
    write_json(path, _plain(fit_basis(token_grids(config, chosen))))
    return {"cells": len(chosen), "sha256": sha256(path)}


def draw_maps(config: Config, sky_cells: Sequence[str], survey: str) -> list[dict]:
    """Draw the token grids of some cells in one survey; keeps what is drawn already.

    Writes to results/RUN/maps: CELL_SURVEY.fits (the leading components, float32 [component, y,
    x], with WCS), CELL_SURVEY.png (the first three as colours) and CELL_SURVEY_image.png (the sky
    it was made from, the same size). Returns the receipts' content.
    """
    basis = read_basis(config)
    if basis is None:
        raise UserError(f"{config.results}/maps: no basis.json; run `jaisp embed --basis` first")
    store = open_store(config.results / "patches.zarr")
    drawn = []
    for grid in track(list(token_grids(config, set(sky_cells), [survey])), "draw maps"):
        with locked(partial_dir(config) / f"maps.{grid.cell}.{survey}.lock"):
            drawn.append(_draw(config, store, basis, grid))
        store.close(grid.cell)
    if len(drawn) < len(sky_cells):
        missing = sorted(set(sky_cells) - {receipt["cell"] for receipt in drawn})
        raise UserError(
            f"{config.results}/embeddings.zarr: no {missing[0]}/{survey}; run its embedding "
            "(`snakemake -R embed_batch`)"
        )
    return drawn


def gather_maps(config: Config, drawn: Iterable[dict]) -> dict:
    """What all maps together are: the content of the stage's receipt."""
    basis = read_basis(config)
    assert basis is not None
    checksums: dict[str, str] = {}
    for receipt in drawn:
        checksums |= receipt["maps"]
    explained = float(basis.variance[:3].sum() / basis.total) if basis.total > 0 else 0.0
    share = 100 * explained
    log.info("%d maps; three components hold %.0f %% of the variance", len(checksums), share)
    return {"maps": checksums, "variance_in_colours": round(explained, 6)}


def _draw(config: Config, store: Store, basis: Basis, grid: TokenGrid) -> dict:
    folder, stem = config.results / "maps", f"{grid.cell}_{grid.survey}"
    files = [folder / f"{stem}{end}" for end in (".fits", ".png", "_image.png")]
    origin = map_origin(config, grid.cell, grid.survey)
    note = read_note(config, "maps", grid.cell, grid.survey)
    if note.get("made_from") == origin and note["files"] == _checksums(files):
        receipt: dict = note["receipt"]
        return receipt
    components = basis.project(grid.tokens[...])
    _write_fits(files[0], components, basis, grid)
    picture, repeat = _sky(Mosaic(store, grid.cell, grid.survey))
    colours = component_rgb(components, basis.spread)
    save_png(files[2], picture)
    save_png(files[1], colours.repeat(repeat, axis=0).repeat(repeat, axis=1))
    receipt = {
        "cell": grid.cell,
        "survey": grid.survey,
        "maps": {f"{stem}.fits": sha256(files[0])},
    }
    write_note(config, "maps", grid.cell, grid.survey, origin, receipt, _checksums(files))
    return receipt


def _checksums(files: Iterable[Path]) -> dict[str, str]:
    return {file.name: sha256(file) for file in files if file.is_file()}


def embedded(
    config: Config, sky_cells: Collection[str] | None = None, surveys: Sequence[str] | None = None
) -> list[tuple[str, str]]:
    """Cell and survey of every token grid that there is of this config's sky and surveys, or of
    these."""
    root = config.results / "embeddings.zarr"
    return [
        (cell, survey)
        for cell in (
            [cell.name for cell in cells(config)] if sky_cells is None else sorted(sky_cells)
        )
        for survey in surveys or config.surveys
        if (root / cell / survey / "zarr.json").is_file()
    ]


def token_grids(
    config: Config, sky_cells: Collection[str] | None = None, surveys: Sequence[str] | None = None
) -> Iterator[TokenGrid]:
    """The run's token grids, by cell and survey, of these or of all; tokens are read when asked
    for."""
    for cell, survey in embedded(config, sky_cells, surveys):
        group: Any = zarr.open_group(config.results / "embeddings.zarr" / cell / survey, mode="r")
        signal = np.asarray(group["signal_to_noise"][...])
        yield TokenGrid(cell, survey, dict(group.attrs["wcs"]), group["tokens"], signal)


def read_basis(config: Config) -> Basis | None:
    """The components that `embed_maps` fitted, or None before it ran."""
    path = config.results / "maps" / "basis.json"
    if not path.is_file():
        return None
    content = read_json(path)
    return Basis(
        np.array(content["mean"]),
        np.array(content["components"]),
        np.array(content["variance"]),
        content["total_variance"],
    )


def fit_basis(grids: Iterable[TokenGrid], components: int = COMPONENTS) -> Basis:
    """Principal components of tokens in which every survey weighs the same.

    Within a survey, tokens with a source (S/N > 5) carry nine tenths of the weight. Signs are
    fixed by making each component's largest entry positive. One thread sums, for several would in
    another order.
    """
    with threadpool_limits(1, "blas"):
        return _fit_basis(grids, components)


def _fit_basis(grids: Iterable[TokenGrid], components: int) -> Basis:
    moments: dict[str, tuple[_Moments, _Moments]] = defaultdict(lambda: (_Moments(), _Moments()))
    for grid in grids:
        source, sky = moments[grid.survey]
        step = grid.tokens.chunks[1]
        for y in range(0, grid.tokens.shape[1], step):
            strip = grid.tokens[:, y : y + step].astype(np.float64)
            known = np.isfinite(strip[0])
            bright = grid.signal_to_noise[y : y + step] > SOURCE_SNR
            source.add(strip[:, known & bright])
            sky.add(strip[:, known & ~bright])
    shares = [share for pair in moments.values() for share in _weights(*pair)]
    if not shares:
        raise UserError("embed: no token is covered by data in any survey")
    total = sum(weight for weight, _ in shares)
    mean = np.asarray(sum(weight * m.first / m.count for weight, m in shares)) / total
    second = np.asarray(sum(weight * m.second / m.count for weight, m in shares)) / total
    variance, vectors = np.linalg.eigh(second - np.outer(mean, mean))
    leading = np.argsort(-variance, kind="stable")[:components]
    rows = vectors[:, leading].T
    largest = np.abs(rows).argmax(axis=1)
    rows = rows * np.where(rows[np.arange(len(rows)), largest] < 0, -1.0, 1.0)[:, None]
    return Basis(mean, rows, variance[leading].clip(0), float(variance.clip(0).sum()))


def _weights(source: _Moments, sky: _Moments) -> list[tuple[float, _Moments]]:
    shares = [(SOURCE_SHARE, source), (1 - SOURCE_SHARE, sky)]
    present = [(share, moments) for share, moments in shares if moments.count]
    total = sum(share for share, _ in present)
    return [(share / total, moments) for share, moments in present]


def _sky(mosaic: Mosaic) -> tuple[np.ndarray, int]:
    """A picture of the whole cell, and its pixels per token: at most 5, a divisor of the grid's."""
    n = mosaic.pixels_per_token
    repeat = max(pixels for pixels in range(1, 6) if n % pixels == 0)
    height, width = mosaic.shape
    shown = colour_bands(mosaic.bands)
    strips = []
    for y in range(0, height, 32):
        pieces = [
            shrink(mosaic.read(y, x, min(32, height - y), min(32, width - x)), n // repeat)
            for x in range(0, width, 32)
        ]
        strips.append([np.concatenate(p, axis=2)[shown] for p in zip(*pieces, strict=True)])
    flux, noise = (np.concatenate(rows, axis=1) for rows in zip(*strips, strict=True))
    return image_rgb(flux, noise), repeat


def _write_fits(path: Path, components: np.ndarray, basis: Basis, grid: TokenGrid) -> None:
    header = fits.Header(grid.wcs)
    header["WCSAXES"] = 3
    header["CTYPE3"], header["CRPIX3"], header["CRVAL3"], header["CDELT3"] = "PCA", 1.0, 1.0, 1.0
    header["SURVEY"] = grid.survey
    header["CELL"] = grid.cell
    for k, variance in enumerate(basis.variance, start=1):
        share = variance / basis.total if basis.total > 0 else 0.0
        header[f"PCVAR{k}"] = (round(float(share), 6), "share of the tokens' variance")
    with atomic_write(path) as temporary:
        fits.PrimaryHDU(components, header).writeto(temporary, overwrite=True)


def _plain(basis: Basis) -> dict:
    return {
        "mean": basis.mean.tolist(),
        "components": basis.components.tolist(),
        "variance": basis.variance.tolist(),
        "total_variance": basis.total,
    }
