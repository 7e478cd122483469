"""Files packed as a whole: a small one may hold more than any memory."""

import gzip

import pytest

from jaisp import packed
from jaisp.errors import TileError
from jaisp.structure import verify_structure

CARDS = b"".join(
    text.ljust(80).encode()
    for text in ("SIMPLE  =                    T", "BITPIX  =                    8",
                 "NAXIS   =                    0")
)  # fmt: skip


@pytest.mark.parametrize("content", [bytes(80), b" " * 80, CARDS, b"COMMENT x".ljust(80)])
def test_what_begins_with_no_header_is_refused_before_more_of_it_is_unpacked(
    tmp_path, monkeypatch, content
):
    path = tmp_path / "a.fits.gz"
    beginning = content if content == CARDS else b""
    path.write_bytes(gzip.compress(beginning + content[:80] * 600_000))
    asked = []

    class Watched(gzip.GzipFile):
        def read(self, size=-1):
            asked.append(size)
            return super().read(size)

    monkeypatch.setitem(packed.OPENERS, "gzip", Watched)
    with pytest.raises(TileError, match=r"a\.fits\.gz: what is packed in it is no FITS file"):
        verify_structure(path)
    assert len(asked) == 1


def test_what_begins_with_one_is_counted(tmp_path):
    path = tmp_path / "a.fits.gz"
    whole = (CARDS + b"END".ljust(80)).ljust(2880)
    path.write_bytes(gzip.compress(whole))
    verify_structure(path)
    assert packed.unpacked_length(path, "gzip", 10_000) == 2880
