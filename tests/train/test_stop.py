"""Trainings that are told to stop, or lose a process, and go on with other numbers of them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from jaisp.config import dump_config
from jaisp.errors import STOPPED, StoppedError
from jaisp.train import loop, train
from jaisp.train.stop import SIGNALS
from tests.train import launched
from tests.train.test_ranks import assert_like, history


def checkpoint(config):
    path = config.results / ".partial" / "train" / "checkpoint.pt"
    return torch.load(path, weights_only=True)["step"]


def outcome(config):
    return load_file(config.results / "model" / "model.safetensors"), history(config)


def assert_same(found, expected, tolerance):
    """The same model and the same curves, but for rounding: it grows with every step."""
    assert_like(found[1], expected[1], tolerance)
    assert found[0].keys() == expected[0].keys()
    for name, tensor in expected[0].items():
        torch.testing.assert_close(found[0][name], tensor, rtol=tolerance, atol=tolerance)


def told_at(end, number, monkeypatch, config):
    """Start a training that gets a signal while it makes step `end`."""
    real = loop.Run._step

    def step(self, made):
        if made == end:
            os.kill(os.getpid(), number)
        real(self, made)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "_step", step)
        with pytest.raises(StoppedError, match=rf"{number.name}.*after step {end} of 6"):
            train(config, threads=1)


def start(config, processes, happens=None):
    """`jaisp train --processes N`, as a user would start it; its lines and exit status."""
    Path("small.yaml").write_text(dump_config(config))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    if happens:
        environment["HAPPENS"] = happens
    command = [sys.executable, launched.__file__, "train", "--config", "small.yaml"]
    command += ["--processes", str(processes), "--threads", "1", "--log", "train.log"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr.splitlines(), done.returncode


@pytest.mark.parametrize("number", SIGNALS)
def test_a_training_that_is_told_to_stop_goes_on_as_if_it_had_not_been(config, monkeypatch, number):
    train(config, threads=1)
    expected = outcome(config)
    before = [signal.getsignal(each) for each in SIGNALS]
    told_at(4, number, monkeypatch, config)
    assert checkpoint(config) == 4
    assert [signal.getsignal(each) for each in SIGNALS] == before
    train(config, threads=1)
    assert_same(outcome(config), expected, 0.0)


def test_a_checkpoint_by_other_code_is_not_gone_on_with(config, monkeypatch, caplog):
    train(config, threads=1)
    expected = outcome(config)
    told_at(4, signal.SIGTERM, monkeypatch, config)
    monkeypatch.setattr(loop, "stage_version", lambda stage: f"{stage} as it is now")
    caplog.set_level("INFO")
    train(config, threads=1)
    assert "store or code; training starts anew" in caplog.text
    assert_same(outcome(config), expected, 0.0)


def test_two_processes_stop_together_and_one_goes_on(config):
    train(config, threads=1)
    expected = outcome(config)
    lines, status = start(config, 2, "SIGUSR1:4")
    assert status == STOPPED, lines
    assert checkpoint(config) == 4
    assert sum("told to stop" in line for line in lines) == 2
    assert "after step 4 of 6" in "".join(lines)
    train(config, threads=1)
    assert_same(outcome(config), expected, 0.01)


def test_two_processes_go_on_from_where_one_was_stopped(config, monkeypatch):
    train(config, threads=1)
    expected = outcome(config)
    told_at(4, signal.SIGTERM, monkeypatch, config)
    lines, status = start(config, 2)
    assert status == 0, lines
    assert "going on after step 4" in Path("train.log").read_text()
    assert_same(outcome(config), expected, 0.01)


def test_a_process_that_dies_ends_the_others_and_all_go_on(config):
    lines, status = start(config, 2, "SIGKILL:5")
    assert status == 1
    (line,) = [line for line in lines if "was killed" in line]
    assert "process 1 of 2 was killed (SIGKILL)" in line
    assert line == lines[-1]
    assert line in Path("train.log").read_text()
    assert checkpoint(config) == 3
    lines, status = start(config, 2)
    assert status == 0, lines
    assert json.loads(Path("results/small/receipts/train/all.json").read_text())["steps"] == 6
