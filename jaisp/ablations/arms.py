"""The list of arms: one file, checked key by key, from which each arm's config is made.

Light: every dry run reads this module.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from jaisp.config import Config, load_config, parse_config, stage_hash, stage_version
from jaisp.config.load import first_problem, read_mapping
from jaisp.config.section import Section
from jaisp.config.survey import Name
from jaisp.errors import UserError

# What the ordinary workflow makes once for all arms of a base, and what each arm makes itself.
BASE_STAGES = ("simulate", "plan", "fetch", "warp", "publish", "inject")
ARM_STAGES = ("train", "evaluate")
# The parts of an evaluation that the page is made of; jaisp/config/evaluate.py has all.
PARTS = ("position", "retrieval", "truth")

Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Overrides = dict[str, dict[str, Any]]


class Arm(Section):
    """One training: what it changes, and which question it belongs to."""

    group: str = Field(min_length=1, description="The question; a heading of the page.")
    what: str = Field(min_length=1, description="What it changes, in one line.")
    base: Name | None = Field(None, description="One of `bases`; default: the first.")
    against: Name | None = Field(
        None, description="The arm that differences are taken from; default: `reference`."
    )
    overrides: Overrides = Field({}, description="Sections of the config, as far as they differ.")


class Finalists(Section):
    """Arms that are trained with more seeds."""

    arms: list[Name] = Field([], description="Their names.")
    seeds: Seeds = Field([1, 2, 3], description="Their seeds.")


class Listed(Section):
    """What the file holds."""

    run: Name = Field(description="Results go to results/RUN/ARM-SEED/.")
    page: Path = Field(description="The page that is written, from the working folder.")
    bases: dict[Name, Path] = Field(
        min_length=1, description="Config files, from this one's folder, whose sky arms train on."
    )
    common: Overrides = Field({}, description="Sections that every arm changes likewise.")
    reference: Name = Field(description="The arm that others are compared with.")
    seeds: Seeds = Field([1], description="Seeds of every arm.")
    finalists: Finalists = Finalists()
    arms: dict[Name, Arm] = Field(min_length=1, description="The arms, in the order of running.")

    @model_validator(mode="after")
    def _names_are_known(self) -> "Listed":
        named = [("reference", self.reference)]
        named += [("finalists.arms", name) for name in self.finalists.arms]
        named += [(f"arms.{n}.against", arm.against) for n, arm in self.arms.items() if arm.against]
        for key, name in named:
            if name not in self.arms:
                raise ValueError(f"{key}: {name!r} is not one of `arms`")
        for name, arm in self.arms.items():
            if arm.base is not None and arm.base not in self.bases:
                raise ValueError(f"arms.{name}.base: {arm.base!r} is not one of `bases`")
        return self


@dataclass(frozen=True)
class Ablations:
    """A checked list of arms, and the configs that it makes."""

    path: Path
    listed: Listed
    bases: dict[str, Config]

    @property
    def results(self) -> Path:
        """Where the results of all arms lie."""
        return Path("results") / self.listed.run

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Arms and seeds in the order of running: the finalists' further seeds come last."""
        first = [(arm, seed) for arm in self.listed.arms for seed in self.listed.seeds]
        final = self.listed.finalists
        return list(dict.fromkeys([*first, *((a, s) for a in final.arms for s in final.seeds)]))

    def seeds(self, arm: str) -> list[int]:
        """The seeds of an arm. Raises UserError for an arm that isn't listed."""
        if arm not in self.listed.arms:
            raise UserError(f"--arm: {self.path} has no arm {arm!r}")
        return [seed for name, seed in self.runs if name == arm]

    def base(self, arm: str) -> str:
        """Name of the base that an arm trains on."""
        return self.listed.arms[arm].base or next(iter(self.listed.bases))

    def against(self, arm: str) -> str:
        """The arm that an arm is compared with; for the reference, itself."""
        return self.listed.arms[arm].against or self.listed.reference

    def has_controls(self, arm: str) -> bool:
        """Whether probes are fitted on the tokens of an arm's controls, too: the page shows the
        reference's."""
        return arm == self.listed.reference

    def config(self, arm: str, seed: int) -> Config:
        """The config of an arm's run, `RUN/ARM-SEED`.

        Raises UserError for a key that the config doesn't have, and for a change of what the base
        has made.
        """
        base = self.bases[self.base(arm)]
        content = merged(base.model_dump(mode="json"), self.listed.common)
        _parsed(content, f"{self.path}: common")
        content = merged(content, self.listed.arms[arm].overrides)
        place = f"{self.path}: arms.{arm}.overrides"
        config = _parsed(merged(content, {"train": {"seed": seed}}), place)
        for stage in BASE_STAGES:
            if stage_hash(config, stage) != stage_hash(base, stage):
                raise UserError(
                    f"{place}: changes what `{stage}` makes, which all arms of a base share; "
                    "give the arm a base of its own"
                )
        return config.model_copy(update={"run": f"{self.listed.run}/{arm}-{seed}"})

    def made_from(self, arm: str, seed: int) -> dict[str, str]:
        """What the results of an arm depend on: hashes of its config, and of the code."""
        config, stages = self.config(arm, seed), (*BASE_STAGES, *ARM_STAGES)
        key = config_key(config, stages) + ("-with-controls" if self.has_controls(arm) else "")
        return {"config": key, "code": code_key(stages)}


def load_ablations(path: Path) -> Ablations:
    """Read and check a list of arms, with the configs of all of them.

    Raises UserError, in one line that names the file and the key.
    """
    try:
        listed = Listed.model_validate(read_mapping(path))
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}") from None
    bases = {name: load_config(path.parent / file) for name, file in listed.bases.items()}
    ablations = Ablations(path, listed, bases)
    for arm in listed.arms:
        ablations.config(arm, listed.seeds[0])
    return ablations


def record_path(page: Path) -> Path:
    """Where the figures of a page are kept as numbers."""
    return page.with_suffix(".json")


def config_key(config: Config, stages: Iterable[str]) -> str:
    """Hash of the config sections that stages read."""
    return _digest(stage_hash(config, stage) for stage in stages)


def code_key(stages: Iterable[str]) -> str:
    """Hash of the code of stages."""
    return _digest(stage_version(stage) for stage in stages)


def merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with `changes`, section within section; a list or a value is replaced."""
    result = dict(content)
    for key, value in changes.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = merged(old, value) if both else value  # type: ignore[arg-type]
    return result


def _parsed(content: Mapping[str, Any], place: str) -> Config:
    # The place of a key is told as a file's would be.
    return parse_config(content, Path(place))


def _digest(hashes: Iterable[str]) -> str:
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16]
