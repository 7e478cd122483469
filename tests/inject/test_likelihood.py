"""The bound against formulas, and an efficient estimator against the bound."""

from dataclasses import replace

import numpy as np
import pytest

from jaisp.config.simulate import SimulateConfig
from jaisp.inject.effective import RIM, STEPS, EffectivePsf, add_star, draw
from jaisp.inject.likelihood import MAS, Stamps, bound_mas, fit_positions
from jaisp.inject.optics import ONE_PLACE, ProfilePsf, SimulatedPsf, StampPsf
from jaisp.simulate.instruments import EUCLID_Q1, RUBIN
from jaisp.simulate.psf import TilePsf, background_noise, optics_of


def gaussian(sigma_pixels: float, pixel_arcsec: float = 0.1) -> ProfilePsf:
    width = np.array([2.3548 * sigma_pixels * pixel_arcsec])
    return ProfilePsf(pixel_arcsec, width, None, ONE_PLACE)


def simulated(instrument, band: str) -> SimulatedPsf:
    optics = optics_of(instrument, band, SimulateConfig().seeing)
    noise = background_noise(instrument, band, 1.0)
    factor = instrument.bands[band].native_pixels
    return SimulatedPsf(TilePsf(optics, factor, noise, (600, 600), np.random.default_rng(8)))


def stamps(psf, flux: float, sigma: float, count: int, seed: int = 1, half: int = 0) -> Stamps:
    """Sources at random places within a pixel, in white noise."""
    rng = np.random.default_rng(seed)
    half = half or int(np.ceil(2.5 * psf.fwhm_arcsec(0) / psf.pixel_arcsec))
    size = 2 * half + 1
    coefficients = EffectivePsf(psf, half).coefficients(0)
    position = half + rng.uniform(-0.5, 0.5, (count, 2))
    data = (sigma * rng.standard_normal((count, size, size))).astype(np.float32)
    for image, (x, y) in zip(data, position, strict=True):
        add_star(image, coefficients, x, y, flux, half)
    return Stamps(
        survey="one",
        band="r",
        coefficients=coefficients[None],
        place=np.zeros(count, int),
        data=data,
        weight=np.full(data.shape, sigma**-2.0, np.float32),
        position=position,
        jacobian=np.broadcast_to(np.eye(2) / psf.pixel_arcsec, (count, 2, 2)).copy(),
        shift=np.zeros((count, 2)),
        fwhm_arcsec=np.full(count, psf.fwhm_arcsec(0)),
    )


@pytest.mark.parametrize("sigma_pixels", [1.5, 3.0])
def test_the_bound_of_a_gaussian_is_the_textbook_s(sigma_pixels):
    """σ_x = √2 σ_PSF / (S/N), for a well-sampled round Gaussian in background noise."""
    own = stamps(gaussian(sigma_pixels), flux=100.0, sigma=1.0, count=5, half=14)
    snr = 100.0 / (2 * np.sqrt(np.pi) * sigma_pixels)
    assert 100.0 * own.sensitivity() == pytest.approx(snr, rel=2e-3)
    expected = np.sqrt(2) * sigma_pixels * 0.1 * MAS / snr
    assert bound_mas([own], [np.full(5, 100.0)]) == pytest.approx(expected, rel=3e-3)


def test_bands_add_their_information_and_an_unseen_one_adds_none():
    first, second = (stamps(gaussian(2.0), 100.0, 1.0, 4) for _ in range(2))
    flux = np.full(4, 100.0)
    alone = bound_mas([first], [flux])
    assert bound_mas([first, second], [flux, flux]) == pytest.approx(alone / np.sqrt(2), rel=1e-5)
    second.place[:] = -1
    assert bound_mas([first, second], [flux, flux]) == pytest.approx(alone)
    first.place[0] = -1
    assert np.isnan(bound_mas([first, second], [flux, flux])[0])


