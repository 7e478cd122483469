"""The simulation's speed and accuracy against GalSim's per-object drawing, in one run.

    python benchmarks/simulate.py [--rounds 3] [--out docs/benchmarks/simulate.json]

speed: CPU time a patch of 51.2″ in ten bands, of the noiseless sky and of the whole stage, on a
tile of 5 × 5 patches; and of GalSim's drawImage of the sources in the middle patch, one by one:
their bulges and discs through a Moffat profile (ground) or an Airy pattern and a Gaussian (space)
made once a band, on stamps of GalSim's choice. Both take turns, on one thread; the fastest of each
counts.
accuracy: stars, discs and bulges by themselves, off a pixel's centre, against GalSim's own profiles
through the same PSF (of OpticalPSF with struts in space): the largest difference over the peak.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import galsim  # noqa: E402
import numpy as np  # noqa: E402
from astropy.io import fits  # noqa: E402
from machine import machine  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from jaisp.config import Config, parse_config  # noqa: E402
from jaisp.simulate import simulate  # noqa: E402
from jaisp.simulate.catalogue import draw_catalogue  # noqa: E402
from jaisp.simulate.frames import (  # noqa: E402
    Frame,
    frames_of,
    reach_arcsec,
    region_centre,
    sources_on,
)
from jaisp.simulate.instruments import EUCLID_Q1, INSTRUMENTS, RUBIN  # noqa: E402
from jaisp.simulate.profiles import BULGE, DISC, EDGE  # noqa: E402
from jaisp.simulate.psf import TilePsf, tile_psf  # noqa: E402
from jaisp.simulate.scene import (  # noqa: E402
    BULGE_KIND,
    DISC_KIND,
    POINT_KIND,
    Sources,
    draw_scene,
)
from jaisp.simulate.seeds import generator  # noqa: E402
from jaisp.simulate.stage import draw_sky, sources_of  # noqa: E402

PATCH, PATCHES = 51.2, 5
SURVEYS = {"rubin": (RUBIN, list("ugrizy")), "euclid_q1": (EUCLID_Q1, ["VIS", "Y", "J", "H"])}
SIDE = 121  # native pixels of the images of accuracy
SHEAR = (0.3, -0.2)
SHAPES = {
    "star": (POINT_KIND, 0.0),
    "small disc": (DISC_KIND, 0.12),
    "large disc": (DISC_KIND, 1.2),
    "small bulge": (BULGE_KIND, 0.06),
    "large bulge": (BULGE_KIND, 0.7),
}


def field() -> Config:
    """One tile of 5 × 5 patches of either survey."""
    side = PATCHES * PATCH / 60
    return parse_config(
        {
            "run": "field",
            "sky": {"ra": 53.13, "dec": -28.1, "width_arcmin": side, "height_arcmin": side},
            "simulate": {"tiles_per_side": 1},
            "surveys": {
                survey: {
                    "bands": bands,
                    "pixel_arcsec": instrument.pixel_arcsec,
                    "archive": {"kind": "simulated"},
                }
                for survey, (instrument, bands) in SURVEYS.items()
            },
        },
        Path("field.yaml"),
    )


def seconds(job: Callable[[], object]) -> float:
    """CPU time of a job."""
    start = time.process_time()
    job()
    return time.process_time() - start


def skies(config: Config) -> tuple[list[tuple], list[tuple]]:
    """What either way needs to draw each band: all sources of the tile, and the middle patch's."""
    region = config.sky[0]
    bands = [instrument.bands[b] for instrument, names in SURVEYS.values() for b in names]
    size = reach_arcsec(config.simulate, region)
    rng = generator(config.simulate.seed, "sky", "0")
    sky = draw_catalogue(config.simulate, bands, region_centre(region), size, rng)
    whole, middle, column = [], [], 0
    for survey, (instrument, names) in SURVEYS.items():
        frame = next(frames_of(config.simulate, survey, instrument, 0, region))
        seen, pixels, maps = sources_on(frame, sky)
        for name in names:
            psf = tile_psf(config.simulate, survey, instrument, name, frame)
            native, native_maps = (pixels + 0.5) / psf.factor - 0.5, maps / psf.factor
            whole.append((psf, seen, column, native, native_maps))
            half = PATCH / psf.pixel_arcsec / 2
            inside = (np.abs(native - np.array(psf.shape[::-1]) / 2) < half).all(axis=1)
            sources = sources_of(seen[inside], column, native[inside], native_maps[inside])
            middle.append((psf, sources))
            column += 1
    return whole, middle


def draw_ours(psf: TilePsf, *sky: Any) -> None:
    """The noiseless sky of a band of the tile."""
    draw_sky(np.zeros(psf.shape, np.float32), psf, *sky)


def draw_galsim(psf: TilePsf, sources: Sources) -> None:
    """The sources of one patch, one by one."""
    image = galsim.ImageF(*psf.shape[::-1], xmin=0, ymin=0)
    seen = simple_psf(psf)
    for n in range(len(sources.flux)):
        light = profile(sources.kind[n], sources.covariance[n], psf.pixel_arcsec)
        light = seen if light is None else galsim.Convolve(light, seen)
        light = light.withFlux(sources.flux[n])
        place = galsim.PositionD(*sources.position[n])
        stamp = light.drawImage(scale=psf.pixel_arcsec, center=place)
        common = stamp.bounds & image.bounds
        if common.isDefined():
            image[common] += stamp[common]


