"""Whether a tile's file still holds the bytes that fetch verified.

Fetching may be long ago, and few images carry checksums of their own: a byte that has flipped in
the cache would be warped as if it had been observed.
"""

from functools import lru_cache
from pathlib import Path

from jaisp.archives.tile import Plane
from jaisp.errors import UserError
from jaisp.files import sha256

AGAIN = "fetch it again (`snakemake -R fetch_batch`)"
# What the cache links to lies where the user, or the stage simulate, has put it.
LINKED = "bring it back (`snakemake -f simulate` if it is simulated), or fetch what is there "
LINKED += "(`snakemake -R fetch_batch`)"


def verify_bytes(plane: Plane) -> None:
    """Compare a file with its plane's checksum, if that is known; it is read once a process.

    Raises UserError, in one line that names the file and says what to do.
    """
    if not plane.sha256:
        return
    path = Path(plane.path)
    shown, redo = (path.resolve(), LINKED) if path.is_symlink() else (path, AGAIN)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise UserError(f"{shown}: gone since it was fetched; {redo}") from None
    if _digest(path, status.st_size, status.st_mtime_ns) != plane.sha256:
        raise UserError(f"{shown}: not the bytes that were fetched and verified; {redo}")


@lru_cache(maxsize=2**16)
def _digest(path: Path, size: int, changed: int) -> str:
    return sha256(path)
