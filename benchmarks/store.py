"""The patch store against other ways to keep the same patches, in one run.

    python benchmarks/store.py [--patches 100] [--rounds 3] [--out docs/benchmarks/store.json]

Patches of ten bands of 256² pixels, of white noise (which no coder can shorten), stars and
galaxies, are written and read, one patch at a time in random order, by each format in turn; the
fastest of the rounds counts. Files stay in memory between, so that coding is timed and not the
disk. All keep the flux; `ours, with noise and mask` is what the store really holds, and what its
size is promised for. Sizes are relative to plain float32 flux.
Noise added: variance of what comes back less what went in, on sky, over that of the noise; bias:
its mean there, in sigma of the noise. Brightest: the largest pixel good to 1e-3, in sigma.
Prints ratios; absolute numbers belong to the machine that it names.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "BLOSC_NTHREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
import tensorstore  # noqa: E402
import zarr  # noqa: E402
from astropy.io import fits  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from warp import machine  # noqa: E402
from zarr.codecs import BloscCodec, ZstdCodec  # noqa: E402

from jaisp.store import layout  # noqa: E402
from jaisp.store.codes import STEPS_PER_NOISE, decode_flux, decode_noise  # noqa: E402
from jaisp.store.encode import encode_flux  # noqa: E402
from jaisp.store.reader import open_array  # noqa: E402
from jaisp.store.writer import GroupWriter, PatchPlanes  # noqa: E402

BANDS, PIXELS = 10, 256
STAMP = 24
STARS, GALAXIES = 4, 60  # a patch of 51″
LADDER = 10.0 ** np.arange(3, 9.01, 0.125)  # pixels, in sigma, of the first patch
READ_A_ROUND = 40
OURS = "ours, with noise and mask"


@dataclass(frozen=True)
class Field:
    """flux, noise: float32 [patch, band, y, x]; mask: uint8; sky: pixels without a source."""

    flux: np.ndarray
    noise: np.ndarray
    mask: np.ndarray
    sky: np.ndarray
    level: np.ndarray  # background noise of a patch's band: [patch, band, 1, 1]


@dataclass(frozen=True)
class Format:
    """write(folder, field); read(folder, row) -> float32 [band, y, x]."""

    write: Callable[[Path, Field], None]
    read: Callable[[Path, int], np.ndarray]


def make_field(patches: int) -> Field:
    """Noise that slopes by 10 % over a patch, stars, galaxies, some flagged pixels."""
    rng = np.random.default_rng(1)
    level = rng.uniform(10, 40, (patches, BANDS, 1, 1)).astype(np.float32)
    noise = level * np.linspace(0.95, 1.05, PIXELS, dtype=np.float32)
    noise = np.broadcast_to(noise, (patches, BANDS, PIXELS, PIXELS)).copy()
    flux = rng.standard_normal(noise.shape, np.float32)
    flux *= noise
    sky = np.ones(noise.shape, bool)
    v, u = np.mgrid[-STAMP : STAMP + 1, -STAMP : STAMP + 1]
    for row in range(patches):
        for number in range(STARS + GALAXIES):
            x, y = rng.integers(STAMP, PIXELS - STAMP, 2)
            radius = np.hypot(u + rng.uniform(-0.5, 0.5), v + rng.uniform(-0.5, 0.5))
            if number < STARS:
                shape = (1 + (radius / 3.4) ** 2) ** -3.0
                peak = 10 ** rng.uniform(1, 4)
            else:
                shape = np.exp(-np.hypot(radius, 1.5) / rng.uniform(1, 4))
                peak = 10 ** rng.uniform(0, 2)
            colours = peak * rng.uniform(0.3, 1, (BANDS, 1, 1)) * level[row]
            part = np.s_[row, :, y - STAMP : y + STAMP + 1, x - STAMP : x + STAMP + 1]
            flux[part] += (colours * shape).astype(np.float32)
            sky[part] = False
    mask = np.zeros(noise.shape, np.uint8)
    bad = rng.random(noise.shape, np.float32) < 1e-3
    mask[bad] = layout.Flag.INTERPOLATED
    # In the middle of the first patch, in a row of its own, apart from every source.
    flux[0, 0, 8, 8 : 8 + len(LADDER)] = LADDER * level[0, 0, 0, 0]
    sky[0, 0] = False
    return Field(flux, noise, mask, sky, level)


def write_ours(folder: Path, field: Field) -> None:
    """Flux, noise and mask, as the stage `warp` does."""
    bands = [f"b{number}" for number in range(BANDS)]
    fwhm = np.full(BANDS, 0.7, np.float32)
    with GroupWriter(folder, bands, PIXELS, len(field.flux), 0.2) as group:
        for row, planes in enumerate(zip(field.flux, field.noise, field.mask, strict=True)):
            group.write(row, PatchPlanes(*planes, fwhm))
        group.finish(np.ones((BANDS, 2), np.float32))


@cache
def opened(path: Path) -> tensorstore.TensorStore:
    """An array, opened once as the reader does."""
    return open_array(path)


@cache
def table(path: Path) -> np.ndarray:
    """One of the small tables of our group."""
    return np.asarray(zarr.open_array(path, mode="r")[...])


def read_ours(folder: Path, row: int) -> np.ndarray:
    """Flux, noise and mask; gives the flux."""
    decode_noise(opened(folder / "noise")[row].read().result(), table(folder / "noise_scale")[row])
    opened(folder / "mask")[row].read().result()
    return read_our_flux(folder, row)


def read_our_flux(folder: Path, row: int) -> np.ndarray:
    """The flux alone."""
    return decode_flux(opened(folder / "flux")[row].read().result(), table(folder / "scale")[row])


def write_our_flux(folder: Path, field: Field) -> None:
    """The codes of the flux and their scale."""
    scale = field.level[..., 0, 0] / STEPS_PER_NOISE
    codes = _Zarr("int16", layout.FLUX_CODE_COMPRESSORS, lambda f, s: encode_flux(f, s))
    codes.write_array(folder / "flux", field.flux, scale)
    zarr.save_array(folder / "scale", scale)


class _Zarr:
    """A Zarr array of some type, chunked and sharded as ours."""

    def __init__(
        self,
        dtype: str,
        compressors: Sequence[Any] | None,
        encode: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.dtype, self.compressors, self.encode = dtype, compressors, encode

    def write_array(self, path: Path, flux: np.ndarray, scale: np.ndarray) -> None:
        step = layout.patches_per_shard(BANDS, PIXELS, len(flux))
        array = zarr.create_array(
            path, shape=flux.shape, dtype=self.dtype, chunks=(1, 1, PIXELS, PIXELS),
            shards=(step, *flux.shape[1:]), compressors=self.compressors, filters=None,
        )  # fmt: skip
        for first in range(0, len(flux), step):
            part = slice(first, min(first + step, len(flux)))
            with np.errstate(over="ignore"):
                values = self.encode(flux[part], scale[part]) if self.encode else flux[part]
                array[part] = values.astype(self.dtype, copy=False)

    def format(self, decode: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Format:
        def write(folder: Path, field: Field) -> None:
            scale = field.level[..., 0, 0] / STEPS_PER_NOISE
            self.write_array(folder / "flux", field.flux, scale)
            zarr.save_array(folder / "scale", scale)

        def read(folder: Path, row: int) -> np.ndarray:
            codes = opened(folder / "flux")[row].read().result()
            return decode(codes, table(folder / "scale")[row][:, None, None])

        return Format(write, read)


def linear_codes(flux: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Steps of an eighth of the noise everywhere."""
    return np.clip(np.rint(flux / scale[..., None, None]), -32767, 32767)


