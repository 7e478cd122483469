"""Stage train: from a published store to a model folder."""

import copy
import logging
import math
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jaisp.config import Config, stage_hash, stage_version
from jaisp.config.train import TrainConfig
from jaisp.errors import StoppedError, UserError
from jaisp.files import partial_dir, remove_folder, sha256
from jaisp.model import Model, save_model
from jaisp.process import keep_memory
from jaisp.progress import track
from jaisp.store.reader import open_store
from jaisp.train.ahead import ahead
from jaisp.train.card import model_card
from jaisp.train.checkpoint import read_checkpoint, save_checkpoint
from jaisp.train.frame import fit_frame
from jaisp.train.fresh import measure_sky, new_model
from jaisp.train.history import Board, History, Pace, board_writer
from jaisp.train.implants import ImplantDraw, Implants
from jaisp.train.losses import find_terms, term_weights
from jaisp.train.matching import Matching, Sources
from jaisp.train.optimiser import follow, learning_rate, new_optimiser, take_up
from jaisp.train.pairs import Pairs
from jaisp.train.patches import Patches, measure_noise
from jaisp.train.photometry import Fluxes, FluxHead, Photometer, photometry_term
from jaisp.train.position import PositionHead, around, position_term, reference
from jaisp.train.precision import autocast, compile_encoders, eager
from jaisp.train.ranks import all_ranks, average_gradients, gathered, on_any, rank, ranks, wait
from jaisp.train.stop import Told, noted_signals
from jaisp.train.tokens import encode, pick
from jaisp.train.views import Batch, Draw, Views
from jaisp.train.watch import retrieval, spread

log = logging.getLogger(__name__)


