"""Training: patches a second, the share of the hardware's rate, and the time that data takes.

    python benchmarks/train.py [--patches 16] [--steps 6] [--sizes small base]
        [--token-arcsec 1.6] [--batch 6] [--precision float32] [--compile]
        [--out docs/benchmarks/train.json]

A made-up store of Rubin (ugrizy, 0.2″) and Euclid (VIS YJH, 0.1″), kept in memory. Of each size of
encoder: whole steps; the parts of them that are spent waiting for what a thread draws, and on
decoding it; and encoders alone, forward and backward, whose operations are counted by torch and set
against the rate of a plain matrix product of the same precision in the same process, in turns. The
fastest of each counts.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from made_up import make_store
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from jaisp.config import Config, parse_config
from jaisp.process import keep_memory
from jaisp.store.reader import open_store
from jaisp.train.fresh import new_model
from jaisp.train.loop import Run
from jaisp.train.patches import Patches, measure_noise
from jaisp.train.precision import autocast
from jaisp.train.tokens import encode

SURVEYS = {"rubin": (["u", "g", "r", "i", "z", "y"], 0.2), "euclid": (["VIS", "Y", "J", "H"], 0.1)}
PRODUCT = 2048  # side of the matrices on a CPU; on a GPU four times as much
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=16)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--sizes", nargs="+", default=["small", "base"])
    parser.add_argument("--token-arcsec", type=float, default=1.6)
    parser.add_argument("--batch", type=int, default=6, help="patches of a step")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compile", action="store_true", help="time compiled encoders")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out = options.out and options.out.absolute()
    keep_memory()  # as `jaisp train` does
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(Path(folder), size, options) for size in options.sizes]
    show(rows)
    if out:
        out.write_text(json.dumps({"machine": device_name(), "rows": rows}, indent=1) + "\n")


def measure(folder: Path, size: str, options: argparse.Namespace) -> dict[str, Any]:
    """One size of encoder."""
    config = make_config(folder, size, options)
    os.chdir(folder)
    store = open_store(make_store(config))
    numbers = store.where("train")
    noise = measure_noise(store, numbers)
    patches = Patches(store, numbers, noise, 8.0, "read patches")
    model = new_model(store, config.model, noise, seed=1)
    run = Run(model, patches, patches, config.train, folder / size, "benchmark")
    operations = count_operations(run)
    if options.compile:
        run._compile()
    waited: list[float] = []
    decoded: list[float] = []
    with timed(run.pairs, "show", decoded), timed(run.implants, "show", decoded):
        run._begin(range(1, options.steps + 2))
        run._draws, run._implants = waits(run._draws, waited), waits(run._implants, waited)
        run._step(1)  # warms up
        waited.clear()
        decoded.clear()
        steps = [clock(partial(run._step, step)) for step in range(2, options.steps + 2)]
    step = float(np.median(steps))
    encoders = encoders_alone(run)
    encoders()
    product = matrix_product(model.device, config.train.precision)
    rates = [(operations / clock(encoders), product[0] / clock(product[1])) for _ in range(ROUNDS)]
    encoder, plain = (max(rate) for rate in zip(*rates, strict=True))
    return {
        "size": size,
        "token_arcsec": options.token_arcsec,
        "precision": options.precision,
        "batch": options.batch,
        "compiled": options.compile,
        "patches_a_second": config.train.batch / step,
        "waiting": sum(waited) / sum(steps),
        "decoding": sum(decoded) / sum(steps),
        "encoder_gflops": encoder / 1e9,
        "product_gflops": plain / 1e9,
        "gflop_a_patch": operations / 1e9 / config.train.batch,
        "share": encoder / plain,
    }


def encoders_alone(run: Run) -> Callable[[], None]:
    """Both encoders of a step's views, forward and backward."""
    batch = run.pairs.show(run.pairs.draw(1), run.model.device)

    def encoders() -> None:
        for views in (batch.first, batch.second):
            with autocast(run.settings, run.model.device):
                tokens = encode(run.model, views)
            tokens.float().square().mean().backward()

    return encoders


def count_operations(run: Run) -> int:
    """Operations of the encoders of a step, as torch counts them while they are not compiled."""
    with FlopCounterMode(display=False) as counter:
        encoders_alone(run)()
    return counter.get_total_flops()


def make_config(folder: Path, size: str, options: argparse.Namespace) -> Config:
    side = int(np.ceil(np.sqrt(options.patches))) * 51.2 / 60 + 0.1
    content = {
        "run": size,
        "sky": {"ra": 53.1, "dec": -28.1, "width_arcmin": side, "height_arcmin": side},
        "split": {"test": 0.0, "validation": 0.0},
        "surveys": {
            name: {"bands": bands, "pixel_arcsec": pixel, "archive": {"kind": "simulated"}}
            for name, (bands, pixel) in SURVEYS.items()
        },
        "model": {"size": size, "token_arcsec": options.token_arcsec},
        "train": {
            "precision": options.precision,
            "batch": options.batch,
            "compile": options.compile,
        },
    }
    return parse_config(content, folder / "train.yaml")


def matrix_product(device: torch.device, precision: str) -> tuple[float, Callable[[], Any]]:
    """Operations of a plain product of square matrices, and what computes it."""
    side = PRODUCT if device.type == "cpu" else 4 * PRODUCT
    matrix = torch.randn(side, side, device=device, dtype=getattr(torch, precision))
    return 2.0 * side**3, lambda: matrix @ matrix


def clock(work: Callable[[], Any]) -> float:
    """Seconds that it takes, once the device is done."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def waits(draws: Iterator[Any], seconds: list[float]) -> Iterator[Any]:
    """The same draws; add the seconds that each is waited for."""
    draw: list[Any] = []
    while True:
        seconds.append(clock(lambda: draw.append(next(draws, None))))
        if draw[-1] is None:
            return
        yield draw.pop()


@contextmanager
def timed(owner: Any, name: str, seconds: list[float]) -> Iterator[None]:
    """Add the seconds that every call of a method takes."""
    method = getattr(owner, name)

    def call(*arguments: Any) -> Any:
        found: list[Any] = []
        seconds.append(clock(lambda: found.append(method(*arguments))))
        return found[0]

    setattr(owner, name, call)
    try:
        yield
    finally:
        delattr(owner, name)


def device_name() -> str:
    """The GPU, or else the processor."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else machine()


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(title=f"Training on {device_name()}")
    names = "encoder", "token", "patches/s", "waiting", "decoding", "share of a matrix product"
    for name in names:
        table.add_column(name)
    for row in rows:
        table.add_row(
            row["size"],
            f"{row['token_arcsec']:g}″",
            f"{row['patches_a_second']:.2f}",
            f"{row['waiting']:.1%}",
            f"{row['decoding']:.1%}",
            f"{row['share']:.0%} of {row['product_gflops']:.0f} GFLOP/s",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
