"""Plan and fetch: what is found, what is verified, what is set aside."""

import gzip
import json
import os
from dataclasses import replace

import numpy as np
import pytest
import yaml
from astropy.io import fits
from astropy.table import Table

from jaisp.archives.table import read_tiles, tiles_path, verified_planes, write_tiles
from jaisp.cache import cache_folder, cache_name
from jaisp.config import dump_config, load_config, parse_config
from jaisp.errors import UserError
from jaisp.fetch import BATCHES, fetch, foreseen, gather_fetched
from jaisp.fetch import fetch_all as fetch_side_by_side
from jaisp.files import sha256, write_receipt
from jaisp.plan import plan
from tests.configs import small_config, survey, write_config, write_small_field, write_tile
from tests.test_cli import jaisp_command
from tests.transfer.server import Served, serving


@pytest.fixture
def field(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return load_config(write_small_field(tmp_path))


def fetch_all(config, **options):
    for batch in range(BATCHES):
        write_receipt(config, "fetch", f"batch{batch}", fetch(config, batch, **options))


def problems(config):
    return Table.read(config.results / "problems.ecsv")


def test_plan_writes_every_plane_and_reads_it_back(field):
    content = plan(field)
    assert content["tiles"] == {"sharp": 1, "wide": 1}
    assert content["bytes"] == sum(p.stat().st_size for p in field.data.glob("*.fits"))
    tiles = read_tiles(field)
    assert [(t.survey, t.band, t.noise.hdu, t.zeropoint) for t in tiles] == [
        ("sharp", "r", "RMS", "MAGZERO"),
        ("wide", "r", "RMS", "MAGZERO"),
    ]
    write_tiles(field, tiles)
    assert read_tiles(field) == tiles


def test_every_option_of_a_tile_survives_the_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tile(tmp_path / "sharp.fits", 0.1)
    write_tile(tmp_path / "wide.fits", 0.2)
    fits.writeto(tmp_path / "cube.fits", np.zeros((3, 8, 8), np.float32))
    content = small_config()
    image = content["surveys"]["sharp"]["archive"]["images"][0]
    image |= {
        "mask": {"path": "cube.fits", "slice": 2, "bad_bits": 0x0F},
        "psf": {"path": "cube.fits", "slice": 1},
        "zeropoint": None,
        "subtract_sky": True,
        "wcs": {"ra": 1.0, "dec": 2.0, "pixel_arcsec": 0.1, "rotation_deg": 30.0},
    }
    content["surveys"]["wide"]["archive"]["images"][0]["zeropoint"] = 27.5
    config = load_config(write_config(tmp_path, content))
    plan(config)
    sharp, wide = read_tiles(config)
    assert (sharp.mask.slice, sharp.bad_bits) == (2, 15)
    assert (sharp.psf.slice, sharp.psf.path.name) == (1, "cube.fits")
    assert sharp.zeropoint is None
    assert sharp.subtract_sky
    assert sharp.wcs == {"ra": 1.0, "dec": 2.0, "pixel_arcsec": 0.1, "rotation_deg": 30.0}
    assert wide.zeropoint == 27.5
    assert (wide.psf_fwhm_arcsec, wide.psf, wide.wcs) == (0.7, None, "header")


def test_fetch_links_verified_files_into_the_cache(field):
    plan(field)
    fetch_all(field)
    assert gather_fetched(field) == {"planes": 4, "tiles": 2, "problems": 0}
    for tile in read_tiles(field, fetched=True):
        assert tile.science.path.is_relative_to(cache_folder())
        assert sha256(tile.science.path) == tile.science.sha256
        assert tile.science.path.resolve() == (field.data / f"{tile.survey}.fits").resolve()
    assert len(problems(field)) == 0


def test_a_missing_file_names_its_key(field):
    (field.data / "wide.fits").unlink()
    with pytest.raises(UserError, match=r"surveys.wide.archive.images\[0\].science.path: no such"):
        plan(field)


def test_a_band_that_the_archive_lacks(tmp_path):
    content = small_config()
    content["surveys"]["sharp"]["bands"] = ["r", "i"]
    write_small_field(tmp_path)
    config = load_config(write_config(tmp_path, content))
    with pytest.raises(UserError, match=r"surveys.sharp.bands: .*'i'.*has r"):
        plan(config)


def break_nothing_but(config, name):
    """A second, good tile of each survey, so that one bad tile doesn't end the run."""
    for survey_name, pixel in (("sharp", 0.1), ("wide", 0.2)):
        write_tile(config.data / f"{survey_name}_good.fits", pixel, seed=9)
    content = small_config()
    for survey_name in ("sharp", "wide"):
        images = content["surveys"][survey_name]["archive"]["images"]
        images.append({**images[0], "science": {"path": f"{survey_name}_good.fits"}})
    return load_config(write_config(config.data, content))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-3000])