def train(config: Config, threads: int | None = None) -> dict:
    """Train the run's encoders on the training patches of its published store.

    Writes results/RUN/model and results/RUN/history.jsonl; a killed run goes on from its last
    checkpoint. Under torchrun, its processes train together, and the first of them writes.
    `threads` is torch's on the CPU. Returns the receipt's content, the same in every process.
    Raises UserError when there is nothing to train on, or when the loss is no longer finite, and
    StoppedError after a SIGTERM or SIGUSR1 to any of the processes: a checkpoint of the newest
    step has been written.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    keep_memory()
    if config.train.tensorboard:
        board_writer()
    with noted_signals() as told, all_ranks():
        return _train(config, told)


def _train(config: Config, told: Told) -> dict:
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
    measure_sky(model, patches)
    key = stage_hash(config, "train") + stage_version("train") + sha256(store.path / "zarr.json")
    run = Run(model, patches, watched, settings, partial_dir(config) / "train", key)
    run.results, run.told = config.results, told
    run.go()
    top1 = run.history.last("validation_top1")
    if rank() == 0:
        save_model(model, config.results / "model", model_card(model, store, settings.steps, top1))
        remove_folder(run.folder)
    wait()
    return {
        "steps": settings.steps,
        "patches": len(patches),
        "pairs": dict(run.history.counts),
        "sha256": sha256(config.results / "model" / "model.safetensors"),
    }


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
        self.implants = Implants(patches, settings)
        self.head = PositionHead(model.config.dimensions, settings.seed).to(model.device)
        bands = {s: len(pixels.bands) for s, pixels in model.config.surveys.items()}
        self.flux_head = FluxHead(model.config.dimensions, bands, settings.seed).to(model.device)
        self.photometer = Photometer(model)
        self.trained = nn.ModuleList([model, self.head, self.flux_head])
        self.optimiser = new_optimiser(self.trained, settings)
        self.history = History()
        self.results: Path | None = None
        self.told = Told()
        self._board: Board | None = None
        self._framed = False  # to the weights as they are
        self._newest: tuple[Tensor, Tensor]
        self._draws: Iterator[Draw]
        self._implants: Iterator[list[ImplantDraw]]

    def go(self) -> None:
        """Train to the last step, from the checkpoint if there is one, and fit the frame."""
        settings = self.settings
        start = self._resume()
        if settings.tensorboard and self.results is not None and rank() == 0:
            self._board = Board(self.results / "tensorboard", start)
        if settings.compile:
            self._compile()
        self._begin(range(start + 1, settings.steps + 1))
        self.model.train()
        pace = Pace()
        for step in track(range(start + 1, settings.steps + 1), "train"):
            if on_any(bool(self.told)):
                self._stop(step - 1, start)
            self._step(step)
            pace.add(settings.batch)
            if step % settings.record_every == 0 or step == settings.steps:
                self._record(step, pace.since_last())
            if step % settings.checkpoint_every == 0 and step < settings.steps:
                self._save(step)
        if self._board is not None:
            self._board.close()
        if self.teacher is not None:
            self.model.load_state_dict(self.teacher.state_dict())
            self._framed = False
        self.model.eval()
        with eager() if settings.compile else nullcontext():
            self._fit_frame()

    def _begin(self, steps: range) -> None:
        """Begin to draw what some steps, the next ones, are made of."""
        self._draws = self.pairs.draws(steps)
        self._implants = ahead(self.implants.draw, steps)

    def _step(self, step: int) -> None:
        settings = self.settings
        batch = self.pairs.show(next(self._draws), self.model.device)
        rate = learning_rate(settings, step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        matching = self._matching(batch)
        photometry = self._photometry(batch, matching) if settings.photometry.weight else {}
        sources = self._sources(next(self._implants))
        if settings.position.aligned and self.implants.together:
            surveys = batch.first.survey, batch.second.survey
            matching = matching.with_sources(surveys, sources, settings.sky_weight)
        across = batch.first.survey != batch.second.survey
        terms = find_terms(settings, step, *matching, across=across).named()
        weights = term_weights(settings)
        loss = torch.zeros((), device=self.model.device)
        for name, term in terms.items():
            loss = loss + weights[name] * term
        places = {f"position_{s}": self._position(found) for s, found in sources.items()}
        for term in places.values():
            loss = loss + settings.position.weight * term
        for term in photometry.values():
            loss = loss + settings.photometry.weight * term
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.trained.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.trained.parameters(), settings.gradient_clip)
        told = _numbers({"loss": loss, "gradient_norm": norm, **places, **terms, **photometry})
        overall = {name: told.pop(name) for name in ("loss", "gradient_norm", *places)}
        if not all(map(math.isfinite, overall.values())):
            names = ", ".join(self.pairs.patches.store[n].name for n in batch.patches)
            raise UserError(
                f"train: step {step}: the loss is not finite ({batch.name}, patches {names}); "
                "look at these patches, or lower train.learning_rate"
            )
        self.optimiser.step()
        self._framed = False
        if self.teacher is not None:
            follow(self.teacher, self.model, settings.ema)
        self.history.note(batch.name, {"loss": overall["loss"], **told}, overall)
        self._newest = (matching.first.detach(), matching.weight)

    def _matching(self, batch: Batch) -> Matching:
        """Matching tokens of both sides of a batch, and the teacher's."""
        sides = ((batch.first, batch.first_place), (batch.second, batch.second_place))
        first, second = (pick(self._encoded(self.model, views), place) for views, place in sides)
        targets = None
        if self.teacher is not None:
            with torch.no_grad():
                targets = [pick(self._encoded(self.teacher, v), place) for v, place in sides]
        weight = batch.weight.to(first.device)
        return Matching(first, second, weight, targets, (len(first),))

    def _sources(self, draws: list[ImplantDraw]) -> dict[str, Sources]:
        """The tokens around implants, of every survey that implants are made for."""
        found = {}
        for draw in draws:
            implanted = self.implants.show(draw, self.model.device)
            correlation = draw.token_correlation.to(self.model.device)
            views = Views(draw.survey, implanted.inputs, correlation)
            tokens = around(self._encoded(self.model, views).permute(0, 2, 3, 1), implanted)
            target = None
            if self.teacher is not None:
                with torch.no_grad():
                    target = self._encoded(self.teacher, views).permute(0, 2, 3, 1)
                target = around(target, implanted)
            found[draw.survey] = Sources(implanted, tokens, target)
        return found

    def _encoded(self, model: Model, views: Views) -> Tensor:
        with autocast(self.settings, self.model.device):
            return encode(model, views)

    def _position(self, sources: Sources) -> Tensor:
        told = self.head(reference(sources.tokens).float())
        return position_term(told, sources.implanted, self.model.config.token_arcsec)

    def _photometry(self, batch: Batch, matching: Matching) -> dict[str, Tensor]:
        """What the matching tokens of each view tell of the fluxes in both of them."""
        asked = []
        for views, place in ((batch.first, batch.first_place), (batch.second, batch.second_place)):
            fluxes = self.photometer(views.survey, views.inputs, views.correlation)
            asked.append((views.survey, Fluxes(*(each[place] for each in fluxes))))
        terms = [
            photometry_term(self.flux_head(tokens.float(), survey), fluxes, matching.weight)
            for tokens in (matching.first, matching.second)
            for survey, fluxes in asked
        ]
        return {"photometry": torch.stack(terms).mean()}

    def _record(self, step: int, patches_a_second: float) -> None:
        """Add a line to the history: means since the last line, by kind of pair."""
        more = {"learning_rate": self.optimiser.param_groups[0]["lr"], **spread(*self._newest)}
        if step % self.settings.validate_every == 0 or step == self.settings.steps:
            more |= self._validate()
        line = self.history.close_line(step, more)
        if rank() > 0:
            return
        log.info("step %d: loss %.3f, %.1f patches/s", step, line["loss"], patches_a_second)
        if self.results is not None:
            self.history.write(self.results / "history.jsonl")
        if self._board is not None:
            self._board.plot(line)

    def _validate(self) -> dict[str, Any]:
        pairs = [p for p in sorted(self.pairs.interest["surveys"]) if self.watched.shared(p)]
        self.model.eval()
        with eager() if self.settings.compile else nullcontext():
            if pairs:
                self._fit_frame()
            found = [retrieval(self.model, self.watched, pair) for pair in pairs]
        self.model.train()
        scored = [(top1, n) for top1, n in found if n > 1]
        if not scored:
            return {}
        return {
            "validation_top1": float(np.mean([top1 for top1, _ in scored])),
            "validation_tokens": sum(n for _, n in scored),
        }

    def _fit_frame(self) -> None:
        if not self._framed:
            fit_frame(self.model, self.pairs)
        self._framed = True

    def _compile(self) -> None:
        part = self.pairs.part
        for model in (self.model, self.teacher):
            if model is not None:
                compile_encoders(model, self.settings, part.stop - part.start, self.pairs.crop)

    def _stop(self, step: int, start: int) -> None:
        """Leave after a step, with its checkpoint."""
        if step > start:
            self._save(step)
        # Who ends first is taken for lost by the others.
        wait()
        cause = self.told.signal.name if self.told.signal else "another process"
        raise StoppedError(
            f"train: told to stop ({cause}), after step {step} of {self.settings.steps}; "
            "the same command goes on from there"
        )

    def _save(self, step: int) -> None:
        if rank() > 0:
            return
        state = {
            "step": step,
            "model": self.model.state_dict(),
            "teacher": None if self.teacher is None else self.teacher.state_dict(),
            "head": self.head.state_dict(),
            "flux_head": self.flux_head.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            **self.history.state(),
        }
        save_checkpoint(self.folder / "checkpoint.pt", self.key, state)

    def _resume(self) -> int:
        """Take up the checkpoint; returns the steps already made."""
        state = read_checkpoint(self.folder / "checkpoint.pt", self.key)
        done = 0 if state is None else state["step"]
        if len({int(step) for step in gathered(torch.tensor([done]))}) > 1:
            raise UserError(
                f"{self.folder}: not all {ranks()} processes find the same checkpoint there; "
                "results must lie on a file system that all of them share"
            )
        if state is None:
            return 0
        self.model.load_state_dict(state["model"])
        self.head.load_state_dict(state["head"])
        self.flux_head.load_state_dict(state["flux_head"])
        take_up(self.optimiser, state["optimiser"])
        if self.teacher is not None:
            self.teacher.load_state_dict(state["teacher"])
        self.history.take_up(state)
        log.info("going on after step %d", done)
        return done


def _numbers(values: dict[str, Tensor]) -> dict[str, float]:
    """Scalars from the device, all in one message: each waits for the whole step."""
    numbers = torch.stack([value.detach().float() for value in values.values()]).tolist()
    return dict(zip(values, numbers, strict=True))
