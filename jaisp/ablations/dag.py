"""What the workflow of the ablations needs to know before the first job."""

from dataclasses import dataclass
from pathlib import Path

from jaisp.ablations.arms import (
    BASE_STAGES,
    Ablations,
    code_key,
    config_key,
    load_ablations,
    record_path,
)
from jaisp.archives.files import local_files
from jaisp.config import stage_version
from jaisp.dag import end_with
from jaisp.errors import UserError
from jaisp.files import hold_run, sha256


@dataclass(frozen=True)
class Plan:
    """A list of arms as the rules see it."""

    ablations: Ablations

    @property
    def results(self) -> str:
        """Folder of the results."""
        return str(self.ablations.results)

    @property
    def arms_path(self) -> str:
        """The list of arms, which every job reads."""
        return str(self.ablations.path)

    @property
    def page(self) -> str:
        """The page that is written."""
        return str(self.ablations.listed.page)

    @property
    def record(self) -> str:
        """The page's figures as numbers, beside it."""
        return str(record_path(self.ablations.listed.page))

    @property
    def page_hash(self) -> str:
        """What the page depends on beside the arms' figures: the list and the code."""
        return f"{sha256(self.ablations.path)[:16]}-{stage_version('ablations')}"

    @property
    def receipts(self) -> list[str]:
        """The receipts of all arms."""
        return [self.receipt(f"arm/{arm}-{seed}") for arm, seed in self.ablations.runs]

    def receipt(self, name: str) -> str:
        """Path of a receipt, `RULE/NAME`."""
        return f"{self.results}/receipts/{name}.json"

    def base_receipt(self, arm: str) -> str:
        """The receipt of the base that an arm trains on."""
        return self.receipt(f"base/{self.ablations.base(arm)}")

    def base_config(self, base: str) -> str:
        """The config file of a base."""
        return str(self.ablations.path.parent / self.ablations.listed.bases[base])

    def base_results(self, base: str) -> str:
        """The results' folder of a base."""
        return str(self.ablations.bases[base].results)

    def base_files(self, base: str) -> list[str]:
        """Images already at hand: touching one makes the base anew."""
        return [str(path) for path in local_files(self.ablations.bases[base])]

    def base_hash(self, base: str) -> str:
        """What a base's store and injected skies depend on."""
        key = config_key(self.ablations.bases[base], BASE_STAGES)
        return f"{key}-{code_key(BASE_STAGES)}"

    def arm_hash(self, arm: str, seed: str) -> str:
        """What an arm's results depend on."""
        return "-".join(self.ablations.made_from(arm, int(seed)).values())

    def base_priority(self, base: str) -> int:
        """A base is made just before the first arm that needs it."""
        runs = (run for run in self.ablations.runs if self.ablations.base(run[0]) == base)
        return self.priority(*next(runs))

    def priority(self, arm: str, seed: str | int) -> int:
        """Arms are run in the order of the list."""
        runs = self.ablations.runs
        return len(runs) - runs.index((arm, int(seed)))


def prepare(path: str, *, jobs_run_here: bool) -> Plan:
    """Read the list of arms and take the lock of its results, as `jaisp.dag.prepare` does.

    The bases' locks are taken by the workflows that make them. What the user did wrong ends the
    process here: one line, exit status 2.
    """
    try:
        ablations = load_ablations(Path(path))
        if jobs_run_here:
            hold_run(ablations.results)
    except UserError as error:
        end_with(str(error))
    return Plan(ablations)
