import galsim
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from jaisp.config.geometry import Region
from jaisp.config.simulate import SimulateConfig
from jaisp.simulate import simulate
from jaisp.simulate.astrometry import (
    ARCSEC,
    air_index,
    conditions,
    refraction,
    refracts,
    tile_offset,
    wavelength_shift,
)
from jaisp.simulate.frames import frames_of
from jaisp.simulate.instruments import EUCLID_Q1, PACHON, RUBIN

from .fields import field_config, windowed

FIELD = Region(ra=10.0, dec=-20.0, width_arcmin=2.0, height_arcmin=2.0)
STARS = np.array([3200.0, 5500.0, 9000.0])


def frames(instrument, **changes):
    return list(frames_of(SimulateConfig(**changes), "s", instrument, 0, FIELD))


def test_air_bends_light_as_galsim_has_it():
    wavelength = np.array([340.0, 400.0, 500.0, 900.0])
    angle = galsim.dcr.get_refraction(
        wavelength,
        45 * galsim.degrees,
        pressure=PACHON.pressure * 0.1333224,  # kPa
        temperature=PACHON.temperature + 273.15,
        H2O_pressure=PACHON.water_pressure * 0.1333224,
    )
    ours = ARCSEC * air_index(wavelength, PACHON)
    # GalSim has the sphere's own correction too, which all wavelengths share.
    ratio = ours / (np.asarray(angle) * ARCSEC)
    np.testing.assert_allclose(ratio, ratio[0], rtol=2e-4)
    assert ratio[0] == pytest.approx(1.0, abs=2e-3)


def test_blue_stars_are_lifted_towards_the_zenith():
    config = SimulateConfig()
    for frame in frames(RUBIN):
        west, north = refraction(config, "s", RUBIN, "g", frame, STARS)
        angle = np.radians(conditions(config, "s", frame).parallactic_deg)
        up = -west * np.sin(angle) + north * np.cos(angle)
        across = west * np.cos(angle) + north * np.sin(angle)
        assert up[0] < 0.0 < up[2]
        assert up[1] == pytest.approx(0.0, abs=1e-12)
        np.testing.assert_allclose(across, 0.0, atol=1e-12)
        assert 0.003 < up[2] - up[0] < 0.15


def test_space_and_red_bands_aren_t_refracted():
    config = SimulateConfig()
    for instrument, band in ((RUBIN, "r"), (EUCLID_Q1, "VIS")):
        assert not refracts(instrument, band)
        west, north = refraction(config, "s", instrument, band, frames(instrument)[0], STARS)
        assert not west.any()
        assert not north.any()


def test_offsets_are_as_large_as_asked_and_a_third_in_space():
    for instrument, rms in ((RUBIN, 40.0), (EUCLID_Q1, 40.0 / 3)):
        config = SimulateConfig(astrometric_offset_mas=40.0, tiles_per_side=10)
        offsets = [
            tile_offset(config, "s", frame)
            for frame in frames_of(config, "s", instrument, 0, FIELD)
        ]
        assert np.std(offsets) * 1e3 == pytest.approx(rms, rel=0.2)
        assert np.abs(np.mean(offsets)) * 1e3 < 0.35 * rms


def test_tiles_show_stars_where_the_records_say(tmp_path, monkeypatch):
    """Truth + recorded offset + refraction by recorded wavelength, to a mas, on every tile."""
    monkeypatch.chdir(tmp_path)
    surveys = {
        "rubin": {"bands": ["u", "r"], "pixel_arcsec": 0.2, "archive": {"kind": "simulated"}},
        "euclid_q1": {"bands": ["VIS"], "pixel_arcsec": 0.1, "archive": {"kind": "simulated"}},
    }
    instruments = {"rubin": RUBIN, "euclid_q1": EUCLID_Q1}
    sky = {"galaxies_per_arcmin2": 0.0, "stars_per_arcmin2": 15.0, "tiles_per_side": 1}
    region = {"ra": 0.001, "dec": -28.1, "width_arcmin": 1.28, "height_arcmin": 1.28}
    config = field_config(
        sky=region,
        surveys=surveys,
        simulate=sky | {"exposure": 1e6, "astrometric_offset_mas": 60.0},
    )
    simulate(config)
    archive = config.results / "simulated"
    truth = Table.read(archive / "truth.ecsv")
    offsets = Table.read(archive / "offsets.ecsv")
    shifts = []
    for row in Table.read(archive / "listing.ecsv"):
        survey, band = str(row["survey"]), str(row["band"])
        instrument = instruments[survey]
        hdu = row["science_hdu"]
        with fits.open(archive / row["science_path"]) as hdus:
            hdu = hdus[int(hdu) if hdu.isdigit() else hdu]
            science, wcs = hdu.data.astype(float), WCS(hdu.header)
        hdu = row["mask_hdu"]
        with fits.open(archive / row["mask_path"]) as hdus:
            mask = hdus[int(hdu) if hdu.isdigit() else hdu].data
        offset = offsets[(offsets["survey"] == survey) & (offsets["tile"] == row["tile"])][0]
        west, north = np.full((2, len(truth)), [[offset["west_mas"]], [offset["north_mas"]]]) / 1e3
        frame = next(frames_of(config.simulate, survey, instrument, 0, config.sky[0]))
        if refracts(instrument, band):
            wavelength = np.asarray(truth[f"wavelength_{survey}_{band}"])
            bent = wavelength_shift(config.simulate, survey, instrument, band, frame, wavelength)
            assert np.hypot(*bent).max() > 5e-3
            west, north = west + bent[0], north + bent[1]
        ra = truth["ra"] - west / 3600 / np.cos(np.radians(truth["dec"]))
        x, y = wcs.all_world2pix(ra, truth["dec"] + north / 3600, 0, quiet=True)
        bare = np.stack(wcs.all_world2pix(truth["ra"], truth["dec"], 0, quiet=True), 1)
        pixel = instrument.pixel_arcsec
        flux = np.asarray(truth[f"flux_{survey}_{band}"])
        width = max(instrument.bands[band].fwhm_arcsec / pixel / 2, 1.5)
        errors = []
        for n in range(len(truth)):
            half = round(3.0 / pixel)
            column, line = round(x[n]), round(y[n])
            cut = np.s_[line - half : line + half + 1, column - half : column + half + 1]
            light = flux / (0.3 + (np.hypot(x - x[n], y - y[n]) * pixel)) ** 3
            if light[n] < 0.9995 * light.sum() or science[cut].shape != (2 * half + 1,) * 2:
                continue
            if mask[cut].any() or min(line, column) < half:
                continue
            start = x[n] - column + half, y[n] - line + half
            found = windowed(science[cut], *start, width)
            errors.append(np.hypot(found[0] - start[0], found[1] - start[1]) * pixel * 1e3)
            shifts.append(np.hypot(*(bare[n] - [x[n], y[n]])) * pixel * 1e3)
        assert len(errors) >= 4
        assert np.median(errors) < 0.5
    assert np.median(shifts) > 10.0
