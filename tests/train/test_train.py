"""The stage: what it writes, and that it is the same every time."""

import json
import logging
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import jaisp
from jaisp.config.model import ModelConfig
from jaisp.errors import UserError
from jaisp.model.inputs import network_inputs
from jaisp.store.codes import MISSING
from jaisp.train import checkpoint, loop, precision, train
from jaisp.train.fresh import new_model
from jaisp.train.optimiser import follow
from jaisp.train.pairs import Pairs
from jaisp.train.patches import Patches, measure_noise
from tests.train.conftest import make_config
from tests.train.interrupt import interrupted_at

CPU = torch.device("cpu")
SMALL = ModelConfig(size="tiny", dimensions=6)


def history(config):
    text = (config.results / "history.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def weights(config):
    return (config.results / "model" / "model.safetensors").read_bytes()


@pytest.fixture
def patches(store):
    numbers = store.where("train")
    return Patches(store, numbers, measure_noise(store, numbers), 1.0, "read")


def test_a_run_leaves_a_model_and_its_history(config):
    receipt = train(config)
    model = jaisp.load(config.results / "model")
    assert set(model.config.surveys) == {"rubin", "euclid", "narrow"}
    assert "validation retrieval" in (config.results / "model" / "README.md").read_text()
    lines = history(config)
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert sum(lines[-1]["pairs"].values()) == 6
    assert receipt["pairs"] == lines[-1]["pairs"]
    assert {"participation_ratio", "rankme", "smallest_std", "learning_rate"} <= set(lines[0])
    assert {"validation_top1", "validation_tokens"} <= set(lines[1])
    assert "validation_top1" not in lines[0]
    assert not (config.results / ".partial" / "train").exists()
    assert model.typical_noise("rubin").numpy() == pytest.approx(5.0, rel=0.05)


def test_two_runs_are_equal(config):
    train(config, threads=1)
    first = weights(config), history(config)
    train(config, threads=1)
    assert (weights(config), history(config)) == first


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path, config, ema, monkeypatch):
    config = make_config(tmp_path, ema=ema)
    train(config)
    whole = weights(config), history(config)
    interrupted_at(5, monkeypatch, lambda: train(config))
    assert weights(config) == whole[0]
    real = loop.Run._step

    def resumed(self, step):
        assert step > 3
        real(self, step)

    monkeypatch.setattr(loop.Run, "_step", resumed)
    train(config)
    assert (weights(config), history(config)) == whole


@given(place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_a_flipped_byte_of_a_checkpoint_is_noticed_or_changes_nothing(place, change):
    tensor = torch.arange(2000.0)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        checkpoint.save_checkpoint(path, "one", {"step": 3, "x": tensor})
        content = bytearray(path.read_bytes())
        content[int(place * len(content))] ^= change
        path.write_bytes(content)
        found = checkpoint.read_checkpoint(path, "one")
    assert found is None or (found["step"] == 3 and torch.equal(found["x"], tensor))


def test_a_tensor_marked_as_a_folder_is_noticed(tmp_path):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save_checkpoint(path, "one", {"x": torch.arange(2000.0)})
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"archive/data/0") - 46  # in the zip's directory, at its end
    assert content[entry : entry + 4] == b"PK\1\2"
    content[entry + 38] ^= 0x10  # a folder, among the attributes that DOS gives files
    path.write_bytes(content)
    assert checkpoint.read_checkpoint(path, "one") is None


def test_a_checkpoint_of_another_run_is_left_alone(tmp_path):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save_checkpoint(path, "one", {"step": 3, "x": torch.ones(2)})
    assert checkpoint.read_checkpoint(path, "other") is None
    assert checkpoint.read_checkpoint(path, "one")["step"] == 3
    path.write_bytes(path.read_bytes()[:50])
    assert checkpoint.read_checkpoint(path, "one") is None
    assert checkpoint.read_checkpoint(tmp_path / "none", "one") is None


