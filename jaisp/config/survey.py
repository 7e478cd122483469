"""Config sections of a survey: its bands, its pixel, and the archive that holds its tiles."""

import re
from pathlib import Path
from string import Formatter
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from jaisp.config.address import NO_USER, Address, LocalPath, Served
from jaisp.config.section import Section
from jaisp.zeropoint import terms

Hdu = Annotated[int, Field(ge=0)] | str
# Names become folders, table keys and `survey:band`: letters, digits and a few signs only.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+\-]*$", max_length=64)]


ROWS = (
    "Fetch only the rows of an image that the sky needs, where it lies elsewhere, in plain FITS, "
    "and the server or bucket sends ranges; else all of it."
)


ZEROPOINT = (
    "AB magnitude of one unit: a number, a header key, or terms of these and of `log10(KEY)`, as "
    "`25 + 2.5 log10(EXPTIME)`; null: uncalibrated."
)


def _zeropoint(value: object) -> object:
    if isinstance(value, str):
        terms(value)
    return value


ZeroPoint = Annotated[float | str | None, AfterValidator(_zeropoint)]


class PlaneSource(Section):
    """Where the pixels of one plane stand."""

    path: Address | LocalPath | None = Field(
        None,
        description="FITS file, from the archive's root, or its address (http, https, s3); "
        "default: the science file.",
    )
    hdu: Hdu = Field(0, description="HDU number or EXTNAME.")
    slice: int | None = Field(None, ge=0, description="Plane of a cube, counted from 0.")


class ScienceSource(PlaneSource):
    """The science plane; its path is required."""

    path: Address | LocalPath = Field(
        description="FITS file, from the archive's root, or its address (http, https, s3)."
    )


class NoiseNumbers(Section):
    """What the numbers of a noise plane mean."""

    kind: Literal["rms", "variance", "inverse_variance"] = Field(
        description="1σ, σ² or 1/σ², in the units of the science plane."
    )


class MaskBits(Section):
    """What the numbers of a mask plane mean."""

    bad_bits: int | None = Field(None, gt=0, description="Bits that mean bad, e.g. 0x0F.")


class NoisePlane(NoiseNumbers, PlaneSource):
    """A noise plane and what its numbers mean."""


class NoiseEstimate(Section):
    """Noise measured from the science plane's own sky."""

    kind: Literal["estimate"]


class MaskSource(MaskBits, PlaneSource):
    """A mask plane: bad where non-zero, or where one of `bad_bits` is set."""


class PsfStamp(PlaneSource):
    """A PSF stamp on the science plane's pixels."""


class PsfShape(Section):
    """A PSF that is given by its width."""

    fwhm_arcsec: float = Field(gt=0.0, description="Full width at half maximum, arcsec.")
    moffat_beta: float | None = Field(None, gt=1.0, description="Moffat β; default Gaussian.")


class WcsGiven(Section):
    """A north-up or rotated TAN WCS for an image without one."""

    ra: float = Field(ge=0.0, lt=360.0, description="Right ascension of the image centre, deg.")
    dec: float = Field(ge=-90.0, le=90.0, description="Declination of the image centre, deg.")
    pixel_arcsec: float = Field(gt=0.0, description="Pixel size, arcsec.")
    rotation_deg: float = Field(0.0, description="Position angle of +y, east of north, deg.")


class Image(Section):
    """One image of one band with its planes: a tile already at hand."""

    band: Name = Field(description="The band, as the survey's `bands` name it.")
    science: ScienceSource = Field(description="The image.")
    noise: Annotated[NoisePlane | NoiseEstimate, Field(discriminator="kind")] = Field(
        NoiseEstimate(kind="estimate"), description="The noise plane, or `{kind: estimate}`."
    )
    mask: MaskSource | None = Field(None, description="The mask plane, if there is one.")
    zeropoint: ZeroPoint = Field(None, description=ZEROPOINT)
    psf: PsfStamp | PsfShape | Literal["estimate"] = Field(
        "estimate", description="PSF stamp, width, or measured from stars."
    )
    subtract_sky: bool = Field(False, description="Measure and remove a smooth background.")
    wcs: WcsGiven | Literal["header"] = Field("header", description="The header's, or given.")


class Credentials(Section):
    """Who we are, for the archive's own host. Secrets stand in variables or files, never here."""

    token_env: str | None = Field(None, description="Variable that holds a bearer token.")
    token_file: Path | None = Field(None, description="File that holds a bearer token.")
    login_env: str | None = Field(
        None, description="Variable that holds USER:PASSWORD, for HTTP Basic."
    )

    @model_validator(mode="after")
    def _one_way(self) -> "Credentials":
        if sum(way is not None for way in (self.token_env, self.token_file, self.login_env)) > 1:
            raise ValueError("one of token_env, token_file and login_env is enough")
        return self


