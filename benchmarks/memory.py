"""How much memory the warp of a mosaic takes, whatever the mosaic's size and packing.

    python benchmarks/memory.py [--size 19200] [--field 25] [--out docs/benchmarks/memory.json]

A mosaic of `size`² float32 pixels of 0.1″ with noise and mask planes is written plain, with Rice
compression, and gzipped; a field of `field` arcmin in it is warped by the command line, in a
process of its own, whose largest resident memory is what counts. (Linux counts that of the process
which starts it too, so that files are made in others and this one stays small.)
"""

import argparse
import gzip
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from warp import machine

PIXEL, STRIP = 0.1, 1200
PACKINGS = ("plain", "rice", "gzip")


def mosaic_header(size: int) -> fits.Header:
    """North-up TAN with its reference in the middle."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [150.0, 2.0]
    wcs.wcs.crpix = [(size + 1) / 2] * 2
    wcs.wcs.cdelt = [-PIXEL / 3600, PIXEL / 3600]
    return wcs.to_header()


def write_planes(folder: Path, size: int) -> None:
    """Science, noise and mask, each a file: sky noise with a star every 20″."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[-10:11, -10:11]
    star = 1000 * np.exp(-(x**2 + y**2) / (2 * 2.0**2)).astype(np.float32)
    for name, dtype in (("science", ">f4"), ("rms", ">f4"), ("flag", "u1")):
        header = fits.PrimaryHDU(np.zeros((1, 1), dtype)).header
        header["NAXIS1"], header["NAXIS2"] = size, size
        header.update(mosaic_header(size))
        with (folder / f"{name}.fits").open("wb") as file:
            file.write(header.tostring().encode())
            for first in range(0, size, STRIP):
                strip = np.ones((min(STRIP, size - first), size), np.float32)
                if name == "science":
                    strip = rng.standard_normal(strip.shape, dtype=np.float32)
                    for row in range(100, len(strip) - 100, 200):
                        for column in range(100, size - 100, 200):
                            strip[row - 10 : row + 11, column - 10 : column + 11] += star
                file.write((strip if name != "flag" else strip * 0).astype(dtype).tobytes())
            file.write(b"\0" * (-file.tell() % 2880))


def pack(folder: Path, packing: str) -> dict[str, str]:
    """The planes' files in one packing."""
    names = {name: f"{name}.fits" for name in ("science", "rms", "flag")}
    if packing == "gzip":
        for name in names.values():
            with (
                (folder / name).open("rb") as plain,
                gzip.open(folder / f"{name}.gz", "wb", 1) as g,
            ):
                shutil.copyfileobj(plain, g, 2**24)
        return {key: f"{name}.gz" for key, name in names.items()}
    if packing == "rice":
        for key, name in names.items():
            with fits.open(folder / name, memmap=True) as hdus:
                fits.CompImageHDU(
                    hdus[0].data, hdus[0].header, compression_type="RICE_1", quantize_level=16
                ).writeto(folder / f"{key}_rice.fits")
        return {key: f"{key}_rice.fits" for key in names}
    return names


def content(size: int, field: float, files: dict[str, str]) -> dict[str, Any]:
    """A config whose first survey is the mosaic; the second, never warped, makes it valid."""
    hdu = 1 if "rice" in files["science"] else 0
    image = {
        "band": "VIS",
        "science": {"path": files["science"], "hdu": hdu},
        "noise": {"kind": "rms", "path": files["rms"], "hdu": hdu},
        "mask": {"path": files["flag"], "hdu": hdu},
        "zeropoint": 23.9,
    }
    survey = {
        "bands": ["VIS"],
        "pixel_arcsec": PIXEL,
        "archive": {"kind": "files", "root": ".", "images": [image]},
    }
    side = {"width_arcmin": field, "height_arcmin": field}
    return {
        "run": "memory",
        "sky": {"ra": 150.0, "dec": 2.0, **side},
        "patch": {"arcsec": 51.2},
        "split": {"test": 0.0, "validation": 0.0},
        "surveys": {"mosaic": survey, "other": survey},
    }


def elsewhere(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure(folder: Path, packing: str, size: int, field: float) -> dict[str, Any]:
    """Plan, fetch and warp; the warp's largest resident memory and its time."""
    files = elsewhere(pack, folder, packing)
    config = folder / f"{packing}.yaml"
    config.write_text(json.dumps({**content(size, field, files), "run": packing}))
    environment = {**os.environ, "JAISP_CACHE": str(folder / "cache")}
    for stage in ("plan", "fetch"):
        subprocess.run(
            ["jaisp", stage, "--config", str(config)], cwd=folder, env=environment, check=True
        )
    began = time.monotonic()
    command = ["jaisp", "warp", "--config", str(config), "--survey", "mosaic"]
    warp = subprocess.Popen(command, cwd=folder, env=environment)
    _, status, usage = os.wait4(warp.pid, 0)
    if status:
        sys.exit(f"{packing}: jaisp warp ended with status {os.waitstatus_to_exitcode(status)}")
    receipt = json.loads(
        (folder / f"results/{packing}/receipts/warp/field.mosaic.json").read_text()
    )
    shutil.rmtree(folder / "results")
    return {
        "packing": packing,
        "patches": receipt["covered"],
        "largest_memory_gb": round(usage.ru_maxrss * 1024 / 1e9, 2),
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> None:
    """Measure each packing and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=19200)
    parser.add_argument("--field", type=float, default=25.0, help="arcmin")
    parser.add_argument("--packings", nargs="+", choices=PACKINGS, default=PACKINGS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        elsewhere(write_planes, folder, options.size)
        for packing in options.packings:
            rows.append(measure(folder, packing, options.size, options.field))
            print(rows[-1], flush=True)
    if options.out:
        found = {"machine": machine(), "size": options.size, "rows": rows}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
