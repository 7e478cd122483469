"""Runs on a real Slurm: from the config to the report, and a training that is preempted."""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from jaisp.config import dump_config
from jaisp.config.site import SITE_VARIABLE
from jaisp.files import folder_sha256
from jaisp.train import train
from tests.train import launched
from tests.train.conftest import make_config, publish_blobs
from tests.train.test_ranks import assert_like, history
from tests.workflow.conftest import ROOT, TWO_PATCHES, Workflow

# One machine has one Slurm.
pytestmark = pytest.mark.xdist_group("workflow")

SITE = {"accounting": False, "cores": 2, "memory_gib": 2, "first_check_s": 3}


class OnSlurm(Workflow):
    """A folder with a config and a site, in which jobs are sent to Slurm."""

    def command(self, *arguments: str) -> list[str]:
        return [*super().command(*arguments), "--profile", str(ROOT / "profiles" / "slurm")]

    def environment(self) -> dict[str, str]:
        site = self.folder / "site.yaml"
        site.write_text(yaml.safe_dump(SITE))
        return {**super().environment(), SITE_VARIABLE: str(site)}


@pytest.mark.workflow
def test_a_run_on_slurm_is_the_run_without_it(cluster, finished, tmp_path):
    workflow = OnSlurm(tmp_path, TWO_PATCHES)
    done = workflow.run()
    assert done.returncode == 0, done.stderr[-5000:]
    # Tiles, patches, store, skies, training, tokens, colours, maps, five sets of figures, the page.
    assert done.stderr.count("has been submitted with SLURM jobid") == 14
    assert (workflow.results / "report.html").exists()
    store = "patches.zarr"
    assert folder_sha256(workflow.results / store) == folder_sha256(finished.results / store)
    metrics = [json.loads((w.results / "metrics.json").read_text()) for w in (workflow, finished)]
    assert metrics[0]["groups"].keys() == metrics[1]["groups"].keys()
    # What profiles/default sets holds here too: neither profile sees anything to do.
    assert workflow.planned() == set()
    assert Workflow(tmp_path, TWO_PATCHES).planned() == set()


def submit(folder: Path, *options: str, happens: str) -> tuple[str, str]:
    """A batch script that trains, run to its end; returns its number and what it said."""
    train = [sys.executable, launched.__file__, "train", "--config", "small.yaml"]
    command = shlex.join([*train, "--processes", "2", "--threads", "1", "--log", "train.log"])
    sbatch = ["sbatch", "--parsable", "--requeue", "--output", "said.txt", "--open-mode=append"]
    job = subprocess.run(
        [*sbatch, *options, "--wrap", command],
        cwd=folder,
        env={**os.environ, "HAPPENS": happens, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    for _ in range(1200):
        if field(job, "JobState") in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"):
            return job, (folder / "said.txt").read_text()
        time.sleep(0.25)
    raise TimeoutError(f"job {job} doesn't end: {(folder / 'said.txt').read_text()}")


def field(job: str, name: str) -> str:
    shown = subprocess.run(
        ["scontrol", "--oneliner", "show", "job", job], capture_output=True, text=True, check=True
    ).stdout
    return dict(pair.partition("=")[::2] for pair in shown.split())[name]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The config of a published store in the working folder."""
    monkeypatch.chdir(tmp_path)
    config = make_config(tmp_path)
    publish_blobs(config)
    Path("small.yaml").write_text(dump_config(config))
    return config


def test_a_preempted_training_on_two_nodes_is_requeued_and_ends_as_if_alone(
    cluster, small, tmp_path
):
    train(small, threads=1)
    alone = history(small)
    # The second process is told by a signal while it makes step 4, as Slurm's `--signal` would.
    job, said = submit(tmp_path, "--nodes=2", "--ntasks=2", happens="SIGTERM:4")
    assert field(job, "JobState") == "COMPLETED", said
    assert field(job, "Restarts") == "1"
    assert field(job, "NumNodes") == "2"
    assert f"job {job} goes back into the queue" in said
    assert "going on after step 4" in said
    assert_like(history(small), alone, 0.02)


def test_a_process_that_dies_ends_its_job(cluster, small, tmp_path):
    job, said = submit(tmp_path, "--ntasks=2", happens="SIGKILL:2")
    assert field(job, "JobState") == "FAILED", said
    assert "one of 2 processes was killed, and the others were ended" in said
    assert "Traceback" not in said
