"""Benchmarks that others are told to rerun still run; what they measure is not looked at."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SMALL = ["--sizes", "tiny", "--patches", "4", "--steps", "1", "--batch", "2"]


@pytest.mark.parametrize(
    ("command", "rows", "measured"),
    [
        (["train.py", *SMALL], "rows", ("patches_a_second", "share", "waiting")),
        (
            ["rates.py", "encoders", *SMALL, "--crop", "12"],
            "encoders",
            ("train_s_a_megapixel", "embed_s_a_megapixel"),
        ),
    ],
    ids=["train", "rates"],
)
def test_encoders_are_timed(tmp_path, command, rows, measured):
    out = tmp_path / "out.json"
    script, *options = command
    done = subprocess.run(
        [sys.executable, BENCHMARKS / script, *options, "--out", out],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(out.read_text())[rows]
    assert row["size"] == "tiny"
    assert all(row[name] >= 0 for name in measured)
