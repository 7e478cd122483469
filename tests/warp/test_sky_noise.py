"""Stored noise times stored correlation is the scatter of apertures on empty sky."""

import numpy as np
import pytest
import zarr

from jaisp.config.load import parse_config
from jaisp.fetch import BATCHES, fetch, gather_fetched
from jaisp.files import write_receipt
from jaisp.plan import plan
from jaisp.simulate import simulate
from jaisp.sky import cells
from jaisp.store.codes import decode_flux, decode_noise
from jaisp.warp import warp

APERTURES = (1.0, 3.0)
SURVEYS = {"rubin": (["i"], 0.2), "euclid_q1": (["VIS", "H"], 0.1)}
SIDE = 3


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    """The groups of a simulated field without a single source."""
    folder = tmp_path_factory.mktemp("empty")
    content = {
        "run": "empty",
        "sky": {"ra": 53.1, "dec": -28.1, "width_arcmin": SIDE * 51.2 / 60,
                "height_arcmin": SIDE * 51.2 / 60},
        "patch": {"arcsec": 51.2},
        "simulate": {"galaxies_per_arcmin2": 0, "stars_per_arcmin2": 0, "tiles_per_side": 1},
        "surveys": {
            name: {"bands": bands, "pixel_arcsec": pixel, "archive": {"kind": "simulated"}}
            for name, (bands, pixel) in SURVEYS.items()
        },
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("JAISP_CACHE", str(folder / "cache"))
        config = parse_config(content, folder / "empty.yaml")
        simulate(config)
        plan(config)
        for batch in range(BATCHES):
            write_receipt(config, "fetch", f"batch{batch}", fetch(config, batch))
        gather_fetched(config)
        (cell,) = cells(config)
        for survey in SURVEYS:
            warp(config, cell, survey)
        yield {
            survey: zarr.open_group(config.results / "patches.zarr" / cell.name / survey, mode="r")
            for survey in SURVEYS
        }


@pytest.mark.parametrize("number", [0, 1], ids=["1 arcsec", "3 arcsec"])
@pytest.mark.parametrize(
    ("survey", "band"), [(s, b) for s, (bands, _) in SURVEYS.items() for b in bands]
)
def test_scatter_of_apertures_is_predicted(groups, survey, band, number):
    group, (bands, grid) = groups[survey], SURVEYS[survey]
    place, radius = bands.index(band), APERTURES[number] / grid / 2
    correlation = float(group["noise_correlation"][place, number])
    rng = np.random.default_rng(number)
    pulls: list[float] = []
    for row in range(group["flux"].shape[0]):
        flux = decode_flux(group["flux"][row, place], group["scale"][row, place])
        noise = decode_noise(group["noise"][row, place], group["noise_scale"][row, place])
        good = np.isfinite(flux) & np.isfinite(noise) & (group["mask"][row, place] == 0)
        reach = int(radius) + 2
        v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        y0, x0 = rng.uniform(-0.5, 0.5, 2)
        disc = np.hypot(u - x0, v - y0) <= radius
        for y in range(2 * reach, len(flux) - 2 * reach, 2 * reach - 1):
            for x in range(2 * reach, len(flux) - 2 * reach, 2 * reach - 1):
                part = np.s_[y - reach : y + reach + 1, x - reach : x + reach + 1]
                if good[part][disc].all():
                    white = np.sqrt(np.sum(noise[part][disc] ** 2))
                    pulls.append(np.sum(flux[part][disc]) / (white * correlation))
    assert len(pulls) > 1000
    assert np.std(pulls) == pytest.approx(1, abs=0.05)