def test_a_loss_that_is_not_finite_names_its_batch(tmp_path, config, monkeypatch):
    train(config)
    before = weights(config)
    real = loop.encode
    monkeypatch.setattr(loop, "encode", lambda model, views: real(model, views) * np.nan)
    with pytest.raises(UserError, match=r"step 1: the loss is not finite .*patches field/"):
        train(config)
    assert weights(config) == before


def test_the_average_teacher_copies_buffers(store):
    noise = measure_noise(store, store.where("train"))
    model = new_model(store, SMALL, noise, 1)
    teacher = new_model(store, SMALL, noise, 2)
    start = teacher.encoders["rubin"].stem.bank.clone()
    model.centre.fill_(3.0)
    follow(teacher, model, 0.75)
    assert torch.equal(teacher.centre, model.centre)
    expected = 0.75 * start + 0.25 * model.encoders["rubin"].stem.bank
    torch.testing.assert_close(teacher.encoders["rubin"].stem.bank, expected)


def test_every_kind_of_pair_is_drawn_in_its_share(patches, tmp_path):
    shares = {"surveys": 2.0, "bands": 1.0, "degraded": 1.0}
    pairs = Pairs(patches, make_config(tmp_path, pairs=shares).train)
    kinds = [pairs.draw(step).name for step in range(1, 201)]
    across = [name for name in kinds if name.startswith("surveys:")]
    assert 80 <= len(across) <= 120
    assert set(across) == {"surveys:euclid+rubin", "surveys:euclid+narrow", "surveys:narrow+rubin"}
    within = {name for name in kinds if name.startswith("bands:")}
    assert within == {"bands:rubin", "bands:euclid"}
    assert {"degraded:rubin", "degraded:euclid", "degraded:narrow"} <= set(kinds)


def test_patches_that_lack_a_survey_are_not_paired_with_it(patches, tmp_path):
    pairs = Pairs(patches, make_config(tmp_path).train)
    covered = set(patches.covered["narrow"])
    assert covered < set(patches.numbers)
    for step in range(60):
        batch = pairs.draw(step)
        if "narrow" in batch.name:
            assert set(batch.patches) <= covered


