"""Views displaced by parts of a pixel show the same sky, with the same noise, holes as holes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jaisp.config.train import PositionConfig, TrainConfig
from jaisp.train.dither import MARGIN, displaced, trimmed
from jaisp.train.implants import Implants, point_sources
from jaisp.train.pairs import Pairs
from jaisp.train.patches import Patches, measure_noise
from jaisp.train.views import cut, draw_dither, turn_plane, turned_fraction
from tests.train.test_views import codes_of

CPU = torch.device("cpu")
SIDE = 48
WHOLE = SIDE + 2 * MARGIN
fractions = st.tuples(*[st.floats(-0.5, 0.5)] * 2)


def shift(flux, *fraction, valid=None):
    flux = torch.as_tensor(flux, dtype=torch.float32)
    valid = torch.isfinite(flux) if valid is None else valid
    return displaced(flux, valid, torch.tensor(fraction).expand(len(flux), 2))


def centroid(image, fwhm):
    """Windowed, as it converges (Bertin & Arnouts 1996: XWIN)."""
    y, x = np.indices(image.shape, float)
    place = np.array(np.unravel_index(image.argmax(), image.shape), float)
    for _ in range(60):
        away = np.stack([y - place[0], x - place[1]])
        light = image * np.exp(-4 * np.log(2) * (away**2).sum(axis=0) / fwhm**2)
        place = place + 2 * (light * away).sum(axis=(1, 2)) / light.sum()
    return place


@settings(max_examples=25, deadline=None)
@given(fraction=fractions, start=fractions, fwhm=st.floats(2.3, 5.0))
def test_a_point_source_lands_where_it_should(fraction, start, fwhm):
    middle = torch.tensor([[WHOLE / 2 + part for part in start]])
    width = torch.full((1, 1), fwhm)
    image = point_sources(middle, width, 1.0, WHOLE)
    moved = shift(image, *fraction)[0, 0].numpy()
    away = centroid(moved, fwhm) - centroid(trimmed(image)[0, 0].numpy(), fwhm)
    # The grid goes forth, the source comes back.
    np.testing.assert_allclose(away, -np.array(fraction), atol=0.01)
    truth = trimmed(point_sources(middle - torch.tensor([fraction]), width, 1.0, WHOLE))
    np.testing.assert_allclose(moved, truth[0, 0], atol=0.02 * float(image.max()))


@pytest.mark.parametrize("fraction", [(0.5, 0.5), (0.31, -0.12), (0.0, 0.25)])
def test_white_noise_stays_white(fraction):
    noise = torch.randn((8, 4, WHOLE, WHOLE), generator=torch.Generator().manual_seed(2))
    moved = shift(noise, *fraction)
    assert moved.var() == pytest.approx(1, abs=0.03)
    # To the rim of the view.
    assert moved[..., 0, :].var() == pytest.approx(1, abs=0.08)
    for rows, columns in ((1, 0), (0, 1), (1, 1), (2, 0), (0, 2)):
        first = moved[..., rows:, columns:]
        second = moved[..., : SIDE - rows, : SIDE - columns]
        assert abs(float((first * second).mean())) < 0.03


def test_a_fraction_of_zero_is_the_same_pixels():
    noise = torch.randn((2, 1, WHOLE, WHOLE), generator=torch.Generator().manual_seed(3))
    fraction = torch.tensor([[0.0, 0.0], [0.2, 0.0]])
    moved = displaced(noise, torch.ones_like(noise, dtype=torch.bool), fraction)
    assert torch.equal(moved[0], trimmed(noise)[0])
    assert not torch.equal(moved[1], trimmed(noise)[1])


def test_a_whole_pixel_in_two_halves_is_a_slice():
    """Of what is sampled well, to rounding."""
    place = torch.tensor([[WHOLE / 2 + 0.3, WHOLE / 2 - 0.2]])
    image = point_sources(place, torch.full((1, 1), 4.0), 1.0, WHOLE)
    margin = torch.zeros(1, 1, WHOLE, WHOLE)
    margin[..., MARGIN:-MARGIN, MARGIN:-MARGIN] = shift(image, 0.5, -0.5)
    twice = shift(margin, 0.5, -0.5)
    expected = trimmed(image.roll((-1, 1), (-2, -1)))
    torch.testing.assert_close(twice, expected, rtol=0, atol=2e-3 * float(image.max()))


@pytest.mark.parametrize("fraction", [(0.4, 0.1), (-0.3, 0.0), (0.0, -0.5), (0.2, -0.2)])
def test_missing_stays_missing_and_does_not_smear(fraction):
    noise = torch.randn((1, 1, WHOLE, WHOLE), generator=torch.Generator().manual_seed(4))
    valid = torch.ones_like(noise, dtype=torch.bool)
    row, column = MARGIN + 20, MARGIN + 25
    valid[..., row, column] = False
    valid[..., MARGIN + 5] = False  # a column
    hot, missing = noise.clone(), noise.clone()
    hot[~valid], missing[~valid] = 1e6, torch.nan
    moved, others = (shift(flux, *fraction, valid=valid)[0, 0] for flux in (hot, missing))
    assert torch.equal(moved.isnan(), others.isnan())
    # Whatever the pixel held is nowhere.
    assert torch.equal(moved.nan_to_num(), others.nan_to_num())
    expected = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    for dy in {0, -int(np.sign(fraction[0]))}:
        for dx in {0, -int(np.sign(fraction[1]))}:
            expected[20 + dy, 25 + dx] = True
            expected[:, 5 + dx] = True
    assert torch.equal(moved.isnan(), expected)
    rest = moved[~expected]
    assert rest.abs().max() < 6
    assert rest.var() == pytest.approx(1, abs=0.06)


def test_a_hole_in_a_bright_source_does_not_ring():
    place = torch.full((1, 2), WHOLE / 2 + 0.1)
    image = 1000 * point_sources(place, torch.full((1, 1), 4.0), 1.0, WHOLE)
    image /= image.max() / 1000
    valid = torch.ones_like(image, dtype=torch.bool)
    valid[..., WHOLE // 2, WHOLE // 2 - 1] = False
    moved = shift(image, 0.5, 0.3, valid=valid)
    apart = (moved - shift(image, 0.5, 0.3)).nan_to_num().abs()
    # A zero in its place would be off by a fifth of it, for ever so far.
    assert apart.max() < 100
    assert apart[..., :, : SIDE // 2 - 10].max() < 10


def test_a_bright_source_across_the_margin_does_not_ring():
    """Its flux goes on at the other side of the transform unless it is led to zero."""
    image = 1000 * point_sources(
        torch.tensor([[WHOLE - 1.0, WHOLE / 2]]), torch.full((1, 1), 3.0), 1.0, WHOLE
    )
    moved = shift(image, 0.5, 0.5)
    assert (moved - trimmed(image))[..., : SIDE // 2, :].abs().max() < 0.5


@settings(max_examples=30, deadline=None)
@given(turn=st.integers(0, 7), corner=st.tuples(*[st.floats(2, 3)] * 2))
def test_turning_and_displacing_agree(turn, corner):
    """Displaced and turned is turned and displaced the other way about."""
    n, crop = 5, 4
    noise = np.random.default_rng(1).normal(size=(1, 9 * n, 9 * n)).astype(np.float32)
    cuts = [cut(codes_of(noise), np.array(corner), crop, n, t, margin=MARGIN) for t in (0, turn)]
    plain, turned = (
        displaced(
            torch.from_numpy(planes["flux"][None].copy()),
            torch.from_numpy((planes["mask"] == 0)[None].copy()),
            torch.from_numpy(turned_fraction(np.array(corner), n, t))[None],
        )[0]
        for planes, t in zip(cuts, (0, turn), strict=True)
    )
    expected = turn_plane(plain.numpy(), turn)
    np.testing.assert_allclose(turned.numpy(), expected, atol=2e-4)


def test_whole_pixels_are_a_slice_and_what_lies_beyond_the_patch_is_missing():
    flux = np.random.default_rng(2).normal(size=(2, 40, 40)).astype(np.float32)
    corner = np.array([0.0, 5.0]) + 0.25  # of tokens of 4 pixels
    window = cut(codes_of(flux), corner, 4, 4, 0, margin=MARGIN)
    assert turned_fraction(corner, 4, 3).tolist() == [0, 0]
    inner = (slice(None), slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    np.testing.assert_array_equal(window["flux"][inner], flux[:, 1:17, 21:37])
    assert (window["mask"][:, : MARGIN - 1] > 0).all()
    assert (window["noise"][:, : MARGIN - 1] == 0).all()
    assert (window["mask"][:, MARGIN - 1 : -MARGIN, MARGIN:-MARGIN] == 0).all()


def test_displacements_lie_within_a_common_pixel():
    rng = np.random.default_rng(5)
    drawn = np.array([draw_dither(rng, (8, 16), 0.5) for _ in range(400)])
    moved = drawn.any(axis=1)
    assert 0.4 < moved.mean() < 0.6
    assert 0 <= drawn.min() < drawn[moved].max() < 1 / 8
    assert not np.array([draw_dither(rng, (8, 16), 0.0) for _ in range(9)]).any()


@pytest.fixture
def patches(store):
    numbers = store.where("train")
    return Patches(store, numbers, measure_noise(store, numbers), 1.0, "read")


def asked(dither, **more):
    position = PositionConfig(sources=6)
    return TrainConfig(
        dither=dither, batch=4, crop_tokens=5, shift_tokens=1, position=position, **more
    )


def test_pairs_come_from_seed_and_step_alone(patches):
    one, other = (Pairs(patches, asked(1.0)) for _ in range(2))
    other.draw(3)
    first, second = one.draw(8), other.draw(8)
    for side in ("first", "second"):
        assert torch.equal(getattr(first, side).fraction, getattr(second, side).fraction)
        assert getattr(first, side).fraction.abs().max() <= 0.5
        assert len(getattr(first, side).fraction) == 4
    batches = [pairs.show(draw, CPU) for pairs, draw in ((one, first), (other, second))]
    assert torch.equal(batches[0].first.inputs, batches[1].first.inputs)
    assert not torch.equal(one.draw(9).first.fraction, first.first.fraction)


def test_both_views_are_displaced_by_the_same_sky(patches):
    """Two views of one survey lie on one pixel grid: the same fraction; of two, on the sky."""
    pairs = Pairs(patches, asked(1.0))
    kinds = set()
    for step in range(40):
        draw = pairs.draw(step)
        kinds.add(draw.kind)
        tokens = [crops.fraction / patches.n[crops.survey] for crops in (draw.first, draw.second)]
        pixels = [1 / patches.n[crops.survey] for crops in (draw.first, draw.second)]
        apart = (tokens[0] - tokens[1]) / min(pixels)
        torch.testing.assert_close(apart, apart.round(), rtol=0, atol=1e-4)
    assert "surveys" in kinds


def test_off_is_as_it_was(patches):
    draw = Pairs(patches, asked(0.0)).draw(3)
    assert draw.first.fraction is None
    assert all(draw.fraction is None for draw in Implants(patches, asked(0.0)).draw(3))
    one, other = (Pairs(patches, asked(dither)).draw(3).patches for dither in (0.0, 0.7))
    assert one == other


def test_implants_lie_where_they_are_said_to_on_displaced_sky(patches):
    implants = Implants(patches, asked(1.0))
    draw = next(draw for draw in implants.draw(2) if draw.survey == "euclid")
    assert draw.fraction is not None
    bright = torch.full_like(draw.snr, 3000.0)
    shown = implants.show(type(draw)(**{**draw.__dict__, "snr": bright}), CPU)
    flux = shown.inputs[:, :, 0].sinh().sum(dim=1)
    assert flux.shape[-1] == implants.window * patches.n["euclid"]
    place = torch.stack([f.argmax() for f in flux.flatten(1)])
    grid, token = patches.store.grid_arcsec("euclid"), patches.store.token_arcsec
    found = torch.stack([place // flux.shape[-1], place % flux.shape[-1]], dim=1) + 0.5
    found = found * grid - (draw.token + 0.5) * token
    assert (found - shown.offset).abs().max() <= 0.51 * grid
    again = next(draw for draw in implants.draw(2) if draw.survey == "euclid")
    assert torch.equal(draw.fraction, again.fraction)
