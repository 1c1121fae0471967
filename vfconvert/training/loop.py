"""The loop: epochs, validations, checkpoints, and what happens when something goes wrong in the middle."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.data.batches import Batch, telling_of_dead_workers
from vfconvert.errors import TrainingError
from vfconvert.training.checkpoint import State, write_checkpoint
from vfconvert.training.evaluating import evaluate
from vfconvert.training.job import Job
from vfconvert.training.learner import Learner, NotFiniteError, part
from vfconvert.training.norms import estimate_norms
from vfconvert.training.objective import first_not_finite
from vfconvert.training.optimizing import rate_factor
from vfconvert.training.signals import Signals, TrainingInterrupted
from vfconvert.training.watching import Silent, Watcher
from vfconvert.training_options import TrainingOptions

_SLOWER = 0.1  # times the rate after a loss that was not finite
_CURVE = 400  # points of the curve of losses
_ESTIMATED = 50  # batches that norms are estimated on
_COUNTED = 20  # steps over which the speed is told
_SUMS = "epoch"  # among a state's notes: sums over the steps of the epoch that it lies in


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """The student with its best weights; a record for every validation, epoch 0 before training; losses by step.

    `options` are the job's, settled.
    """

    model: nn.Module
    epochs: tuple[Mapping[str, Any], ...]
    losses: tuple[tuple[int, float], ...]
    steps: int
    best_epoch: int
    norms_estimated: bool
    seconds: float
    options: TrainingOptions


def train(job: Job, watcher: Watcher | None = None, state: State | None = None) -> Trained:
    """Train the student, from `state` on where one is given.

    Raises `TrainingError` where a loss is not finite for the second time, and what the data raises;
    `TrainingInterrupted` where a signal came, with the checkpoint written.
    """
    with torch.random.fork_rng(devices=[]), telling_of_dead_workers(), Signals().noted() as signals:
        job = job.settled(state)
        torch.manual_seed(job.seed)
        run = _Run(job, watcher if watcher is not None else Silent(), signals)
        with run.learner.objective.watching():
            run.begin(state)
            while not run.finished:
                run.epoch()
        trained = run.end()
        if signals.number:  # after the last step: nothing is left for the others to agree on
            run.stop(signals.number)
        return trained


class _Run:
    def __init__(self, job: Job, watcher: Watcher, signals: Signals) -> None:
        self._job, self._watcher = job, watcher
        self.learner = Learner(job, signals)
        self._per_epoch = len(job.training)
        steps = job.options.epochs * self._per_epoch
        self._state = State(
            identity=job.identity,
            step=0,
            steps=steps,
            precision=job.options.precision,
            channels_last=job.options.channels_last,
            notes=dict(job.notes),
        )
        self._good, self._written, self._begun = self._state, time.monotonic(), time.monotonic()
        self._best: dict[str, Tensor] = {}

    @property
    def finished(self) -> bool:
        """Whether all steps are done or wanted, or no epoch has been better for too long."""
        state, options = self._state, self._job.options
        since = len(state.epochs) - 1 - state.improved
        return options.finish or state.step >= state.steps or bool(options.patience and since >= options.patience)

    def begin(self, state: State | None) -> None:
        """Take a state over, or look where the student stands before any training."""
        if state is not None:
            self._restore(state)
            self._good = state
            return
        self._validate(0, {})
        self._keep()

    def epoch(self) -> None:
        """What is left of the epoch in which the next step lies, and its validation."""
        state, (number, at) = self._state, divmod(self._state.step, self._per_epoch)
        # A state of an older version has no sum: the mean of the later steps alone would be a wrong one.
        total = state.notes.get(_SUMS, {}).get("loss", math.nan) if at else 0.0
        counted, clock, signal = 0, time.monotonic(), 0
        for batch in self._job.training.epoch(number, at):
            rate = self._rate(state.step)
            due = time.monotonic() - self._written >= 60 * self._job.options.minutes
            try:
                stepped = self.learner.step(batch, state.step, rate, due=due)
            except NotFiniteError:
                self._roll_back(batch)
                return
            loss, signal = stepped.loss, stepped.signal
            state.step, total, counted = state.step + 1, total + loss, counted + 1
            last = state.step % self._per_epoch == 0
            if state.step % max(1, state.steps // _CURVE) == 0:
                state.losses.append((state.step, loss))
            if state.step % _COUNTED == 0 or last:
                speed = counted * self._job.options.batch / max(time.monotonic() - clock, 1e-9)
                self._watcher.step(state.step, state.steps, loss, rate, speed)
            if not last and (stepped.due or signal):
                state.notes = {**state.notes, _SUMS: {"loss": total}}
                self._keep(signal)
        self._validate(number + 1, {} if math.isnan(total) else {"loss": total / self._per_epoch})
        self._keep(signal)

    def end(self) -> Trained:
        """The student with its best weights, norms estimated anew where that is better."""
        state, learner = self._state, self.learner
        learner.student.load_state_dict(self._best)
        estimated = not learner.frozen and state.best_epoch > 0 and self._try_estimated_norms()
        learner.leave()
        return Trained(
            model=learner.student,
            epochs=tuple(state.epochs),
            losses=tuple(state.losses),
            steps=state.step,
            best_epoch=state.best_epoch,
            norms_estimated=estimated,
            seconds=self._seconds(),
            options=self._job.options,
        )

    def _rate(self, step: int) -> float:
        options = self._job.options
        return options.highest_rate * rate_factor(step, self._state.steps, options.warm_up) * self._state.slower

    def _validate(self, number: int, record: dict[str, Any]) -> None:
        model, state = self.learner.judged, self._state
        metrics = self._metrics(model)
        value = metrics[self._job.task.metrics[0]]
        if self._better(value):
            state.improved = number if value != state.best else state.improved
            state.best, state.best_epoch = value, number
            self._best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        entry = {"epoch": number, "step": state.step, "seconds": round(self._seconds(), 1), **record, **metrics}
        state.epochs.append(entry)
        self._watcher.epoch(entry)

    def _better(self, value: float) -> bool:
        best = self._state.best
        if best is None or math.isnan(best):
            return True
        # Of equals the later one: it has come nearer to the teacher in what the metric does not tell.
        return value >= best if self._job.task.higher_is_better else value <= best

    def _metrics(self, model: nn.Module) -> dict[str, float]:
        job = self._job
        return evaluate(
            model,
            self.learner.teacher,
            job.validation,
            job.task,
            features=job.features,
            device=job.device,
            ranks=job.ranks,
            vary=job.vary,
        )

    def _try_estimated_norms(self) -> bool:
        """Estimate norms on training images; keep that where the metric is better for it."""
        job, student = self._job, self.learner.student
        batches = job.training.epoch(job.options.epochs)  # an order that no step has seen
        images = (batch.images.to(job.device) for _, batch in zip(range(_ESTIMATED), batches, strict=False))
        estimate_norms(student, images)
        for name, tensor in student.named_buffers():
            if name.rpartition(".")[2] in ("running_mean", "running_var"):
                job.ranks.sum(tensor).div_(job.ranks.world)
        if self._better(self._metrics(student)[job.task.metrics[0]]):
            return True
        student.load_state_dict(self._best)
        return False

    def _keep(self, signal: int = 0) -> None:
        """Remember the state, on disk too; stop here where all processes know of a signal."""
        self._good = self._captured()
        folder = self._job.folder
        if folder is not None and self._job.ranks.first:
            write_checkpoint(self._good, folder)
        self._written = time.monotonic()
        if signal:
            self.stop(signal)

    def stop(self, signal: int) -> None:
        """Raise `TrainingInterrupted`, with how to go on."""
        folder = self._job.folder
        where = f"step {self._state.step} of {self._state.steps}"
        on = f"; give the same command with --resume to go on from {folder}" if folder is not None else ""
        raise TrainingInterrupted(f"Stopped at {where}{on}.", signal)

    def _roll_back(self, batch: Batch) -> None:
        """Back to the last good state, slower; the second time it is an error."""
        where = first_not_finite(self.learner.student, batch.images.to(self._job.device))
        step, good = self._state.step + 1, self._good
        if good.slower < 1:
            raise TrainingError(
                f"the loss is not finite again at step {step} of {self._state.steps} ({where}), at a tenth of the rate "
                "too; give a lower --rate, or --train-precision fp32"
            )
        self._watcher.note(
            f"the loss is not finite at step {step} ({where}): back to step {good.step}, at a tenth of the rate"
        )
        self._restore(good)
        self._state.slower = _SLOWER
        self._keep()

    def _seconds(self) -> float:
        return self._state.seconds + time.monotonic() - self._begun

    def _captured(self) -> State:
        held = copy.copy(self._state)
        held.epochs, held.losses, held.seconds = list(held.epochs), list(held.losses), self._seconds()
        best = {f"best.{name}": tensor.cpu() for name, tensor in self._best.items()}
        held.tensors = self.learner.tensors() | best
        return held

    def _restore(self, state: State) -> None:
        self.learner.load(state.tensors)
        self._best = {name: t.to(self._job.device) for name, t in part(state.tensors, "best").items()}
        options = self._job.options
        self._state = copy.copy(state)
        self._state.precision, self._state.channels_last = options.precision, options.channels_last
        self._state.epochs, self._state.losses, self._state.tensors = list(state.epochs), list(state.losses), {}
        self._begun = time.monotonic()
