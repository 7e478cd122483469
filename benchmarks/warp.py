"""Resampling and the whole stage, against what else one could take, in one run.

    python benchmarks/warp.py [--size 2000] [--rounds 5] [--out docs/benchmarks/warp.json]

kernel: a tile of stars with TPV distortion, turned by 3°, onto pixels of the same size. Ours and
its peers take turns, on one thread; the fastest of each counts. SWarp (if installed) reads and
writes files, so ours is timed once more with reading and writing FITS.
stage: a simulated field's tiles to store groups, in CPU time, against what it can't do without:
opening files and reading pixels, the kernel (pixel maps and resampling, as above), compression (to
integer codes, and those with zstd to disk), each timed within the same run, the fastest of the
rounds. With six bands of 0.2″ and four of 0.1″, four times as many pixels each, or ten bands of
0.2″; from four small tiles a band that overlap by 1′, each of which is opened and looked at for 25
patches, or from one, more as archives have them.

Prints ratios; absolute numbers belong to the machine that it names.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "BLOSC_NTHREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
from astropy.io import fits  # noqa: E402
from astropy.wcs import WCS  # noqa: E402
from machine import machine  # noqa: E402
from reproject import reproject_adaptive, reproject_exact, reproject_interp  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from jaisp.warp.kernel import resample  # noqa: E402
from jaisp.warp.pixel_map import pixel_map, sky_to_pixel  # noqa: E402

PIXEL, FWHM, ANGLE = 0.2, 0.7, 3.0  # arcsec, arcsec, degrees
SIGMA = FWHM / PIXEL / 2.3548
STAMP = 12


def tile_wcs(size: int) -> WCS:
    """Plain north-up TAN with a cubic distortion of some arcsec at the corners, as TPV."""
    header = grid_wcs(size, 0.0).to_header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TPV", "DEC--TPV"
    for axis in (1, 2):
        for term, value in ((1, 1.0), (4, 2e-2), (7, 1e-1), (9, 5e-2)):
            header[f"PV{axis}_{term}"] = value
    return WCS(header)


def grid_wcs(size: int, angle: float) -> WCS:
    """TAN on the same centre, turned by `angle` degrees."""
    wcs = WCS(naxis=2)
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [150.0, 2.0]
    wcs.wcs.crpix = [(size + 1) / 2] * 2
    wcs.wcs.cd = PIXEL / 3600 * np.array([[-c, s], [s, c]])
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    return wcs


def stars(size: int, output: WCS, tile: WCS) -> tuple[np.ndarray, np.ndarray]:
    """A tile of Gaussian stars, and where they are on the output."""
    rng = np.random.default_rng(1)
    places = np.arange(size // 10, size - size // 10, 40)
    out = np.stack(np.meshgrid(places, places), -1).reshape(-1, 2) + rng.uniform(
        -0.5, 0.5, (len(places) ** 2, 2)
    )
    ra, dec = output.all_pix2world(*out.T, 0)
    image = np.zeros((size, size), np.float32)
    for x, y in zip(*sky_to_pixel(tile, ra, dec), strict=True):
        j, i = round(x), round(y)
        if STAMP < i < size - STAMP and STAMP < j < size - STAMP:
            v, u = np.mgrid[i - STAMP : i + STAMP + 1, j - STAMP : j + STAMP + 1]
            star = np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * SIGMA**2))
            image[v, u] += 1e4 * star / (2 * np.pi * SIGMA**2)
    return image, out


def centroid_error_mas(image: np.ndarray, places: np.ndarray) -> tuple[float, float]:
    """Rms error an axis of Gaussian-weighted centroids, mas, and scatter of fluxes, relative."""
    offset, flux = [], []
    v, u = np.mgrid[-STAMP + 3 : STAMP - 2, -STAMP + 3 : STAMP - 2].astype(float)
    for x, y in places:
        j, i = round(x), round(y)
        reach = STAMP - 3
        stamp = image[i - reach : i + reach + 1, j - reach : j + reach + 1].astype(float)
        if stamp.shape != v.shape or not np.isfinite(stamp).all() or stamp.max() <= 0:
            continue
        centre = np.zeros(2)
        for _ in range(40):
            weight = stamp * np.exp(-((u - centre[0]) ** 2 + (v - centre[1]) ** 2) / (2 * SIGMA**2))
            moved = [(weight * (u - centre[0])).sum(), (weight * (v - centre[1])).sum()]
            centre += 2 * np.array(moved) / weight.sum()
        offset.append(centre - (x - j, y - i))
        flux.append(stamp.sum())
    error = np.array(offset) - np.median(offset, axis=0)
    return float(np.sqrt(np.mean(error**2)) * PIXEL * 1000), float(np.std(flux) / np.mean(flux))


def fastest(methods: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of the fastest of `rounds` turns of each; slow ones (over 10 s) have one turn."""
    best: dict[str, float] = {}
    for turn in range(rounds):
        for name, method in methods.items():
            if turn and best[name] > 10:
                continue
            began = time.perf_counter()
            method()
            best[name] = min(best.get(name, np.inf), time.perf_counter() - began)
    return best