class FilesArchive(Credentials):
    """Images named one by one: files at hand, or addresses of such elsewhere."""

    kind: Literal["files"]
    root: Address | LocalPath = Field(
        Path(), description="Folder of the images, from `data`, or its address (http, https, s3)."
    )
    rows: bool = Field(False, description=ROWS)
    images: list[Image] = Field(min_length=1, description="Every image, one band each.")


CUTOUT_PLACES = {"ra", "dec", "degrees", "arcmin", "arcsec", "pixels"}


class FoundImages(Credentials):
    """What all images are like of an archive that finds them by itself."""

    release: str | None = Field(None, description="Name of the data release, for provenance.")
    cutout: str | None = Field(
        None,
        description="What added to an image's address asks the server for a square of it alone, "
        "with {ra}, {dec} and its width in {degrees}, {arcmin}, {arcsec} or {pixels}; default: "
        "whole images.",
    )
    rows: bool = Field(False, description=ROWS)

    zeropoint: ZeroPoint = Field(None, description=ZEROPOINT)
    psf: PsfShape | Literal["estimate"] = Field(
        "estimate", description="Its width, or measured from stars."
    )
    subtract_sky: bool = Field(False, description="Measure and remove a smooth background.")

    @model_validator(mode="after")
    def _one_kind_of_part(self) -> "FoundImages":
        if self.cutout is not None and self.rows:
            raise ValueError("one of cutout and rows is enough")
        return self

    @field_validator("cutout")
    @classmethod
    def _names_a_square(cls, value: str | None) -> str | None:
        if value is None:
            return None
        names = {name for _, name, _, _ in Formatter().parse(template(value)) if name is not None}
        widths = names & {"degrees", "arcmin", "arcsec", "pixels"}
        if not {"ra", "dec"} <= names or len(widths) != 1 or names - CUTOUT_PLACES:
            raise ValueError(
                "must have {ra}, {dec} and one of {degrees}, {arcmin}, {arcsec}, {pixels}, "
                "and no other"
            )
        return value


class ServedPlane(Section):
    """Which of a service's images hold a plane; and where in them it stands."""

    subtype: str | None = Field(
        None, description="Their `dataproduct_subtype`, where the service tells it."
    )
    name: str | None = Field(
        None, description="A regular expression that their file's name is searched for."
    )
    hdu: Hdu = Field(0, description="HDU number or EXTNAME.")

    @field_validator("name")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        return None if value is None else regular_expression(value)


class ServedNoise(NoiseNumbers, ServedPlane):
    """A noise plane: of images of its own, or, with neither subtype nor name, in the science's."""


class ServedMask(MaskBits, ServedPlane):
    """A mask plane, likewise: bad where non-zero, or where one of `bad_bits` is set."""


class Sia2Archive(FoundImages):
    """A service of images: IVOA's Simple Image Access, version 2."""

    kind: Literal["sia2"]
    url: Served = Field(description="Address of the service's queries.")
    cloud_access: bool = Field(
        False,
        description="Read images from the public bucket of S3 that the service's `cloud_access` "
        "names, where it names one, rather than from its `access_url`.",
    )
    collection: str | None = Field(None, description="The service's name of the data release.")
    parameters: dict[str, str | int | float] = Field(
        {}, description="More of the query, e.g. {DPSUBTYPE: lsst.deep_coadd, CALIB: 3}."
    )
    band_column: str = Field(
        "energy_bandpassname", description="The service's column that names an image's band."
    )
    tile_columns: list[str] = Field(
        ["obs_id"],
        min_length=1,
        description="The service's columns that together name an image's tile.",
    )
    band_names: dict[Name, str] = Field(
        {}, description="The service's names of our bands; default: the same."
    )
    band: str | None = Field(
        None,
        description="A regular expression whose one group is the band in a file's name, for "
        "services that have no column of it.",
    )
    tile: str | None = Field(
        None,
        description="A regular expression whose one group is the tile in a file's name; default: "
        "`tile_columns`.",
    )
    science: ServedPlane = ServedPlane()
    noise: Annotated[ServedNoise | NoiseEstimate, Field(discriminator="kind")] = Field(
        NoiseEstimate(kind="estimate"), description="The noise plane, or `{kind: estimate}`."
    )
    mask: ServedMask | None = Field(None, description="The mask plane, if there is one.")

    @model_validator(mode="after")
    def _only_servers_cut(self) -> "Sia2Archive":
        if self.cutout is not None and self.cloud_access:
            raise ValueError("a bucket cuts nothing out: drop one of cutout and cloud_access")
        return self

    @field_validator("band", "tile")
    @classmethod
    def _one_group(cls, value: str | None) -> str | None:
        if value is not None and re.compile(regular_expression(value)).groups != 1:
            raise ValueError("a regular expression of one group, e.g. TILE([0-9]+)")
        return value


