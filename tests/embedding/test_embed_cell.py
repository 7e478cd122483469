"""The stage: token grids, components and pictures of a small published store."""

import shutil

import numpy as np
import pytest
import zarr
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image

import jaisp.embedding.cell as cell_module
from jaisp.config import parse_config
from jaisp.embedding import draw_maps, embed_cell, embed_cells, embed_maps, fit_maps
from jaisp.embedding.maps import TokenGrid, fit_basis, read_basis, token_grids
from jaisp.errors import UserError
from jaisp.files import folder_sha256
from jaisp.model import save_model
from jaisp.sky import cells
from jaisp.store.publish import publish
from tests.embedding.conftest import SURVEYS, fill_cell


@pytest.fixture
def embedded(published, model):
    save_model(model, published.results / "model", "")
    (cell,) = cells(published)
    for survey in published.surveys:
        embed_cell(published, cell, survey)
    return published


def test_token_grids_say_where_they_are(embedded):
    group = zarr.open_group(embedded.results / "embeddings.zarr", mode="r")["field/rubin"]
    tokens = group["tokens"]
    assert tokens.shape == (6, 24, 32)
    assert tokens.metadata.dimension_names == ("dimension", "y", "x")
    assert np.isfinite(tokens[...]).all()
    wcs = WCS(fits.Header(group.attrs["wcs"]))
    centre = wcs.pixel_to_world_values(15.5, 11.5)
    np.testing.assert_allclose(centre, (53.1, -28.1), atol=1e-9)
    assert not (embedded.results / ".partial" / "embed" / "field" / "rubin").exists()


def test_the_same_run_gives_the_same_bytes(embedded):
    (cell,) = cells(embedded)
    path = embedded.results / "embeddings.zarr" / "field" / "euclid"
    before = folder_sha256(path)
    receipt = embed_cell(embedded, cell, "euclid")
    assert receipt["sha256"] == before == folder_sha256(path)
    assert receipt["tokens"] == 24 * 32 - 64


def test_maps_have_the_images_sky(embedded):
    receipt = embed_maps(embedded)
    assert sorted(receipt["maps"]) == ["field_euclid.fits", "field_rubin.fits"]
    with fits.open(embedded.results / "maps" / "field_euclid.fits") as hdus:
        components, header = hdus[0].data, hdus[0].header
    assert components.shape == (6, 24, 32)
    assert np.isnan(components[:, -8:, -8:]).all()
    np.testing.assert_allclose(
        WCS(header).celestial.pixel_to_world_values(15.5, 11.5), (53.1, -28.1), atol=1e-9
    )
    shares = [header[f"PCVAR{k}"] for k in range(1, 7)]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    for survey in embedded.surveys:
        sizes = set()
        for end in ("", "_image"):
            with Image.open(embedded.results / "maps" / f"field_{survey}{end}.png") as picture:
                sizes.add(picture.size)
        assert len(sizes) == 1
    again = embed_maps(embedded)
    assert again == receipt


def test_components_follow_sources_of_all_surveys():
    """Sky varies along dimension 3 in nearly all tokens, sources along 0 and 1 in a few."""
    generator = np.random.default_rng(1)
    grids = []
    for survey, source_dimension, side in (("rubin", 0, 40), ("euclid", 1, 120)):
        tokens = generator.normal(0, 0.1, (5, side, side))
        tokens[3] += generator.normal(0, 2, (side, side))
        signal = np.where(generator.uniform(size=(side, side)) < 0.02, 50, 0).astype(np.float32)
        tokens[source_dimension] += np.where(signal > 5, generator.normal(0, 4, signal.shape), 0)
        tokens[:, 0, 0] = np.nan
        array = zarr.array(tokens.astype(np.float16), chunks=(5, 32, 32))
        grids.append(TokenGrid("field", survey, {}, array, signal))
    basis = fit_basis(grids, components=3)
    np.testing.assert_allclose(basis.components @ basis.components.T, np.eye(3), atol=1e-10)
    # The finer survey has nine times the tokens, and no more weight.
    assert set(np.abs(basis.components[:2]).argmax(axis=1)) == {0, 1}
    assert basis.variance[0] < 1.5 * basis.variance[1]
    largest = np.abs(basis.components).argmax(axis=1)
    assert (basis.components[np.arange(3), largest] > 0).all()
    along = basis.project(grids[0].tokens[...])
    assert along.shape == (3, 40, 40)
    assert np.isnan(along[:, 0, 0]).all()


def test_the_basis_is_kept(embedded):
    assert read_basis(embedded) is None
    embed_maps(embedded)
    kept, fitted = read_basis(embedded), fit_basis(list(token_grids(embedded)))
    np.testing.assert_array_equal(kept.components, fitted.components)
    np.testing.assert_array_equal(kept.spread, fitted.spread)