class KernelContest:
    """One tile, one output grid, and everyone who can resample the one onto the other."""

    def __init__(self, size: int, folder: Path) -> None:
        self.size, self.folder = size, folder
        self.output, self.tile = grid_wcs(size, ANGLE), tile_wcs(size)
        self.image, self.places = stars(size, self.output, self.tile)
        self.noise, self.flags = np.ones_like(self.image), np.zeros(self.image.shape, np.uint8)
        header = self.tile.to_header()
        fits.writeto(folder / "tile.fits", self.image, header, overwrite=True)
        text = self.output.to_header().tostring(sep="\n", padding=False)
        size_cards = f"NAXIS1  = {size:20d}\nNAXIS2  = {size:20d}\n"
        (folder / "coadd.head").write_text(size_cards + text + "\nEND\n")

    def ours(self, order: int, threads: int = 1) -> np.ndarray:
        """Map and resampling, with noise and flags."""
        positions = pixel_map(self.output, (self.size,) * 2, self.tile)
        return resample(
            self.image, self.noise, self.flags, positions, order=order, threads=threads
        ).flux

    def ours_with_files(self) -> None:
        """What SWarp does: read the tile, resample, write the image."""
        with fits.open(self.folder / "tile.fits") as hdus:
            image, tile = np.array(hdus[0].data, np.float32), WCS(hdus[0].header)
        positions = pixel_map(self.output, (self.size,) * 2, tile)
        flux = resample(image, self.noise, self.flags, positions, order=3).flux
        fits.writeto(self.folder / "ours.fits", flux, self.output.to_header(), overwrite=True)

    def reproject(self, method: Callable[..., Any], **options: Any) -> np.ndarray:
        """A function of `reproject`, to flux per pixel."""
        return method((self.image, self.tile), self.output, shape_out=(self.size,) * 2, **options)[
            0
        ]

    def swarp(self) -> None:
        """SWarp's LANCZOS3, one thread, without background or weights."""
        options = {
            "RESAMPLING_TYPE": "LANCZOS3", "SUBTRACT_BACK": "N", "COMBINE": "N", "NTHREADS": "1",
            "WRITE_XML": "N", "VERBOSE_TYPE": "QUIET", "WEIGHT_TYPE": "NONE", "COPY_KEYWORDS": "",
            "RESAMPLE_DIR": str(self.folder), "IMAGEOUT_NAME": str(self.folder / "coadd.fits"),
            "FSCALASTRO_TYPE": "FIXED", "OVERSAMPLING": "1", "DELETE_TMPFILES": "N",
        }  # fmt: skip
        command = [swarp_command(), str(self.folder / "tile.fits")]
        for key, value in options.items():
            command += [f"-{key}", value]
        subprocess.run(command, check=True, cwd=self.folder, capture_output=True)

    def swarp_accuracy(self) -> tuple[float, float]:
        """Centroids and fluxes in the image that SWarp wrote."""
        with fits.open(self.folder / "tile.resamp.fits") as hdus:
            image, header = np.array(hdus[0].data, np.float32), hdus[0].header
        shift = np.array(self.output.wcs.crpix) - (header["CRPIX1"], header["CRPIX2"])
        return centroid_error_mas(image, self.places - shift)


