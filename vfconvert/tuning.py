"""Fine-tuning within a conversion: from the fitted student, or a checkpoint of an earlier run, to the trained one."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.data.batches import BatchStream
from vfconvert.data.restoration import RestorationTransform
from vfconvert.delivery import paths_of
from vfconvert.errors import NoImagesError, TrainingError
from vfconvert.files import check_writable
from vfconvert.fitting.sweep import Fitted
from vfconvert.nn import VersatileConv2d
from vfconvert.options import ConversionOptions
from vfconvert.plan_file import read_plan, write_plan
from vfconvert.planning import Plan
from vfconvert.preparation import Prepared
from vfconvert.reporting.report import TrainingReport
from vfconvert.rewriting import rewrite
from vfconvert.tasks.structure import main_tensor, varies
from vfconvert.tasks.task import TargetsKind, Task, task_of
from vfconvert.training.checkpoint import (
    NAME,
    State,
    check_identity,
    from_bytes,
    read_checkpoint,
    to_bytes,
)
from vfconvert.training.evaluating import answers
from vfconvert.training.job import Job
from vfconvert.training.learner import part
from vfconvert.training.loop import Trained, train
from vfconvert.training.ranks import Ranks
from vfconvert.training.watching import Log, Silent, Watcher

PLAN = "plan.json"
_SHOWN = 16  # images that tell what a network returns


@dataclass(frozen=True, eq=False)
class Start:
    """What training starts from: the student of a plan, and the state to go on from (None: none was saved yet)."""

    plan: Plan
    fitted: Fitted
    state: State | None


def folder_of(options: ConversionOptions) -> Path:
    """Where checkpoints and the log are kept: beside the first output, unless said otherwise."""
    first = next(iter(paths_of(options).values()))
    return options.training.checkpoints or first.with_suffix(".training")


def saved(prepared: Prepared, options: ConversionOptions) -> Start | None:
    """What an earlier run left to go on from; None where there is nothing.

    Raises `TrainingError` where its checkpoint is damaged, of another run, or there without `--resume`.
    """
    folder = folder_of(options)
    check_writable(folder / NAME if folder.is_dir() else folder)  # before any work
    state = read_checkpoint(folder)
    if state is None:
        return None
    if not options.training.resume:
        if state.step >= state.steps:
            return None  # a run that came to its end is in nobody's way
        raise TrainingError(
            f"{folder} holds the checkpoint of a run that is not at its end (step {state.step} of {state.steps}); "
            "add --resume to go on from it, or remove the folder"
        )
    check_identity(state.identity, identity_of(prepared, options), folder)
    norms = prepared.network.following_norm if prepared.network is not None else {}
    plan = read_plan(folder / PLAN, prepared.teacher, prepared.layers, norms)
    return Start(plan=plan, fitted=_fitted(prepared.teacher, plan, state), state=state)


def shared(start: Start | None, prepared: Prepared, options: ConversionOptions, ranks: Ranks) -> Start:
    """The start that the first process has, for all of them."""
    if ranks.world == 1 and start is not None:
        return start
    plan, content = b"", b""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, PLAN)
        if start is not None:
            write_plan(start.plan, path, source_sha256=prepared.loaded.sha256)
            plan, content = path.read_bytes(), to_bytes(start.state or _untrained(start.fitted))
        plan = ranks.from_first(plan, prepared.device)
        content = ranks.from_first(content, prepared.device)
        if start is not None:
            return start
        path.write_bytes(plan)
        state = from_bytes(content, "what the first process sent")
        norms = prepared.network.following_norm if prepared.network is not None else {}
        made = read_plan(path, prepared.teacher, prepared.layers, norms)
    fitted = _fitted(prepared.teacher, made, state)
    return Start(plan=made, fitted=fitted, state=state if state.epochs else None)


def tune(
    start: Start, prepared: Prepared, options: ConversionOptions, ranks: Ranks, watcher: Watcher | None
) -> tuple[Fitted, TrainingReport]:
    """Train the start's student. Raises `TrainingError`, the errors of the data, and `TrainingInterrupted`."""
    job = _job(start, prepared, options, ranks)
    begun = start.state.step if start.state is not None else 0
    told: Watcher = Silent()
    if ranks.first and job.folder is not None:
        log = Log(job.folder, begun)
        write_plan(start.plan, job.folder / PLAN, source_sha256=prepared.loaded.sha256)
        told = Told(log, options.training.tensorboard, watcher)
    trained = train(job, told, start.state)
    fitted = Fitted(
        model=trained.model,
        unexplained=start.fitted.unexplained,
        seconds={**start.fitted.seconds, "train": trained.seconds},
    )
    return fitted, _report(job, trained, begun)


class Told:
    """Passes on what a run tells: to the log, to TensorBoard where it is asked for, to the screen."""

    def __init__(self, log: Log, board: Path | None, watcher: Watcher | None) -> None:
        from vfconvert.training.watching import Board

        self._log, self._board = log, Board(board) if board is not None else None
        self._watcher = watcher if watcher is not None else Silent()

    def step(self, step: int, steps: int, loss: float, rate: float, images_per_second: float) -> None:
        """Of that number, from 1."""
        self._write({"step": step, "loss": loss, "rate": rate, "images_per_second": round(images_per_second, 1)})
        self._watcher.step(step, steps, loss, rate, images_per_second)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """After each validation."""
        self._write(record)
        self._watcher.epoch(record)

    def note(self, line: str) -> None:
        """Something that a person should know."""
        self._log.write({"note": line})
        self._watcher.note(line)

    def _write(self, entry: Mapping[str, Any]) -> None:
        self._log.write(entry)
        if self._board is not None:
            self._board.write(entry)


