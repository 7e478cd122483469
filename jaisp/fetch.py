"""Stage fetch: one tile → one verified file in a cache shared by all runs, one lock a file.

A file that already lies on this machine is verified where it lies and linked into the cache; one
that lies elsewhere is brought there (`jaisp.transfer`).
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from jaisp.archives import Plane, Tile
from jaisp.archives.table import plane_key, read_tiles, tile_planes, verified_planes
from jaisp.cache import cache_folder, cache_name
from jaisp.config import Config
from jaisp.config.survey import Credentials
from jaisp.errors import TileError, UserError
from jaisp.files import (
    clear_problems,
    locked,
    read_problems,
    record_problem,
    sha256,
    write_problems,
)
from jaisp.progress import Arrivals, arriving, track
from jaisp.sky import footprint, given_wcs
from jaisp.structure import opened, verify_structure
from jaisp.transfer import Wanted, download, is_address
from jaisp.transfer.credentials import authorization, source_of
from jaisp.transfer.download import in_cache
from jaisp.transfer.http import Unwelcome
from jaisp.transfer.sizes import size_of

log = logging.getLogger(__name__)

# A fixed number of jobs, whatever the number of tiles, so that no checkpoint is needed.
BATCHES = 4
Key = tuple[str, str]  # of a file elsewhere: survey and address
Bring = Callable[[], dict[str, Any]]


def batch_of(tile: Tile) -> int:
    """The batch that fetches a tile, by a hash of what names it."""
    name = f"{tile.survey}/{tile.band}/{tile.id}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % BATCHES


def fetch(config: Config, batch: int, *, strict: bool = False) -> dict:
    """Bring every file of a batch's tiles into the cache, and verify every plane.

    Returns what was verified and what was set aside, for the batch's receipt. A bad tile goes to
    the problems; `strict` raises UserError instead.
    """
    tiles = [tile for tile in read_tiles(config) if batch_of(tile) == batch]
    stage = f"fetch{batch}"
    clear_problems(config, stage)
    planes: dict[str, dict] = {}
    failed: list[str] = []
    wanted, headers = _wanted(config, tiles)
    start = time.monotonic()
    with arriving(f"fetch {batch}") if wanted else nullcontext() as arrivals:
        brought = _bring(config, wanted, headers, arrivals) if arrivals else {}
        # Of two bars, that of the bytes is the one to watch.
        for tile in tiles if wanted else track(tiles, f"fetch {batch}"):
            try:
                planes |= _fetch_tile(config, tile, brought)
            except TileError as error:
                if strict:
                    raise UserError(f"{tile.survey} {tile.band} {tile.id}: {error}") from None
                log.warning("%s %s %s set aside: %s", tile.survey, tile.band, tile.id, error)
                record_problem(config, stage, tile.survey, tile.band, tile.id, str(error))
                failed.append(f"{tile.survey}/{tile.band}/{tile.id}")
    if brought:
        _log_brought(batch, brought, time.monotonic() - start)
    return {"planes": planes, "failed": failed}


def gather_fetched(config: Config) -> dict:
    """After every batch: write problems.ecsv, and stop where a survey's band has no tile left."""
    verified = verified_planes(config)
    n_problems = write_problems(config)
    tiles = read_tiles(config, fetched=True)
    for survey, content in config.surveys.items():
        for band in content.bands:
            if not any(t.survey == survey and t.band == band for t in tiles):
                reasons = [
                    f"{p['tile']}: {p['reason']}"
                    for p in read_problems(config)
                    if (p["survey"], p["band"]) == (survey, band)
                ]
                raise UserError(
                    f"surveys.{survey}: no good tile of band {band} ({'; '.join(reasons)}); mend "
                    f"it or drop the band; see {config.results / 'problems.ecsv'}"
                )
    log.info("%d tiles verified, %d set aside", len(tiles), n_problems)
    return {"planes": len(verified), "tiles": len(tiles), "problems": n_problems}


