"""Tiles that have changed since they were fetched."""

import pytest

from jaisp.archives import Plane
from jaisp.errors import UserError
from jaisp.files import sha256
from jaisp.warp.verified import verify_bytes


@pytest.fixture
def plane(tmp_path):
    path = tmp_path / "tile.fits"
    path.write_bytes(b"pixels")
    return Plane(path, 0, sha256=sha256(path))


def test_an_unchanged_file_passes(plane):
    verify_bytes(plane)


def test_a_file_whose_checksum_nobody_knows_passes(tmp_path):
    verify_bytes(Plane(tmp_path / "none.fits", 0))


def test_a_changed_file_is_named(plane):
    plane.path.write_bytes(b"pixelz")
    with pytest.raises(UserError, match=r"tile\.fits: not the bytes .* -R fetch_batch"):
        verify_bytes(plane)


def test_a_file_that_is_gone_is_named(plane):
    plane.path.unlink()
    with pytest.raises(UserError, match=r"tile\.fits: gone since it was fetched"):
        verify_bytes(plane)


def test_a_changed_file_is_named_where_it_lies(plane, tmp_path):
    link = tmp_path / "link.fits"
    link.symlink_to(plane.path)
    plane.path.write_bytes(b"pixelz")
    with pytest.raises(UserError, match=r"/tile\.fits: .* -f simulate"):
        verify_bytes(Plane(link, 0, sha256=plane.sha256))