def profile(kind: int, covariance: np.ndarray, pixel: float) -> galsim.GSObject | None:
    """A disc or bulge whose unit radius has a covariance (pixel²); None for a point."""
    if kind == POINT_KIND:
        return None
    xx, xy, yy = covariance * pixel**2
    values, vectors = np.linalg.eigh([[xx, xy], [xy, yy]])
    axes = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    index = DISC if kind == DISC_KIND else BULGE
    light = galsim.Sersic(index, half_light_radius=1.0, trunc=EDGE)
    return light.transform(*axes.ravel()) / np.linalg.det(axes)


def simple_psf(psf: TilePsf) -> galsim.GSObject:
    """The cheapest GalSim has of the kind: without struts, at the middle of the band."""
    optics = psf.optics
    size, e1, e2 = psf.parameters(0, 0)
    if optics.telescope is None:
        shape = galsim.Shear(g1=e1, g2=e2)
        return galsim.Moffat(optics.beta, fwhm=size * optics.fwhm_arcsec).shear(shape)
    telescope = optics.telescope
    pattern = galsim.Airy(
        lam=sum(optics.edges) / 2,
        diam=telescope.diameter,
        obscuration=telescope.obscuration,
        scale_unit=galsim.arcsec,
    )
    return galsim.Convolve(pattern, galsim.Gaussian(sigma=optics.blur))


def exact_psf(psf: TilePsf) -> galsim.GSObject:
    """The same PSF as GalSim makes it: seven wavelengths, struts, an elliptical Gaussian."""
    optics = psf.optics
    if optics.telescope is None:
        return simple_psf(psf)
    size, e1, e2 = psf.parameters(0, 0)
    telescope, step = optics.telescope, (optics.edges[1] - optics.edges[0]) / 7
    patterns = [
        galsim.OpticalPSF(
            lam=optics.edges[0] + step * (n + 0.5),
            diam=telescope.diameter,
            obscuration=telescope.obscuration,
            nstruts=telescope.struts,
            strut_thick=telescope.strut_width / telescope.diameter,
            scale_unit=galsim.arcsec,
            oversampling=2.0,
            pad_factor=2.0,
        )
        for n in range(7)
    ]
    variance = (optics.fwhm_arcsec / 2.3548) ** 2
    round_ = optics.blur**2 + variance * (size**2 - 1)
    e = np.hypot(e1, e2) * 2 * variance / round_
    shape = galsim.Shear(
        q=np.sqrt((1 - e) / (1 + e)), beta=0.5 * np.arctan2(e2, e1) * galsim.radians
    )
    blur = galsim.Gaussian(sigma=np.sqrt(round_) * (1 - e**2) ** 0.25).shear(shape)
    return galsim.Convolve(galsim.Sum(patterns) / 7, blur)


def errors(instrument: str, band: str) -> dict[str, float]:
    """Largest difference over the peak for each shape."""
    optics = INSTRUMENTS[instrument]
    side = SIDE * optics.bands[band].native_pixels
    config = field().simulate.model_copy(update={"exposure": 1e8})
    tile = Frame("00-00-00", fits.Header(), (side, side), False, 1.0)
    psf = tile_psf(config, instrument, optics, band, tile)
    seen, found = exact_psf(psf), {}
    shear = galsim.Shear(g1=SHEAR[0], g2=SHEAR[1]).getMatrix()
    for name, (kind, radius) in SHAPES.items():
        axes = shear * radius / psf.pixel_arcsec
        shape = (axes @ axes.T).ravel()[[0, 1, 3]]
        place = np.array([[60.3, 59.8]])
        image = np.zeros((SIDE, SIDE), np.float32)
        draw_scene(image, psf, Sources(place, np.ones(1), shape[None], np.array([kind])))
        light = profile(kind, shape, psf.pixel_arcsec)
        light = seen if light is None else galsim.Convolve(light, seen)
        truth = galsim.ImageF(SIDE, SIDE, scale=psf.pixel_arcsec, xmin=0, ymin=0)
        light.drawImage(truth, center=galsim.PositionD(*place[0]))
        found[name] = float(np.abs(image - truth.array).max() / truth.array.max())
    return found


def speed(rounds: int) -> dict[str, Any]:
    """Seconds of CPU a patch, ours and GalSim's."""
    config = field()
    whole, middle = skies(config)
    for band in whole:
        draw_ours(*band)  # compiled, and the telescope's tables made
    ours, galsims, stages = [], [], []
    for _ in range(rounds):
        ours.append(sum(seconds(lambda b=b: draw_ours(*b)) for b in whole) / PATCHES**2)
        galsims.append(sum(seconds(lambda b=b: draw_galsim(*b)) for b in middle))
        stages.append(seconds(lambda: simulate(config)) / PATCHES**2)
    return {
        "bands": len(whole),
        "sources_a_patch": max(len(np.unique(s.position, axis=0)) for _, s in middle),
        "sky_seconds": round(min(ours), 4),
        "stage_seconds": round(min(stages), 4),
        "galsim_seconds": round(min(galsims), 4),
        "ratio": round(min(galsims) / min(ours), 2),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out = options.out.absolute() if options.out else None
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        found: dict[str, Any] = {"machine": machine(), "speed": speed(options.rounds)}
        os.chdir(home)
    found["accuracy"] = {
        f"{survey}:{band}": {name: round(e, 6) for name, e in errors(survey, band).items()}
        for survey, (_, bands) in SURVEYS.items()
        for band in bands
    }
    console = Console()
    table = Table("a patch, ten bands", "CPU seconds", title=found["machine"])
    for name in ("sky_seconds", "stage_seconds", "galsim_seconds", "ratio"):
        table.add_row(name, str(found["speed"][name]))
    console.print(table)
    table = Table("largest difference from GalSim, of the peak", *SHAPES)
    for band, row in found["accuracy"].items():
        table.add_row(band, *(f"{row[name]:.5f}" for name in SHAPES))
    console.print(table)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