def swarp_command() -> str | None:
    """SWarp, as Debian or its own installer names it."""
    return shutil.which("SWarp") or shutil.which("swarp")


def kernel(size: int, rounds: int) -> dict[str, Any]:
    """Speeds, ratios and accuracies."""
    with tempfile.TemporaryDirectory() as folder:
        contest = KernelContest(size, Path(folder))
        methods: dict[str, Callable[[], Any]] = {
            "ours, lanczos3": lambda: contest.ours(3),
            "ours, lanczos3, 2 threads": lambda: contest.ours(3, threads=2),
            "ours, lanczos5": lambda: contest.ours(5),
            "ours, lanczos3, files in and out": contest.ours_with_files,
            "reproject bilinear": lambda: contest.reproject(
                reproject_interp, order="bilinear", roundtrip_coords=False
            ),
            "reproject bicubic": lambda: contest.reproject(
                reproject_interp, order="bicubic", roundtrip_coords=False
            ),
            "reproject adaptive": lambda: contest.reproject(
                reproject_adaptive, conserve_flux=True, roundtrip_coords=False
            ),
            "reproject exact": lambda: contest.reproject(reproject_exact, parallel=False),
        }
        if swarp_command():
            methods["SWarp LANCZOS3, files in and out"] = contest.swarp
        for name in list(methods)[:4]:
            methods[name]()  # compile
        seconds = fastest(methods, rounds)
        accuracy = {
            name: centroid_error_mas(np.nan_to_num(methods[name]()), contest.places)
            for name in methods
            if "files" not in name and "threads" not in name
        }
        if swarp_command():
            accuracy["SWarp LANCZOS3, files in and out"] = contest.swarp_accuracy()
    base, filed = seconds["ours, lanczos3"], seconds["ours, lanczos3, files in and out"]
    return {
        name: {
            "mpix_per_s": round(size**2 / took / 1e6, 2),
            "ours_faster_by": round(took / (filed if "SWarp" in name else base), 2),
            "centroid_rms_mas": accuracy.get(name, (None, None))[0],
            "flux_scatter": accuracy.get(name, (None, None))[1],
        }
        for name, took in seconds.items()
    }


class Stopwatch:
    """CPU seconds spent within some functions, while a run goes on."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def watching(self, name: str, owner: Any, attribute: str) -> Iterator[None]:
        """Count calls of `owner.attribute` as `name`."""
        original = getattr(owner, attribute)

        def timed(*arguments: Any, **options: Any) -> Any:
            began = time.process_time()
            try:
                return original(*arguments, **options)
            finally:
                self.seconds[name] += time.process_time() - began

        setattr(owner, attribute, timed)
        try:
            yield
        finally:
            setattr(owner, attribute, original)


def survey(bands: str, pixel: float, instrument: str) -> dict[str, Any]:
    """A simulated survey's section of the config."""
    archive = {"kind": "simulated", "instrument": instrument}
    return {"bands": bands.split(), "pixel_arcsec": pixel, "archive": archive}


TEN_BANDS = {
    "six bands of 0.2″, four of 0.1″": {
        "rubin": survey("u g r i z y", 0.2, "rubin"),
        "euclid_q1": survey("VIS Y J H", 0.1, "euclid_q1"),
    },
    "ten bands of 0.2″": {
        "rubin": survey("u g r i z y", 0.2, "rubin"),
        "again": survey("g r i z", 0.2, "rubin"),
    },
}
TILES_PER_SIDE = {"four tiles a band": 2, "one tile a band": 1}


