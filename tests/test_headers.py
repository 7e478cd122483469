"""Headers of plain images, read without astropy: never taken for good where astropy doesn't."""

import io
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaisp.digest import BLOCK, digest_of
from jaisp.errors import TileError
from jaisp.files import sha256
from jaisp.headers import CARD, plain_hdus
from jaisp.structure import MOST_BYTES, _hdus, verify_structure

VALUES = st.one_of(
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(-1e30, 1e30),
    st.text("abc '/=&:.1", max_size=20),
)
EXTRAS = st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_-]{0,7}", fullmatch=True), VALUES, max_size=5)
SHAPES = st.lists(st.integers(1, 40), max_size=3)
TYPES = st.sampled_from(["u1", "i2", "i4", "i8", "f4", "f8"])
# What may stand in a card where it shouldn't.
SPOILS = (
    b"HIERARCH ESO DET ID = 'CCD'",
    b"CONTINUE  'more'",
    b"NAXIS3  =                    7",
    b"NAXIS   =                    2",
    b"NAXIS1  =                   -7",
    b"NAXIS1  =                  '7'",
    b"BITPIX  =                    7",
    b"BITPIX  =                 16.0",
    b"SIMPLE  =                    F",
    b"EXTEND  =                    F",
    b"GROUPS  =                    T",
    b"PCOUNT  =                    9",
    b"GCOUNT  =                    2",
    b"BLANK   =                    1",
    b"EXTNAME =                    1",
    b"XTENSION= 'TABLE   '",
    b"XTENSION= 'IMAGE   '",
    b"lower   =                    1",
    b"NOVALUE =",
    b"QUOTE   = 'it''s'             / it's",
    b"QUOTE   = 'it''s / it",
    b"NOTHING =",
    b"PLACE  =                     1",
    b"COMMENT = 1",
    b"COMMENT \xe9",
    b"NUMBER  =          1.e5 no more",
    b"END",
    b"END      more",
    b"",
)


@st.composite
def files(draw) -> bytes:
    """Images as astropy writes them."""
    hdus: list[fits.PrimaryHDU | fits.ImageHDU] = []
    for number in range(draw(st.integers(1, 3))):
        shape, kind = draw(SHAPES), draw(TYPES)
        pixels = np.zeros(shape, kind) if shape else None
        hdu = fits.ImageHDU(pixels, name=f"N{number}") if hdus else fits.PrimaryHDU(pixels)
        for key, value in draw(EXTRAS).items():
            if key not in hdu.header and key not in ("END", "BLANK", "GROUPS", "BSCALE", "BZERO"):
                hdu.header[key] = (value, "as drawn")
        hdu.header.add_comment("nothing of note")
        hdus.append(hdu)
    handle = io.BytesIO()
    fits.HDUList(hdus).writeto(handle, checksum=draw(st.booleans()))
    return handle.getvalue()


def places(hdus):
    return [hdu[1:] for hdu in hdus]


@given(files())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_astropy_writes_is_read_as_astropy_reads_it(tmp_path, content):
    path = tmp_path / "a.fits"
    path.write_bytes(content)
    known = _hdus(path, None, MOST_BYTES)
    found = plain_hdus(io.BytesIO(content), len(content))
    assert found is not None
    assert places(found) == places(known)
    for plain, other in zip(found, known, strict=True):
        for key in ("DATASUM", "CHECKSUM", "EXTNAME"):
            assert plain.header.get(key, "").strip("' ") == str(other.header.get(key, ""))


@given(files(), st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_spoiled_is_left_to_astropy_or_good_to_it_too(tmp_path, content, data):
    """A card put in another's place, two that change places, a byte that is another, filling."""
    path = tmp_path / "a.fits"
    spoiled = bytearray(content)
    for _ in range(data.draw(st.integers(1, 2))):
        first, second = (CARD * data.draw(st.integers(0, 15)) for _ in range(2))
        kind = data.draw(st.sampled_from(["card", "swap", "byte"]))
        if kind == "card":
            spoiled[first : first + CARD] = data.draw(st.sampled_from(SPOILS)).ljust(CARD)
        elif kind == "swap":
            one, other = spoiled[first : first + CARD], spoiled[second : second + CARD]
            spoiled[first : first + CARD], spoiled[second : second + CARD] = other, one
        else:
            spoiled[first + data.draw(st.integers(0, 31))] = data.draw(st.integers(0, 255))
    spoiled += bytes(data.draw(st.sampled_from([0, 0, 0, 1, CARD, BLOCK])))
    found = plain_hdus(io.BytesIO(spoiled), len(spoiled))
    path.write_bytes(spoiled)
    if found is not None:
        assert places(_hdus(path, None, MOST_BYTES)) == places(found)


@given(files(), st.data())
@settings(max_examples=100)
def test_what_is_cut_is_left_to_astropy(content, data):
    end = data.draw(st.integers(0, len(content) - 1))
    begins = [hdu.start for hdu in plain_hdus(io.BytesIO(content), len(content))]
    found = plain_hdus(io.BytesIO(content[:end]), end)
    assert (found is not None) == (end in begins[1:])  # between two of them it is whole


def one_image() -> bytes:
    handle = io.BytesIO()
    fits.PrimaryHDU(np.ones((30, 40), np.float32)).writeto(handle, checksum=True)
    return handle.getvalue()


@pytest.mark.parametrize("spoil", [card for card in SPOILS if b"QUOTE   = 'it''s'" not in card])
def test_a_card_that_is_not_plain_is_left_to_astropy(spoil):
    content = one_image()
    at = content.index(b"CHECKSUM=")
    assert plain_hdus(io.BytesIO(content), len(content)) is not None
    if spoil in (b"", b"NOVALUE =", b"NOTHING ="):
        return  # as good as any
    spoiled = content[:at] + spoil.ljust(CARD) + content[at + CARD :]
    assert plain_hdus(io.BytesIO(spoiled), len(spoiled)) is None


@pytest.mark.parametrize("length", [0, 1, BLOCK, 91 * BLOCK - 1, 91 * BLOCK, 200 * BLOCK + 17])
def test_a_digest_is_that_of_all_bytes_and_its_sums_those_of_whole_blocks(tmp_path: Path, length):
    content = np.random.default_rng(length).bytes(length)
    path = tmp_path / "a"
    path.write_bytes(content)
    digest = digest_of(path)
    assert (digest.sha256, digest.length) == (sha256(path), length)
    blocks = length // BLOCK
    for start, end in [(0, blocks), (blocks // 3, blocks // 2)]:
        words = np.frombuffer(content[start * BLOCK : end * BLOCK], ">u4").astype(object)
        assert digest.of(start * BLOCK, end * BLOCK) == int(words.sum()) % (2**32 - 1)


def test_sums_that_were_taken_are_held_against_the_files_own(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(content := one_image())
    verify_structure(path, digest_of(path))
    spoiled = bytearray(content)
    spoiled[-BLOCK] ^= 1
    path.write_bytes(spoiled)
    with pytest.raises(TileError, match="DATASUM verification failed"):
        verify_structure(path, digest_of(path))
