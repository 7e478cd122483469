"""Squares of images: as much as the patches need, and whole images where that is most of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaisp.archives.coverage import Outline
from jaisp.archives.cutout import MARGIN_ARCSEC, Square, cut, cutout_address
from jaisp.config import load_config
from jaisp.sky import cells, given_wcs, plane_radec
from tests.configs import small_config, write_config


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sky")
    return cells(load_config(write_config(folder, small_config())))


def rectangle(cell, x, y, half):
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half + [x, y]
    return Outline(np.stack(plane_radec(cell, *corners.T), axis=1))


@given(x=st.floats(-300, 300), y=st.floats(-300, 300))
def test_the_square_holds_every_patch_that_touches(sky, x, y):
    (cell,) = sky
    part = cut(rectangle(cell, x, y, 400), sky)
    side = cell.patch_arcsec
    assert part is not None
    assert part.width <= np.ptp(cell.centres, axis=0).max() + np.sqrt(2) * side + 62
    wcs = given_wcs((1, 1), part.ra, part.dec, 1.0, 0.0)
    ra, dec = cell.sky_centres()
    away = np.abs(np.stack(wcs.wcs_world2pix(ra, dec, 0)))  # arcsec from its centre
    assert away.max() + side / 2 + MARGIN_ARCSEC <= part.width / 2 + 0.1
    assert part.share == pytest.approx(part.width**2 / 800**2, rel=0.01)


def test_nearly_all_of_an_image_is_the_image(sky):
    (cell,) = sky
    assert cut(rectangle(cell, 0, 0, 41), sky) is None


def test_an_image_that_nothing_touches_has_no_square(sky):
    (cell,) = sky
    assert cut(rectangle(cell, 3000, 0, 400), sky) is None


def test_a_circle_is_cut_likewise(sky):
    (cell,) = sky
    centre = np.array([[cell.ra, cell.dec]])
    part = cut(Outline(centre, 0.3), sky)
    assert (part.ra, part.dec) == pytest.approx((cell.ra, cell.dec), abs=1e-4)
    assert part.share < 0.01


def test_the_address_says_the_square():
    part = Square(53.1, -28.05, 90.0, 0.1)
    template = "?center={ra},{dec}&size={pixels}&gzip=false"
    address = cutout_address("https://a/b.fits", template, part, 0.1)
    assert address == "https://a/b.fits?center=53.100000,-28.050000&size=900&gzip=false"
