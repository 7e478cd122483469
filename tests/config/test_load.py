"""Configs: what is accepted, and the one line that says what isn't."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from jaisp.config import dump_config, group_hash, load_config, stage_hash
from jaisp.config.schema import reference_text, schema_text
from jaisp.errors import UserError
from jaisp.sky import cells
from tests.configs import small_config, survey, write_config

ROOT = Path(__file__).resolve().parents[2]
ARMS = ROOT / "config" / "ablations.yaml"
READY = sorted(path for path in (ROOT / "config").rglob("*.yaml") if path != ARMS)


def refusal(tmp_path: Path, content: dict) -> str:
    with pytest.raises(UserError) as error:
        load_config(write_config(tmp_path, content))
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(str(tmp_path / "config.yaml"))
    return message


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_ready_configs_are_valid_and_match_the_schema(path):
    config = load_config(path)
    assert config.run == path.stem
    jsonschema.validate(yaml.safe_load(path.read_text()), json.loads(schema_text()))


def test_schema_file_is_what_the_models_generate():
    assert (ROOT / "config" / "schema.json").read_text(encoding="utf-8") == schema_text()
    assert (ROOT / "docs" / "config.md").read_text(encoding="utf-8") == reference_text()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"colour": 1}, "colour: unknown key"),
        ({"train": {"sedd": 1}}, "train.sedd: unknown key"),
        ({"run": "../x"}, "run: "),
        ({"run": "a/b"}, "run: "),
        ({"patch": {"arcsec": 50.0}}, "patch.arcsec (50) must be a multiple"),
        ({"surveys": {"one": survey("one", 0.1)}}, "surveys: "),
        ({"sky": {"ra": 400, "dec": 0, "width_arcmin": 1, "height_arcmin": 1}}, "sky.0.ra: "),
        ({"sky": {"ra": 40, "dec": 0, "width_arcmin": 1}}, "sky.0.height_arcmin: missing"),
        ({"split": {"test": 1.5}}, "split.test"),
    ],
)
def test_mistakes_are_told_in_one_line_with_the_key(tmp_path, changes, expected):
    assert expected in refusal(tmp_path, small_config(**changes))


def test_unknown_archive_kind_lists_the_known_ones(tmp_path):
    content = small_config()
    content["surveys"]["sharp"]["archive"] = {"kind": "ftp"}
    message = refusal(tmp_path, content)
    assert "surveys.sharp.archive" in message
    assert "'ftp'" in message
    assert "'files', 'sia2', 'simulated', 'template'" in message


def test_unknown_key_of_an_image_names_its_place(tmp_path):
    content = small_config()
    content["surveys"]["sharp"]["archive"]["images"][0]["zerpoint"] = 30.0
    assert "surveys.sharp.archive.images.0.zerpoint: unknown key" in refusal(tmp_path, content)


@pytest.mark.parametrize("root", ["s3:///a", "gs://bucket/a", "s3://bucket/" + "x" * 100_000])
def test_an_address_that_nobody_reads_from_is_no_path(tmp_path, root):
    content = small_config()
    content["surveys"]["sharp"]["archive"]["root"] = root
    message = refusal(tmp_path, content)
    assert "surveys.sharp.archive.root: string should" in message
    assert len(message) < 400


@pytest.mark.parametrize("root", ["http://[x/a", "https://archive.org:99999999/b"])
def test_an_address_without_a_host_is_one_line(tmp_path, root):
    content = small_config()
    content["surveys"]["sharp"]["archive"]["root"] = root
    assert "surveys.sharp.archive.root: no address" in refusal(tmp_path, content)


@pytest.mark.parametrize("key", ["root", "tiles", "url", "checksums", "s3_endpoint"])
def test_an_address_with_who_we_are_in_it_is_refused_and_not_repeated(tmp_path, key):
    """Addresses stand in logs and tables."""
    address = "https://astronomer:swordfish@archive.org/x.fits"
    content = small_config()
    if key == "s3_endpoint":
        content["fetch"] = {key: address}
    elif key == "root":
        content["surveys"]["wide"]["archive"][key] = address
    else:
        archive = {"kind": "template", "tiles": "t.csv", "tile": "{brick}", "science": {"url": "x"}}
        archive |= {"science": {"url": address}} if key == "url" else {key: address}
        content["surveys"]["wide"]["archive"] = archive
    message = refusal(tmp_path, content)
    assert f"{key}: an address has no user in it" in message
    assert "swordfish" not in message


def test_dimensions_that_leave_surveys_nothing_to_agree_on_are_refused(tmp_path):
    content = small_config(model={"dimensions": 16}, train={"own_dimensions": 16})
    assert "own_dimensions (16) must be below model.dimensions (16)" in refusal(tmp_path, content)
    content["train"] = {"own_dimensions": 4, "objective": "vicreg"}
    assert "for `objective: information`, not vicreg" in refusal(tmp_path, content)
    content["train"] = {"own_dimensions": 15}
    assert load_config(write_config(tmp_path, content)).train.own_dimensions == 15


def test_a_key_that_stands_twice_is_refused(tmp_path):
    path = write_config(tmp_path, small_config())
    path.write_text(path.read_text() + "\nrun: again\n")
    with pytest.raises(UserError, match="`run` stands twice"):
        load_config(path)


def test_missing_file_and_broken_yaml(tmp_path):
    with pytest.raises(UserError, match="can't be read"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1,")
    with pytest.raises(UserError, match="not valid YAML"):
        load_config(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(UserError, match="mapping"):
        load_config(tmp_path / "list.yaml")


def test_data_folder_command_line_then_environment_then_own(tmp_path, monkeypatch):
    path = write_config(tmp_path, small_config())
    assert load_config(path).data == tmp_path
    monkeypatch.setenv("JAISP_DATA", str(tmp_path / "environment"))
    assert load_config(path).data == tmp_path / "environment"
    assert load_config(path, {"data": str(tmp_path / "given")}).data == tmp_path / "given"
    absolute = write_config(tmp_path, small_config(data=str(tmp_path / "file")))
    assert load_config(absolute).data == tmp_path / "file"


def test_resolved_config_reads_back_equal(tmp_path):
    config = load_config(write_config(tmp_path, small_config()))
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(dump_config(config), encoding="utf-8")
    assert load_config(resolved) == config


def test_group_hash_knows_its_own_survey_only(tmp_path):
    config = load_config(write_config(tmp_path, small_config()))
    content = small_config(train={"seed": 7}, run="other", data=str(tmp_path / "elsewhere"))
    content["surveys"]["third"] = survey("third", 0.3)
    more = load_config(write_config(tmp_path, content))
    (cell,) = cells(config)
    assert group_hash(more, "sharp", cell) == group_hash(config, "sharp", cell)
    assert stage_hash(more, "train") != stage_hash(config, "train")
    content["surveys"]["sharp"]["pixel_arcsec"] = 0.2
    other = load_config(write_config(tmp_path, content))
    assert group_hash(other, "sharp", cell) != group_hash(config, "sharp", cell)
    assert group_hash(config, "wide", cell) != group_hash(config, "sharp", cell)


def test_grid_divides_tokens_for_every_pixel(tmp_path):
    content = small_config()
    for pixel, (n, grid) in {0.339: (5, 0.32), 0.168: (10, 0.16), 3.0: (1, 1.6)}.items():
        content["surveys"]["wide"]["pixel_arcsec"] = pixel
        config = load_config(write_config(tmp_path, content))
        assert config.grid("wide") == pytest.approx((n, grid))
        assert config.patch_pixels("wide") == 8 * n
