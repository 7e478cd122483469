"""Archive kind `files`: images listed one by one in the config, at hand or elsewhere."""

from pathlib import Path
from urllib.parse import quote

from jaisp.archives.tile import Plane, Tile, elsewhere
from jaisp.config import Config
from jaisp.config.survey import FilesArchive, Image, PlaneSource, PsfShape, PsfStamp
from jaisp.errors import UserError
from jaisp.transfer.address import is_s3


def find_tiles(config: Config, survey: str) -> list[Tile]:
    """The tiles of a survey's bands, checked to be there.

    Raises UserError for a band without an image, or a file that doesn't exist.
    """
    archive = config.surveys[survey].archive
    assert isinstance(archive, FilesArchive)
    offered = sorted({image.band for image in archive.images})
    for band in config.surveys[survey].bands:
        if band not in offered:
            raise UserError(
                f"surveys.{survey}.bands: the archive has no image of band {band!r} "
                f"(surveys.{survey}.archive.images has {', '.join(offered)}); add one or drop it"
            )
    root = archive_root(config, archive)
    return [
        _tile(survey, image, root, f"surveys.{survey}.archive.images[{number}]")
        for number, image in enumerate(archive.images)
        if image.band in config.surveys[survey].bands
    ]


def archive_root(config: Config, archive: FilesArchive) -> Path | str:
    """The folder, or the address, that an archive's paths start from.

    `data` may name the folder that holds `root`, or that folder itself.
    """
    if isinstance(archive.root, str):
        return archive.root
    root = config.data / archive.root
    if not root.exists() and config.data.name == archive.root.name:
        return config.data
    return root


def local_files(config: Config) -> list[Path]:
    """Every file on this machine that the config's `files` archives name, there or not."""
    found = set()
    for survey in config.surveys.values():
        if isinstance(survey.archive, FilesArchive):
            root = archive_root(config, survey.archive)
            for image in survey.archive.images:
                sources = (image.science, image.noise, image.mask, image.psf)
                paths = (source.path for source in sources if isinstance(source, PlaneSource))
                located = (locate(root, path) for path in paths if path is not None)
                found |= {path for path in located if isinstance(path, Path)}
    return sorted(found)


def locate(root: Path | str, path: Path | str) -> Path | str:
    """A path or an address, from the archive's root."""
    if isinstance(path, str) or isinstance(root, Path):
        return path if isinstance(path, str) else root / path
    # A key stands in an address as it is.
    below = path.as_posix() if is_s3(root) else quote(path.as_posix())
    return f"{root.rstrip('/')}/{below}"


def _tile(survey: str, image: Image, root: Path | str, key: str) -> Tile:
    science = _plane(image.science, image, root, f"{key}.science")
    noise = image.noise if isinstance(image.noise, PlaneSource) else None
    psf = image.psf
    return Tile(
        survey=survey,
        band=image.band,
        id=_tile_id(image),
        science=science,
        noise=_plane(noise, image, root, f"{key}.noise") if noise else None,
        mask=_plane(image.mask, image, root, f"{key}.mask") if image.mask else None,
        psf=_plane(psf, image, root, f"{key}.psf") if isinstance(psf, PsfStamp) else None,
        noise_kind=image.noise.kind,
        bad_bits=image.mask.bad_bits if image.mask else None,
        zeropoint=image.zeropoint,
        psf_fwhm_arcsec=psf.fwhm_arcsec if isinstance(psf, PsfShape) else None,
        psf_moffat_beta=psf.moffat_beta if isinstance(psf, PsfShape) else None,
        subtract_sky=image.subtract_sky,
        wcs="header" if image.wcs == "header" else image.wcs.model_dump(),
    )


def _tile_id(image: Image) -> str:
    """`path[hdu]`, with the plane of a cube where one is meant: the same on every machine."""
    source = image.science
    plane = "" if source.slice is None else f",{source.slice}"
    path = source.path if isinstance(source.path, str) else source.path.as_posix()
    return f"{path}[{source.hdu}{plane}]"


def _plane(source: PlaneSource, image: Image, root: Path | str, key: str) -> Plane:
    path = locate(root, source.path or image.science.path)
    if isinstance(path, str):
        return Plane(elsewhere(path, f"{key}.path"), source.hdu, source.slice)
    if not path.is_file():
        raise UserError(
            f"{key}.path: no such file: {path}; mend the path, or name the data folder with "
            "`--config data=DIR` or JAISP_DATA"
        )
    return Plane(path, source.hdu, source.slice, path.stat().st_size)
