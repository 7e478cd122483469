"""Headers of plain FITS images, read at once: astropy takes a millisecond for a short one.

Only what needs no second look is read here: images whose every card has the form that the standard
asks for, and whose bytes are all there. Of another file nothing is said: it may be as good, and
astropy decides, which also says what is wrong with it.
"""

import re
from collections.abc import Mapping
from io import BufferedIOBase
from math import prod
from typing import Any, NamedTuple

from jaisp.digest import BLOCK

CARD = 80  # bytes
MOST_BLOCKS = 1000  # of a header
VALUE = re.compile(
    rb"(?=[A-Z0-9_ -]{8}= )([A-Z0-9_-]+) *= +"
    rb"('(?:[ -&(-~]|'')*'|[TF]|[+-]?(?:\d+\.?\d*|\.\d+)(?:[ED][+-]?\d+)?|) *(?:/[ -~]*)?"
)
COMMENT = re.compile(rb"(?:COMMENT|HISTORY|       ) (?!=)[ -~]{72}")
END = b"END".ljust(CARD)
INTEGER = re.compile(r"[+-]?\d{1,18}")
IMAGE = re.compile(r"'IMAGE *'")
BITS = (8, 16, 32, 64, -32, -64)
# What astropy knows more of: groups, blanks, packed pixels, long strings and names.
NOT_PLAIN = {"GROUPS", "BLANK", "ZIMAGE", "CONTINUE", "HIERARCH", "COMMENT", "HISTORY"}


class HDU(NamedTuple):
    """A header, and the bytes where it and its data begin, and its last block ends.

    Of a plain image it has the values as they are written, strings in their quotes, in the order of
    their cards.
    """

    header: Mapping[str, Any]
    start: int
    data: int
    end: int


def plain_hdus(file: BufferedIOBase, length: int) -> list[HDU] | None:
    """The HDUs of a file of so many bytes, where all are plain images and nothing follows them;
    None of any other."""
    found: list[HDU] = []
    end = 0
    while end < length:
        file.seek(end)
        header, size = _header(file), None
        if header is not None:
            size = _image_bytes(header) if found else _primary_bytes(header)
        if header is None or size is None:
            return None
        found.append(HDU(header, end, file.tell(), file.tell() + size))
        end = found[-1].end
    has_extensions = len(found) > 1
    if end != length or not found or (has_extensions and "EXTEND" not in found[0].header):
        return None
    return found


def _header(file: BufferedIOBase) -> dict[str, str] | None:
    """The values of the header that begins here; `file` then stands at its data."""
    header: dict[str, str] = {}
    for _ in range(MOST_BLOCKS):
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            return None
        for at in range(0, len(block), CARD):
            card = block[at : at + CARD]
            if card == END:
                return None if block[at + CARD :].strip(b" ") else header
            if (value := VALUE.fullmatch(card)) is not None:
                name = value[1].decode()
                # Of a keyword that is there twice either may count.
                if name in header or name in NOT_PLAIN:
                    return None
                header[name] = value[2].decode()
            elif COMMENT.fullmatch(card) is not None:
                header.setdefault("", "")  # where the first one stands
            else:
                return None
    return None


def _primary_bytes(header: dict[str, str]) -> int | None:
    """Bytes of the data of the first HDU, filled up to whole blocks."""
    extend = ["EXTEND"] if "EXTEND" in header else []
    is_plain = (
        header.get("SIMPLE") == "T"
        and header.get("EXTEND", "T") == "T"
        and not header.keys() & {"XTENSION", "PCOUNT", "GCOUNT"}
    )
    return _data_bytes(header, "SIMPLE", extend) if is_plain else None


def _image_bytes(header: dict[str, str]) -> int | None:
    """Bytes of the data of another image, filled up to whole blocks."""
    is_plain = (
        IMAGE.fullmatch(header.get("XTENSION", "")) is not None
        and _integers(header, ["PCOUNT", "GCOUNT"]) == [0, 1]
        and not header.keys() & {"SIMPLE", "EXTEND"}
    )
    return _data_bytes(header, "XTENSION", ["PCOUNT", "GCOUNT"]) if is_plain else None


def _data_bytes(header: dict[str, str], first: str, last: list[str]) -> int | None:
    """Bytes of the data, by the cards that must be there, in their order."""
    found = _integers(header, ["BITPIX", "NAXIS"])
    if found is None or found[0] not in BITS or not 0 <= found[1] <= 999:
        return None
    bits, count = found
    names = [f"NAXIS{number + 1}" for number in range(count)]
    order = [first, "BITPIX", "NAXIS", *names, *last]
    sides = _integers(header, names)
    is_plain = (
        list(header)[: len(order)] == order
        and sides is not None
        and min(sides, default=0) >= 0
        and sum(name.startswith("NAXIS") for name in header) == count + 1
        and header.get("EXTNAME", "'").startswith("'")
    )
    if not is_plain or sides is None:
        return None
    size = abs(bits) // 8 * prod(sides) if sides else 0
    return -(-size // BLOCK) * BLOCK


def _integers(header: dict[str, str], names: list[str]) -> list[int] | None:
    """Their values, where all are whole numbers."""
    texts = [header.get(name, "") for name in names]
    return [int(text) for text in texts] if all(map(INTEGER.fullmatch, texts)) else None
