"""Stage `simulate`: an archive of FITS tiles with the truth beside them."""

import logging
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from jaxtyping import Float, Float32

from jaisp.config import Config
from jaisp.config.geometry import Region
from jaisp.errors import UserError
from jaisp.files import partial_dir, remove_folder, replace_folder, sha256
from jaisp.progress import track
from jaisp.simulate.astrometry import conditions, refracts, tile_offset, wavelength_shift
from jaisp.simulate.catalogue import Catalogue, draw_catalogue, join, truth_table
from jaisp.simulate.detector import (
    SATURATED_SHARE,
    Camera,
    Exposure,
    camera_of,
    expose,
    kill_rim,
    serve,
)
from jaisp.simulate.frames import (
    Frame,
    frames_of,
    inside,
    reach_arcsec,
    region_centre,
    sources_on,
)
from jaisp.simulate.instruments import Band, Instrument, instrument_of
from jaisp.simulate.planes import write_planes
from jaisp.simulate.psf import AB_NJY, Optics, TilePsf, tile_psf
from jaisp.simulate.resample import KERNEL_HALF_WIDTH
from jaisp.simulate.scene import BULGE_KIND, DISC_KIND, POINT_KIND, Sources, draw_scene
from jaisp.simulate.seeds import generator

log = logging.getLogger(__name__)

PLANES = ("science", "noise", "mask")
CHECKS = tuple(f"{plane}_{what}" for plane in PLANES for what in ("bytes", "sha256"))
LISTING = (
    *("survey", "band", "tile", "science_path", "science_hdu", "noise_path", "noise_hdu"),
    *("noise_kind", "mask_path", "mask_hdu", "zeropoint", *CHECKS),
)


def simulate(config: Config) -> dict:
    """Write results/RUN/simulated/: tiles, listing.ecsv, truth.ecsv and offsets.ecsv.

    Returns counts and the checksums of the two tables. Raises UserError for an instrument, band
    or sky that can't be simulated.
    """
    if not isinstance(config.sky, list):
        raise UserError("sky: a MOC can't be simulated; give rectangles (ra, dec, width, height)")
    chosen = {
        name: instrument_of(name, survey)
        for name, survey in config.surveys.items()
        if survey.archive.kind == "simulated"
    }
    if not chosen:
        raise UserError("surveys: none has `archive: {kind: simulated}`; nothing to simulate")
    filters = [(survey, band) for survey in chosen for band in config.surveys[survey].bands]
    frames = [
        (survey, frame)
        for survey, instrument in chosen.items()
        for number, region in enumerate(config.sky)
        for frame in frames_of(config.simulate, survey, instrument, number, region)
    ]
    sky = _sky(config, config.sky, [chosen[survey].bands[band] for survey, band in filters])

    folder = partial_dir(config) / "simulated"
    remove_folder(folder)
    rows: list[dict] = []
    for survey, frame in track(frames, "simulate", total=len(frames)):
        columns = {band: n for n, (s, band) in enumerate(filters) if s == survey}
        rows += _write_tiles(config, survey, chosen[survey], frame, columns, sky, folder)
    Table(rows=rows, names=LISTING).write(folder / "listing.ecsv", format="ascii.ecsv")
    _offsets(config, frames, chosen).write(folder / "offsets.ecsv", format="ascii.ecsv")
    bent = [f"{survey}_{band}" for survey, band in filters if refracts(chosen[survey], band)]
    truth = truth_table(sky, [f"{survey}_{band}" for survey, band in filters], bent)
    truth.write(folder / "truth.ecsv", format="ascii.ecsv")
    final = config.results / "simulated"
    replace_folder(folder, final)
    log.info("simulated %d tiles of %d sources in %s", len(rows), len(sky), final)
    return {
        "tiles": len(rows),
        "sources": len(sky),
        "listing_sha256": sha256(final / "listing.ecsv"),
        "truth_sha256": sha256(final / "truth.ecsv"),
    }


def draw_sky(
    image: Float32[np.ndarray, "y x"],
    psf: TilePsf,
    seen: Catalogue,
    column: int,
    pixels: Float[np.ndarray, "source 2"],
    maps: Float[np.ndarray, "source 2 2"],
    halo: int = 0,
) -> None:
    """Add the noiseless sky of one band (`column` of the catalogue) to native pixels, nJy each.

    `pixels` are the sources' native x, y and `maps` the local maps from arcsec (east, north) to
    native pixels; `halo` pixels of each side of the image lie beyond the tile.
    """
    draw_scene(image, psf, sources_of(seen, column, pixels, maps), halo)


def sources_of(
    seen: Catalogue,
    column: int,
    pixels: Float[np.ndarray, "source 2"],
    maps: Float[np.ndarray, "source 2 2"],
) -> Sources:
    """The discs, bulges and stars of a catalogue that shine in a band, on native pixels."""
    ellipse = maps @ _unit_ellipse(seen.e1, seen.e2) @ maps.transpose(0, 2, 1)
    ellipse = np.stack([ellipse[:, 0, 0], ellipse[:, 0, 1], ellipse[:, 1, 1]], axis=1)
    disc_or_point = np.where(seen.disc_radius > 0, DISC_KIND, POINT_KIND)
    bulge = np.full(len(seen), BULGE_KIND)
    parts = [
        Sources(pixels[lit], flux[lit], (ellipse * radius[:, None] ** 2)[lit], kind[lit])
        for flux, radius, kind in (
            (seen.disc_flux[:, column], seen.disc_radius, disc_or_point),
            (seen.bulge_flux[:, column], seen.bulge_radius, bulge),
        )
        for lit in [flux > 0]
    ]
    return Sources.join(parts)


