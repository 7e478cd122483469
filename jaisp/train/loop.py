"""Stage train: from a published store to a model folder."""

import copy
import json
import logging
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jaisp.config import Config, stage_hash
from jaisp.config.model import ModelConfig
from jaisp.config.train import TrainConfig
from jaisp.errors import UserError
from jaisp.files import partial_dir, remove_folder, sha256, write_text
from jaisp.model import Architecture, Model, SurveyPixels, save_model
from jaisp.progress import track
from jaisp.store.reader import Store, open_store
from jaisp.train.card import model_card
from jaisp.train.checkpoint import read_checkpoint, save_checkpoint
from jaisp.train.objective import OBJECTIVES, Terms
from jaisp.train.pairs import Pairs
from jaisp.train.patches import Patches, measure_noise
from jaisp.train.tokens import encode, pick
from jaisp.train.views import Batch, Draw
from jaisp.train.watch import retrieval, spread
from jaisp.train.whitening import fit_whitening

log = logging.getLogger(__name__)


def train(config: Config, threads: int | None = None) -> dict:
    """Train the run's encoders on the training patches of its published store.

    Writes results/RUN/model and results/RUN/history.jsonl; a killed run goes on from its last
    checkpoint. `threads` is torch's on the CPU. Returns the receipt's content. Raises UserError
    when there is nothing to train on, or when the loss is no longer finite.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    store = open_store(config.results / "patches.zarr")
    settings = config.train
    numbers = store.where("train")
    if not len(numbers):
        raise UserError("split: no patch is left to train on; hold out less, or take more sky")
    noise = measure_noise(store, numbers)
    detect = settings.sampling == "sources"
    patches = Patches(store, numbers, noise, settings.memory_gib, "read training patches", detect)
    watched = Patches(
        store, store.where("validation"), noise, settings.memory_gib, "read validation patches"
    )
    model = new_model(store, config.model, noise, settings.seed)
    key = stage_hash(config, "train") + sha256(store.path / "zarr.json")
    run = Run(model, patches, watched, settings, partial_dir(config) / "train", key)
    run.history_copy = config.results / "history.jsonl"
    run.go()
    top1 = run.last("validation_top1")
    save_model(model, config.results / "model", model_card(model, store, settings.steps, top1))
    remove_folder(run.folder)
    return {
        "steps": settings.steps,
        "patches": len(patches),
        "pairs": dict(run.counts),
        "sha256": sha256(config.results / "model" / "model.safetensors"),
    }


def new_model(
    store: Store, settings: ModelConfig, noise: dict[str, np.ndarray], seed: int
) -> Model:
    """A model for a store's surveys, fresh by `seed`; `noise` is typical of each band, nJy."""
    surveys = {
        survey: SurveyPixels(
            bands=store.bands(survey),
            grid_arcsec=store.grid_arcsec(survey),
            pixels_per_token=store.pixels_per_token(survey),
        )
        for survey in store.surveys
    }
    torch.manual_seed(seed)
    model = Model(
        Architecture(
            surveys=surveys,
            token_arcsec=store.token_arcsec,
            dimensions=settings.dimensions,
            size=settings.size,
        )
    )
    for survey, typical in noise.items():
        model.typical_noise(survey).copy_(torch.from_numpy(typical))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device)