class NamedPlane(Section):
    """Where each tile's image of a plane stands."""

    url: str | None = Field(
        None,
        description="Address with {COLUMN} and {band}, or such a path from `data`; default: the "
        "science image's.",
    )
    hdu: Hdu = Field(0, description="HDU number or EXTNAME.")

    @field_validator("url")
    @classmethod
    def _is_template(cls, value: str | None) -> str | None:
        return None if value is None else template(value)


class NamedScience(NamedPlane):
    """The science plane; its address is required."""

    url: str = Field(description="Address with {COLUMN} and {band}, or such a path from `data`.")


class NamedNoise(NoiseNumbers, NamedPlane):
    """A noise plane and what its numbers mean."""


class NamedMask(MaskBits, NamedPlane):
    """A mask plane: bad where non-zero, or where one of `bad_bits` is set."""


class Corners(Section):
    """Columns of a table of tiles that say what each covers, degrees."""

    ra: tuple[str, str] = Field(("ra1", "ra2"), description="Its least and its largest RA.")
    dec: tuple[str, str] = Field(("dec1", "dec2"), description="Its least and largest declination.")


class Centre(Section):
    """Columns of a table of tiles that say where each lies, and how wide all of them are."""

    ra: str = Field("ra", description="Column of the centre's right ascension, degrees.")
    dec: str = Field("dec", description="Column of the centre's declination, degrees.")
    width_arcmin: float = Field(gt=0.0, description="Side of a tile, arcmin, north up.")


class TemplateArchive(FoundImages):
    """Tiles whose addresses follow from their names: a table of tiles, and templates."""

    kind: Literal["template"]
    tiles: Address | LocalPath = Field(
        description="Table of all tiles (FITS, ECSV, CSV), from `data`, or its address."
    )
    covers: Corners | Centre = Field(
        Corners(),
        description="What each covers: `ra: [A, B], dec: [C, D]`, or `ra, dec, width_arcmin`.",
    )
    tile: str = Field(description="A tile's name, with {COLUMN}, e.g. {brickname}.")
    band_names: dict[Name, str] = Field(
        {}, description="What {band} is for our bands; default: the same."
    )
    science: NamedScience = Field(description="The image.")
    noise: Annotated[NamedNoise | NoiseEstimate, Field(discriminator="kind")] = Field(
        NoiseEstimate(kind="estimate"), description="The noise plane, or `{kind: estimate}`."
    )
    mask: NamedMask | None = Field(None, description="The mask plane, if there is one.")
    checksums: str | None = Field(
        None,
        description="Address, with {COLUMN}, of a tile's list of SHA-256 sums, as sha256sum "
        "writes it.",
    )

    @model_validator(mode="after")
    def _only_servers_cut(self) -> "TemplateArchive":
        if self.cutout is not None and self.science.url.startswith("s3://"):
            raise ValueError("a bucket cuts nothing out: drop cutout, or name a server")
        return self

    @field_validator("tile", "checksums")
    @classmethod
    def _is_template(cls, value: str | None) -> str | None:
        return None if value is None else template(value)


def template(value: str) -> str:
    """A text with {NAME} or {NAME:FORMAT} in it: names alone, no look into what they stand for."""
    try:
        names = [name for _, name, _, _ in Formatter().parse(value) if name is not None]
    except ValueError as error:
        raise ValueError(f"no template ({error})") from None
    if "@" in value.partition("://")[2].partition("/")[0]:
        raise ValueError(NO_USER)
    if bad := [name for name in names if not name.isidentifier()]:
        raise ValueError(f"no template: {{{bad[0]}}} is no column's name")
    return value


def regular_expression(value: str) -> str:
    """The expression, if it is one."""
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"no regular expression ({error})") from None
    return value


class SimulatedArchive(Section):
    """Tiles made by `jaisp simulate`."""

    kind: Literal["simulated"]
    instrument: str | None = Field(None, description="Whose optics; default: the survey's name.")
    subtract_sky: bool = Field(False, description="Measure and remove a smooth background.")


class Survey(Section):
    """A data release of one instrument."""

    bands: list[Name] = Field(min_length=1, description="Bands to use.")
    pixel_arcsec: float = Field(gt=0.0, description="Native pixel size, arcsec.")
    archive: Annotated[
        FilesArchive | Sia2Archive | SimulatedArchive | TemplateArchive, Field(discriminator="kind")
    ]

    @model_validator(mode="after")
    def _bands_once(self) -> "Survey":
        if len(set(self.bands)) != len(self.bands):
            raise ValueError("a band is listed twice in `bands`")
        return self
