"""One arm: trained on its base's store, measured on its base's skies; what is done is kept."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaisp.ablations.arms import (
    BASE_STAGES,
    PARTS,
    Ablations,
    code_key,
    config_key,
)
from jaisp.config import Config, dump_config
from jaisp.errors import UserError
from jaisp.files import (
    locked,
    partial_dir,
    read_json,
    receipt_path,
    remove_folder,
    sha256,
    write_json,
    write_receipt,
    write_text,
)

log = logging.getLogger(__name__)

TIMING = "timing.json"
FAILURE = "failure.json"
SHARED = ("patches.zarr", "injected", "simulated")


def run_arm(
    ablations: Ablations, arm: str, seed: int, threads: int | None = None
) -> dict[str, Any]:
    """Train and measure one arm with one seed; returns what its receipt says.

    Results go to results/RUN/ARM-SEED/. A training that was killed goes on from its checkpoint,
    unless its config or code has changed since; what was done with the same is kept. Raises
    UserError when the base has no published store or no injected skies.
    """
    config, base = ablations.config(arm, seed), ablations.bases[ablations.base(arm)]
    with locked(partial_dir(config) / "arm.lock"):
        link_base(config, base)
        write_text(config.results / "config.yaml", dump_config(config))
        failure = config.results / FAILURE
        failure.unlink(missing_ok=True)
        try:
            weights = _trained(config, threads)
        except UserError as error:
            made_from = ablations.made_from(arm, seed)
            write_json(failure, {"config": made_from["config"], "why": str(error)})
            raise
        _measured(ablations, arm, seed, weights, threads)
        content = {"arm": arm, "seed": seed, "model": weights, **ablations.made_from(arm, seed)}
        write_json(receipt_of(ablations, arm, seed), content)
    return content


def receipt_of(ablations: Ablations, arm: str, seed: int) -> Path:
    """Where the receipt of an arm with one seed stands."""
    return ablations.results / "receipts" / "arm" / f"{arm}-{seed}.json"


def read_failure(ablations: Ablations, arm: str, seed: int) -> str | None:
    """Why the last training of an arm with its config of now failed, if it did."""
    path = ablations.config(arm, seed).results / FAILURE
    found = read_json(path) if path.is_file() else {}
    is_of_now = found.get("config") == ablations.made_from(arm, seed)["config"]
    return found["why"] if is_of_now else None


def link_base(config: Config, base: Config) -> None:
    """Let an arm's folder show its base's store, injected skies and truth, by relative links."""
    if not receipt_path(base, "inject", "all").is_file():
        raise UserError(
            f"{base.results}: not made yet; run `snakemake --configfile CONFIG inject` with its "
            "config first"
        )
    for name in SHARED:
        link, target = config.results / name, (base.results / name).absolute()
        if link.exists() and not link.is_symlink():
            raise UserError(f"{link}: stands where a link to {target} belongs; move it away")
        if not target.exists():
            link.unlink(missing_ok=True)  # A field can be without injected skies.
            continue
        temporary = link.with_name(f".{os.getpid()}.partial.{name}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.path.relpath(target, link.parent.absolute()))
        os.replace(temporary, link)


def _trained(config: Config, threads: int | None) -> str:
    """Checksum of the arm's weights, trained unless they are there already."""
    from jaisp.train import train

    model = config.results / "model" / "model.safetensors"
    stages = (*BASE_STAGES, "train")
    store = sha256(config.results / "patches.zarr" / "zarr.json")
    key = f"{config_key(config, stages)}-{code_key(stages)}-{store}"
    receipt = _done(config, "train", "all", key)
    if receipt is None or not model.is_file() or sha256(model) != receipt["sha256"]:
        receipt = _timed(config, key, lambda: train(config, threads=threads))
        write_receipt(config, "train", "all", {**receipt, "made_from": key})
    return receipt["sha256"]


def _measured(ablations: Ablations, arm: str, seed: int, weights: str, threads: int | None) -> None:
    from jaisp.evaluate.gather import gather_evaluated
    from jaisp.evaluate.stage import evaluate_part

    config, base = ablations.config(arm, seed), ablations.bases[ablations.base(arm)]
    skies = sha256(receipt_path(base, "inject", "all"))
    key = "-".join([*ablations.made_from(arm, seed).values(), weights, skies])
    for part in PARTS:
        if _done(config, "evaluate", part, key) is None:
            controls = ablations.has_controls(arm)
            found = evaluate_part(config, part, threads, (part,), further=(), controls=controls)
            write_receipt(config, "evaluate", part, {**found, "made_from": key})
    gather_evaluated(config, PARTS)


def _done(config: Config, stage: str, name: str, key: str) -> dict[str, Any] | None:
    """The receipt of a job that was done with the same config, code and input."""
    path = receipt_path(config, stage, name)
    receipt = read_json(path) if path.is_file() else {}
    if receipt.get("made_from") != key:
        return None
    log.info("%s %s: up to date, kept", config.run, stage if name == "all" else name)
    return receipt


def _timed(config: Config, key: str, training: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Train, and write how long it took: of earlier attempts, what was not lost counts."""
    import torch

    timing, folder = config.results / TIMING, partial_dir(config) / "train"
    before = read_json(timing) if timing.is_file() else {}
    if before.get("key") != key:
        remove_folder(folder)
    spent = _spent(before, folder / "checkpoint.pt")
    write_json(timing, {"key": key, "seconds": spent, "since": time.time()})
    start = time.perf_counter()
    content = training()
    seconds = spent + time.perf_counter() - start
    measured = {"seconds": round(seconds, 1), "threads": torch.get_num_threads()}
    write_json(timing, {"key": key, **measured, "machine": machine()})
    return content


def _spent(before: dict[str, Any], checkpoint: Path) -> float:
    """Seconds of training that a checkpoint holds."""
    if not checkpoint.is_file():
        return 0.0
    last = checkpoint.stat().st_mtime - before.get("since", float("inf"))
    return before.get("seconds", 0.0) + max(last, 0.0)


def machine() -> str:
    """What an arm is trained on: the GPU's name, or the number of cores and the processor's."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return f"{os.cpu_count()} cores of {next(names, os.uname().machine)}"
