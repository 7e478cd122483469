"""The stage itself: which skies there are, where sources go, and what a killed job leaves."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from scipy.spatial import cKDTree

from jaisp.config import load_config, parse_config
from jaisp.errors import UserError
from jaisp.evaluate.injected import features, open_injected, reference_tokens
from jaisp.files import folder_sha256
from jaisp.inject import stage
from jaisp.inject.names import kind_of, sky_names, why_none
from jaisp.inject.placement import BOTH, EACH, SNR, add_levels, patches_with_sources, place_sources
from jaisp.sky import NONE, TEST, cells, splits
from tests.configs import small_config, write_small_field
from tests.inject.conftest import injected_config


def names_of(config):
    return sky_names(config, cells(config))


def test_the_skies_of_a_run():
    config = injected_config()
    assert " ".join(names_of(config)) == "empty crowded pairs second_empty displaced second"
    copied = injected_config(inject={"copies": 3})
    assert [n for n in names_of(copied) if kind_of(n) == "empty"] == ["empty", "empty2", "empty3"]
    assert names_of(injected_config(inject={"copies": 0})) == []
    assert "copies" in why_none(injected_config(inject={"copies": 0}), [])


def test_a_field_of_few_patches_has_none(tmp_path):
    config = load_config(write_small_field(tmp_path))
    assert "fewer than 4 patches" in why_none(config, cells(config))


def test_real_surveys_have_no_second_field_and_need_zero_points():
    content = small_config(sky={"ra": 150.0, "dec": 2.0, "width_arcmin": 2, "height_arcmin": 2})
    config = parse_config(content, Path("small.yaml"))
    assert names_of(config) == ["empty", "crowded", "pairs", "displaced"]
    content["surveys"]["wide"]["archive"]["images"][0]["zeropoint"] = None
    assert why_none(parse_config(content, Path("small.yaml")), cells(config)) == (
        "wide r is uncalibrated"
    )


def test_sources_are_isolated_and_lie_evenly():
    config = injected_config(
        sky={"ra": 10.0, "dec": -28.0, "width_arcmin": 8.5, "height_arcmin": 8.5},
        patch={"arcsec": 51.2},
    )
    rng = np.random.default_rng(1)
    sources = place_sources(config, rng)
    add_levels(sources, (EACH, BOTH), rng)
    place = np.stack([sources["x"], sources["y"]], axis=1)
    assert cKDTree(place).query(place, 2)[0][:, 1].min() > 0.89 * config.inject.spacing_arcsec
    (cell,) = cells(config)
    away = np.abs(place - cell.centres[sources["row"]])
    assert away.max() < cell.patch_arcsec / 2
    assert not (splits(config, [cell])["field"][sources["row"]] == NONE).any()
    per_patch = np.bincount(sources["row"], minlength=len(cell))
    assert per_patch[per_patch > 0].min() > 55
    # Places within a pixel and within a token are even: their mean phase is that of chance.
    for length in (0.1, 0.2, 0.3, 1.6):
        phase = np.exp(2j * np.pi * place / length).mean(axis=0)
        assert np.abs(phase).max() < 4 / np.sqrt(len(place))
    for split in ("train", "test"):
        own = sources[sources["split"] == split]
        counts = [
            ((own["snr"] == snr) & (own["kind"] == kind)).sum()
            for snr in SNR
            for kind in (EACH, BOTH)
        ]
        assert max(counts) - min(counts) < 0.05 * np.mean(counts)


def test_of_many_patches_some_hold_sources_and_enough_are_test():
    config = injected_config(
        sky={"ra": 10.0, "dec": -28.0, "width_arcmin": 20, "height_arcmin": 20},
        inject={"patches": 100},
    )
    (cell,) = cells(config)
    rows = patches_with_sources(config, [cell])["field"]
    assert len(rows) == len(set(rows.tolist())) == 100
    split = splits(config, [cell])["field"][rows]
    assert (split == TEST).sum() == 40
    assert not (split == NONE).any()


def test_a_killed_job_goes_on_and_ends_with_the_same_sky(here, skies, monkeypatch, tmp_path):
    expected = skies("crowded")
    folder = here.results / "injected" / "crowded"
    kept = tmp_path / "kept"
    shutil.move(folder, kept)

    class Killed(BaseException):
        pass

    def dies(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(stage, "publish", dies)
        with pytest.raises(Killed):
            stage.inject(here, "crowded")
    assert not (folder / "sources.ecsv").exists()
    assert open_injected(folder) is None
    groups = sorted((folder / "patches.zarr" / "field").glob("*/zarr.json"))
    before = [group.stat().st_mtime_ns for group in groups]
    stage.inject(here, "crowded")
    assert [group.stat().st_mtime_ns for group in groups] == before
    assert len(groups) == 2
    assert (folder / "sources.ecsv").read_bytes() == (kept / "sources.ecsv").read_bytes()
    assert folder_sha256(folder / "patches.zarr") == folder_sha256(kept / "patches.zarr")
    assert len(open_injected(folder).sources) == len(expected.sources)


def test_a_sky_that_is_whole_is_kept_and_leaves_no_scaffolding(here, skies, monkeypatch):
    skies("empty")
    folder = here.results / "injected" / "empty"
    assert {p.name for p in folder.iterdir()} == {"patches.zarr", "sources.ecsv", "origin.json"}
    with monkeypatch.context() as patch:
        patch.setattr(stage, "_make", lambda *_: pytest.fail("made again"))
        first = stage.inject(here, "empty")
    assert first["sources"] == len(skies("empty").sources)
    # Another seed makes another sky; a sky in which a byte changed is not kept.
    with monkeypatch.context() as patch:
        patch.setattr(stage, "_make", lambda *_: (_ for _ in ()).throw(UserError("made")))
        changed = here.model_copy(update={"inject": here.inject.model_copy(update={"seed": 5})})
        assert stage._kept(folder, stage._made_from(changed, "empty")) is None
    table = folder / "sources.ecsv"
    text = table.read_text()
    table.write_text(text + "\n")
    assert stage._kept(folder, stage._made_from(here, "empty")) is None
    table.write_text(text)
    assert stage._kept(folder, stage._made_from(here, "empty")) is not None


def test_the_cache_keeps_nothing_of_derived_tiles(here, skies):
    skies("empty")
    skies("second_empty")
    cache = here.results.parent.parent / "cache"
    files = list(cache.rglob("*.fits"))
    assert files
    assert all(path.exists() for path in files)
    assert not list((here.results / "injected").rglob("*.fits"))


def test_an_unknown_sky_is_refused(here):
    with pytest.raises(UserError, match="no sky 'full'"):
        stage.inject(here, "full")


class Flux:
    """Tokens that are the mean flux of a token's pixels, a dimension a band."""

    def encode(self, flux, noise, mask=None, *, survey, bands):
        n = 8 if survey == "rubin" else 16
        samples, bands, height, width = np.shape(flux)
        tokens = np.nan_to_num(flux).reshape(samples, bands, height // n, n, width // n, n)
        return tokens.mean(axis=(3, 5))


def test_copies_of_a_sky_are_read_as_one(here, skies, tmp_path):
    """Each copy's sources get the tokens of its own store."""
    skies("empty")
    skies("crowded")
    for source, name in (("empty", "empty"), ("crowded", "empty2")):
        shutil.copytree(here.results / "injected" / source, tmp_path / name)
    sky = open_injected(tmp_path / "empty")
    alone = [skies("empty"), skies("crowded")]
    assert len(sky.sources) == sum(len(one.sources) for one in alone)
    assert isinstance(sky.sources, Table)
    tokens, _ = reference_tokens(sky, 1)
    found = features(sky, "rubin", {"model": Flux()}, tokens, 2)["model"]["tokens"]
    start = 0
    for one in alone:
        stop = start + len(one.sources)
        own = features(one, "rubin", {"model": Flux()}, tokens[start:stop], 2)["model"]["tokens"]
        assert np.array_equal(found[start:stop], own, equal_nan=True)
        start = stop
