"""The profile for Slurm, read as Snakemake reads it; no Slurm is needed."""

import re
from pathlib import Path

import pytest
import yaml
import yte

from jaisp.config.site import SITE_VARIABLE, Site, read_site
from jaisp.errors import UserError
from tests.workflow.conftest import ROOT, TWO_PATCHES, Workflow

PROFILE = ROOT / "profiles" / "slurm" / "config.yaml"
RULE = re.compile(r"^\s*rule (\w+):", re.MULTILINE)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Writes a site file of some keys."""

    def write(**content) -> None:
        path = tmp_path / "site.yaml"
        path.write_text(yaml.safe_dump(content))
        monkeypatch.setenv(SITE_VARIABLE, str(path))

    return write


def profile() -> dict:
    with PROFILE.open() as handle:
        return yte.process_yaml(handle, require_use_yte=True)


def test_every_rule_has_memory_and_time():
    rules = {
        name
        for path in ROOT.glob("workflow/rules/*.smk")
        for name in RULE.findall(path.read_text())
    }
    found = profile()["set-resources"]
    assert found.keys() == rules
    for resources in found.values():
        assert "attempt" in resources["mem_mb"]
        assert resources["runtime"] >= 10


def test_rules_leave_retries_to_the_profile():
    text = "".join(path.read_text() for path in ROOT.glob("workflow/rules/*.smk"))
    assert "retries" not in text
    assert profile()["retries"] == 2


def test_the_sites_own_file_has_every_key_and_its_default(monkeypatch):
    monkeypatch.delenv(SITE_VARIABLE, raising=False)
    content = yaml.safe_load((PROFILE.parent / "site.yaml").read_text())
    assert content.keys() == Site.model_fields.keys()
    assert read_site() == Site()


def test_a_cluster_with_accounting(site):
    site(account="sky", partition="cpu", gpu_partition="gpu", qos="long", gpus=8, nodes=2)
    found = profile()
    assert "slurm-status-command" not in found
    assert found["slurm-qos"] == "long"
    assert found["default-resources"]["slurm_account"] == "sky"
    assert found["default-resources"]["slurm_partition"] == "cpu"
    training = found["set-resources"]["train"]
    assert training["slurm_partition"] == "gpu"
    geometry = {name: training[name] for name in ("mpi", "tasks", "nodes", "gpu", "tasks_per_gpu")}
    assert geometry == {"mpi": "srun", "tasks": 8, "nodes": 2, "gpu": 8, "tasks_per_gpu": 1}


def test_a_cluster_without_accounting_or_gpus(site):
    site(accounting=False, gpus=0)
    found = profile()
    assert found["slurm-status-command"] == "squeue"
    for resources in found["set-resources"].values():
        assert not {"gpu", "mpi", "tasks"} & resources.keys()


@pytest.mark.parametrize("cores", [2, 64])
def test_no_job_has_more_threads_than_cores(site, cores):
    site(cores=cores)
    text = "".join(path.read_text() for path in ROOT.glob("workflow/rules/*.smk"))
    many = re.findall(r"^rule (\w+):(?:(?!^rule).)*?^    threads: (\d+)", text, re.M | re.S)
    found = profile()["set-threads"]
    assert many
    assert {name: found.get(name) for name, _ in many} == {
        name: min(int(number), cores) for name, number in many
    }
    assert max(found.values()) <= cores


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"partion": "x"}, "site.yaml: partion: unknown key"),
        ({"cores": 0}, "site.yaml: cores: "),
        ({"account": "a b"}, "site.yaml: account: "),
        ({"account": "sky", "accounting": False}, "without accounting has none"),
        ({"gpus": 4, "nodes": 3}, "4 processes of training can't be spread evenly over 3 nodes"),
        ({"gpus": 2, "processes": 4}, "processes: with GPUs there is one a GPU"),
        ({"gpus": 0, "gpu_model": "a100"}, "there are no GPUs"),
    ],
)
def test_a_mistake_is_told_in_one_line(site, content, message):
    site(**content)
    with pytest.raises(UserError, match=re.escape(message)):
        read_site()


@pytest.mark.workflow
@pytest.mark.xdist_group("workflow")
def test_a_mistake_ends_snakemake_with_one_line(site, tmp_path):
    site(partion="x")
    done = Workflow(tmp_path, TWO_PATCHES).run("-n", "--profile", str(PROFILE.parent))
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].endswith("remove it or see docs/clusters.md")
    assert "Traceback" not in done.stderr
    assert not Path(tmp_path / "results").exists()
