import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from jaisp.errors import UserError
from jaisp.files import folder_sha256, sha256
from jaisp.simulate import simulate

from .fields import SURVEYS, field_config

PLANES = ("science", "noise", "mask")


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """The archive of the two-patch field, and what the stage returned."""
    folder = tmp_path_factory.mktemp("field")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = simulate(field_config())
    return folder / "results" / "field" / "simulated", result


def plane(archive, row, name):
    with fits.open(archive / row[f"{name}_path"]) as hdus:
        hdu = row[f"{name}_hdu"]
        hdu = hdus[int(hdu) if hdu.isdigit() else hdu]
        return hdu.data.copy(), hdu.header.copy()


def test_the_listing_tells_all_of_every_tile(field):
    archive, result = field
    listing = Table.read(archive / "listing.ecsv")
    assert result["tiles"] == len(listing) == 2 * 2 * 4
    assert result["listing_sha256"] == sha256(archive / "listing.ecsv")
    assert result["truth_sha256"] == sha256(archive / "truth.ecsv")
    for row in listing:
        shapes = {plane(archive, row, name)[0].shape for name in PLANES}
        assert len(shapes) == 1
        for name in PLANES:
            path = archive / row[f"{name}_path"]
            assert path.stat().st_size == row[f"{name}_bytes"]
            assert sha256(path) == row[f"{name}_sha256"]
    named = {row[f"{name}_path"] for row in listing for name in PLANES}
    written = {p.relative_to(archive).as_posix() for p in archive.rglob("*.fits")}
    assert named == written


def test_noise_planes_and_sentinels_are_each_archive_s_own(field):
    archive, _ = field
    for row in Table.read(archive / "listing.ecsv"):
        science, header = plane(archive, row, "science")
        noise, mask = plane(archive, row, "noise")[0], plane(archive, row, "mask")[0]
        assert header["SATURATE"] > 0
        assert ("DATE" in header) is False
        edge, bad = (mask & 8) > 0, (mask & 1) > 0
        assert np.isnan(science[edge]).all()
        assert edge.any() == (row["tile"] == "00-00-00")
        if row["survey"] == "rubin":
            assert row["noise_kind"] == "variance"
            assert (noise[bad & ~edge] == 0).all()
            assert np.isnan(noise[edge]).all()
            sigma = np.sqrt(noise)
        else:
            assert row["noise_kind"] == "rms"
            assert (noise[bad | edge] == np.float32(1e20)).all()
            sigma = noise
        clean = mask == 0
        pull = science[clean] / sigma[clean]
        scatter = 1.4826 * np.median(np.abs(pull - np.median(pull)))
        assert 0.9 < scatter < 1.5  # sources add to it


def test_fluxes_agree_with_the_truth_in_every_survey_s_own_units(tmp_path, monkeypatch):
    """Apertures on stars, through each tile's own WCS and zero point."""
    monkeypatch.chdir(tmp_path)
    stars = {"galaxies_per_arcmin2": 0.0, "stars_per_arcmin2": 40.0, "tiles_per_side": 1}
    config = field_config(simulate=stars)
    simulate(config)
    archive = config.results / "simulated"
    truth = Table.read(archive / "truth.ecsv")
    compared = dict.fromkeys(SURVEYS, 0)
    for row in Table.read(archive / "listing.ecsv"):
        science, header = plane(archive, row, "science")
        noise, mask = (plane(archive, row, name)[0] for name in ("noise", "mask"))
        variance = noise if row["survey"] == "rubin" else noise.astype(float) ** 2
        flux = truth[f"flux_{row['survey']}_{row['band']}"]
        wcs, unit = WCS(header), 10 ** (0.4 * (31.4 - header["MAGZERO"]))
        pixel = wcs.proj_plane_pixel_scales()[0].to_value("arcsec")
        x, y = wcs.all_world2pix(truth["ra"], truth["dec"], 0, quiet=True)
        rows, columns = np.indices(science.shape)
        for source in range(len(truth)):
            near = np.hypot(rows - y[source], columns - x[source]) * pixel < 2.0
            if near.sum() * pixel**2 < 12.4 or mask[near].any():
                continue
            around = np.hypot(y - y[source], x - x[source]) * pixel < 6.0
            correlated = 3.0 if row["band"] == "H" else 1.0
            error = float(correlated * unit * np.sqrt(variance[near].sum()))
            if flux[source] < 10 * error or flux[source] < 0.8 * flux[around].sum():
                continue
            measured = float(science[near].sum()) * unit
            # Up to 2 % of a Moffat profile is in its wings, and others reach in.
            wings = 0.03 * flux[source] + 0.05 * flux[around].sum()
            assert measured == pytest.approx(flux[source], abs=4 * error + wings)
            compared[row["survey"]] += 1
    assert min(compared.values()) >= 5


