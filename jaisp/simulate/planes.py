"""Write the planes of a tile as FITS files, the same bytes every time."""

import zlib
from pathlib import Path

import numpy as np
from astropy.io import fits

from jaisp.simulate.detector import BAD, EDGE, SATURATED, Exposure
from jaisp.simulate.instruments import Instrument

PATHS = ("science_path", "noise_path", "mask_path")
BAD_RMS = np.float32(1e20)
COMPRESSED_TILE = 256  # pixels; a section reads few of them
KEPT_BITS = 10  # of a variance's mantissa: good to 5e-4, and far smaller compressed


def write_planes(
    folder: Path, stem: str, exposure: Exposure, header: fits.Header, instrument: Instrument
) -> dict[str, str]:
    """Write one tile, `exposure` in its own units, as files `stem`… below `folder`.

    Returns the listing's noise_kind, paths (from `folder`) and HDUs.
    """
    if instrument.separate_planes:
        return _write_separate(folder, stem, exposure, header)
    return _write_together(folder, stem, exposure, header)


def _write_together(folder: Path, stem: str, exposure: Exposure, header: fits.Header) -> dict:
    """One file with HDUs IMAGE, VARIANCE and MASK, as Rubin's coadds have."""
    variance = _rounded(exposure.variance)
    variance[(exposure.mask & BAD) > 0] = 0.0
    variance[(exposure.mask & EDGE) > 0] = np.nan
    image = fits.ImageHDU(exposure.science, header, name="IMAGE")
    hdus = [fits.PrimaryHDU(), image, compressed(variance, header, "VARIANCE")]
    hdus.append(compressed(exposure.mask, _with_bits(header), "MASK"))
    name = f"{stem}.fits"
    fits.HDUList(hdus).writeto(folder / name)
    hdu = {"science_hdu": "IMAGE", "noise_hdu": "VARIANCE", "mask_hdu": "MASK"}
    return {"noise_kind": "variance"} | hdu | dict.fromkeys(PATHS, name)


def _write_separate(folder: Path, stem: str, exposure: Exposure, header: fits.Header) -> dict:
    """Three files, as Euclid's mosaics have; the rms of bad pixels is a huge number."""
    rms = np.sqrt(exposure.background)
    rms[exposure.mask & (BAD | EDGE | SATURATED) > 0] = BAD_RMS
    names = [f"{stem}.fits", f"{stem}_rms.fits", f"{stem}_flag.fits"]
    fits.PrimaryHDU(exposure.science, header).writeto(folder / names[0])
    flags = compressed(exposure.mask, _with_bits(header), "FLAG")
    for name, hdu in ((names[1], compressed(rms, header, "RMS")), (names[2], flags)):
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(folder / name)
    hdu = {"science_hdu": "0", "noise_hdu": "1", "mask_hdu": "1"}
    return {"noise_kind": "rms"} | hdu | dict(zip(PATHS, names, strict=True))


def compressed(plane: np.ndarray, header: fits.Header, name: str) -> fits.BinTableHDU:
    """A lossless tile-compressed image (FITS 4.0, section 10: GZIP_1).

    Astropy's own writer puts the time into each gzip header, so the table is laid out here.
    """
    height, width = plane.shape
    side = COMPRESSED_TILE
    stored = plane.astype(plane.dtype.newbyteorder(">"))
    pieces = [
        np.frombuffer(_gzip(stored[y : y + side, x : x + side].tobytes()), np.uint8)
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]
    ragged = np.empty(len(pieces), object)
    ragged[:] = pieces
    longest = max(len(piece) for piece in pieces)
    column = fits.Column("COMPRESSED_DATA", format=f"1PB({longest})", array=ragged)
    hdu = fits.BinTableHDU.from_columns([column], name=name)
    bits = plane.dtype.itemsize * 8
    cards: dict = {"ZIMAGE": True, "ZTENSION": "IMAGE", "ZBITPIX": bits}
    if plane.dtype.kind == "f":
        cards |= {"ZBITPIX": -bits, "ZQUANTIZ": "NONE"}
    cards |= {"ZNAXIS": 2, "ZNAXIS1": width, "ZNAXIS2": height, "ZPCOUNT": 0, "ZGCOUNT": 1}
    cards |= {"ZTILE1": side, "ZTILE2": side, "ZCMPTYPE": "GZIP_1"}
    hdu.header.update(cards)
    hdu.header.update(header)
    return hdu


def _gzip(content: bytes) -> bytes:
    return zlib.compress(content, level=1, wbits=31)  # with a gzip header whose time is 0


def _rounded(plane: np.ndarray) -> np.ndarray:
    """Zero the last bits of each number's mantissa, rounding to nearest."""
    dropped = 23 - KEPT_BITS
    bits = plane.view(np.uint32) + np.uint32(1 << (dropped - 1))
    return (bits & np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)).view(np.float32)


def _with_bits(header: fits.Header) -> fits.Header:
    """The header of a mask names its bits, as Rubin's do."""
    named = header.copy()
    for bit, name in enumerate(("BAD", "SAT", "CR", "EDGE")):
        named[f"MP_{name}"] = (bit, "bit of the mask")
    return named
