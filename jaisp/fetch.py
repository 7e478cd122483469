"""Stage fetch: one tile → one verified file in a cache shared by all runs, one lock a file.

A file that already lies on this machine is verified where it lies and linked into the cache; one
that lies elsewhere is brought there (`jaisp.transfer`).
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from astropy.io import fits

from jaisp.archives import Plane, Tile
from jaisp.archives.cutout import rows_needed
from jaisp.archives.table import plane_key, read_tiles, tile_planes, verified_planes
from jaisp.cache import cache_folder, cache_name
from jaisp.config import Config
from jaisp.config.survey import Credentials, Sia2Archive
from jaisp.digest import digest_of
from jaisp.errors import TileError, UserError
from jaisp.files import (
    clear_problems,
    locked,
    read_problems,
    record_problem,
    write_problems,
)
from jaisp.planes import tile_wcs, verify_planes
from jaisp.progress import Arrivals, Draw, arriving, drawn_bytes, track
from jaisp.sky import cells
from jaisp.structure import verify_structure
from jaisp.together import side_by_side
from jaisp.transfer import Wanted, download, is_address
from jaisp.transfer.credentials import authorization, source_of
from jaisp.transfer.download import in_cache
from jaisp.transfer.http import Unwelcome
from jaisp.transfer.rows import Band, download_rows
from jaisp.transfer.sizes import size_of

log = logging.getLogger(__name__)

# A fixed number of jobs, whatever the number of tiles, so that no checkpoint is needed.
BATCHES = 4
# What a receipt says of a plane's file. hdu: where it isn't the archive's; saved: bytes of rows
# that weren't needed.
RECEIPT = ("file", "bytes", "sha256", "hdu", "saved")
Key = tuple[str, str]  # of a file elsewhere: survey, and address or that and an HDU
Bring = Callable[[], dict[str, Any]]


def batch_of(tile: Tile) -> int:
    """The batch that fetches a tile, by a hash of what names it."""
    name = f"{tile.survey}/{tile.band}/{tile.id}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % BATCHES


def fetch(
    config: Config, batch: int, *, strict: bool = False, draw: Draw | None = None
) -> dict[str, Any]:
    """Bring every file of a batch's tiles into the cache, and verify every plane.

    Returns what was verified and what was set aside, for the batch's receipt. A bad tile goes to
    the problems; `strict` raises UserError instead. draw: who is told of bytes that have come, in
    place of a terminal.
    """
    tiles = [tile for tile in read_tiles(config) if batch_of(tile) == batch]
    stage = f"fetch{batch}"
    clear_problems(config, stage)
    planes: dict[str, dict] = {}
    failed: list[str] = []
    wanted, headers = _wanted(config, tiles)
    bands = _bands(config, tiles)
    start = time.monotonic()
    watched = arriving(f"fetch {batch}") if wanted and not draw else nullcontext(Arrivals(draw))
    with watched as arrivals:
        brought = _bring(config, wanted, bands, headers, arrivals)
        # Of two bars, that of the bytes is the one to watch.
        for tile in tiles if wanted or draw else track(tiles, f"fetch {batch}"):
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
        _log_saved(batch, tiles, planes)
    return {"planes": planes, "failed": failed}


def fetch_all(config: Config, done: Callable[[int, dict], Any], *, strict: bool = False) -> None:
    """All batches, in processes side by side, which share what `fetch.concurrent` gets at a time.

    done: given a batch's number and what `fetch` returns of it, in that batch's own process.
    """
    processes = min(BATCHES, config.fetch.concurrent)
    # Each batch writes its own two: bytes that have come, and those known to.
    counts = RawArray("q", 2 * BATCHES)

    def job(number: int) -> None:
        share = len(range(number, config.fetch.concurrent, processes))
        settings = config.fetch.model_copy(update={"concurrent": share})
        own = config.model_copy(update={"fetch": settings})
        for batch in range(number, BATCHES, processes):
            done(batch, fetch(own, batch, strict=strict, draw=partial(tell, batch)))

    def tell(batch: int, here: int, known: int) -> None:
        counts[2 * batch : 2 * batch + 2] = [here, known]

    @contextmanager
    def watching() -> Iterator[Callable[[], None]]:
        with drawn_bytes("fetch") as draw:
            yield lambda: draw(sum(counts[::2]), sum(counts[1::2])) if draw else None

    side_by_side([partial(job, number) for number in range(processes)], watching())


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
    bands = _bands(config, tiles)
    here = {
        key: entry
        for key, file in wanted.items()
        if (entry := in_cache(file))
        or (key in bands and (entry := in_cache(file, bands[key].part)))
    }
    files: dict[Key, tuple[Tile, Plane]] = {}
    for tile in tiles:
        for plane in tile_planes(tile).values():
            files.setdefault(_key(config, tile, plane), (tile, plane))
    lacking = [
        key
        for key, (_, plane) in files.items()
        if key in wanted
        and key not in here
        and not (plane.bytes or plane.estimate or wanted[key].linked)
    ]

    def ask_for(key: Key) -> int | None:
        file = wanted[key]
        return size_of(file.address, config.fetch, headers[file.survey], file.from_service)

    with ThreadPoolExecutor(config.fetch.concurrent) as pool:
        sizes = dict(zip(lacking, pool.map(ask_for, lacking), strict=True))
    sizes |= {key: entry["bytes"] for key, entry in here.items()}
    rows = []
    for key, (tile, plane) in files.items():
        exact = plane.bytes or sizes.get(key)
        # Of rows it is the most that may come.
        is_about = key in bands or (not exact and plane.estimate > 0)
        rows.append(
            {
                "survey": tile.survey,
                "band": tile.band,
                "tile": tile.id,
                "file": str(plane.path),
                "bytes": exact or plane.estimate or None,
                "estimate": is_about and key not in here,
                "here": key not in wanted or key in here,
            }
        )
    return rows


def _bring(
    config: Config,
    wanted: Mapping[Key, Wanted],
    bands: Mapping[Key, Band],
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
            key: pool.submit(
                _bring_one, config, key, file, bands.get(key), headers[file.survey], arrivals
            ).result
            for key, file in wanted.items()
        }
    finally:
        pool.shutdown(wait=False)


def _bring_one(
    config: Config,
    key: Key,
    file: Wanted,
    band: Band | None,
    headers: Mapping[str, str],
    arrivals: Arrivals,
) -> dict[str, Any]:
    verify = partial(verify_structure, most_bytes=config.fetch.most_bytes)
    watch = partial(arrivals.tell, key)
    try:
        if band is None:
            entry = download(file, config.fetch, verify, headers, watch)
        else:
            entry = download_rows(file, band, config.fetch, verify, headers, watch)
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


def _log_saved(batch: int, tiles: list[Tile], planes: Mapping[str, dict]) -> None:
    """One line of the bytes of squares and rows, and of those that needn't come."""
    came = saved = 0
    for tile in tiles:
        for name, plane in tile_planes(tile).items():
            entry = planes.get(plane_key(tile, name), {})
            if plane.whole and entry:
                came, saved = came + entry["bytes"], saved + max(plane.whole - entry["bytes"], 0)
            elif "saved" in entry:
                came, saved = came + entry["bytes"], saved + entry["saved"]
    if saved:
        log.info("fetch %d: parts of images, %d bytes instead of %d", batch, came, came + saved)


