"""A two-patch field, run through Snakemake as a user would."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
TWO_PATCHES = {
    "run": "two",
    "sky": {"ra": 53.13, "dec": -28.10, "width_arcmin": 51.2 / 60, "height_arcmin": 25.6 / 60},
    "patch": {"arcsec": 25.6},
    "split": {"test": 0.0, "validation": 0.0},
    "simulate": {"tiles_per_side": 1, "overlap_arcsec": 10.0},
    "surveys": {
        "rubin": {"bands": ["g", "r"], "pixel_arcsec": 0.2, "archive": {"kind": "simulated"}},
        "euclid_q1": {"bands": ["VIS"], "pixel_arcsec": 0.1, "archive": {"kind": "simulated"}},
    },
    "model": {"size": "tiny", "dimensions": 16},
    "train": {"steps": 6, "batch": 2, "crop_tokens": 8, "shift_tokens": 4, "record_every": 2},
}


def snakemake(snakefile: str) -> list[str]:
    """`snakemake` with a Snakefile of ours, from any folder."""
    command = str(Path(sys.executable).with_name("snakemake"))
    place = ["--snakefile", str(ROOT / snakefile), "--profile", str(ROOT / "profiles/default")]
    return [command, *place]


class Workflow:
    """A folder with a config, in which the user's commands are run."""

    def __init__(self, folder: Path, content: dict) -> None:
        self.folder = folder
        self.results = folder / "results" / content["run"]
        self.write(content)

    def write(self, content: dict) -> None:
        """Keep `content` as the config."""
        (self.folder / "config.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")

    def command(self, *arguments: str) -> list[str]:
        """`snakemake ARGUMENTS --configfile config.yaml`, from any folder."""
        return [*snakemake("Snakefile"), *arguments, "--configfile", "config.yaml"]

    def environment(self) -> dict[str, str]:
        """The environment with a cache of its own and this interpreter's commands."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "JAISP_CACHE": str(self.folder / "cache")}

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run to the end; output is text."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    def planned(self, *arguments: str) -> set[str]:
        """The rules that a dry run would run."""
        done = self.run(*arguments, "-n", "--quiet", "rules")
        assert done.returncode == 0, done.stderr
        lines = (done.stdout + done.stderr).splitlines()
        known = (
            "simulate plan fetch fetch_batch warp warp_batch publish inject train embed embed_batch"
        )
        known += " embed_basis map_batch"
        names = {*known.split(), "evaluate_batch", "evaluate", "report"}
        return {line.split()[0] for line in lines if line.split()[:1] and line.split()[0] in names}
