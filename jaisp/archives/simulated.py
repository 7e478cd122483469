"""Archive kind `simulated`: the tiles that `jaisp simulate` wrote, by the listing beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaisp.archives.tile import Plane, Tile
from jaisp.config import Config
from jaisp.errors import UserError


def archive_folder(config: Config) -> Path:
    """Where a run's simulated archive stands."""
    return config.results / "simulated"


def find_tiles(config: Config, survey: str) -> list[Tile]:
    """The tiles of a survey's bands.

    Raises UserError when the archive was not made yet, or lacks a band.
    """
    from astropy.table import Table  # slow to import, and every dry run reads this module

    folder = archive_folder(config)
    listing = folder / "listing.ecsv"
    if not listing.is_file():
        raise UserError(f"{listing}: no such file; make the archive with `jaisp simulate` first")
    table = Table.read(listing)
    rows = [dict(zip(table.colnames, row, strict=True)) for row in table.iterrows()]
    rows = [row for row in rows if row["survey"] == survey]
    offered = {str(row["band"]) for row in rows}
    for band in config.surveys[survey].bands:
        if band not in offered:
            raise UserError(f"surveys.{survey}.bands: the simulated archive has no band {band!r}")
    archive = config.surveys[survey].archive
    assert archive.kind == "simulated"
    return [
        _tile(row, folder, archive.subtract_sky)
        for row in rows
        if row["band"] in config.surveys[survey].bands
    ]


def _tile(row: Mapping[str, Any], folder: Path, subtract_sky: bool) -> Tile:
    def plane(name: str) -> Plane:
        return Plane(
            folder / str(row[f"{name}_path"]),
            _hdu(row[f"{name}_hdu"]),
            None,
            int(row[f"{name}_bytes"]),
            str(row[f"{name}_sha256"]),
        )

    return Tile(
        survey=str(row["survey"]),
        band=str(row["band"]),
        id=str(row["tile"]),
        science=plane("science"),
        noise=plane("noise"),
        mask=plane("mask"),
        psf=None,
        noise_kind=str(row["noise_kind"]),
        # Bad pixels, cosmic rays and edges; saturated ones (2) stay, told by header key SATURATE.
        bad_bits=1 | 4 | 8,
        zeropoint=str(row["zeropoint"]),
        psf_fwhm_arcsec=None,
        psf_moffat_beta=None,
        subtract_sky=subtract_sky,
        wcs="header",
    )


def _hdu(value: object) -> int | str:
    text = str(value)
    return int(text) if text.isdigit() else text
