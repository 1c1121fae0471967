"""Fine-tuning within a conversion: from the fitted student, or a checkpoint of an earlier run, to the trained one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vfconvert.fitting.sweep import Fitted
from vfconvert.options import ConversionOptions
from vfconvert.preparation import Prepared
from vfconvert.reporting.report import TrainingReport
from vfconvert.training.job import Job
from vfconvert.training.loop import Trained, train
from vfconvert.training.ranks import Ranks
from vfconvert.training.watching import Board, Log, Silent, Watcher
from vfconvert.tuning_course import Course, names_of, per_image, task_about
from vfconvert.tuning_identity import identity_of
from vfconvert.tuning_start import DONE, Start, folder_of, notes_of


def tune(
    start: Start, course: Course, prepared: Prepared, options: ConversionOptions, ranks: Ranks, watcher: Watcher
) -> tuple[Fitted, TrainingReport]:
    """Train the start's student. Raises `TrainingError`, the errors of the data, and `TrainingInterrupted`."""
    job = _job(start, course, prepared, options, ranks)
    begun = start.state.step if start.state is not None else 0
    told: Watcher = Silent()
    if ranks.first and job.folder is not None:
        log = Log(job.folder, begun)
        (job.folder / DONE).unlink(missing_ok=True)
        told = Told(log, options.training.tensorboard, watcher)
    trained = train(job, told, start.state)
    fitted = Fitted(
        model=trained.model,
        unexplained=start.fitted.unexplained,
        seconds={**start.fitted.seconds, "train": trained.seconds},
        notes=start.fitted.notes,
    )
    return fitted, _report(job, trained, begun)


class Told:
    """Passes on what a run tells: to the log, to TensorBoard where it is asked for, to the screen."""

    def __init__(self, log: Log, board: Path | None, watcher: Watcher) -> None:
        self._log, self._board, self._watcher = log, Board(board) if board is not None else None, watcher

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


def _job(start: Start, course: Course, prepared: Prepared, options: ConversionOptions, ranks: Ranks) -> Job:
    training, layers = options.training, names_of(start.plan)
    asked, images, task = training.feature_weight or course.vary, course.images, course.task
    features = per_image(prepared.teacher, images, layers) if asked else ()
    if course.vary:  # of the candidates a search has left some out
        task = task_about(features, images, course.target, prepared, training)
    return Job(
        teacher=prepared.teacher,
        student=start.fitted.model,
        task=task,
        training=course.training,
        validation=course.validation,
        options=training,
        example=images,
        seed=options.seed,
        device=prepared.device,
        features=features,
        vary=course.vary,
        identity=identity_of(prepared, options),
        notes=notes_of(start.fitted),
        folder=folder_of(options),
        ranks=ranks,
    )


def _report(job: Job, trained: Trained, begun: int) -> TrainingReport:
    options = trained.options
    return TrainingReport(
        task=job.task.name,
        metric=job.task.metrics[0],
        higher_is_better=job.task.higher_is_better,
        optimizer=options.optimizer,
        rate=options.highest_rate,
        norms=options.norms,
        precision=options.precision,
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