def _sky(config: Config, regions: list[Region], bands: list[Band]) -> Catalogue:
    """The sources of all regions; where regions overlap, those of the first one."""
    parts: list[Catalogue] = []
    for number, region in enumerate(regions):
        size = reach_arcsec(config.simulate, region)
        rng = generator(config.simulate.seed, "sky", str(number))
        part = draw_catalogue(config.simulate, bands, region_centre(region), size, rng)
        for earlier in regions[:number]:
            part = part[~inside(earlier, reach_arcsec(config.simulate, earlier), part)]
        parts.append(part)
    return join(parts)


def _offsets(
    config: Config, frames: list[tuple[str, Frame]], chosen: dict[str, Instrument]
) -> Table:
    """What no header tells: where each tile's WCS puts sources, and through which air."""
    table = Table(
        names=("survey", "tile", "west_mas", "north_mas", "airmass", "parallactic_deg"),
        dtype=(str, str, float, float, float, float),
    )
    for survey, frame in frames:
        west, north = tile_offset(config.simulate, survey, frame)
        air = (np.nan, np.nan)
        if chosen[survey].site is not None:
            seen = conditions(config.simulate, survey, frame)
            air = seen.airmass, seen.parallactic_deg
        table.add_row((survey, frame.id, 1e3 * west, 1e3 * north, *air))
    table["west_mas"].description = "where the tile's WCS puts a source, less where it is"
    table["parallactic_deg"].description = "position angle of the zenith, east of north"
    return table


def _write_tiles(
    config: Config,
    survey: str,
    instrument: Instrument,
    frame: Frame,
    columns: dict[str, int],
    sky: Catalogue,
    folder: Path,
) -> list[dict]:
    """All bands of one tile; returns their rows of the listing."""
    seen, pixels, maps = sources_on(frame, sky)
    west, north = tile_offset(config.simulate, survey, frame)
    rows = []
    for name, column in columns.items():
        band = instrument.bands[name]
        camera = camera_of(instrument, name, config.simulate.exposure)
        rng = generator(config.simulate.seed, "noise", survey, name, frame.id)
        psf = tile_psf(config.simulate, survey, instrument, name, frame)
        factor = psf.factor
        halo = KERNEL_HALF_WIDTH if factor > 1 else 0
        bent = wavelength_shift(
            config.simulate, survey, instrument, name, frame, seen.wavelength[:, column]
        )
        shift = np.stack([-west - bent[0], north + bent[1]], axis=1)  # to the east, north
        shown = pixels + np.einsum("nij,nj->ni", maps, shift)
        image = np.zeros([side + 2 * halo for side in psf.shape], np.float32)
        draw_sky(image, psf, seen, column, (shown + 0.5) / factor - 0.5, maps / factor, halo)
        exposure = expose(image, camera, instrument, rng)
        if factor > 1:
            exposure = serve(exposure, factor)
        if frame.has_dead_rim:
            kill_rim(exposure)
        header = _header(frame, name, instrument, camera, psf.optics)
        _to_units(exposure, band)
        (folder / survey / name).mkdir(parents=True, exist_ok=True)
        stem = f"{survey}/{name}/{survey}_{name}_{frame.id}"
        row = {"survey": survey, "band": name, "tile": frame.id, "zeropoint": "MAGZERO"}
        row |= write_planes(folder, stem, exposure, header, instrument)
        rows.append(row | _checksums(folder, row))
    return rows


def _header(
    frame: Frame, name: str, instrument: Instrument, camera: Camera, optics: Optics
) -> fits.Header:
    band = instrument.bands[name]
    unit = 10 ** (0.4 * (band.zeropoint - AB_NJY))  # of the tile, per nJy
    header = frame.header.copy()
    header["FILTER"] = name
    header["BUNIT"] = instrument.unit
    header["MAGZERO"] = (band.zeropoint, "AB magnitude of one unit")
    level = SATURATED_SHARE * camera.full * unit / band.native_pixels**2
    header["SATURATE"] = (float(f"{level:.7g}"), "pixels at or above are saturated")
    header["PSFFWHM"] = (optics.fwhm_arcsec, "[arcsec] nominal PSF, before pixels")
    if optics.telescope is None:
        header["PSFBETA"] = (optics.beta, "Moffat beta")
    return header


def _to_units(exposure: Exposure, band: Band) -> None:
    """From nJy to what the zero point says."""
    unit = np.float32(10 ** (0.4 * (band.zeropoint - AB_NJY)))
    if unit != 1:
        exposure.science *= unit
        exposure.variance *= unit**2
        exposure.background *= unit**2


def _checksums(folder: Path, row: dict) -> dict:
    """Size and checksum of the file of each plane."""
    found: dict = {}
    for path in {row[f"{plane}_path"] for plane in PLANES}:
        about = (folder / path).stat().st_size, sha256(folder / path)
        for plane in PLANES:
            if row[f"{plane}_path"] == path:
                found[f"{plane}_bytes"], found[f"{plane}_sha256"] = about
    return found


def _unit_ellipse(
    e1: Float[np.ndarray, " source"], e2: Float[np.ndarray, " source"]
) -> Float[np.ndarray, "source 2 2"]:
    """Second moments (east, north) of a shape whose axes have the product 1."""
    size = np.hypot(e1, e2)
    angle = 0.5 * np.arctan2(e2, e1)  # of the major axis, east of north
    long = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    short = np.stack([np.cos(angle), -np.sin(angle)], axis=1)
    ratio = ((1.0 + size) / (1.0 - size))[:, None, None]
    return ratio * long[:, :, None] * long[:, None] + short[:, :, None] * short[:, None] / ratio
