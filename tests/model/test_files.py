"""The model folder."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import jaisp
from jaisp.errors import UserError
from jaisp.model import load_model, save_model


@pytest.fixture
def folder(model, tmp_path):
    save_model(model, tmp_path / "model", "# A card\n")
    return tmp_path / "model"


def test_a_round_trip_keeps_every_tensor(model, image, folder):
    model.frame.mul_(2)
    save_model(model, folder, "# A card\n")
    loaded = jaisp.load(folder)
    assert loaded.config == model.config
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    arguments = {"survey": "rubin", "bands": ["g", "r", "i"]}
    assert torch.equal(loaded.encode(*image, **arguments), model.encode(*image, **arguments))


def test_tokens_of_a_loaded_model_are_plain_arrays(image, folder):
    tokens = jaisp.load(folder).encode(*image, survey="rubin", bands=["g", "r", "i"])
    assert np.isfinite(np.asarray(tokens)).all()


def test_the_folder_holds_three_files(folder):
    names = {"model.safetensors", "config.json", "README.md"}
    assert {path.name for path in folder.iterdir()} == names
    assert (folder / "README.md").read_text() == "# A card\n"
    assert {path.name for path in folder.parent.iterdir()} >= {"model"}
    assert not list(folder.parent.glob(".*partial*"))


def test_whoever_reads_one_of_its_files_reads_all(folder):
    assert len({file.stat().st_mode for file in folder.iterdir()}) == 1


def test_a_failed_write_leaves_the_older_model(model, folder, monkeypatch):
    before = (folder / "model.safetensors").read_bytes()
    monkeypatch.setattr("jaisp.model.files.write_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_model(model, folder, "")
    assert (folder / "model.safetensors").read_bytes() == before
    assert not list(folder.parent.glob(".*partial*"))


def test_what_is_no_model_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no model"):
        load_model(tmp_path)


def test_another_format_is_named(folder):
    content = json.loads((folder / "config.json").read_text()) | {"format": "other"}
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="format 'other'"):
        load_model(folder)


def test_broken_config_is_named(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        load_model(folder)


def test_an_unknown_size_is_named(folder):
    content = json.loads((folder / "config.json").read_text()) | {"size": "huge"}
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="size"):
        load_model(folder)


def test_weights_that_do_not_fit_are_named(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("centre")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_model(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_changed_byte_is_noticed(folder, name):
    path = folder / name
    content = path.read_bytes()
    # The last byte of a weight; and the size of a token, which no tensor's shape tells.
    changed = content[:-1] + bytes([content[-1] ^ 1])
    if name == "config.json":
        size = json.loads(content)["token_arcsec"]
        changed = content.replace(f'"token_arcsec": {size}'.encode(), b'"token_arcsec": 3.5')
    assert changed != content
    path.write_bytes(changed)
    with pytest.raises(UserError, match="model: damaged: not the bytes that were written"):
        load_model(folder)


def test_truncated_weights_are_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_model(folder)