def test_masked_pixels_take_information_away():
    own = stamps(gaussian(2.0), 100.0, 1.0, 4)
    whole = bound_mas([own], [np.full(4, 100.0)])
    weight = own.weight.copy()
    weight[:, :, : own.weight.shape[2] // 2 - 1] = 0
    masked = replace(own, weight=weight)
    assert (bound_mas([masked], [np.full(4, 100.0)]) > 1.1 * whole).all()


@pytest.mark.parametrize(
    ("instrument", "band"), [(RUBIN, "i"), (EUCLID_Q1, "VIS"), (EUCLID_Q1, "H")]
)
def test_the_fit_reaches_the_bound(instrument, band):
    count, snr = 800, 30.0
    psf = simulated(instrument, band)
    unit = stamps(psf, 0.0, psf.tile.noise, 1)
    flux = snr / float(unit.sensitivity()[0])
    own = stamps(psf, flux, psf.tile.noise, count, seed=3)
    start = np.random.default_rng(2).uniform(-0.05, 0.05, (count, 2))
    found = fit_positions([own], start, 1.6, 0.2)
    assert np.isfinite(found).all()
    pull = MAS * found / bound_mas([own], [np.full(count, flux)])[:, None]
    # 1600 numbers: their rms is known to 1.8 %.
    assert np.sqrt(np.mean(pull**2)) == pytest.approx(1.0, abs=0.06)
    assert np.abs(pull.mean(axis=0)).max() < 4 / np.sqrt(count)


def test_the_fit_knows_each_band_s_shift_and_frame():
    """Two bands, one turned and shifted: their joint fit is better than either's."""
    first, second = (
        stamps(gaussian(2.0), 200.0, 1.0, 300),
        stamps(gaussian(2.0), 200.0, 1.0, 300, 9),
    )
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    second.jacobian = second.jacobian @ turn
    errors = [
        np.std(fit_positions(bands, np.zeros((300, 2)), 1.6, 0.2))
        for bands in ([first], [second], [first, second])
    ]
    assert errors[2] == pytest.approx(errors[0] / np.sqrt(2), rel=0.12)
    assert errors[2] == pytest.approx(errors[1] / np.sqrt(2), rel=0.12)


def test_a_fit_without_light_is_no_answer():
    own = stamps(gaussian(2.0), 0.0, 1.0, 50)
    found = fit_positions([own], np.zeros((50, 2)), 0.3, 0.2)
    assert np.isnan(found).any()
    own.place[:] = -1
    assert np.isnan(fit_positions([own], np.zeros((50, 2)), 0.3, 0.2)).all()


@pytest.mark.parametrize(
    ("instrument", "band"), [(RUBIN, "u"), (EUCLID_Q1, "VIS"), (EUCLID_Q1, "Y")]
)
def test_the_effective_psf_is_the_simulator_s(instrument, band):
    psf = simulated(instrument, band)
    effective = EffectivePsf(psf, 20)
    rng = np.random.default_rng(4)
    for x, y in rng.uniform(100, 300, (4, 2)):
        place = int(effective.place_of(np.array([x]), np.array([y]))[0])
        image = np.zeros((401, 401), np.float32)
        add_star(image, effective.coefficients(place), x, y, 1.0, 20)
        left, low = round(x) - 20, round(y) - 20
        expected = psf.tile.stamp(x, y, 20)
        found = image[low : low + 41, left : left + 41]
        assert np.abs(found - expected).max() < 3e-4 * expected.max()


def test_slopes_are_the_image_s():
    psf = gaussian(1.5)
    effective = EffectivePsf(psf, 8)
    planes = np.zeros((3, 17, 17), np.float32)
    before, after, here = (planes.copy() for _ in range(3))
    for x, y, into in ((8.19, 7.8, before), (8.21, 7.8, after), (8.2, 7.8, here)):
        draw(effective.coefficients(0), x, y, 17, *into)
    assert (after[0] - before[0]) / 0.02 == pytest.approx(here[1], abs=2e-3 * float(here[1].max()))
    for x, y, into in ((8.2, 7.79, before), (8.2, 7.81, after)):
        draw(effective.coefficients(0), x, y, 17, *into)
    assert (after[0] - before[0]) / 0.02 == pytest.approx(here[2], abs=2e-3 * float(here[2].max()))


def test_a_stored_stamp_is_known_between_its_pixels():
    reach = 12 + RIM
    fine = gaussian(1.8).fine(0, reach)
    side = 2 * reach + 1
    at_centres = fine.reshape(side, STEPS, side, STEPS)[:, 0, :, 0]
    stored = StampPsf(0.1, at_centres.astype(np.float32), 0.42)
    assert np.abs(stored.fine(0, 10) - gaussian(1.8).fine(0, 10)).max() < 3e-3 * fine.max()
