"""What the processes of a test do: started like torchrun's, each with its rank."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from jaisp.config import Config
from jaisp.errors import UserError
from jaisp.store.reader import open_store
from jaisp.train import loop, train
from jaisp.train.fresh import new_model
from jaisp.train.losses import find_terms, term_weights
from jaisp.train.patches import Patches, measure_noise
from jaisp.train.ranks import all_ranks, average_gradients, gathered, own_part, rank, ranks
from tests.services.local import free_port
from tests.train.conftest import make_config

OBJECTIVES: dict[str, dict[str, Any]] = {
    "information": {"objective": "information"},
    "vicreg": {"objective": "vicreg"},
    "sigreg": {"objective": "sigreg", "sigreg": {"slices": 32, "tokens": 40}},
    "sigreg_all": {"objective": "sigreg", "sigreg": {"slices": 32, "tokens": 4000}},
    "taught": {"objective": "information", "ema": 0.9},
}
# Tokens of each rank, of one process in all.
TOKENS = (70, 30)


def start(work: Callable, count: int, folder: Path, *args: Any) -> list[int]:
    """Run work(folder, …) in `count` processes of the working folder; their exit codes.

    Once one has failed, the others get the end that torchrun gives them.
    """
    context = torch.multiprocessing.get_context("spawn")
    ports = [free_port(), free_port()]
    started = [
        context.Process(target=_as_rank, args=(work, k, count, ports, folder, *args))
        for k in range(count)
    ]
    for process in started:
        process.start()
    for process in reversed(started):
        process.join(120)
        if process.exitcode:
            for other in started:
                other.kill()
    for process in started:
        process.join()
    return [process.exitcode or 0 for process in started]


def _as_rank(
    work: Callable, k: int, count: int, ports: list[int], folder: Path, *args: Any
) -> None:
    os.environ |= {"RANK": str(k), "LOCAL_RANK": str(k), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(ports[0])}
    os.environ["SECOND_PORT"] = str(ports[1])
    os.chdir(folder)
    torch.set_num_threads(1)
    work(folder, *args)


def tokens_of(name: str) -> tuple[torch.Tensor, ...]:
    """Inputs, weights and a teacher's tokens of a test, the same in every process."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(2, sum(TOKENS), 9, generator=generator)
    weight = torch.rand(sum(TOKENS), generator=generator) ** 3
    taught = torch.randn(2, sum(TOKENS), 6, generator=generator)
    return inputs, weight, taught if name == "taught" else torch.empty(0)


def loss_of(folder: Path, name: str, part: slice, wrapped: bool = False) -> dict[str, Any]:
    """Loss and gradients of a linear encoder on a part of the tokens."""
    inputs, weight, taught = tokens_of(name)
    settings = make_config(folder, **OBJECTIVES[name]).train
    torch.manual_seed(2)
    encoder = torch.nn.Linear(9, 6)
    called = DistributedDataParallel(encoder) if wrapped else encoder
    # Both views in one call, as torch's wrapper has it.
    first, second = called(inputs[:, part])
    targets = list(taught[:, part]) if len(taught) else None
    terms = find_terms(settings, 1, first, second, weight[part], targets).named()
    loss = torch.stack([term_weights(settings)[n] * term for n, term in terms.items()]).sum()
    loss.backward()
    if not wrapped:
        average_gradients(encoder.parameters())
    found = {n: term.item() for n, term in terms.items()}
    return {"terms": found, "gradients": [p.grad for p in encoder.parameters()]}


def statistics(folder: Path) -> None:
    """Every objective on this rank's part of some tokens, written to rank.pt; and one step of a
    real run for each."""
    with all_ranks():
        part = slice(0, TOKENS[0]) if rank() == 0 else slice(TOKENS[0], sum(TOKENS))
        found = {name: loss_of(folder, name, part) for name in OBJECTIVES}
        wrapped = {name: loss_of(folder, name, part, wrapped=True) for name in OBJECTIVES}
        steps = {name: first_steps(make_config(folder, **OBJECTIVES[name])) for name in OBJECTIVES}
        values = torch.arange(rank() + 2.0) + 10 * rank()
        content = {
            "tokens": found,
            "wrapped": wrapped,
            "steps": steps,
            "gathered": gathered(values),
            "parts": [((part := own_part(n, "train.batch")).start, part.stop) for n in (2, 3, 7)],
            "message": spoiled(make_config(folder)),
        }
        torch.save(content, folder / f"{rank()}.pt")


def new_run(config: Config) -> loop.Run:
    store = open_store(config.results / "patches.zarr")
    noise = measure_noise(store, store.where("train"))
    patches = Patches(store, store.where("train"), noise, 1.0, "read")
    watched = Patches(store, store.where("validation"), noise, 1.0, "read")
    model = new_model(store, config.model, noise, 1)
    return loop.Run(model, patches, watched, config.train, config.results / "run", "key")


def first_steps(config: Config) -> dict[str, Any]:
    """A run's first loss, the gradients it makes, and the dimensions it says are in use."""
    settings = config.train.model_copy(update={"gradient_clip": 1e9, "steps": 1})
    run = new_run(config.model_copy(update={"train": settings}))
    run._begin(range(1, 2))
    run._step(1)
    run._record(1, 0.0)
    gradients = {n: p.grad for n, p in run.model.named_parameters() if p.grad is not None}
    return {"line": run.history.lines[-1], "gradients": gradients}


def spoiled(config: Config) -> str:
    """What a rank says when the last rank's tokens are not finite."""
    run = new_run(config)
    run._begin(range(1, 2))
    real = loop.encode
    loop.encode = lambda model, views: (
        real(model, views) * (float("nan") if rank() == ranks() - 1 else 1.0)
    )
    try:
        run._step(1)
    except UserError as error:
        return str(error)
    finally:
        loop.encode = real
    return "nothing"


def killed(folder: Path, at: int) -> None:
    """A training whose last rank is killed with -9 when a step begins."""
    real = loop.Run._step

    def step(self: loop.Run, number: int) -> None:
        if number == at and rank() == ranks() - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, number)

    loop.Run._step = step
    train(make_config(folder), threads=1)


def whole_then_killed(folder: Path, at: int) -> None:
    """A whole training, its receipt and history kept in the working folder; then one that is
    killed."""
    config = make_config(folder)
    receipt = train(config, threads=1)
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(receipt))
    if os.environ["RANK"] == "0":
        shutil.copy(config.results / "history.jsonl", folder / "together.jsonl")
    os.environ["MASTER_PORT"] = os.environ["SECOND_PORT"]
    killed(folder, at)
