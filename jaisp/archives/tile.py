"""What the pipeline knows about one image: a tile and its planes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaisp.config.survey import FoundImages, MaskBits, PsfShape
from jaisp.errors import TileError, UserError
from jaisp.transfer.address import bucket_and_key, is_s3


@dataclass(frozen=True)
class Plane:
    """One image array in one file: science, noise, mask or PSF.

    `slice` picks one plane of a cube along its slowest axis. `bytes` and `sha256` are of the file,
    0 and "" where the archive doesn't tell; it is verified to have them. `estimate` is about how
    many bytes it has, 0 where nobody says; nothing is verified by it. `whole` is about how many the
    archive's own file has, where only a part of it is asked for.
    """

    path: Path | str
    hdu: int | str
    slice: int | None = None
    bytes: int = 0
    sha256: str = ""
    estimate: int = 0
    whole: int = 0


@dataclass(frozen=True)
class Tile:
    """One image of one band of one survey, with its planes."""

    survey: str
    band: str
    id: str
    science: Plane
    noise: Plane | None
    mask: Plane | None
    psf: Plane | None
    noise_kind: str  # rms | variance | inverse_variance | estimate
    bad_bits: int | None  # of the mask; None: any non-zero value is bad
    zeropoint: str | float | None  # science header key | AB mag of one unit | None = uncalibrated
    psf_fwhm_arcsec: float | None  # None and no psf plane: estimated from stars
    psf_moffat_beta: float | None
    subtract_sky: bool
    wcs: str | dict  # "header" or {ra, dec, pixel_arcsec, rotation_deg} of the image's centre
    # What the archive says of where it comes from: release, identifier.
    origin: dict[str, str] = field(default_factory=dict)
    # Whether addresses are of DataLink documents, which say where the files are.
    linked: bool = False
    # A circle that holds the image: centre (degrees) and radius (arcsec); fetch tells, or nobody.
    footprint: tuple[float, float, float] | None = None


def elsewhere(address: str, key: str) -> str:
    """A file's address that the config names at `key`. Raises UserError where no bucket can have
    it; what a server has shows when it is asked."""
    if is_s3(address):
        try:
            bucket_and_key(address)
        except TileError as error:
            raise UserError(f"{key}: {error}") from None
    return address


def image_options(archive: FoundImages, noise_kind: str, mask: MaskBits | None) -> dict[str, Any]:
    """What all tiles of an archive that finds its images have in common, as `Tile` takes it."""
    psf = archive.psf if isinstance(archive.psf, PsfShape) else None
    return {
        "psf": None,
        "noise_kind": noise_kind,
        "bad_bits": mask.bad_bits if mask else None,
        "zeropoint": archive.zeropoint,
        "psf_fwhm_arcsec": psf.fwhm_arcsec if psf else None,
        "psf_moffat_beta": psf.moffat_beta if psf else None,
        "subtract_sky": archive.subtract_sky,
        "wcs": "header",
    }


def origin_of(archive: FoundImages) -> dict[str, str]:
    """What the config says of where an archive's images come from."""
    return {} if archive.release is None else {"release": archive.release}
