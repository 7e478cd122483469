"""How long a job takes to read the table of a wide survey's tiles, and to find those of one cell.

python benchmarks/tiles.py [--tiles 20000]
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from jaisp.archives.table import read_tiles, tiles_path, write_tiles
from jaisp.archives.tile import Plane, Tile
from jaisp.config import parse_config
from jaisp.sky import cells
from jaisp.warp.reach import tiles_near

SURVEY = {"bands": ["r"], "pixel_arcsec": 0.2, "archive": {"kind": "simulated"}}
SKY = {"ra": 53.1, "dec": -28.1, "width_arcmin": 25, "height_arcmin": 25}


def a_tile(number: int) -> Tile:
    """One of three planes."""
    planes = {
        name: Plane(Path(f"/archive/{number}-{name}.fits"), 0, None, 10**8, "0" * 64)
        for name in ("science", "noise", "mask")
    }
    told = {"noise_kind": "rms", "bad_bits": None, "zeropoint": "MAGZERO", "subtract_sky": False}
    seeing = {"psf_fwhm_arcsec": None, "psf_moffat_beta": None}
    place = {"survey": "a", "band": "r", "id": f"tile{number}", "wcs": "header"}
    return Tile(**place, **planes, psf=None, **told, **seeing)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=20_000)
    count = parser.parse_args().tiles
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        content = {"run": "tiles", "sky": SKY, "surveys": {"a": SURVEY, "b": SURVEY}}
        config = parse_config(content, Path("tiles.yaml").absolute())
        write_tiles(config, [a_tile(number) for number in range(count)])
        began = time.process_time()
        tiles = read_tiles(config)
        read = time.process_time() - began
        size = tiles_path(config).stat().st_size
        os.chdir("/")
    places = zip(rng.uniform(0, 360, count), rng.uniform(-60, 0, count), strict=True)
    tiles = [
        replace(tile, footprint=(ra, dec, 900.0))
        for tile, (ra, dec) in zip(tiles, places, strict=True)
    ]
    (cell,) = cells(config)
    began = time.process_time()
    near = tiles_near(tiles, cell)
    found = time.process_time() - began
    print(
        f"{count} tiles of three planes: {1e3 * read / count:.2f} ms and {size / count:.0f} bytes"
    )
    print(f"a tile to read; {1e6 * found / count:.2f} µs a tile to find the {len(near)} of a cell")


if __name__ == "__main__":
    main()