def remove_wcs(path):
    path.unlink()
    write_tile(path, 0.2, wcs=False)


def flip_a_bit(path):
    with fits.open(path) as hdus:
        hdus.writeto(path, overwrite=True, checksum=True)
    content = bytearray(path.read_bytes())
    content[6000] ^= 0xFF
    path.write_bytes(content)


def html(path):
    path.write_text("<html>Not Found</html>")


def other_shape(path):
    with fits.open(path) as hdus:
        hdus["RMS"].data = hdus["RMS"].data[:-1]
        hdus.writeto(path, overwrite=True)


def no_rms(path):
    with fits.open(path) as hdus:
        del hdus["RMS"]
        hdus.writeto(path, overwrite=True)


def pack(path):
    """Zeros pack so well that the file is smaller than its pixels."""
    with fits.open(path) as hdus:
        hdus["RMS"].data[:] = 1.0
        hdus.writeto(path, overwrite=True)
    path.write_bytes(gzip.compress(path.read_bytes()))


def pack_and_truncate(path):
    pack(path)
    path.write_bytes(path.read_bytes()[:-20])


def pack_and_spoil_the_checksum(path):
    pack(path)
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF
    path.write_bytes(content)


def test_a_packed_file_is_as_good(field):
    pack(field.data / "wide.fits")
    plan(field)
    fetch_all(field)
    assert gather_fetched(field)["problems"] == 0


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "truncated"),
        (pack_and_truncate, "can't be unpacked"),
        (pack_and_spoil_the_checksum, "can't be unpacked"),
        (remove_wcs, "no celestial WCS"),
        (flip_a_bit, "verification failed"),
        (html, "wide.fits"),
        (other_shape, "noise is"),
        (no_rms, "no HDU 'RMS'"),
    ],
)
def test_one_bad_tile_is_set_aside_and_the_run_goes_on(field, damage, reason):
    config = break_nothing_but(field, "wide")
    damage(config.data / "wide.fits")
    plan(config)
    fetch_all(config)
    assert gather_fetched(config)["problems"] == 1
    (problem,) = problems(config)
    assert (problem["survey"], problem["band"], problem["tile"]) == ("wide", "r", "wide.fits[0]")
    assert reason in problem["reason"]
    assert len(read_tiles(config, fetched=True)) == 3
    with pytest.raises(UserError, match="wide r"):
        fetch_all(config, strict=True)


def test_a_band_without_a_good_tile_stops_with_the_reason(field):
    truncate(field.data / "wide.fits")
    plan(field)
    fetch_all(field)
    with pytest.raises(UserError, match=r"surveys.wide: no good tile of band r .*truncated"):
        gather_fetched(field)


def test_a_mended_tile_is_forgiven(field):
    good = (field.data / "wide.fits").read_bytes()
    truncate(field.data / "wide.fits")
    plan(field)
    fetch_all(field)
    (field.data / "wide.fits").write_bytes(good)
    plan(field)
    fetch_all(field)
    assert gather_fetched(field)["problems"] == 0
    assert len(verified_planes(field)) == 4


@pytest.mark.parametrize("name", ["../../etc/passwd", "/abs.fits", "a\0b", "..", "x" * 10**5])
def test_no_name_leaves_the_cache(name):
    stored = cache_name("rubin", "ab" * 32, name)
    path = (cache_folder() / stored).resolve()
    assert path.is_relative_to(cache_folder().resolve())
    assert len(path.name) < 130
    assert "\0" not in stored


