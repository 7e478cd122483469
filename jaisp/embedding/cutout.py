"""`jaisp.embed`: tokens of any FITS image that one of the model's surveys could have taken."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from jaxtyping import Float32

from jaisp.archives.tile import Plane, Tile
from jaisp.embedding.mosaic import Planes
from jaisp.embedding.windows import embed_rows
from jaisp.errors import TileError, UserError
from jaisp.model import Model, load_model
from jaisp.sky import Cell, plane_wcs, plane_xy
from jaisp.warp.fits_plane import open_fits, reading
from jaisp.warp.pixel_map import pixel_map
from jaisp.warp.planes import warp_tile
from jaisp.warp.sky_noise import background_noise
from jaisp.warp.tile import TileReader

Hdu = int | str


def embed(
    path: Path | str,
    model: Model | Path | str,
    *,
    survey: str,
    band: str | None = None,
    bands: Sequence[str] | None = None,
    hdu: Hdu | Sequence[Hdu] | None = None,
    noise: Path | str | None = None,
    noise_kind: str = "rms",
    zeropoint: str | float | None = "MAGZERO",
    kernel: str = "lanczos3",
) -> tuple[Float32[np.ndarray, "dimension row column"], WCS]:
    """Embed a FITS cutout with a trained model.

    The image is resampled once, by its WCS, onto the survey's pixels with north up, and goes
    through the model in windows: it may be of any size.

    Parameters
    ----------
    path: one 2-D image a band: an image HDU each, or the planes of one cube.
    model: a model, or the folder of one.
    survey: which of the model's surveys took the image, or one most like it.
    band, bands: the band of the image, or of its HDUs or planes in order. Neither: the survey's
        only band.
    hdu: HDU number or EXTNAME, or one a band. None: HDUs named like the bands, else the first
        that holds an image.
    noise: FITS file of the noise, laid out like `path`; None: measured from the image's own sky.
    noise_kind: of that file: rms (1σ), variance or inverse_variance.
    zeropoint: header key, or AB magnitude of one unit; None: uncalibrated.
    kernel: lanczos3 or lanczos5.

    Returns the tokens, NaN where no pixel is valid, and the WCS of their grid.

    Raises UserError for a file or HDU that isn't there, an image without WCS or zero point, a
    survey or band that the model doesn't know.
    """
    if not isinstance(model, Model):
        model = load_model(model)
    names = _bands(model, survey, band, bands)
    science = _planes(Path(path), names, hdu)
    sigma: list[Plane] | list[None] = [None] * len(names)
    if noise is not None:
        sigma = _planes(Path(noise), names, hdu)
    readers: list[TileReader] = []
    try:
        for name, image, plane in zip(names, science, sigma, strict=True):
            tile = _tile(survey, name, image, plane, noise_kind, zeropoint)
            readers.append(TileReader(tile))
        return _embed(model, readers, survey, names, kernel)
    except TileError as error:
        raise UserError(f"{path}: {error}") from None
    finally:
        for reader in readers:
            reader.close()


def _embed(
    model: Model, readers: list[TileReader], survey: str, bands: list[str], kernel: str
) -> tuple[np.ndarray, WCS]:
    token_arcsec = model.config.token_arcsec
    pixels = model.config.surveys[survey]
    plane, x0, y0, shape = _grid(readers[0], token_arcsec)

    def read(y: int, x: int, height: int, width: int) -> Planes:
        n = pixels.pixels_per_token
        planes = Planes.missing(len(bands), height * n, width * n)
        window = plane_wcs(
            plane,
            token_arcsec / n,
            x0 + x * token_arcsec,
            y0 + y * token_arcsec,
            (height * n, width * n),
        )
        for number, reader in enumerate(readers):
            positions = pixel_map(window, planes.flux.shape[1:], reader.wcs)
            warped = warp_tile(reader, window, positions, kernel)
            if warped is None:
                continue
            sigma = warped.noise
            if reader.noise_includes_sources:
                sigma = background_noise(warped.flux, sigma, token_arcsec / n)
            planes.flux[number], planes.noise[number] = warped.flux, sigma
            planes.mask[number] = warped.flags
        return planes

    rows = [strip for _, strip in embed_rows(model, read, shape, survey=survey, bands=bands)]
    tokens = np.concatenate(rows, axis=1)
    if not np.isfinite(tokens).any():
        raise TileError("no square of a token has enough valid pixels")
    return tokens, plane_wcs(plane, token_arcsec, x0, y0, shape)


def _bands(model: Model, survey: str, band: str | None, bands: Sequence[str] | None) -> list[str]:
    """The bands that the caller means; what is unknown is answered with what is known."""
    if survey not in model.config.surveys:
        known = ", ".join(model.config.surveys)
        raise UserError(f"survey {survey!r} is unknown to the model; it knows {known}")
    own = model.config.surveys[survey].bands
    if band is not None and bands is not None:
        raise UserError("give either `band` or `bands`")
    if band is None and bands is None and len(own) > 1:
        raise UserError(f"{survey} has several bands; give `band` or `bands` of {', '.join(own)}")
    names = list(own) if band is None and bands is None else [band] if band else list(bands or [])
    unknown = [name for name in names if name not in own]
    if unknown or not names or len(set(names)) < len(names):
        wrong = ", ".join(map(repr, unknown or names)) or "no band"
        raise UserError(
            f"{wrong}: give bands of {survey}, each once; the model knows {', '.join(own)}"
        )
    return names


def _planes(path: Path, bands: list[str], hdu: Hdu | Sequence[Hdu] | None) -> list[Plane]:
    """Where each band's image stands in a file."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with open_fits(path) as hdus, reading(path.name):
            shapes = {
                number: each.shape
                for number, each in enumerate(hdus)
                if each.is_image and len(each.shape) >= 2
            }
            by_name = {each.name: number for number, each in enumerate(hdus)}
    except TileError as error:
        raise UserError(str(error)) from None
    if not shapes:
        raise UserError(f"{path}: holds no image")
    if isinstance(hdu, Sequence) and not isinstance(hdu, str):
        if len(hdu) != len(bands):
            raise UserError(f"{path}: {len(hdu)} HDUs for {len(bands)} bands; give one a band")
        return [Plane(path, each) for each in hdu]
    if hdu is None and all(by_name.get(band.upper()) in shapes for band in bands):
        return [Plane(path, by_name[band.upper()]) for band in bands]
    chosen = next(iter(shapes)) if hdu is None else hdu
    number = by_name.get(chosen.upper(), -1) if isinstance(chosen, str) else chosen
    leading = [length for length in shapes.get(number, ())[:-2] if length > 1]
    if len(bands) == 1 and not leading:
        return [Plane(path, chosen)]
    if leading == [len(bands)]:
        return [Plane(path, chosen, slice=number) for number in range(len(bands))]
    found = f"{leading[0]} planes" if leading else "one image"
    raise UserError(
        f"{path}[{chosen}]: holds {found} for bands {', '.join(bands)}; give one HDU a band as "
        "`hdu`, or a cube of as many planes"
    )