def fits_format(**options: Any) -> Format:
    """A file a patch, an HDU a band, by astropy's tile compression, one tile a plane.

    By rows, the default, it is several times slower.
    """

    def write(folder: Path, field: Field) -> None:
        folder.mkdir()
        for row, planes in enumerate(field.flux):
            hdus = [fits.CompImageHDU(plane, tile_shape=plane.shape, **options) for plane in planes]
            fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(folder / f"{row}.fits")

    def read(folder: Path, row: int) -> np.ndarray:
        with fits.open(folder / f"{row}.fits") as hdus:
            return np.stack([np.asarray(hdu.data, np.float32) for hdu in hdus[1:]])

    return Format(write, read)


def formats() -> dict[str, Format]:
    """All that are compared."""
    plain = lambda codes, scale: codes.astype(np.float32, copy=False)  # noqa: E731
    zstd = [ZstdCodec(level=2, checksum=True)]
    blosc = [BloscCodec(typesize=4, cname="zstd", clevel=3, shuffle="bitshuffle")]
    linear = _Zarr("int16", zstd, linear_codes)
    return {
        OURS: Format(write_ours, read_ours),
        "ours, flux": Format(write_our_flux, read_our_flux),
        "Zarr float32, plain": _Zarr("float32", None).format(plain),
        "Zarr float32, blosc zstd": _Zarr("float32", blosc).format(plain),
        "Zarr float16, zstd": _Zarr("float16", zstd).format(plain),
        "Zarr int16 linear, zstd": linear.format(lambda c, s: c.astype(np.float32) * s),
        "FITS RICE_1, q = 8": fits_format(compression_type="RICE_1", quantize_level=8),
        "FITS GZIP_1": fits_format(compression_type="GZIP_1", quantize_level=0),
    }