def _wanted(
    config: Config, tiles: list[Tile]
) -> tuple[dict[Key, Wanted], dict[str, Mapping[str, str]]]:
    """The files that lie elsewhere; and by survey, credentials for them."""
    wanted = {
        _key(config, tile, plane): Wanted(
            tile.survey,
            plane.path,
            plane.bytes,
            plane.sha256,
            tile.linked,
            from_service=_from_service(config, tile.survey, plane.path),
        )
        for tile in tiles
        for plane in tile_planes(tile).values()
        if isinstance(plane.path, str) and is_address(plane.path)
    }
    surveys = {file.survey for file in wanted.values()}
    return wanted, {survey: _headers(config, survey) for survey in surveys}


def _from_service(config: Config, survey: str, address: str) -> bool:
    """Whether a service named an address that leads elsewhere than to itself."""
    archive = config.surveys[survey].archive
    if not isinstance(archive, Sia2Archive):
        return False
    return urlsplit(address).hostname != urlsplit(archive.url).hostname


def _key(config: Config, tile: Tile, plane: Plane) -> Key:
    """What names a file elsewhere: rows of each of its HDUs are a file of their own."""
    apart = f"[{plane.hdu}]" if _in_rows(config, tile) else ""
    return tile.survey, f"{plane.path}{apart}"


