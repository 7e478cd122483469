"""What became of each source: kept beside the figures, so that two runs can be compared in pairs.

`results/RUN/outcomes.npz` holds arrays alone. An entry is one figure of one row of metrics.json;
of every source that it is made of, it has the source's name and one or two numbers.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import Float

from jaisp.errors import UserError
from jaisp.evaluate.statistic import COLUMNS, Statistic
from jaisp.files import atomic_write
from jaisp.store.reader import Store

NAME = "outcomes.npz"


@dataclass(frozen=True)
class Entry:
    """One figure, source by source.

    identity: the columns that tell its row from others of the group, and `figure`, in most groups
    the column that holds it. sources: names CELL/ROW/…, the patch first, unique. values: of
    which the figure is the statistic.
    """

    group: str
    identity: dict[str, Any]
    statistic: Statistic
    sources: np.ndarray
    values: Float[np.ndarray, "source column"]

    @property
    def key(self) -> str:
        """The group and the identity as one text."""
        return json.dumps([self.group, self.identity], sort_keys=True)

    @property
    def patches(self) -> np.ndarray:
        """The patch of each source, CELL/ROW."""
        return patches_of(self.sources)


def patches_of(sources: np.ndarray) -> np.ndarray:
    """The patch, CELL/ROW, of each name of a source."""
    return np.array(["/".join(str(name).split("/")[:2]) for name in sources], dtype=str)


def sky_of(store: Store) -> str:
    """A checksum of where the patches lie and of the size of tokens: what names of sources mean."""
    index = store.index
    total = hashlib.sha256(f"{store.patch_arcsec} {store.token_arcsec}\n".encode())
    for cell, row, ra, dec in zip(index.cell, index.row, index.ra, index.dec, strict=True):
        total.update(f"{cell} {row} {ra:.7f} {dec:.7f}\n".encode())
    return f"sha256:{total.hexdigest()}"


class Outcomes:
    """The outcomes of one run, entry by entry.

    model: checksum of its weights. sky: `sky_of` the store; sources have their names there.
    """

    def __init__(self, model: str | None = None, sky: str | None = None) -> None:
        self.model, self.sky = model, sky
        self._entries: dict[str, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def get(self, key: str) -> Entry | None:
        """The entry of a key, if there is one."""
        return self._entries.get(key)

    def add(
        self,
        group: str,
        identity: Mapping[str, Any],
        source_ids: Sequence[str] | np.ndarray,
        values: np.ndarray,
        statistic: Statistic = "mean",
    ) -> None:
        """Keep what became of each source in one figure of one row.

        identity: plain texts and numbers, `figure` among them. source_ids: CELL/ROW/…, the same
        for the same source in every run. values: [source] or [source, column], of which the
        figure is the statistic. Sources whose values are not finite are left out. Raises
        ValueError for names that are not unique, an entry that is there already, or shapes that
        don't fit.
        """
        values = np.asarray(values, np.float32)
        values = values[:, None] if values.ndim == 1 else values
        sources = np.asarray(source_ids, dtype=str)
        entry = Entry(group, dict(identity), statistic, sources, values)
        if "figure" not in identity or statistic not in get_args(Statistic):
            raise ValueError(f"{entry.key}: needs a figure and one of {get_args(Statistic)}")
        if entry.key in self._entries:
            raise ValueError(f"{entry.key}: added twice")
        columns = COLUMNS.get(statistic, values.shape[1])
        if values.shape != (len(sources), columns):
            raise ValueError(f"{entry.key}: {values.shape} values of {len(sources)} sources")
        if len(np.unique(sources)) < len(sources):
            raise ValueError(f"{entry.key}: a source is named twice")
        known = np.isfinite(values).all(axis=1)
        self._entries[entry.key] = Entry(
            group, dict(identity), statistic, sources[known], values[known]
        )

    def join(self, other: "Outcomes") -> None:
        """Take over another part's entries."""
        for entry in other:
            self.add(entry.group, entry.identity, entry.sources, entry.values, entry.statistic)

    def save(self, path: Path) -> None:
        """Write all entries; the names of sources once for all entries that share them."""
        arrays: dict[str, Any] = {}
        names: dict[bytes, int] = {}
        index = []
        for number, entry in enumerate(self):
            known = names.setdefault("\n".join(entry.sources).encode(), len(names))
            arrays.setdefault(f"sources_{known}", entry.sources)
            arrays[f"values_{number}"] = entry.values
            index.append([entry.group, entry.identity, entry.statistic, known])
        header = {"model": self.model, "sky": self.sky, "entries": index}
        arrays["index"] = np.array(json.dumps(header))
        with atomic_write(path) as temporary:
            np.savez_compressed(temporary, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Outcomes":
        """Read them back. Raises UserError when the file is not one of outcomes."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                index = json.loads(str(arrays["index"]))
                found = cls(index["model"], index["sky"])
                sources: dict[int, np.ndarray] = {}
                for number, (group, identity, statistic, own) in enumerate(index["entries"]):
                    if own not in sources:
                        sources[own] = arrays[f"sources_{own}"]
                    values = arrays[f"values_{number}"]
                    found.add(group, identity, sources[own], values, statistic)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path}: not the outcomes of an evaluation ({error}); run `jaisp evaluate` again"
            ) from None
        return found