def foreseen(config: Config) -> list[dict[str, Any]]:
    """What fetching would bring: a row a file, of survey, band, tile, file, bytes (None where
    nobody says), whether these are an `estimate`, and whether it is `here` already.

    Servers are asked for lengths of files of which archives tell none, not even about.
    """
    tiles = read_tiles(config)
    wanted, headers = _wanted(config, tiles)
    here = {key: entry for key, file in wanted.items() if (entry := in_cache(file)) is not None}
    files: dict[tuple[str, str], tuple[Tile, Plane]] = {}
    for tile in tiles:
        for plane in tile_planes(tile).values():
            files.setdefault((tile.survey, str(plane.path)), (tile, plane))
    lacking = [
        key
        for key, (_, plane) in files.items()
        if key in wanted and key not in here and not plane.bytes and not plane.estimate
    ]

    def ask_for(key: Key) -> int | None:
        return size_of(wanted[key].address, config.fetch, headers[wanted[key].survey])

    with ThreadPoolExecutor(config.fetch.concurrent) as pool:
        sizes = dict(zip(lacking, pool.map(ask_for, lacking), strict=True))
    sizes |= {key: entry["bytes"] for key, entry in here.items()}
    rows = []
    for key, (tile, plane) in files.items():
        exact = plane.bytes or sizes.get(key)
        rows.append(
            {
                "survey": tile.survey,
                "band": tile.band,
                "tile": tile.id,
                "file": str(plane.path),
                "bytes": exact or plane.estimate or None,
                "estimate": not exact and plane.estimate > 0,
                "here": key not in wanted or key in here,
            }
        )
    return rows


def _bring(
    config: Config,
    wanted: Mapping[Key, Wanted],
    headers: Mapping[str, Mapping[str, str]],
    arrivals: Arrivals,
) -> dict[Key, Bring]:
    """Start to bring what lies elsewhere, several files at a time; by survey and address, what
    waits for each file's entry, or raises TileError."""
    pool = ThreadPoolExecutor(config.fetch.concurrent, "fetch")
    for key, file in wanted.items():
        arrivals.expect(key, file.bytes)
    try:
        return {
            key: pool.submit(_bring_one, config, file, headers[file.survey], arrivals).result
            for key, file in wanted.items()
        }
    finally:
        pool.shutdown(wait=False)


def _bring_one(
    config: Config, file: Wanted, headers: Mapping[str, str], arrivals: Arrivals
) -> dict[str, Any]:
    key = file.survey, file.address
    verify = partial(verify_structure, most_bytes=config.fetch.most_bytes)
    try:
        entry = download(file, config.fetch, verify, headers, partial(arrivals.tell, key))
    except Unwelcome as error:
        arrivals.drop(key)
        archive = config.surveys[file.survey].archive
        assert isinstance(archive, Credentials)
        source = source_of(archive, f"surveys.{file.survey}.archive")
        raise TileError(f"{error}: {source}; renew it and run again") from None
    except TileError:
        arrivals.drop(key)
        raise
    if not entry["fetched"]:
        arrivals.drop(key)
    return entry


def _log_brought(batch: int, brought: Mapping[Key, Bring], seconds: float) -> None:
    """One line of what came, how fast, and what was here already."""
    entries = []
    for bring in brought.values():
        with suppress(TileError):
            entries.append(bring())
    came = [entry["bytes"] for entry in entries if entry["fetched"]]
    here = [entry["bytes"] for entry in entries if not entry["fetched"]]
    log.info(
        "fetch %d: %d files, %d bytes in %.1f s, %.1f MB/s; %d files, %d bytes were in the cache",
        batch,
        len(came),
        sum(came),
        seconds,
        sum(came) / 1e6 / max(seconds, 1e-3),
        len(here),
        sum(here),
    )


def _wanted(
    config: Config, tiles: list[Tile]
) -> tuple[dict[Key, Wanted], dict[str, Mapping[str, str]]]:
    """By survey and address, the files that lie elsewhere; and by survey, credentials for them."""
    wanted = {
        (tile.survey, plane.path): Wanted(tile.survey, plane.path, plane.bytes, plane.sha256)
        for tile in tiles
        for plane in tile_planes(tile).values()
        if isinstance(plane.path, str) and is_address(plane.path)
    }
    surveys = {file.survey for file in wanted.values()}
    return wanted, {survey: _headers(config, survey) for survey in surveys}


def _headers(config: Config, survey: str) -> Mapping[str, str]:
    archive = config.surveys[survey].archive
    if not isinstance(archive, Credentials):
        return {}
    return authorization(archive, f"surveys.{survey}.archive")


