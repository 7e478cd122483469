"""Two arms on the two-patch field: made once, and of what changes only that is made again."""

import copy
import subprocess

import pytest
import yaml

from tests.workflow.conftest import TWO_PATCHES, Workflow, snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("workflow")]

ARMS = {
    "run": "arms",
    "page": "pages/arms.md",
    "bases": {"two": "config.yaml"},
    "reference": "plain",
    "arms": {
        "plain": {"group": "objective", "what": "the defaults"},
        "vicreg": {
            "group": "objective",
            "what": "VICReg",
            "overrides": {"train": {"objective": "vicreg"}},
        },
    },
}


class AblationWorkflow(Workflow):
    """A folder with a list of arms beside the config of their base."""

    def write_arms(self, content: dict) -> None:
        (self.folder / "arms.yaml").write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")

    def command(self, *arguments: str) -> list[str]:
        return [*snakemake("workflow/ablations.smk"), *arguments, "--config", "arms=arms.yaml"]

    def jobs(self, *arguments: str) -> set[str]:
        """Receipts and pages that a dry run would make."""
        done = self.run(*arguments, "--cores", "1", "-n")
        assert done.returncode == 0, done.stderr
        lines = (line.split() for line in (done.stdout + done.stderr).splitlines())
        return {words[1].rpartition("/")[2] for words in lines if words[:1] == ["output:"]}


@pytest.fixture(scope="module")
def arms(tmp_path_factory) -> AblationWorkflow:
    workflow = AblationWorkflow(tmp_path_factory.mktemp("arms"), TWO_PATCHES)
    workflow.write_arms(ARMS)
    done = workflow.run("--cores", "2")
    assert done.returncode == 0, done.stderr[-5000:]
    return workflow


def test_all_arms_are_made_once_and_shown(arms):
    page = (arms.folder / "pages/arms.md").read_text(encoding="utf-8")
    assert "2 of 2 trainings are done" in page
    assert "not yet run" not in page
    weights = [
        (arms.folder / f"results/arms/{name}-1/model/model.safetensors").read_bytes()
        for name in ("plain", "vicreg")
    ]
    assert weights[0] != weights[1]
    assert arms.jobs() == set()


def test_a_changed_arm_alone_is_made_again(arms):
    content = copy.deepcopy(ARMS)
    content["arms"]["vicreg"]["overrides"]["train"]["vicreg"] = {"covariance": 0}
    arms.write_arms(content)
    try:
        assert arms.jobs() == {"vicreg-1.json", "arms.md"}
    finally:
        arms.write_arms(ARMS)
    assert arms.jobs() == set()


def test_a_mistake_is_told_in_one_line(arms):
    arms.write_arms(ARMS | {"colour": 1})
    try:
        done = arms.run("--cores", "1")
    finally:
        arms.write_arms(ARMS)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("jaisp: arms.yaml: colour: unknown key")


def test_the_command_refuses_what_is_not_listed(arms):
    for more, line in {
        ("--arm", "x"): "jaisp: --arm: arms.yaml has no arm 'x'",
        ("--arm", "plain", "--seed", "7"): "jaisp: --seed: plain has 1, not 7",
        (): "jaisp: jaisp ablate: give --arm NAME, with --seed N or without, or --table",
    }.items():
        done = subprocess.run(
            ["jaisp", "ablate", "--arms", "arms.yaml", *more],
            cwd=arms.folder,
            env=arms.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr.strip()) == (2, line)