def stage(
    side_arcmin: float, surveys: dict[str, Any], tiles_per_side: int, rounds: int
) -> dict[str, Any]:
    """CPU seconds of `warp` and of its parts, and patches a second, over two surveys.

    Of the fastest of `rounds` turns.
    """
    from jaisp.cli import app
    from jaisp.config.load import parse_config
    from jaisp.sky import cells
    from jaisp.store.writer import GroupWriter
    from jaisp.warp import cell as warp_cell
    from jaisp.warp import planes, tile, warp
    from jaisp.warp.fits_plane import FitsPlane

    content = {
        "run": "speed",
        "sky": {"ra": 53.13, "dec": -28.1, "width_arcmin": side_arcmin,
                "height_arcmin": side_arcmin},
        "patch": {"arcsec": 51.2},
        "simulate": {"tiles_per_side": tiles_per_side},
        "surveys": surveys,
    }  # fmt: skip
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["JAISP_CACHE"] = f"{folder}/cache"
        try:
            Path("speed.yaml").write_text(json.dumps(content))
            for name in ("simulate", "plan", "fetch"):
                app([name, "--config", "speed.yaml"], standalone_mode=False)
            config = parse_config(content, Path("speed.yaml").absolute())
            (cell,) = cells(config)
            for survey in surveys:
                warp(config, cell, survey)  # compile
            turns = []
            for _ in range(rounds):
                shutil.rmtree(config.results / "patches.zarr")
                shutil.rmtree(config.results / ".partial", ignore_errors=True)
                watch, began = Stopwatch(), time.process_time()
                with (
                    watch.watching("read", tile, "open_fits"),
                    watch.watching("read", FitsPlane, "__init__"),
                    watch.watching("read", FitsPlane, "section"),
                    watch.watching("kernel", warp_cell, "pixel_map"),
                    watch.watching("kernel", planes, "resample"),
                    watch.watching("encode", GroupWriter, "_encode"),
                    watch.watching("compress", GroupWriter, "_flush"),
                ):
                    for survey in surveys:
                        warp(config, cell, survey)
                turns.append((time.process_time() - began, watch.seconds))
        finally:
            os.chdir(home)
    whole, seconds = min(turns, key=lambda turn: turn[0])
    parts = sum(seconds.values())
    return {
        "patches": len(cell),
        "pixels_per_patch": {
            n: len(s.bands) * config.patch_pixels(n) ** 2 for n, s in config.surveys.items()
        },
        "cpu_s": {"whole": round(whole, 2), **{k: round(v, 2) for k, v in seconds.items()}},
        "whole_over_parts": round(whole / parts, 2),
        "patches_per_s_per_core": round(len(cell) / whole, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=float, default=8.5, help="of the stage's field, arcmin")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = {
        "machine": machine(),
        "size": arguments.size,
        "kernel": kernel(arguments.size, arguments.rounds),
        "stage": {
            f"{bands}; {tiles}": stage(arguments.side, surveys, count, arguments.rounds)
            for bands, surveys in TEN_BANDS.items()
            for tiles, count in TILES_PER_SIDE.items()
        },
    }
    table = Table(
        "method", "Mpix/s", "ours is faster by", "centroid rms, mas", "flux scatter",
        title=found["machine"],
    )  # fmt: skip
    for name, row in found["kernel"].items():
        accuracy = (row["centroid_rms_mas"], row["flux_scatter"])
        shown = [f"{a:.2g}" if a is not None else "" for a in accuracy]
        table.add_row(name, f"{row['mpix_per_s']:.2f}", f"{row['ours_faster_by']:.2f}", *shown)
    Console().print(table)
    for name, row in found["stage"].items():
        Console().print(f"stage, {name}:", row)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