def test_a_field_without_sources_has_a_mean_of_zero(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = field_config(simulate={"sources": False, "tiles_per_side": 1})
    assert simulate(config)["sources"] == 0
    archive = config.results / "simulated"
    assert len(Table.read(archive / "truth.ecsv")) == 0
    for row in Table.read(archive / "listing.ecsv"):
        science, _ = plane(archive, row, "science")
        noise, mask = (plane(archive, row, name)[0] for name in ("noise", "mask"))
        clean = mask == 0
        sigma = np.sqrt(noise[clean]) if row["survey"] == "rubin" else noise[clean]
        pull = science[clean] / sigma
        # H is resampled from pixels of 3 × 3 of the tile's.
        count = clean.sum() / (9 if row["band"] == "H" else 1)
        assert abs(pull.mean()) < 4 / np.sqrt(count)
        assert np.std(pull) == pytest.approx(0.9 if row["band"] == "H" else 1.0, abs=0.03)


def test_overlapping_tiles_show_the_same_sky_with_noise_of_their_own(field):
    archive, _ = field
    listing = Table.read(archive / "listing.ecsv")
    tiles = listing[(listing["survey"] == "euclid_q1") & (listing["band"] == "VIS")]
    (first, header), (second, other) = (plane(archive, tiles[n], "science") for n in (2, 3))
    y, x = (a.ravel() for a in np.indices(first.shape))
    ra, dec = WCS(header).all_pix2world(x, y, 0)
    there = np.rint(WCS(other).all_world2pix(ra, dec, 0)).astype(int)
    inside = (there >= 2).all(axis=0)
    inside &= (there[0] < second.shape[1] - 2) & (there[1] < second.shape[0] - 2)
    assert 0.02 < inside.mean() < 0.6
    a, b = first[y[inside], x[inside]], second[there[1][inside], there[0][inside]]
    bright = a > np.quantile(a, 0.99)
    assert np.corrcoef(a[bright], b[bright])[0, 1] > 0.6
    dark = np.abs(a - np.median(a)) < 3 * np.median(np.abs(a))
    assert abs(np.corrcoef(a[dark], b[dark])[0, 1]) < 0.35


def test_the_same_config_gives_the_same_bytes(field, tmp_path, monkeypatch):
    archive, result = field
    monkeypatch.chdir(tmp_path)
    again = field_config()
    assert simulate(again) == result
    made = again.results / "simulated"
    assert folder_sha256(made) == folder_sha256(archive)
    assert simulate(again) == result  # over an older archive
    assert not (again.results / ".partial" / "simulated").exists()


def test_another_seed_gives_another_sky(field, tmp_path, monkeypatch):
    _, result = field
    monkeypatch.chdir(tmp_path)
    config = field_config(surveys=only("VIS", "r"), simulate={"seed": 2, "tiles_per_side": 1})
    assert simulate(config)["truth_sha256"] != result["truth_sha256"]


def test_a_survey_s_tiles_don_t_depend_on_what_else_is_simulated(field, tmp_path, monkeypatch):
    archive, _ = field
    monkeypatch.chdir(tmp_path)
    config = field_config(surveys=only("H", "r"))
    simulate(config)
    for path in (config.results / "simulated").rglob("*.fits"):
        same = archive / path.relative_to(config.results / "simulated")
        assert sha256(path) == sha256(same)


def only(euclid, rubin):
    return {
        "euclid_q1": SURVEYS["euclid_q1"] | {"bands": [euclid]},
        "rubin": SURVEYS["rubin"] | {"bands": [rubin]},
    }


def test_regions_that_overlap_hold_each_source_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    size = {"width_arcmin": 0.4, "height_arcmin": 0.4}
    regions = [{"ra": 40.0, "dec": 10.0, **size}, {"ra": 40.0, "dec": 10.004, **size}]
    config = field_config(sky=regions, simulate={"tiles_per_side": 1}, surveys=only("VIS", "r"))
    result = simulate(config)
    assert result["tiles"] == 4
    truth = Table.read(config.results / "simulated" / "truth.ecsv")
    _, counts = np.unique(np.round(truth["ra"], 8), return_counts=True)
    assert counts.max() == 1
    # Each region and its rim is 1.1' on a side: together less than two of them.
    assert result["sources"] < 1.8 * 133.5 * 1.1**2


def test_what_can_t_be_simulated_is_told_in_a_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rubin, euclid = SURVEYS["rubin"], SURVEYS["euclid_q1"]

    def fails(message, **surveys):
        with pytest.raises(UserError, match=message):
            simulate(field_config(surveys={"euclid_q1": euclid} | surveys))

    fails("surveys.lsst.archive.instrument: 'lsst' can't be simulated", lsst=rubin)
    fails(
        r"surveys.rubin.bands: .* no band 'VIS'; it has u, g, r", rubin=rubin | {"bands": ["VIS"]}
    )
    fails(r"surveys.rubin.pixel_arcsec: .*0.2, not 0.3", rubin=rubin | {"pixel_arcsec": 0.3})
    assert not (tmp_path / "results" / "field" / "simulated").exists()


def test_a_survey_of_another_name_states_its_instrument(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    archive = {"kind": "simulated", "instrument": "rubin"}
    lsst = {"bands": ["r"], "pixel_arcsec": 0.2, "archive": archive}
    config = field_config(
        surveys={"lsst": lsst, "euclid_q1": SURVEYS["euclid_q1"] | {"bands": ["VIS"]}},
        simulate={"tiles_per_side": 1},
    )
    simulate(config)
    folder = config.results / "simulated"
    assert set(Table.read(folder / "listing.ecsv")["survey"]) == {"lsst", "euclid_q1"}
    assert "flux_lsst_r" in Table.read(folder / "truth.ecsv").colnames