def _fetch_tile(config: Config, tile: Tile, brought: Mapping[Key, Bring]) -> dict[str, dict]:
    """Verify a tile's files and planes; returns what the receipt says of each plane."""
    links = {
        path: brought[tile.survey, str(path)]()
        if (tile.survey, str(path)) in brought
        else _link(config, tile, path)
        for path in {plane.path for plane in tile_planes(tile).values()}
    }
    entries: dict[str, dict] = {}
    here: dict[str, Any] = {}
    for name, plane in tile_planes(tile).items():
        entry = {key: links[plane.path][key] for key in ("file", "bytes", "sha256")}
        if plane.sha256 and plane.sha256 != entry["sha256"]:
            raise TileError(f"{name}: {Path(plane.path).name} differs from its checksum")
        entries[plane_key(tile, name)] = entry
        here[name] = replace(plane, path=cache_folder() / entry["file"])
    circle = _verify_planes(replace(tile, **here))
    if circle is not None:
        entries[plane_key(tile, "science")] |= {"footprint": circle}
    return entries


def _link(config: Config, tile: Tile, source: Path | str) -> dict:
    """Verify a local file and link it into the cache."""
    source = Path(source).absolute()
    if not source.is_file():
        raise TileError(f"no such file: {source}")
    verify_structure(source, config.fetch.most_bytes)
    digest = sha256(source)
    name = cache_name(tile.survey, digest, source.name)
    final = cache_folder() / name
    with locked(final.with_name(f".{final.name}.lock")):
        if not (final.is_symlink() and Path(os.readlink(final)) == source):
            temporary = final.with_name(f".{os.getpid()}.partial.{final.name}")
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(source)
            os.replace(temporary, final)
    return {"file": name, "bytes": source.stat().st_size, "sha256": digest}


def _verify_planes(tile: Tile) -> list[float] | None:
    """Each plane is an image of the science plane's shape, and the science plane has a WCS.

    Returns the image's footprint, where its WCS tells one.
    """
    shapes = {}
    circle = None
    for name, plane in tile_planes(tile).items():
        with opened(Path(plane.path)) as hdus:
            header = _image_header(hdus, plane, name)
            shapes[name] = (header["NAXIS1"], header["NAXIS2"])
            if name == "science":
                circle = _footprint(_wcs(tile, header, hdus), shapes[name][::-1])
    for name in ("noise", "mask"):
        if name in shapes and shapes[name] != shapes["science"]:
            raise TileError(f"{name} is {shapes[name]} pixels, the image {shapes['science']}")
    return circle


def _wcs(tile: Tile, header: fits.Header, hdus: fits.HDUList) -> WCS:
    if isinstance(tile.wcs, dict):
        return given_wcs((header["NAXIS2"], header["NAXIS1"]), **tile.wcs)
    wcs = WCS(header, hdus)
    if not wcs.has_celestial:
        raise TileError(
            f"{Path(tile.science.path).name}[{tile.science.hdu}] has no celestial WCS; give the "
            "image's `wcs: {ra, dec, pixel_arcsec, rotation_deg}`"
        )
    return wcs.celestial if wcs.naxis > 2 else wcs


def _footprint(wcs: WCS, shape: tuple[int, int]) -> list[float] | None:
    """A circle that holds the image, rounded outwards; None where its WCS tells none."""
    ra, dec, reach = footprint(wcs, shape)
    if not np.isfinite([ra, dec, reach]).all():
        return None
    return [round(ra, 5), round(dec, 5), float(np.ceil(reach)) + 1.0]


def _image_header(hdus: fits.HDUList, plane: Plane, name: str) -> fits.Header:
    file = Path(plane.path).name
    images = [
        str(hdu.name or i) for i, hdu in enumerate(hdus) if hdu.is_image and hdu.header["NAXIS"] > 1
    ]
    try:
        hdu = hdus[plane.hdu]
    except (KeyError, IndexError):
        offer = ", ".join(images) or "none"
        raise TileError(f"{name}: {file} has no HDU {plane.hdu!r} (images: {offer})") from None
    if not hdu.is_image or hdu.header["NAXIS"] < 2:
        offer = ", ".join(images) or "none"
        raise TileError(f"{name}: HDU {plane.hdu!r} of {file} holds no image (images: {offer})")
    depth = int(np.prod(hdu.shape[:-2]))
    if depth > 1 and plane.slice is None:
        raise TileError(f"{name}: {file}[{plane.hdu}] is a cube of {depth}; choose a `slice`")
    if (plane.slice or 0) >= depth:
        raise TileError(f"{name}: {file}[{plane.hdu}] has {depth} planes, none is {plane.slice}")
    return hdu.header