def identity_of(prepared: Prepared, options: ConversionOptions) -> dict[str, Any]:
    """What a run has to have in common with the checkpoint that it goes on from."""
    examples = prepared.source.examples
    method = {
        name: str(getattr(options, name))
        for name in ("spatial", "channel", "windows", "channel_stride", "crops", "include", "exclude", "layers")
    }
    return {
        "model": prepared.loaded.sha256,
        "data": examples.root if examples is not None else "none",
        "images": len(examples) if examples is not None else 0,
        "seed": options.seed,
        "targets": [str(target) for target in options.targets],
        **method,
        **options.training.shaping(),
    }


def _job(start: Start, prepared: Prepared, options: ConversionOptions, ranks: Ranks) -> Job:
    training, source = options.training, prepared.source
    examples, transform = source.examples, source.transform
    if examples is None or transform is None:
        raise NoImagesError("--epochs trains on images: give --data; synthetic ones are too few to train on")
    split = source.split(options, len(examples))
    chosen = split.held_out[: max(1, len(split.held_out) // 2)]  # the other half judges the result
    teacher = prepared.teacher
    features = tuple(decision.norm or decision.layer for decision in start.plan.converted)
    common: dict[str, Any] = {
        "workers": training.workers,
        "rank": ranks.rank,
        "world": ranks.world,
        "most_unreadable": training.most_unreadable,
    }
    whole = isinstance(transform, RestorationTransform)  # images of a restoration are of any size
    task = _task(teacher, prepared, training.task, features, training.scale)
    if training.label_weight and task.name == "distil":
        raise TrainingError(
            "--label-weight needs labels of the network's own classes, clean images or masks: give --data with a "
            "subfolder for each class, or --target-data"
        )
    return Job(
        teacher=teacher,
        student=start.fitted.model,
        task=task,
        training=BatchStream(examples, split.calibration, transform, batch=training.batch, seed=options.seed, **common),
        validation=BatchStream(
            examples,
            chosen,
            transform,
            batch=ranks.world if whole else training.batch,
            seed=options.seed,
            shuffle=False,
            train=False,
            **common,
        ),
        options=training,
        example=_some(prepared)[0],
        seed=options.seed,
        device=prepared.device,
        features=features if training.feature_weight or _vary(teacher, prepared) else (),
        identity=identity_of(prepared, options),
        notes={"unexplained": start.fitted.unexplained, "seconds": start.fitted.seconds},
        folder=folder_of(options),
        ranks=ranks,
    )


@torch.no_grad()
def _task(
    teacher: nn.Module, prepared: Prepared, name: str | None, features: tuple[str, ...], scale: int | None
) -> Task:
    images, target = _some(prepared)
    outputs = answers(teacher, images, features)
    kinds: dict[int | None, TargetsKind] = {None: "none", 0: "classes", 2: "masks", 3: "images"}
    kind = kinds[None if target is None else target.dim()]
    main, classes = main_tensor(outputs), prepared.source.examples.classes if prepared.source.examples else 0
    if name is None and kind == "classes" and (main is None or main.dim() != 2 or main.shape[1] != classes):
        kind = "none"  # subfolders that are not the network's classes are no labels of it
    return task_of(name, outputs, kind, scale)


@torch.no_grad()
def _vary(teacher: nn.Module, prepared: Prepared) -> bool:
    return varies(teacher(_some(prepared)[0]))


def _some(prepared: Prepared) -> tuple[Tensor, Tensor | None]:
    """A few images `(N, C, H, W)` as the network is given them, and the target of the first."""
    source = prepared.source
    if source.examples is None or source.transform is None:
        raise ValueError("there are no images to read")
    target = source.transform(*source.examples.read(0), 0, False)[1]
    count = min(_SHOWN, len(source.examples))
    return torch.stack([source.read(index) for index in range(count)]).to(prepared.device), target


def _fitted(teacher: nn.Module, plan: Plan, state: State) -> Fitted:
    """The student of a plan with the weights in a state."""
    student, tensors = rewrite(teacher, plan), part(state.tensors, "model")
    for name, layer in student.named_modules():
        if isinstance(layer, VersatileConv2d) and f"{name}.order" in tensors:
            layer.order = tensors[f"{name}.order"].to(layer.rows.device)
    try:
        student.load_state_dict(tensors)
    except RuntimeError as error:
        said = str(error).strip().splitlines()[-1].strip()
        raise TrainingError(
            f"the checkpoint does not fit its plan ({said}); remove the folder to begin anew"
        ) from error
    notes = state.notes
    return Fitted(
        model=student.eval(), unexplained=dict(notes.get("unexplained", {})), seconds=dict(notes.get("seconds", {}))
    )


def _untrained(fitted: Fitted) -> State:
    tensors = {f"model.{name}": tensor for name, tensor in fitted.model.state_dict().items()}
    notes = {"unexplained": fitted.unexplained, "seconds": fitted.seconds}
    return State(identity={}, step=0, steps=0, notes=notes, tensors=tensors)


def _report(job: Job, trained: Trained, begun: int) -> TrainingReport:
    options = job.options
    return TrainingReport(
        task=job.task.name,
        metric=job.task.metrics[0],
        higher_is_better=job.task.higher_is_better,
        optimizer=options.optimizer,
        rate=options.highest_rate,
        batch=options.batch,
        processes=job.ranks.world,
        epochs=trained.epochs,
        losses=trained.losses,
        steps=trained.steps,
        resumed_from=begun,
        best_epoch=trained.best_epoch,
        norms_estimated=trained.norms_estimated,
        unreadable=tuple(sorted({**job.training.unreadable, **job.validation.unreadable})),
        seconds=trained.seconds,
        folder=str(job.folder),
    )