class Run:
    """One training run: what changes from step to step, and where it is kept."""

    def __init__(
        self,
        model: Model,
        patches: Patches,
        watched: Patches,
        settings: TrainConfig,
        folder: Path,
        key: str,
    ) -> None:
        self.model, self.settings, self.folder, self.key = model, settings, folder, key
        self.pairs, self.watched = Pairs(patches, settings), watched
        self.teacher = copy.deepcopy(model).requires_grad_(False) if settings.ema else None
        self.optimiser = torch.optim.AdamW(
            _decayed_groups(model, settings.weight_decay),
            lr=settings.learning_rate,
            betas=(0.9, 0.95),
        )
        self.history: list[dict[str, Any]] = []
        self.history_copy: Path | None = None
        self.counts: Counter[str] = Counter()
        self._recent: list[dict[str, Any]] = []
        self._newest: tuple[Tensor, Tensor]
        self._draws: Iterator[Draw]

    def go(self) -> None:
        """Train to the last step, from the checkpoint if there is one, and fit the whitening."""
        settings = self.settings
        start = self._resume()
        self._draws = self.pairs.draws(range(start + 1, settings.steps + 1))
        self.model.train()
        for step in track(range(start + 1, settings.steps + 1), "train"):
            self._step(step)
            if step % settings.record_every == 0 or step == settings.steps:
                self._record(step)
            if step % settings.checkpoint_every == 0 and step < settings.steps:
                self._save(step)
        if self.teacher is not None:
            self.model.load_state_dict(self.teacher.state_dict())
        self.model.eval()
        fit_whitening(self.model, self.pairs)

    def last(self, name: str) -> Any:
        """The newest value of a column of the history, or None."""
        return next((line[name] for line in reversed(self.history) if name in line), None)

    def _step(self, step: int) -> None:
        settings = self.settings
        batch = self.pairs.show(next(self._draws), self.model.device)
        rate = _learning_rate(settings, step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        found, first = self._terms(batch)
        loss = self._weighted(found)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.gradient_clip)
        if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
            names = ", ".join(self.pairs.patches.store[n].name for n in batch.patches)
            raise UserError(
                f"train: step {step}: the loss is not finite ({batch.name}, patches {names}); "
                "look at these patches, or lower train.learning_rate"
            )
        self.optimiser.step()
        if self.teacher is not None:
            _average(self.teacher, self.model, settings.ema)
        self.counts[batch.name] += 1
        self._recent.append(
            {
                "name": batch.name,
                "loss": loss.item(),
                "alignment": found.alignment.item(),
                "variance": found.variance.item(),
                "covariance": found.covariance.item(),
                "gradient_norm": norm.item(),
            }
        )
        self._newest = (first, batch.weight.to(first.device))

    def _terms(self, batch: Batch) -> tuple[Terms, Tensor]:
        """The objective's terms of a batch, and the tokens of its first side."""
        sides = ((batch.first, batch.first_place), (batch.second, batch.second_place))
        first, second = (pick(encode(self.model, views), place) for views, place in sides)
        targets = None
        if self.teacher is not None:
            with torch.no_grad():
                targets = [pick(encode(self.teacher, views), place) for views, place in sides]
        objective = OBJECTIVES[self.settings.objective]
        found = objective(first, second, batch.weight.to(first.device), targets)
        return found, first.detach()

    def _weighted(self, found: Terms) -> Tensor:
        if self.settings.objective == "information":
            return found.alignment + found.variance + found.covariance
        weights = self.settings.vicreg
        return (
            weights.alignment * found.alignment
            + weights.variance * found.variance
            + weights.covariance * found.covariance
        )

    def _record(self, step: int) -> None:
        """Add a line to the history: means since the last line, by kind of pair."""
        recent, self._recent = self._recent, []
        line: dict[str, Any] = {
            "step": step,
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "loss": _mean(recent, "loss"),
            "gradient_norm": _mean(recent, "gradient_norm"),
            "pairs": dict(sorted(self.counts.items())),
            **spread(*self._newest),
        }
        across = [entry for entry in recent if entry["name"].startswith("surveys:")]
        within = [entry for entry in recent if not entry["name"].startswith("surveys:")]
        for name, entries in (("across", across), ("within", within)):
            for term in ("alignment", "variance", "covariance"):
                if entries:
                    line[f"{name}_{term}"] = _mean(entries, term)
        if step % self.settings.validate_every == 0 or step == self.settings.steps:
            line |= self._validate()
        self.history.append(line)
        log.info("step %d: loss %.3f", step, line["loss"])
        if self.history_copy is not None:
            write_text(self.history_copy, "".join(json.dumps(h) + "\n" for h in self.history))

    def _validate(self) -> dict[str, Any]:
        pairs = [p for p in sorted(self.pairs.interest["surveys"]) if self.watched.shared(p)]
        self.model.eval()
        found = [retrieval(self.model, self.watched, pair) for pair in pairs]
        self.model.train()
        scored = [(top1, n) for top1, n in found if n > 1]
        if not scored:
            return {}
        return {
            "validation_top1": float(np.mean([top1 for top1, _ in scored])),
            "validation_tokens": sum(n for _, n in scored),
        }

    def _save(self, step: int) -> None:
        state = {
            "step": step,
            "model": self.model.state_dict(),
            "teacher": None if self.teacher is None else self.teacher.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "history": self.history,
            "counts": dict(self.counts),
            "recent": self._recent,
        }
        save_checkpoint(self.folder / "checkpoint.pt", self.key, state)

    def _resume(self) -> int:
        """Take up the checkpoint; returns the steps already made."""
        state = read_checkpoint(self.folder / "checkpoint.pt", self.key)
        if state is None:
            return 0
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.teacher is not None:
            self.teacher.load_state_dict(state["teacher"])
        self.history, self.counts = state["history"], Counter(state["counts"])
        self._recent = state["recent"]
        log.info("going on after step %d", state["step"])
        return state["step"]


def _learning_rate(settings: TrainConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth."""
    warm = settings.warmup * settings.steps
    if step <= warm:
        return settings.learning_rate * step / max(warm, 1)
    done = (step - warm) / max(settings.steps - warm, 1)
    return settings.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


def _decayed_groups(model: Model, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels only."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


@torch.no_grad()
def _average(teacher: Model, model: Model, momentum: float) -> None:
    """Move the teacher's parameters towards the model's; buffers are copied."""
    for average, value in zip(teacher.parameters(), model.parameters(), strict=True):
        average.lerp_(value, 1 - momentum)
    for kept, new in zip(teacher.buffers(), model.buffers(), strict=True):
        kept.copy_(new)


def _mean(entries: list[dict[str, Any]], name: str) -> float:
    return float(np.mean([entry[name] for entry in entries]))
