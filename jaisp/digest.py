"""What one reading of a file tells: its checksum, and the sums that FITS has of its blocks."""

import hashlib
from io import BufferedIOBase, RawIOBase
from pathlib import Path

import numpy as np

BLOCK = 2880  # bytes, of which FITS is made
PIECE = 91 * BLOCK  # bytes read at a time: what a core's own cache holds
ONES = 0xFFFFFFFF


class Sums:
    """The sum of each FITS block of a stream as 32-bit words, the most significant byte first."""

    def __init__(self) -> None:
        self.length = 0  # bytes read so far
        self._sums: list[np.ndarray] = []

    def read(self, file: BufferedIOBase | RawIOBase, whole_blocks: bool = False) -> None:
        """Go on to the end of what can be read; where `whole_blocks`, to the last whole block of
        it. `file` stands at `length`."""
        with memoryview(bytearray(PIECE)) as piece:
            filled = 0
            while got := file.readinto(piece[filled:]):
                filled += got
                if filled == PIECE:
                    self.take(piece)
                    filled = 0
            self.take(piece[: filled - filled % BLOCK if whole_blocks else filled])

    def take(self, piece: memoryview) -> None:
        """Count the bytes that come next: whole blocks, but at the stream's end."""
        count = len(piece) // BLOCK
        words = np.frombuffer(piece, ">u4", count * (BLOCK // 4)).reshape(count, BLOCK // 4)
        self._sums.append(np.add.reduce(words, axis=1, dtype=np.uint64))
        self.length += len(piece)

    def of(self, start: int, end: int) -> int:
        """The sum of the bytes from `start` to `end`, modulo 2³² - 1; where blocks begin."""
        if len(self._sums) > 1:
            self._sums = [np.concatenate(self._sums) % np.uint64(ONES)]
        return int(self._sums[0][start // BLOCK : end // BLOCK].sum()) % ONES


class Digest(Sums):
    """These, and the SHA-256 of all of it."""

    def __init__(self) -> None:
        super().__init__()
        self._sha256 = hashlib.sha256()

    def take(self, piece: memoryview) -> None:
        """Count the bytes that come next: whole blocks, but at the stream's end."""
        super().take(piece)
        self._sha256.update(piece)

    @property
    def sha256(self) -> str:
        """As hexadecimal digits."""
        return self._sha256.hexdigest()


def digest_of(path: Path) -> Digest:
    """Read a file to its end."""
    digest = Digest()
    with path.open("rb", buffering=0) as file:
        digest.read(file)
    return digest