def test_what_is_missing_is_named(embedded, config):
    with pytest.raises(UserError, match="no survey 'hst'"):
        embed_cell(config, "field", "hst")
    with pytest.raises(UserError, match="no cell 'elsewhere'"):
        embed_cell(config, "elsewhere", "rubin")


def test_maps_before_tokens_is_a_plain_error(published):
    with pytest.raises(UserError, match="nothing embedded yet"):
        embed_maps(published)


@pytest.fixture
def many_cells(config, model):
    """Three cells of two surveys, published, with a model."""
    sky = {"ra": 53.1, "dec": -28.1, "width_arcmin": 3.0, "height_arcmin": 3.0}
    wide = config.model_dump(mode="json") | {"sky": [sky], "cell_order": 10, "run": "wide"}
    wide = parse_config(wide, config.data / "wide.yaml")
    for cell in cells(wide):
        for survey, (bands, _) in SURVEYS.items():
            fill_cell(wide, cell, survey, bands)
    publish(wide)
    save_model(model, wide.results / "model", "")
    return wide


def written(config):
    folders = (config.results / "embeddings.zarr", config.results / "maps")
    return {str(f): f.read_bytes() for d in folders for f in sorted(d.rglob("*")) if f.is_file()}


def test_bytes_do_not_depend_on_jobs_threads_or_where_one_was_killed(many_cells, monkeypatch):
    config = many_cells
    names = [cell.name for cell in cells(config)]
    assert len(names) == 3
    for survey in config.surveys:
        embed_cells(config, names, survey, threads=1)
    receipt = embed_maps(config)
    expected = written(config)

    for folder in ("embeddings.zarr", "maps", ".tokens", ".maps"):
        shutil.rmtree(config.results / folder)
    for name in reversed(names):
        for survey in config.surveys:
            embed_cell(config, name, survey, threads=3)
    assert embed_maps(config) == receipt
    assert written(config) == expected

    # Killed while it wrote a group: it had no note, and half of its files.
    (config.results / ".tokens" / f"{names[1]}.rubin.json").unlink()
    shutil.rmtree(config.results / "embeddings.zarr" / names[1] / "rubin" / "tokens")
    (config.results / "maps" / f"{names[2]}_euclid.png").unlink()
    made = []
    write = cell_module._write
    monkeypatch.setattr(cell_module, "_write", lambda *a: made.append(a[1].cell.name) or write(*a))
    embed_cells(config, names, "rubin")
    assert made == [names[1]]
    assert embed_maps(config) == receipt
    assert written(config) == expected


def test_other_bytes_than_were_noted_are_made_anew(embedded, monkeypatch):
    (cell,) = cells(embedded)
    chunk = next((embedded.results / "embeddings.zarr/field/rubin/tokens/c").rglob("0"))
    before = {f: f.read_bytes() for f in chunk.parent.rglob("*") if f.is_file()}
    for file in before:
        file.write_bytes(b"damage")
    embed_cell(embedded, cell, "rubin")
    assert {f: f.read_bytes() for f in before} == before


def test_a_wide_grid_keeps_a_row_of_chunks_in_one_file(tmp_path):
    group = zarr.create_group(tmp_path / "wide")
    array = cell_module._create(group, "tokens", (2, 300, 330), "float16")
    assert (array.chunks, array.shards) == ((2, 32, 32), (2, 32, 352))
    values = np.arange(2 * 300 * 330, dtype=np.float16).reshape(2, 300, 330)
    for y in range(0, 300, 32):
        array[:, y : y + 32] = values[:, y : y + 32]
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "wide")["tokens"][...], values)
    assert len([f for f in (tmp_path / "wide/tokens/c").rglob("*") if f.is_file()]) == 10
    assert cell_module._create(group, "small", (2, 160, 160), "float16").shards is None


def test_colours_of_a_wide_sky_are_fitted_to_some_cells(many_cells, monkeypatch):
    names = [cell.name for cell in cells(many_cells)]
    for survey in many_cells.surveys:
        embed_cells(many_cells, names, survey)
    assert fit_maps(many_cells)["cells"] == len(names)
    monkeypatch.setattr("jaisp.embedding.maps.BASIS_CELLS", 2)
    assert fit_maps(many_cells)["cells"] == 2
    assert len(embed_maps(many_cells)["maps"]) == 2 * len(names)


def test_maps_want_tokens_and_colours(many_cells):
    names = [cell.name for cell in cells(many_cells)]
    with pytest.raises(UserError, match="run `jaisp embed --basis` first"):
        draw_maps(many_cells, names, "rubin")
    embed_cells(many_cells, names[:1], "rubin")
    fit_maps(many_cells)
    with pytest.raises(UserError, match=f"no {names[1]}/rubin; run its embedding"):
        draw_maps(many_cells, names, "rubin")
