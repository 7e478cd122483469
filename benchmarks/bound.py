"""How near the bound an efficient fit comes, and what the warp costs a position.

    python benchmarks/bound.py [--sources 2000] [--out docs/benchmarks/bound.json]

First: 2000 simulated point sources for each of Rubin i, VIS and NISP H, drawn by the simulator at
random places within a pixel, in white noise; the rms of a PSF fit's errors over the Cramér–Rao
bound.
Second: stars without noise on tiles whose pixels fall at all places of the patches'; the rms of
what is measured of their positions on the tile's own pixels, and on the patch's after the warp. The
latter is a floor under every position that is read off patches.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import sep
from astropy.io import fits
from machine import machine

from jaisp.archives import Plane, Tile
from jaisp.config.geometry import Region
from jaisp.config.simulate import SimulateConfig
from jaisp.inject.effective import EffectivePsf, add_star
from jaisp.inject.likelihood import MAS, Stamps, bound_mas, fit_positions
from jaisp.inject.optics import SimulatedPsf
from jaisp.simulate.frames import frames_of
from jaisp.simulate.instruments import EUCLID_Q1, RUBIN
from jaisp.simulate.psf import tile_psf
from jaisp.simulate.resample import KERNEL_HALF_WIDTH, lanczos
from jaisp.sky import Cell, patch_wcs, plane_radec
from jaisp.warp.pixel_map import pixel_map
from jaisp.warp.planes import warp_tile
from jaisp.warp.tile import TileReader

CASES = {"rubin i": (RUBIN, "i"), "VIS": (EUCLID_Q1, "VIS"), "NISP H": (EUCLID_Q1, "H")}
REGION = Region(ra=53.13, dec=-28.1, width_arcmin=2.6, height_arcmin=2.6)
SNR = (30.0, 100.0)
PATCH_ARCSEC, SPACING_ARCSEC = 51.2, 6.4


def tile_of(instrument, band: str) -> tuple:
    """One tile of a small field: its frame and its PSF."""
    simulate = SimulateConfig(tiles_per_side=1)
    (frame,) = frames_of(simulate, "survey", instrument, 0, REGION)
    return frame, tile_psf(simulate, "survey", instrument, band, frame)


def stamps_of(psf: SimulatedPsf, flux: float, count: int, rng: np.random.Generator) -> Stamps:
    """Sources drawn by the simulator in noise of its own depth."""
    sigma, pixel = psf.tile.noise, psf.pixel_arcsec
    half = int(np.ceil(2.5 * psf.fwhm_arcsec(0) / pixel))
    size = 2 * half + 1
    middle = np.rint(psf.places[len(psf.places) // 2])
    place = middle + rng.uniform(-0.5, 0.5, (count, 2))
    data = sigma * rng.standard_normal((count, size, size))
    data += flux * np.stack([psf.tile.stamp(*one, half) for one in place])
    effective = EffectivePsf(psf, half)
    (number,) = set(effective.place_of(*place.T).tolist())
    return Stamps(
        survey="survey",
        band="band",
        coefficients=effective.coefficients(number)[None],
        place=np.zeros(count, int),
        data=data.astype(np.float32),
        weight=np.full(data.shape, sigma**-2.0, np.float32),
        position=place - np.rint(place) + half,
        jacobian=np.broadcast_to(np.eye(2) / pixel, (count, 2, 2)).copy(),
        shift=np.zeros((count, 2)),
        fwhm_arcsec=np.full(count, psf.fwhm_arcsec(number)),
    )


def efficiency(instrument, band: str, count: int, rng: np.random.Generator) -> list[dict]:
    """Rows by S/N: errors of the fit over the bound, with the interval that chance leaves."""
    psf = SimulatedPsf(tile_of(instrument, band)[1])
    unit = float(np.median(stamps_of(psf, 0.0, 50, rng).sensitivity()))
    rows = []
    for snr in SNR:
        own = stamps_of(psf, snr / unit, count, rng)
        width = psf.fwhm_arcsec(0)
        angle = rng.uniform(0, 2 * np.pi, count)
        start = 0.3 * width * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        found = MAS * fit_positions([own], start, 1.6, 0.5 * width)
        bound = bound_mas([own], [np.full(count, snr / unit)])
        ratio = float(np.sqrt(np.mean((found / bound[:, None]) ** 2)))
        resampled = [
            np.sqrt(np.mean((found[drawn] / bound[drawn, None]) ** 2))
            for drawn in rng.integers(0, count, (500, count))
        ]
        low, high = np.percentile(resampled, [2.5, 97.5])
        rows.append(
            {
                "snr": snr,
                "n": count,
                "bound_mas": round(float(np.median(bound)), 3),
                "fit_rms_mas": round(float(np.sqrt(np.mean(found**2))), 3),
                "fit_over_bound": round(ratio, 4),
                "low": round(float(low), 4),
                "high": round(float(high), 4),
            }
        )
    return rows


def floor(instrument, band: str, kernel: str, folder: Path, rng: np.random.Generator) -> dict:
    """rms error an axis, mas, of centroids and PSF fits of stars without noise."""
    frame, tile = tile_of(instrument, band)
    psf, factor = SimulatedPsf(tile), tile.factor
    halo = KERNEL_HALF_WIDTH if factor > 1 else 0
    half = int(np.ceil(2.5 * psf.fwhm_arcsec(0) / psf.pixel_arcsec))
    drawn = EffectivePsf(psf, round(3.0 / psf.pixel_arcsec))
    cell = Cell("field", REGION.ra, REGION.dec, PATCH_ARCSEC, PATCH_ARCSEC * grid(3))
    nodes = SPACING_ARCSEC * grid(21) + rng.uniform(-0.5, 0.5, (441, 2))
    pixel = np.stack(frame.wcs.all_world2pix(*plane_radec(cell, *nodes.T), 0), axis=1)
    native = (pixel + 0.5) / factor - 0.5
    canvas = np.zeros([side + 2 * halo for side in tile.shape], np.float32)
    for (x, y), place in zip(native, drawn.place_of(*native.T), strict=True):
        add_star(canvas, drawn.coefficients(int(place)), x + halo, y + halo, 1e4, drawn.half)
    image = lanczos(canvas, factor) / np.float32(factor**2) if factor > 1 else canvas
    inner = canvas[halo : canvas.shape[0] - halo, halo : canvas.shape[1] - halo]
    errors = {
        "centroid": centroid_errors(inner, native, psf),
        "fit": fit_errors(inner, native, psf, half),
    }
    reader = written(image, frame, folder / f"{band}.{kernel}.fits")
    grid_arcsec = instrument.pixel_arcsec
    pixels = round(PATCH_ARCSEC / grid_arcsec)
    turn = np.arctan2(frame.header["CD1_2"], frame.header["CD2_2"])
    served = {"centroid after the warp": [], "fit after the warp": []}
    for row, centre in enumerate(cell.centres):
        output = patch_wcs(cell, row, grid_arcsec, pixels)
        planes = warp_tile(reader, output, pixel_map(output, (pixels,) * 2, reader.wcs), kernel)
        away = (nodes - centre) / grid_arcsec + (pixels - 1) / 2
        own = (np.abs(away - pixels / 2) < pixels / 2 - 4 / grid_arcsec).all(axis=1)
        served["centroid after the warp"].append(centroid_errors(planes.flux, away[own], psf))
        if factor == 1:
            served["fit after the warp"].append(fit_errors(planes.flux, away[own], psf, half))
    reader.close()
    errors |= {name: np.concatenate(parts) for name, parts in served.items() if parts}
    result = {"tile_turned_deg": round(float(np.degrees(turn)), 2), "n": len(nodes)}
    for name, values in errors.items():
        scale = MAS * (psf.pixel_arcsec if "after" not in name else grid_arcsec)
        known = scale * values[np.isfinite(values).all(axis=1)]
        result[f"{name}, mas"] = round(float(np.sqrt(np.mean(known**2))), 3)
        result[f"{name}, mean mas"] = [round(float(v), 3) for v in known.mean(axis=0)]
    return result


def grid(side: int) -> np.ndarray:
    """Points of a square grid around 0, 0."""
    steps = np.arange(side) - (side - 1) / 2
    return np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)


def centroid_errors(image: np.ndarray, place: np.ndarray, psf: SimulatedPsf) -> np.ndarray:
    """Windowed centroids, pixels from the truth."""
    pixel = psf.pixel_arcsec if image.shape == psf.tile.shape else psf.pixel_arcsec / psf.factor
    start = np.rint(place)
    sigma = psf.fwhm_arcsec(0) / pixel / 2.3548
    x, y, _ = sep.winpos(np.nan_to_num(image), *start.T, sigma)
    return np.stack([x, y], axis=1) - place


def fit_errors(image: np.ndarray, place: np.ndarray, psf: SimulatedPsf, half: int) -> np.ndarray:
    """PSF fits of even weight, pixels from the truth; the image is turned against the PSF's."""
    count, size = len(place), 2 * half + 1
    effective = EffectivePsf(psf, half)
    middle = len(psf.places) // 2
    corner = np.rint(place).astype(int) - half
    data = np.stack([image[y : y + size, x : x + size] for x, y in corner])
    own = Stamps(
        survey="survey",
        band="band",
        coefficients=effective.coefficients(middle)[None],
        place=np.zeros(count, int),
        data=data.astype(np.float32),
        weight=np.ones(data.shape, np.float32),
        position=place - corner,
        jacobian=np.broadcast_to(np.eye(2), (count, 2, 2)).copy(),
        shift=np.zeros((count, 2)),
        fwhm_arcsec=np.full(count, np.nan),
    )
    return fit_positions([own], np.zeros((count, 2)), 10.0, 1.0)


def written(image: np.ndarray, frame, path: Path) -> TileReader:
    """The tile as a file, with noise of 1."""
    header = frame.header.copy()
    noise = fits.ImageHDU(np.ones_like(image), name="RMS")
    fits.HDUList([fits.PrimaryHDU(image, header), noise]).writeto(path)
    tile = Tile(
        survey="survey", band="band", id="0", science=Plane(path, 0), noise=Plane(path, "RMS"),
        mask=None, psf=None, noise_kind="rms", bad_bits=None, zeropoint=31.4, psf_fwhm_arcsec=0.5,
        psf_moffat_beta=None, subtract_sky=False, wcs="header",
    )  # fmt: skip
    return TileReader(tile)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rng = np.random.default_rng(1)
    result: dict = {"machine": machine(), "efficiency": {}, "floor": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name, (instrument, band) in CASES.items():
            result["efficiency"][name] = efficiency(instrument, band, arguments.sources, rng)
            for kernel in ("lanczos3", "lanczos5"):
                made = floor(instrument, band, kernel, Path(folder), rng)
                result["floor"][f"{name}, {kernel}"] = made
    print(json.dumps(result, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