def test_impossible_kinds_are_left_out_and_said(patches, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(patches, "covered", patches.covered | {"rubin": [], "euclid": []})
    with caplog.at_level(logging.WARNING):
        pairs = Pairs(patches, make_config(tmp_path).train)
    assert pairs.shares == {"degraded": 1.0}
    assert "train.pairs.bands" in caplog.text
    assert "train.pairs.surveys" in caplog.text


def test_surveys_that_make_no_pair_are_an_error(patches, tmp_path, monkeypatch):
    monkeypatch.setattr(patches, "covered", {survey: [] for survey in patches.covered})
    with pytest.raises(UserError, match=r"train\.pairs"):
        Pairs(patches, make_config(tmp_path).train)


def test_a_batch_comes_from_seed_and_step_alone(patches, tmp_path):
    settings = make_config(tmp_path).train
    one, other = Pairs(patches, settings), Pairs(patches, settings)
    one.draw(1)
    first, second = (pairs.show(pairs.draw(7), CPU) for pairs in (one, other))
    assert first.patches == second.patches
    assert torch.equal(first.first.inputs, second.first.inputs)
    assert torch.equal(first.weight, second.weight)


def test_bands_that_are_not_shown_and_missing_pixels_are_zero_and_invalid(patches, tmp_path):
    pairs = Pairs(patches, make_config(tmp_path, band_dropout=0.5).train)
    hidden = 0
    for step in range(1, 20):
        draw = pairs.draw(step)
        draw.first.codes["flux"][:, :, 1, 2] = MISSING
        batch = pairs.show(draw, CPU)
        for crops, views in ((draw.first, batch.first), (draw.second, batch.second)):
            assert not views.inputs[~crops.shown].any()
            assert (views.inputs[crops.shown][:, 1].flatten(1).sum(1) > 0).all()
            hidden += int((~crops.shown).sum())
        assert not batch.first.inputs[..., 1, 2].any()
        assert batch.weight.isfinite().all()
    assert hidden > 10


def test_inputs_are_those_of_the_stores_pixels(store, patches):
    number = patches.covered["narrow"][0]
    view = store[number]["narrow"]
    (codes,) = patches.codes([number], "narrow")
    batch = {name: tensor[None] for name, tensor in codes.items()}
    planes = (torch.from_numpy(p)[None] for p in (view.flux, view.noise, view.mask))
    expected = network_inputs(*planes, patches.typical_noise["narrow"])
    assert torch.equal(patches.inputs(batch, "narrow", CPU), expected)


def test_crops_go_where_sampling_says(store, tmp_path):
    noise = measure_noise(store, store.where("train"))
    patches = Patches(store, store.where("train"), noise, 1.0, "read", detect=True)

    def interest(sampling):
        pairs = Pairs(patches, make_config(tmp_path, sampling=sampling).train)
        return pairs.interest["surveys"]["euclid", "rubin"]

    signal, sources, uniform = map(interest, ("signal", "sources", "uniform"))
    found = 0
    for number, chances in sources.items():
        counts = np.maximum(*(patches.sources[s][number] for s in ("euclid", "rubin")))
        np.testing.assert_allclose(chances, 0.02 + counts, rtol=1e-6)
        assert (uniform[number] == 1).all()
        # Where sources are detected, the S/N is higher than elsewhere.
        assert signal[number][counts > 0].mean() > 1.5 * signal[number][counts == 0].mean()
        found += counts.sum()
    assert found > 3 * len(sources)


@pytest.mark.parametrize("sampling", ["sources", "uniform"])
def test_sampling_trains(tmp_path, config, sampling):
    train(make_config(tmp_path, sampling=sampling, steps=2))
    assert history(config)[-1]["step"] == 2


def test_a_run_that_reads_by_workers_is_the_run_that_keeps_its_patches(tmp_path, config):
    train(config, threads=1)
    kept = weights(config), history(config)
    for workers in (0, 2):
        train(make_config(tmp_path, memory_gib=0.0, workers=workers), threads=1)
        assert (weights(config), history(config)) == kept


def test_patches_of_one_band_have_no_band_pairs(patches, tmp_path):
    number = patches.covered["rubin"][0]
    patches.present["rubin"][number] = np.array([False, True, False])
    pairs = Pairs(patches, make_config(tmp_path).train)
    assert number not in pairs.interest["bands"]["rubin", "rubin"]
    assert number in pairs.interest["degraded"]["rubin", "rubin"]


def test_sky_that_a_survey_does_not_see_weighs_nothing(patches, tmp_path):
    number = patches.covered["rubin"][0]
    patches.snr["rubin"][number][:] = np.nan
    pairs = Pairs(patches, make_config(tmp_path).train)
    assert number not in pairs.interest["surveys"]["euclid", "rubin"]
    assert number in pairs.interest["degraded"]["euclid", "euclid"]


def test_patches_read_from_the_store_are_those_kept_in_memory(store, patches):
    numbers = store.where("train")
    read = Patches(store, numbers, measure_noise(store, numbers), 0.0, "read")
    assert patches.resident
    assert not read.resident
    some = patches.covered["rubin"][:3]
    for one, other in zip(read.codes(some, "rubin"), patches.codes(some, "rubin"), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_nothing_to_train_on_is_an_error(config, monkeypatch):
    monkeypatch.setattr("jaisp.store.reader.Store.where", lambda self, split: np.zeros(0, int))
    with pytest.raises(UserError, match="split"):
        train(config)


def test_no_pairs_at_all_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"train\.pairs"):
        make_config(tmp_path, pairs={"surveys": 0, "bands": 0, "degraded": 0})


@pytest.mark.parametrize("objective", ["vicreg", "sigreg"])
def test_every_objective_trains_and_tells_its_terms(tmp_path, config, objective):
    pairs = {"surveys": 3, "bands": 0, "degraded": 1}
    train(make_config(tmp_path, objective=objective, pairs=pairs, record_every=6))
    (line,) = history(config)
    assert {name.split(":")[0] for name in line["pairs"]} == {"surveys", "degraded"}
    terms = {"vicreg": {"variance", "covariance"}, "sigreg": {"normality"}}[objective]
    for kind in ("across", "within"):
        names = {n.removeprefix(f"{kind}_") for n in line if n.startswith(f"{kind}_")}
        assert names == {"loss", "alignment", "photometry"} | terms


def test_the_loss_is_the_weighted_sum_of_its_terms(tmp_path, config):
    train(make_config(tmp_path, objective="sigreg", sigreg={"weight": 0.3}, record_every=1))
    for line in history(config):
        (kind,) = {n.split("_")[0] for n in line if n.endswith("_alignment")}
        expected = 0.7 * line[f"{kind}_alignment"] + 0.3 * line[f"{kind}_normality"]
        places = [line[f"position_{survey}"] for survey in ("rubin", "euclid", "narrow")]
        expected += 0.03 * sum(places) + 0.1 * line[f"{kind}_photometry"]
        assert line["loss"] == line[f"{kind}_loss"] == pytest.approx(expected, rel=1e-5)


def test_bfloat16_is_for_encoders_alone(tmp_path, config, monkeypatch):
    train(config)
    plain = history(config)
    kinds = set()
    real = loop.encode

    def watched(model, views):
        project = model.trunk.project
        hook = project.register_forward_hook(lambda *given: kinds.add(given[-1].dtype))
        tokens = real(model, views)
        hook.remove()
        # What moments say of positions goes past, in full.
        assert tokens.dtype == torch.float32
        return tokens

    monkeypatch.setattr(loop, "encode", watched)
    train(make_config(tmp_path, precision="bfloat16"))
    assert kinds == {torch.bfloat16}
    model = jaisp.load(config.results / "model")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    rounded = history(config)
    assert rounded != plain
    assert rounded[0]["loss"] == pytest.approx(plain[0]["loss"], abs=0.05)


@pytest.fixture
def compiler(monkeypatch):
    """torch.compile with nothing kept from other tests. Shapes aren't checked: the compiler would
    follow every check, and find half as many graphs again."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_compiled_encoders_are_the_encoders(tmp_path, config, compiler, monkeypatch):
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(precision, "BACKEND", counting)
    # Two steps: most of the time goes to finding the graphs.
    few = {"ema": 0.9, "steps": 2, "record_every": 1}
    train(make_config(tmp_path, **few), threads=1)
    plain = weights(config), history(config)
    train(make_config(tmp_path, **few, compile=True), threads=1)
    assert (weights(config), history(config)) == plain
    # Three encoders and their teachers at the least.
    assert len(graphs) >= 6


def test_encoders_that_do_not_compile_are_said_in_one_line(tmp_path, config, compiler, monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no compiler\nhere")

    monkeypatch.setattr(precision, "BACKEND", broken)
    with pytest.raises(UserError, match=r"train\.compile: .* no compiler here.*; set it to false"):
        train(make_config(tmp_path, compile=True))


def test_the_history_is_written_for_tensorboard_and_goes_on_there(tmp_path, config, monkeypatch):
    config = make_config(tmp_path, tensorboard=True)
    interrupted_at(5, monkeypatch, lambda: train(config))
    train(config)
    events = EventAccumulator(str(config.results / "tensorboard"))
    events.Reload()
    loss = [(event.step, event.value) for event in events.Scalars("loss")]
    assert loss == [(line["step"], pytest.approx(line["loss"])) for line in history(config)]
    assert {"rankme", "gradient_norm", "validation_top1"} <= set(events.Tags()["scalars"])


def test_missing_tensorboard_is_said_before_anything_is_read(tmp_path, config, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"train\.tensorboard: .*pip install.*tensorboard"):
        train(make_config(tmp_path, tensorboard=True))
    assert not (config.results / "history.jsonl").exists()