def test_data_folder_may_be_the_archive_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "kids"
    folder.mkdir()
    write_tile(folder / "sharp.fits", 0.1)
    write_tile(folder / "wide.fits", 0.2)
    content = small_config()
    for name in ("sharp", "wide"):
        content["surveys"][name] = survey(name, 0.1)
        content["surveys"][name]["archive"]["root"] = "kids"
    path = write_config(tmp_path, content)
    for data in (tmp_path, folder):
        config = load_config(path, {"data": str(data)})
        assert plan(config)["tiles"] == {"sharp": 1, "wide": 1}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The small field with its tiles on a server; the config's own folder has none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAISP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SESAME", "open")
    (tmp_path / "there").mkdir()
    write_small_field(tmp_path / "there")
    with serving() as server:
        content = small_config(fetch={"attempts": 1, "timeout_s": 2})
        for name in ("sharp", "wide"):
            tile = (tmp_path / "there" / f"{name}.fits").read_bytes()
            server.files[f"/dr1/{name}.fits"] = Served(tile)
            archive = content["surveys"][name]["archive"]
            archive |= {"root": server.address("/dr1"), "token_env": "SESAME"}
        yield server, load_config(write_config(tmp_path, content))


def test_tiles_elsewhere_are_brought_into_the_cache_once(elsewhere):
    server, config = elsewhere
    assert plan(config)["tiles"] == {"sharp": 1, "wide": 1}
    fetch_all(config)
    assert gather_fetched(config) == {"planes": 4, "tiles": 2, "problems": 0}
    for tile in read_tiles(config, fetched=True):
        served = server.files[f"/dr1/{tile.survey}.fits"]
        assert tile.science.path.read_bytes() == served.content
        assert tile.science.sha256 == tile.noise.sha256 == sha256(tile.science.path)
        assert tile.footprint is not None
        (asked,) = served.asked
        assert asked["Authorization"] == "Bearer open"
    fetch_all(config)
    assert all(len(file.asked) == 1 for file in server.files.values())
    assert "open" not in (config.results / "tiles.ecsv").read_text()


def test_a_batch_says_what_came_and_what_was_here(elsewhere, caplog):
    caplog.set_level("INFO")
    server, config = elsewhere
    plan(config)
    length = sum(len(file.content) for file in server.files.values())
    for came, here in ((length, 0), (0, length)):
        caplog.clear()
        fetch_all(config)
        lines = [r.args for r in caplog.records if "were in the cache" in r.getMessage()]
        assert sum(n_bytes for _, _, n_bytes, *_ in lines) == came
        assert sum(n_bytes for *_, n_bytes in lines) == here
        assert sum(n_files for _, n_files, *_ in lines) == (2 if came else 0)


def test_a_tile_that_is_not_there_is_set_aside_with_its_address(elsewhere):
    server, config = elsewhere
    del server.files["/dr1/wide.fits"]
    plan(config)
    fetch_all(config)
    with pytest.raises(UserError, match=r"no good tile of band r .* answers 404 .*/dr1/wide.fits"):
        gather_fetched(config)
    (problem,) = problems(config)
    assert problem["survey"] == "wide"


def changed(config, survey, **archive):
    """The config with another archive of one survey."""
    content = yaml.safe_load(dump_config(config))
    content["surveys"][survey]["archive"] |= archive
    return parse_config(content, config.data / "config.yaml")


def test_a_server_that_is_not_there_is_named(elsewhere):
    config = changed(elsewhere[1], "wide", root="http://127.0.0.1:9/dr1")
    plan(config)
    fetch_all(config)
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9: .*[Cc]onnect"):
        gather_fetched(config)


def test_a_token_that_is_not_set_stops_before_anything_is_asked(elsewhere, monkeypatch):
    server, config = elsewhere
    monkeypatch.delenv("SESAME")
    plan(config)
    with pytest.raises(UserError, match=r"surveys\.\w+\.archive\.token_env: the variable SESAME"):
        fetch_all(config)
    assert not any(file.asked for file in server.files.values())


