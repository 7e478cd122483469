"""The arrays of one group of the patch store: names, dimensions, types, chunks, mask flags.

A group holds every patch of one cell in one survey. One inner chunk is one patch in one band, so
that reading a patch reads no other; one shard is one file of whole patches.
"""

from enum import IntFlag

import numpy as np
import zarr
from jaxtyping import Bool, Float32, UInt8
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ZstdCodec

from jaisp.store.codes import MISSING

APERTURES_ARCSEC = (1.0, 3.0)  # diameters that noise_correlation is measured in
SHARD_BYTES = 32 * 2**20  # of int16 flux before compression
BAND_TABLES = {"coverage": 0.0, "psf_fwhm_arcsec": np.nan, "scale": 0.0, "noise_scale": 0.0}
PLANES = ("flux", "noise", "mask")

_DECODE_FLUX = "nJy = scale * 4096 * sinh(code / 4096); -32768 is missing"
_DECODE_NOISE = "1 sigma in nJy = noise_scale * 2**((code - 128) / 16); 0 is invalid"
_ABOUT = {
    "coverage": {"long_name": "fraction of pixels with valid flux and noise"},
    "psf_fwhm_arcsec": {"long_name": "PSF full width at half maximum", "units": "arcsec"},
    "scale": {"long_name": "flux of one code near zero", "units": "nJy"},
    "noise_scale": {"long_name": "background noise, 1 sigma", "units": "nJy"},
}


# Codes of flux are noise in their lowest bits and equal in their highest: with the bits of a kind
# beside each other they pack a sixth smaller than by zstd alone, in a third of its time, and unpack
# in three quarters. All other arrays are nearly constant. Checksums find damage that leaves a
# chunk's length as it was.
FLUX_CODE_COMPRESSORS = [
    BloscCodec(typesize=2, cname="zstd", clevel=1, shuffle="bitshuffle"),
    Crc32cCodec(),
]
COMPRESSORS = [ZstdCodec(level=2, checksum=True)]


class Flag(IntFlag):
    """Bits of `mask`."""

    BAD = 1
    SATURATED = 2
    COSMIC_RAY = 4
    EDGE = 8
    CLIPPED = 16
    INTERPOLATED = 32


UNUSABLE = Flag.BAD | Flag.COSMIC_RAY | Flag.EDGE


def patches_per_shard(bands: int, pixels: int, patches: int) -> int:
    """How many whole patches one shard holds: 32 MiB of int16 flux, or all patches if less."""
    return int(np.clip(SHARD_BYTES // (2 * bands * pixels**2), 1, max(patches, 1)))


def coverage(
    known: Bool[np.ndarray, "*stack y x"],
    noise: UInt8[np.ndarray, "*stack y x"],
    mask: UInt8[np.ndarray, "*stack y x"],
) -> Float32[np.ndarray, "*stack"]:
    """Fraction of pixels with a known flux, a valid noise code and no unusable flag."""
    usable = known & (noise > 0) & ((mask & np.uint8(UNUSABLE)) == 0)
    share = np.count_nonzero(usable, axis=(-2, -1)) / np.prod(usable.shape[-2:])
    return share.astype(np.float32)


def create_planes(
    group: zarr.Group, bands: int, pixels: int, patches: int, flux_dtype: str
) -> dict[str, zarr.Array]:
    """Create `flux`, `noise` and `mask`, empty: every patch uncovered."""
    flux_about = {"long_name": "flux", "units": "nJy"}
    fill: float | int = np.nan
    if flux_dtype == "int16":
        flux_about = {"long_name": "flux code", "decode": _DECODE_FLUX}
        fill = int(MISSING)
    flags = {
        "long_name": "mask",
        "flag_masks": [int(flag) for flag in Flag],
        "flag_meanings": " ".join(str(flag.name).lower() for flag in Flag),
    }
    noise_about = {"long_name": "noise code", "decode": _DECODE_NOISE}
    shape = (patches, bands, pixels, pixels)
    shard = (patches_per_shard(bands, pixels, patches), *shape[1:])
    return {
        name: _create(
            group,
            name,
            dimensions=("patch", "band", "y", "x"),
            shape=shape,
            dtype=dtype,
            chunks=(1, 1, pixels, pixels),
            shards=shard,
            fill_value=empty,
            attributes=about,
        )
        for name, dtype, empty, about in (
            ("flux", flux_dtype, fill, flux_about),
            ("noise", "uint8", 0, noise_about),
            ("mask", "uint8", int(Flag.EDGE), flags),
        )
    }


def write_band_table(group: zarr.Group, name: str, values: np.ndarray) -> None:
    """Write one of BAND_TABLES, float32 [patch, band], as a single chunk."""
    array = _create(
        group,
        name,
        dimensions=("patch", "band"),
        shape=values.shape,
        dtype="float32",
        chunks=values.shape,
        fill_value=BAND_TABLES[name],
        attributes=_ABOUT[name],
    )
    array[...] = values


def write_noise_correlation(group: zarr.Group, values: np.ndarray) -> None:
    """Write measured over white-noise scatter in apertures, float32 [band, aperture]."""
    array = _create(
        group,
        "noise_correlation",
        dimensions=("band", "aperture"),
        shape=values.shape,
        dtype="float32",
        chunks=values.shape,
        fill_value=np.nan,
        attributes={
            "long_name": "measured scatter over white-noise scatter in apertures",
            "aperture_diameter_arcsec": list(APERTURES_ARCSEC),
        },
    )
    array[...] = values


def write_psf(group: zarr.Group, stamps: np.ndarray) -> None:
    """Write PSF stamps, float32 [patch, band, psf_y, psf_x]; NaN where there is none."""
    array = _create(
        group,
        "psf",
        dimensions=("patch", "band", "psf_y", "psf_x"),
        shape=stamps.shape,
        dtype="float32",
        chunks=(1, *stamps.shape[1:]),
        shards=stamps.shape,
        fill_value=np.nan,
        attributes={"long_name": "point spread function on the tile's own pixels"},
    )
    array[...] = stamps


def _create(
    group: zarr.Group, name: str, *, dimensions: tuple[str, ...], **options: object
) -> zarr.Array:
    """Create an array with codecs that zarr, xarray and tensorstore all know."""
    return group.create_array(
        name,
        dimension_names=dimensions,
        filters=None,
        serializer=BytesCodec(endian="little"),
        compressors=FLUX_CODE_COMPRESSORS if options["dtype"] == "int16" else COMPRESSORS,
        **options,  # type: ignore[arg-type]
    )