def _in_rows(config: Config, tile: Tile) -> bool:
    """Whether rows of a tile's images are enough; links are followed to whole ones."""
    return getattr(config.surveys[tile.survey].archive, "rows", False) and not tile.linked


def _bands(config: Config, tiles: list[Tile]) -> dict[Key, Band]:
    """Of files of which rows are enough, which ones."""
    chosen = [tile for tile in tiles if _in_rows(config, tile)]
    if not chosen:
        return {}
    sky = cells(config)
    name = hashlib.sha256(json.dumps([cell.identity() for cell in sky]).encode()).hexdigest()

    def rows(tile: Tile, header: fits.Header) -> tuple[int, int] | None:
        return rows_needed(tile_wcs(tile, header), (header["NAXIS2"], header["NAXIS1"]), sky)

    bands: dict[Key, Band] = {}
    for tile in chosen:
        planes = [plane for name, plane in tile_planes(tile).items() if name != "psf"]
        peers = tuple((str(plane.path), plane.hdu) for plane in planes)
        if all(is_address(address) for address, _ in peers):
            band = partial(Band, peers=peers, name=name, rows=partial(rows, tile))
            bands |= {_key(config, tile, plane): band(plane.hdu) for plane in planes}
    return bands


def _headers(config: Config, survey: str) -> Mapping[str, str]:
    archive = config.surveys[survey].archive
    if not isinstance(archive, Credentials):
        return {}
    return authorization(archive, f"surveys.{survey}.archive")


def _fetch_tile(config: Config, tile: Tile, brought: Mapping[Key, Bring]) -> dict[str, dict]:
    """Verify a tile's files and planes; returns what the receipt says of each plane."""
    found: dict[Key, dict] = {}
    for plane in tile_planes(tile).values():
        key = _key(config, tile, plane)
        if key not in found:
            found[key] = brought[key]() if key in brought else _link(config, tile, plane.path)
    entries: dict[str, dict] = {}
    here: dict[str, Any] = {}
    for name, plane in tile_planes(tile).items():
        known = found[_key(config, tile, plane)]
        entry = {key: known[key] for key in RECEIPT if key in known}
        if plane.sha256 and "hdu" not in entry and plane.sha256 != entry["sha256"]:
            raise TileError(f"{name}: {Path(plane.path).name} differs from its checksum")
        entries[plane_key(tile, name)] = entry
        hdu = entry.get("hdu", plane.hdu)
        here[name] = replace(plane, path=cache_folder() / entry["file"], hdu=hdu)
    circle = verify_planes(replace(tile, **here))
    if circle is not None:
        entries[plane_key(tile, "science")] |= {"footprint": circle}
    return entries


def _link(config: Config, tile: Tile, source: Path | str) -> dict:
    """Verify a local file and link it into the cache."""
    source = Path(source).absolute()
    if not source.is_file():
        raise TileError(f"no such file: {source}")
    read = digest_of(source)
    verify_structure(source, read, config.fetch.most_bytes)
    digest = read.sha256
    name = cache_name(tile.survey, digest, source.name)
    final = cache_folder() / name
    with locked(final.with_name(f".{final.name}.lock")):
        if not (final.is_symlink() and Path(os.readlink(final)) == source):
            temporary = final.with_name(f".{os.getpid()}.partial.{final.name}")
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(source)
            os.replace(temporary, final)
    return {"file": name, "bytes": source.stat().st_size, "sha256": digest}


def show_foreseen(rows: list[dict[str, Any]]) -> None:
    """Print them, one a line, and what is to be fetched in all."""
    for row in rows:
        size = "?" if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f}"
        size = f"about {size}" if row["estimate"] else size
        where = "here" if row["here"] else "to be fetched"
        print(f"{row['survey']} {row['band']} {row['tile']}: {size} MB, {where}: {row['file']}")
    lacking = [row for row in rows if not row["here"]]
    known = [row["bytes"] for row in lacking if row["bytes"] is not None]
    about = "about " if any(row["estimate"] for row in lacking) else ""
    more = f" and {len(lacking) - len(known)} of unknown size" if len(known) < len(lacking) else ""
    size = f"{about}{sum(known) / 1e6:.1f} MB"
    print(f"{len(rows)} files, {len(lacking)} to be fetched: {size}{more}")
