"""Fetching from a server on this machine, against curl.

    python benchmarks/fetch.py [--large-mb 1000] [--small 500] [--rounds 3]
        [--out docs/benchmarks/fetch.json]

nginx serves one large FITS file, and many of 2 MB. `curl` and `curl --parallel` only write them;
we receive them to the cache, in as many processes as `jaisp fetch` has, take their checksums,
verify them as FITS with their own checksums, sync and rename them; and likewise in one process.
What nobody could leave out is timed too: the least Python around libcurl, in one process, that
receives, writes, takes SHA-256 and FITS sums in one reading, syncs and renames, with no locks,
notes, tries, limits or headers. In turns, and the best of each counts. As many connections for all.
The processors' seconds tell what each costs however busy the machine is.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pycurl
from astropy.io import fits
from machine import machine

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from jaisp.config.fetch import FetchConfig
from jaisp.digest import Digest
from jaisp.fetch import BATCHES
from jaisp.structure import verify_structure
from jaisp.together import side_by_side
from jaisp.transfer import Wanted, download
from jaisp.transfer.body import HELD
from jaisp.transfer.http import BUFFER
from tests.services.nginx import nginx

SMALL_MB = 2
CONCURRENT = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large-mb", type=int, default=1000)
    parser.add_argument("--small", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = folder / "root"
        root.mkdir()
        write_tile(root / "large.fits", options.large_mb)
        write_tile(root / "0.fits", SMALL_MB)
        for number in range(1, options.small):
            shutil.copy(root / "0.fits", root / f"{number}.fits")
        load = round(os.getloadavg()[0], 1)  # who else has the processors
        with nginx(root, folder / "nginx") as address:
            found = {
                "machine": machine(),
                "load before": load,
                "one large file": compare(address, ["large.fits"], folder, options.rounds),
                f"{options.small} files of {SMALL_MB} MB": compare(
                    address, [f"{n}.fits" for n in range(options.small)], folder, options.rounds
                ),
            }
    text = json.dumps(found, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def write_tile(path: Path, megabytes: int) -> None:
    rows = max(1, megabytes * 250_000 // 1000)
    pixels = np.random.default_rng(1).normal(size=(rows, 1000)).astype(np.float32)
    fits.PrimaryHDU(pixels).writeto(path, checksum=True)


def compare(address: str, names: list[str], folder: Path, rounds: int) -> dict[str, float]:
    """MB a second of everyone, and ours over curl's."""
    megabytes = sum((folder / "root" / name).stat().st_size for name in names) / 1e6
    addresses = [f"{address}/{name}" for name in names]
    ways: dict[str, Callable[[Path], None]] = {
        "curl": lambda new: with_curl(addresses, new),
        "ours": lambda new: ours(addresses, new, BATCHES),
        "ours, one process": lambda new: ours(addresses, new, 1),
        "the least": lambda new: least(addresses, new),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    busy: dict[str, list[float]] = {name: [] for name in ways}
    used = folder / "used"
    for number in range(rounds):
        for name, way in ways.items():
            new = used / f"{number} {name}"
            new.mkdir(parents=True)
            os.sync()
            start, before = time.perf_counter(), processor_seconds()
            way(new)
            seconds[name].append(time.perf_counter() - start)
            busy[name].append(processor_seconds() - before)
            # Emptied, not removed: ext4 gives no inode away within seconds of its removal, and
            # whoever makes files then looks through all that were.
            for path in new.rglob("*"):
                if path.is_file():
                    os.truncate(path, 0)
    shutil.rmtree(used)
    rates = {f"{name}, MB/s": megabytes / min(own) for name, own in seconds.items()}
    over = {
        f"{name}, over curl": min(seconds["curl"]) / min(own)
        for name, own in seconds.items()
        if name != "curl"
    }
    costs = {f"{name}, CPU s/GB": 1000 * min(own) / megabytes for name, own in busy.items()}
    return {name: round(value, 3) for name, value in (rates | over | costs).items()}


def processor_seconds() -> float:
    """Of this process, and of those that it ran to their end: curl, not nginx."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def with_curl(addresses: list[str], folder: Path) -> None:
    command = ["curl", "-sS", "--no-progress-meter"]
    command += ["--parallel", "--parallel-max", str(CONCURRENT)]
    for number, address in enumerate(addresses):
        command += ["-o", str(folder / str(number)), address]
    subprocess.run(command, check=True)


def ours(addresses: list[str], folder: Path, processes: int) -> None:
    os.environ["JAISP_CACHE"] = str(folder)
    settings = FetchConfig(per_host=CONCURRENT)

    def batch(number: int) -> None:
        with ThreadPoolExecutor(CONCURRENT // processes) as pool:
            own = [Wanted("rubin", address) for address in addresses[number::processes]]
            list(pool.map(lambda wanted: download(wanted, settings, verify_structure), own))

    # As `jaisp fetch` does it; to start its processes is part of it.
    side_by_side([partial(batch, n) for n in range(processes)], nullcontext(lambda: None))


def least(addresses: list[str], folder: Path) -> None:
    handles = threading.local()

    def get(numbered: tuple[int, str]) -> None:
        number, address = numbered
        if not hasattr(handles, "curl"):
            handles.curl = pycurl.Curl()
            handles.curl.setopt(pycurl.BUFFERSIZE, BUFFER)
            handles.curl.setopt(pycurl.NOSIGNAL, 1)
            handles.piece = memoryview(bytearray(HELD))
        digest, filled = Digest(), 0
        path = folder / str(number)
        file = os.open(path, os.O_WRONLY | os.O_CREAT)

        def write(end: int) -> None:
            os.write(file, handles.piece[:end])
            digest.take(handles.piece[:end])

        def take(chunk: bytes) -> None:
            nonlocal filled
            room = min(len(chunk), HELD - filled)
            handles.piece[filled : filled + room] = chunk[:room]
            filled += room
            if filled == HELD:
                write(HELD)
                filled = len(chunk) - room
                handles.piece[:filled] = chunk[room:]

        handles.curl.setopt(pycurl.URL, address)
        handles.curl.setopt(pycurl.WRITEFUNCTION, take)
        handles.curl.perform()
        write(filled)
        os.fsync(file)
        os.close(file)
        os.replace(path, path.with_name(digest.sha256[:32] + path.name))

    with ThreadPoolExecutor(CONCURRENT) as pool:
        list(pool.map(get, enumerate(addresses)))


if __name__ == "__main__":
    main()
