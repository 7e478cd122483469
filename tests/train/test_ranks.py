"""Processes that train together, started for real: what one finds, two find."""

import json
import shutil
import signal

import pytest
import torch

from jaisp.errors import UserError
from jaisp.train import ranks as ranks_module
from jaisp.train import train
from jaisp.train.pairs import Pairs
from jaisp.train.patches import Patches, measure_noise
from jaisp.train.ranks import own_part, summed
from tests.train import processes
from tests.train.conftest import make_config


def history(config):
    return read_lines(config.results / "history.jsonl")


def read_lines(path):
    text = path.read_text()
    return [json.loads(line) for line in text.splitlines()]


def weights(config):
    return (config.results / "model" / "model.safetensors").read_bytes()


def assert_like(lines, expected, tolerance):
    """The same columns, and the same curves but for rounding."""
    for line, other in zip(lines, expected, strict=True):
        assert line.keys() == other.keys()
        assert line["pairs"] == other["pairs"]
        # A token more or less that finds its partner is no matter of rounding.
        kept = [name for name in other if name not in ("pairs", "validation_top1")]
        numbers = [[entry[name] for name in kept] for entry in (line, other)]
        torch.testing.assert_close(*map(torch.tensor, numbers), rtol=tolerance, atol=tolerance)


def assert_same_gradients(found, expected):
    assert len(found) == len(expected)
    largest = max(float(gradient.abs().max()) for gradient in expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * largest)


def test_two_processes_find_the_losses_and_gradients_of_one(config, tmp_path):
    assert processes.start(processes.statistics, 2, tmp_path) == [0, 0]
    of_ranks = [torch.load(tmp_path / f"{k}.pt", weights_only=True) for k in (0, 1)]
    everything = slice(0, sum(processes.TOKENS))
    for name, changes in processes.OBJECTIVES.items():
        alone = processes.loss_of(tmp_path, name, everything)
        step = processes.first_steps(make_config(tmp_path, **changes))
        for found in of_ranks:
            for kind in ("tokens", "wrapped"):
                assert found[kind][name]["terms"] == pytest.approx(alone["terms"], rel=1e-4)
                assert_same_gradients(found[kind][name]["gradients"], alone["gradients"])
            assert_like([found["steps"][name]["line"]], [step["line"]], 1e-3)
            of_step = found["steps"][name]["gradients"]
            assert of_step.keys() == step["gradients"].keys()
            assert_same_gradients(list(of_step.values()), list(step["gradients"].values()))
    for found in of_ranks:
        assert [part.tolist() for part in found["gathered"]] == [[0, 1], [10, 11, 12]]
        assert "step 1: the loss is not finite" in found["message"]
        assert found["message"].count("field/") == 3
    assert [found["parts"] for found in of_ranks] == [
        [(0, 1), (0, 1), (0, 3)],
        [(1, 2), (1, 3), (3, 7)],
    ]


def test_two_processes_train_and_one_goes_on_from_their_checkpoint(config, tmp_path):
    train(config, threads=1)
    alone = history(config)
    shutil.rmtree(config.results / "model")
    codes = processes.start(processes.whole_then_killed, 2, tmp_path, 5)
    assert codes[1] == -signal.SIGKILL
    assert codes[0] != 0
    together = read_lines(tmp_path / "together.jsonl")
    assert_like(together, alone, 0.02)
    assert (config.results / "model" / "model.safetensors").exists()
    receipts = [json.loads((tmp_path / f"{k}.json").read_text()) for k in (0, 1)]
    assert receipts[0] == receipts[1]
    assert (config.results / ".partial" / "train" / "checkpoint.pt").exists()
    train(config, threads=1)
    assert history(config)[0] == together[0]
    assert_like(history(config), alone, 0.02)


def test_a_run_killed_with_minus_nine_goes_on_as_if_it_had_not_been(config, tmp_path):
    train(config, threads=1)
    expected = weights(config), history(config)
    assert processes.start(processes.killed, 1, tmp_path, 5) == [-signal.SIGKILL]
    checkpoint = config.results / ".partial" / "train" / "checkpoint.pt"
    assert torch.load(checkpoint, weights_only=True)["step"] == 3
    train(config, threads=1)
    assert (weights(config), history(config)) == expected


def test_parts_of_a_draw_are_the_draw(store, config, monkeypatch):
    numbers = store.where("train")
    patches = Patches(store, numbers, measure_noise(store, numbers), 1.0, "read")
    settings = config.train.model_copy(update={"batch": 5})
    alone = Pairs(patches, settings)
    monkeypatch.setattr(ranks_module, "ranks", lambda: 2)
    parts = []
    for k in (0, 1):
        monkeypatch.setattr(ranks_module, "rank", lambda k=k: k)
        parts.append(Pairs(patches, settings))
    kinds = set()
    for step in range(1, 30):
        draw, (one, other) = alone.draw(step), [pairs.draw(step) for pairs in parts]
        kinds.add(draw.kind)
        assert draw.patches == one.patches == other.patches
        for side in ("first", "second"):
            whole, *halves = (getattr(d, side) for d in (draw, one, other))
            assert [len(half.shown) for half in halves] == [2, 3]
            for name, values in whole.codes.items():
                assert torch.equal(values, torch.cat([half.codes[name] for half in halves]))
            assert whole.degradations == halves[0].degradations + halves[1].degradations
            whole, *halves = (getattr(d, f"{side}_place") for d in (draw, one, other))
            assert torch.equal(whole, torch.cat([halves[0], halves[1] + 2 * alone.crop**2]))
    assert kinds == {"surveys", "bands", "degraded"}


def test_more_processes_than_patches_are_refused(monkeypatch):
    monkeypatch.setattr(ranks_module, "ranks", lambda: 4)
    with pytest.raises(UserError, match=r"train\.batch: 3 a step .* 4 processes"):
        own_part(3, "train.batch")


def test_alone_a_sum_is_what_went_into_it():
    tensor = torch.ones(2)
    assert summed(tensor)[0] is tensor