def folder_bytes(folder: Path) -> int:
    """What the data take, on disk."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def accuracy(field: Field, read: Callable[[int], np.ndarray]) -> dict[str, float]:
    """How the flux that comes back differs."""
    error, noise = [], []
    for row in range(min(len(field.flux), 50)):
        sky = field.sky[row]
        scale = np.broadcast_to(field.level[row], sky.shape)[sky]
        error.append((read(row).astype(float) - field.flux[row])[sky] / scale)
        noise.append(field.flux[row][sky].astype(float) / scale)
    difference = np.concatenate(error)
    ladder = read(0)[0, 8, 8 : 8 + len(LADDER)] / field.level[0, 0, 0, 0]
    with np.errstate(invalid="ignore"):
        good = np.abs(ladder / LADDER - 1) < 1e-3
    return {
        "noise_added": float(difference.var() / np.concatenate(noise).var()),
        "bias_sigma": float(difference.mean()),
        # The last of the ladder that is good with all below it.
        "brightest_sigma": float(LADDER[: np.argmin([*good, False])].max(initial=0.0)),
    }


def compare(field: Field, rounds: int, base: Path) -> dict[str, dict[str, Any]]:
    """Sizes, megabytes of float32 flux a second, accuracies."""
    rng = np.random.default_rng(2)
    megabytes = field.flux.nbytes / 1e6
    write_s: dict[str, float] = {}
    read_s: dict[str, float] = {}
    found: dict[str, dict[str, Any]] = {}
    for turn in range(rounds):
        rows = rng.permutation(len(field.flux))[:READ_A_ROUND].tolist()
        for number, (name, kind) in enumerate(formats().items()):
            folder = base / f"{number}.{turn}"
            began = time.perf_counter()
            kind.write(folder, field)
            write_s[name] = min(write_s.get(name, np.inf), time.perf_counter() - began)
            kind.read(folder, rows[0])  # opens it
            began = time.perf_counter()
            for row in rows:
                kind.read(folder, row)
            read_s[name] = min(read_s.get(name, np.inf), time.perf_counter() - began)
            if turn == 0:
                found[name] = {"size": round(folder_bytes(folder) / field.flux.nbytes, 4)}
                found[name] |= accuracy(field, lambda row, k=kind, f=folder: k.read(f, row))
            shutil.rmtree(folder)
    share = min(READ_A_ROUND, len(field.flux)) / len(field.flux)
    for name, row in found.items():
        row["write_mb_per_s"] = round(megabytes / write_s[name], 1)
        row["read_mb_per_s"] = round(share * megabytes / read_s[name], 1)
        row["write_s_over_ours"] = round(write_s[name] / write_s["ours, flux"], 2)
        row["read_s_over_ours"] = round(read_s[name] / read_s["ours, flux"], 2)
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(make_field(options.patches), options.rounds, Path(folder))
    found = {"machine": machine(), "patches": options.patches, "formats": rows}
    columns = ("size", "write_mb_per_s", "read_mb_per_s", "write_s_over_ours", "read_s_over_ours")
    columns += ("noise_added", "bias_sigma", "brightest_sigma")
    shown = Table("format", *columns, title=found["machine"])
    for name, row in rows.items():
        shown.add_row(name, *(f"{row[column]:.3g}" for column in columns))
    Console(width=140).print(shown)
    ours = rows[OURS]
    print(f"at most a quarter of float32 flux: {ours['size'] <= 0.25}")
    print(f"at most 0.2 % of variance added: {ours['noise_added'] <= 0.002}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
