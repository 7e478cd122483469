"""Zero points as a config names them: a number, a header key, or a sum of these and logarithms.

What archives' documentation gives as formulas of header keys is written as there:
`25 + 2.5 log10(EXPTIME)` for the stacks of Pan-STARRS.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NUMBER = r"\d+(?:\.\d*)?|\.\d+"
KEY = r"\w[\w-]*(?: \w[\w-]*)*"
TERM = re.compile(
    rf"(?P<number>{NUMBER})|(?P<key>{KEY})|(?:(?P<factor>{NUMBER})\s*\*?\s*)?log10\((?P<of>{KEY})\)"
)
FORM = "a number, a header key, or terms such as 25 + 2.5 log10(EXPTIME), spaces around + and -"


@dataclass(frozen=True)
class Term:
    """A factor times a header key's value, its logarithm, or one. key: None for one."""

    factor: float
    key: str | None = None
    is_logarithm: bool = False

    def value(self, header: Mapping[str, Any]) -> float:
        """Raises KeyError where the header lacks the key, ValueError where it says no number that
        will do."""
        if self.key is None:
            return self.factor
        if self.key not in header:
            raise KeyError(self.key)
        told = header[self.key]
        try:
            number = float(told)
            return self.factor * (math.log10(number) if self.is_logarithm else number)
        except (TypeError, ValueError):
            raise ValueError(f"{self.key} is {told!r}") from None


def terms(text: str) -> list[Term]:
    """The terms of a zero point, which is their sum. Raises ValueError for what is none."""
    found, sign = [], 1.0
    text = text.strip()
    if text[:1] in ("+", "-"):
        sign, text = float(f"{text[0]}1"), text[1:].lstrip()
    for number, piece in enumerate(re.split(r"\s+([+-])\s+", text)):
        if number % 2:
            sign = float(f"{piece}1")
            continue
        match = TERM.fullmatch(piece)
        if match is None:
            raise ValueError(f"no zero point: {piece!r:.40} is not {FORM}")
        if match["number"] is not None:
            found.append(Term(sign * float(match["number"])))
        elif match["key"] is not None:
            found.append(Term(sign, match["key"]))
        else:
            found.append(Term(sign * float(match["factor"] or 1), match["of"], True))
    return found


def zeropoint(text: str, header: Mapping[str, Any]) -> float:
    """The AB magnitude of one unit that a header tells.

    Raises KeyError where it lacks a key, ValueError where what it says makes no number.
    """
    total = sum(term.value(header) for term in terms(text))
    if not math.isfinite(total):
        raise ValueError(f"{total}")
    return total
