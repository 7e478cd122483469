"""Stage embed, one cell × survey: patches in, a token grid with a WCS out."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import zarr
from zarr.codecs import BytesCodec, ZstdCodec

from jaisp.config import Config
from jaisp.embedding.kept import read_note, tokens_origin, write_note
from jaisp.embedding.layout import CHUNK, MOST_FILES, WINDOW
from jaisp.embedding.mosaic import Mosaic, signal_to_noise
from jaisp.embedding.windows import embed_rows
from jaisp.errors import UserError
from jaisp.files import folder_sha256, locked, partial_dir, remove_folder, replace_folder
from jaisp.model import Model, load_model
from jaisp.progress import track
from jaisp.sky import Cell
from jaisp.store.reader import Store, open_store

log = logging.getLogger(__name__)


def embeddings_path(config: Config) -> Path:
    """Where the run's token grids stand."""
    return config.results / "embeddings.zarr"


def embed_cell(
    config: Config, cell: Cell | str, survey: str, *, threads: int | None = None
) -> dict:
    """Embed one cell of the published store with the run's model.

    Writes results/RUN/embeddings.zarr/CELL/SURVEY: `tokens` float16 [dimension, y, x] and
    `signal_to_noise` float32 [y, x] of each token's square, both NaN where uncovered, and in the
    attributes the WCS of the grid. Memory holds one row of windows. Returns the receipt's content.
    """
    (receipt,) = embed_cells(config, [cell], survey, threads=threads)
    return receipt


def embed_cells(
    config: Config, sky_cells: Sequence[Cell | str], survey: str, *, threads: int | None = None
) -> list[dict]:
    """Embed cells one after another, as `embed_cell` does; keeps those that are whole.

    threads: windows that are encoded at once on the CPU, each in one thread of torch's, so that
    the bytes do not depend on how many there are.
    """
    store = open_store(config.results / "patches.zarr")
    if survey not in store.surveys:
        raise UserError(f"embed: the store has no survey {survey!r}, only {_listed(store.surveys)}")
    names = [cell if isinstance(cell, str) else cell.name for cell in sky_cells]
    for name in names:
        if name not in store.cells:
            raise UserError(f"embed: the store has no cell {name!r}, only {_listed(store.cells)}")
    model = load_model(config.results / "model")
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    workers = threads or torch.get_num_threads() if model.device.type == "cpu" else 1
    receipts = []
    with _one_thread_each():
        for name in names:
            with locked(partial_dir(config) / f"embed.{name}.{survey}.lock"):
                receipts.append(_embed(config, store, model, name, survey, workers))
            store.close(name)
    return receipts


def _embed(
    config: Config, store: Store, model: Model, name: str, survey: str, workers: int
) -> dict:
    final = embeddings_path(config) / name / survey
    origin = tokens_origin(config, name, survey)
    note = read_note(config, "tokens", name, survey)
    if note.get("made_from") == origin and final.is_dir():
        receipt: dict = note["receipt"]
        if receipt["sha256"] == folder_sha256(final):
            log.info("%s %s: whole and up to date, kept", name, survey)
            return receipt
    mosaic = Mosaic(store, name, survey)
    partial = partial_dir(config) / "embed" / name / survey
    remove_folder(partial)
    covered = _write(partial, mosaic, model, workers)

    zarr.open_group(embeddings_path(config), mode="a").require_group(name)
    replace_folder(partial, final)
    log.info("%s %s: %d tokens", name, survey, covered)
    receipt = {
        "cell": name,
        "survey": survey,
        "bands": mosaic.bands,
        "tokens": covered,
        "shape": list(mosaic.shape),
        "sha256": folder_sha256(final),
    }
    write_note(config, "tokens", name, survey, origin, receipt)
    return receipt


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Torch's sums on the CPU come out in another order with another number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _write(path: Path, mosaic: Mosaic, model: Model, workers: int) -> int:
    """Write the group of one cell and survey; returns how many tokens are covered."""
    height, width = mosaic.shape
    group = zarr.create_group(
        path,
        attributes={
            "bands": mosaic.bands,
            "cell": mosaic.cell.name,
            "survey": mosaic.survey,
            "token_arcsec": mosaic.token_arcsec,
            "wcs": dict(mosaic.wcs(mosaic.token_arcsec).to_header()),
        },
    )
    dimensions = model.config.dimensions
    tokens = _create(group, "tokens", (dimensions, height, width), "float16")
    signal = _create(group, "signal_to_noise", (height, width), "float32")
    covered = 0
    rows_of_windows = embed_rows(
        model,
        mosaic.read,
        mosaic.shape,
        survey=mosaic.survey,
        bands=mosaic.bands,
        workers=workers,
    )
    count = -(-height // WINDOW)
    for y, strip in track(rows_of_windows, f"embed {mosaic.survey}", total=count):
        rows = strip.shape[1]
        tokens[:, y : y + rows] = strip.astype(np.float16)
        known = np.isfinite(strip[0])
        signal[y : y + rows] = np.where(known, _signal_row(mosaic, y, rows), np.nan)
        covered += int(known.sum())
    return covered


def _signal_row(mosaic: Mosaic, y: int, rows: int) -> np.ndarray:
    """S/N of the tokens of one row of windows, float32 (rows, width)."""
    width = mosaic.shape[1]
    pieces = [
        signal_to_noise(
            mosaic.read(y, x, rows, min(WINDOW, width - x)),
            mosaic.pixels_per_token,
            mosaic.correlation,
        )
        for x in range(0, width, WINDOW)
    ]
    return np.concatenate(pieces, axis=1)


def _create(group: zarr.Group, name: str, shape: tuple[int, ...], dtype: str) -> zarr.Array:
    dimensions = ("dimension", "y", "x")[-len(shape) :]
    rows, columns = (-(-length // CHUNK) for length in shape[-2:])
    row = (*shape[:-2], CHUNK, CHUNK * columns)
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=(*shape[:-2], min(CHUNK, shape[-2]), min(CHUNK, shape[-1])),
        shards=row if rows * columns > MOST_FILES else None,
        dimension_names=dimensions,
        fill_value=np.nan,
        filters=None,
        serializer=BytesCodec(endian="little"),
        compressors=[ZstdCodec(level=1, checksum=True)],
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:8])
    return shown if len(names) <= 8 else f"{shown}, … ({len(names)})"