def test_an_address_may_stand_wherever_a_path_may(elsewhere):
    server, config = elsewhere
    image = yaml.safe_load(dump_config(config))["surveys"]["sharp"]["archive"]["images"][0]
    image["science"]["path"] = server.address("/dr1/sharp.fits?size=full")
    config = changed(config, "sharp", root=".", images=[image])
    plan(config)
    fetch_all(config)
    assert gather_fetched(config)["problems"] == 0
    (sharp, _) = read_tiles(config, fetched=True)
    assert sharp.science.path.name.endswith("-sharp.fits")


def test_what_would_be_fetched_is_told_with_its_size(elsewhere):
    server, config = elsewhere
    plan(config)
    rows = foreseen(config)
    assert [(row["survey"], row["band"], row["here"]) for row in rows] == [
        ("sharp", "r", False),
        ("wide", "r", False),
    ]
    assert [row["bytes"] for row in rows] == [
        len(server.files[f"/dr1/{name}.fits"].content) for name in ("sharp", "wide")
    ]
    assert not any(file.whole for file in server.files.values())
    fetch_all(config)
    del server.files["/dr1/wide.fits"]
    sharp, wide = foreseen(config)
    assert sharp["here"]
    assert wide["here"]
    assert wide["bytes"] > 0
    config = changed(config, "wide", root=server.address("/dr2"))
    plan(config)
    (_, wide) = foreseen(config)
    assert (wide["here"], wide["bytes"]) == (False, None)


def test_what_is_about_known_is_told_so_and_nobody_is_asked(elsewhere):
    server, config = elsewhere
    plan(config)
    told = [
        replace(tile, science=replace(tile.science, estimate=size), noise=None)
        for tile, size in zip(read_tiles(config), (1_200_000, 0), strict=True)
    ]
    write_tiles(config, told)
    sharp, wide = foreseen(config)
    assert (sharp["bytes"], sharp["estimate"], wide["estimate"]) == (1_200_000, True, False)
    assert not server.files["/dr1/sharp.fits"].asked
    shown = jaisp_command(config.data, "fetch", "--config", "config.yaml", "--dry-run")
    assert "sharp r" in shown.stdout
    assert ": about 1.2 MB, to be fetched: " in shown.stdout
    assert "2 files, 2 to be fetched: about " in shown.stdout
    fetch_all(config)
    sharp, _ = foreseen(config)
    assert (sharp["here"], sharp["estimate"]) == (True, False)
    assert sharp["bytes"] == len(server.files["/dr1/sharp.fits"].content)


def test_a_table_of_before_estimates_is_read(elsewhere):
    _, config = elsewhere
    plan(config)
    table = Table.read(tiles_path(config))
    table.remove_column("estimate")
    table.write(tiles_path(config), overwrite=True)
    assert [tile.science.estimate for tile in read_tiles(config)] == [0, 0]


def test_a_dry_run_fetches_nothing(elsewhere):
    server, config = elsewhere
    plan(config)
    told = jaisp_command(config.data, "fetch", "--config", "config.yaml", "--dry-run")
    assert told.returncode == 0, told.stderr
    assert "2 files, 2 to be fetched" in told.stdout
    assert not verified_planes(config)
    assert not any(file.whole for file in server.files.values())


@pytest.mark.parametrize("concurrent", [1, 3, 4, 10])
def test_processes_share_what_may_come_at_a_time(tmp_path, field, monkeypatch, concurrent):
    def fetched(own, batch, *, strict, draw):
        draw(1, 1)
        return {"process": os.getpid(), "share": own.fetch.concurrent}

    monkeypatch.setattr("jaisp.fetch.fetch", fetched)
    settings = field.fetch.model_copy(update={"concurrent": concurrent})
    own = field.model_copy(update={"fetch": settings})

    def done(batch, content):
        (tmp_path / f"{batch}").write_text(json.dumps(content))

    fetch_side_by_side(own, done)
    done = [json.loads((tmp_path / f"{batch}").read_text()) for batch in range(BATCHES)]
    shares = {each["process"]: each["share"] for each in done}
    assert len(shares) == min(BATCHES, concurrent)
    assert sum(shares.values()) == concurrent