def _tile(
    survey: str,
    band: str,
    science: Plane,
    noise: Plane | None,
    noise_kind: str,
    zeropoint: str | float | None,
) -> Tile:
    return Tile(
        survey=survey,
        band=band,
        id=Path(science.path).stem,
        science=science,
        noise=noise,
        mask=None,
        psf=None,
        noise_kind="estimate" if noise is None else noise_kind,
        bad_bits=None,
        zeropoint=zeropoint,
        psf_fwhm_arcsec=None,
        psf_moffat_beta=None,
        subtract_sky=False,
        wcs="header",
    )


def _grid(reader: TileReader, token_arcsec: float) -> tuple[Cell, float, float, tuple[int, int]]:
    """A plane that touches the sky at the image's centre, and the tokens that hold the image.

    Returns the plane, the corner of the first token (arcsec) and the rows and columns.
    """
    height, width = reader.shape
    centre = _sky(reader.wcs, np.array([(width - 1) / 2]), np.array([(height - 1) / 2]))
    plane = Cell(
        "cutout",
        float(centre.ra.deg[0]),
        float(centre.dec.deg[0]),
        token_arcsec,
        np.zeros((0, 2)),
    )
    along_x = np.linspace(-0.5, width - 0.5, 33)
    along_y = np.linspace(-0.5, height - 0.5, 33)
    low_x, low_y = np.full(33, -0.5), np.full(33, -0.5)
    edge = _sky(
        reader.wcs,
        np.concatenate([along_x, along_x, low_x, low_x + width]),
        np.concatenate([low_y, low_y + height, along_y, along_y]),
    )
    x, y = plane_xy(plane, edge.ra.deg, edge.dec.deg)
    # Rounding must not add a row of tokens to an image that fills whole ones.
    first_x, first_y = (int(np.floor(v.min() / token_arcsec + 1e-6)) for v in (x, y))
    last_x, last_y = (int(np.ceil(v.max() / token_arcsec - 1e-6)) for v in (x, y))
    shape = (last_y - first_y, last_x - first_x)
    return plane, first_x * token_arcsec, first_y * token_arcsec, shape


def _sky(wcs: WCS, x: np.ndarray, y: np.ndarray) -> SkyCoord:
    return wcs.pixel_to_world(x, y).icrs
