"""What a fine-tuning starts from: a fitted student, or what an earlier run left; the same in all processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vfconvert.delivery import paths_of
from vfconvert.errors import TrainingError, UnwritableOutputError
from vfconvert.files import check_own_name, check_writable
from vfconvert.fitting.sweep import Fitted
from vfconvert.nn import VersatileConv2d
from vfconvert.nn.flattened import flattened_convs
from vfconvert.options import ConversionOptions
from vfconvert.plan_file import read_plan, write_plan
from vfconvert.planning import Plan
from vfconvert.preparation import Prepared
from vfconvert.rewriting import rewrite
from vfconvert.shortages import reason_of
from vfconvert.temporary import claimed, scratch
from vfconvert.training.checkpoint import (
    FIT,
    NAME,
    State,
    check_identity,
    differences,
    from_bytes,
    read_checkpoint,
    to_bytes,
    write_checkpoint,
)
from vfconvert.training.learner import part
from vfconvert.training.ranks import Ranks
from vfconvert.training.watching import LOG, Watcher
from vfconvert.tuning_identity import as_said_now, identity_of

PLAN, DONE = "plan.json", "exported"


@dataclass(frozen=True, eq=False)
class Start:
    """What training starts from: the student of a plan, and the state to go on from (None: none was saved yet)."""

    plan: Plan
    fitted: Fitted
    state: State | None


def folder_of(options: ConversionOptions) -> Path:
    """Where checkpoints and the log are kept: beside the first output, unless said otherwise."""
    if options.training.checkpoints is not None:
        return options.training.checkpoints
    return next(iter(paths_of(options).values())).with_suffix(".training")


@contextlib.contextmanager
def own_folder(options: ConversionOptions) -> Iterator[None]:
    """Within, checkpoints and the log are this run's alone; a folder in which nothing was written goes again.

    Raises `TrainingError` where another process has it, and `UnwritableOutputError`.
    """
    folder = folder_of(options)
    if options.training.checkpoints is None:
        for path in (folder, *(folder / name for name in (NAME, FIT, PLAN, LOG, DONE))):
            check_own_name(path, "--checkpoints")
    check_writable(folder / NAME if folder.is_dir() else folder)  # before any work
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UnwritableOutputError(f"cannot write checkpoints to {folder}: {reason_of(error)}") from error
    try:
        with claimed(folder.resolve()) as mine:  # one that was named may be a link
            if not mine:
                raise TrainingError(
                    f"{folder}: another process trains with this folder now; wait for it, or give other --checkpoints"
                )
            yield
    finally:
        with contextlib.suppress(OSError):  # not empty, as a rule
            folder.rmdir()


def saved(prepared: Prepared, options: ConversionOptions, watcher: Watcher) -> Start | None:
    """What an earlier run's last checkpoint holds to go on from; None where there is none.

    Raises `TrainingError` where it is damaged, of another run, or there without `--resume`, or where there is none to
    finish.
    """
    folder, training = folder_of(options), options.training
    state = read_checkpoint(folder)
    if state is None:
        if training.finish:
            raise TrainingError(f"--finish: {folder} holds no checkpoint; leave it out, or give other --checkpoints")
        if training.resume:
            watcher.note(f"no checkpoint in {folder}: beginning anew")
        return None
    if not training.resume:
        if (folder / DONE).exists():
            return None  # a run whose file was written is in nobody's way
        raise TrainingError(
            f"{folder} holds the checkpoint of a run of which no file was written yet (step {state.step} of "
            f"{state.steps}); add --resume to go on from it (and --finish to write what it has), or remove "
            f"{folder / NAME} to train anew"
        )
    wanted = identity_of(prepared, options)
    check_identity(as_said_now(state, wanted), wanted, folder)
    path = folder / PLAN
    if not path.exists():
        raise TrainingError(f"{path} is missing, without which the checkpoint says nothing; remove {folder}")
    plan = read_plan(path, prepared.teacher, prepared.layers, prepared.norms)
    return Start(plan=plan, fitted=_fitted(prepared.teacher, plan, state), state=state)


def kept_fit(plan: Plan, prepared: Prepared, options: ConversionOptions, identity: Mapping[str, Any]) -> Fitted | None:
    """The fit of a plan that an earlier run kept, if it is of this identity; None where there is none."""
    try:
        state = read_checkpoint(folder_of(options), FIT)
        if state is None or differences(state.identity, identity):
            return None
        return _fitted(prepared.teacher, plan, state)
    except TrainingError:  # damaged: it is made again
        return None


def keep_fit(start: Start, prepared: Prepared, options: ConversionOptions, identity: Mapping[str, Any]) -> None:
    """Write a fit and its plan beside where checkpoints will be, so that no fault of the training loses it."""
    folder = folder_of(options)
    for name in (NAME, DONE):  # of a run whose file was written
        (folder / name).unlink(missing_ok=True)
    state = _untrained(start.fitted)
    state.identity = identity
    write_checkpoint(state, folder, FIT)
    write_start_plan(start.plan, prepared, folder / PLAN)


def write_start_plan(plan: Plan, prepared: Prepared, path: Path) -> None:
    """Write the plan of a start. Raises `UnwritableOutputError`."""
    write_plan(plan, path, source_sha256=prepared.loaded.sha256, linear=bool(flattened_convs(prepared.teacher)))


def done(options: ConversionOptions) -> None:
    """Note that a run's files are written, so that a later run may take its folder."""
    folder = folder_of(options)
    with contextlib.suppress(OSError):  # the files are there, which is what counts
        (folder / DONE).touch()
        (folder / FIT).unlink(missing_ok=True)


def shared(start: Start | None, prepared: Prepared, options: ConversionOptions, ranks: Ranks) -> Start:
    """The start that the first process has, for all of them."""
    if ranks.world == 1 and start is not None:
        return start
    plan, content = b"", b""
    with scratch() as folder:
        path = folder / PLAN
        if start is not None:
            write_start_plan(start.plan, prepared, path)
            plan, content = path.read_bytes(), to_bytes(start.state or _untrained(start.fitted))
        plan = ranks.from_first(plan, prepared.device)
        content = ranks.from_first(content, prepared.device)
        if start is not None:
            return start
        path.write_bytes(plan)
        state = from_bytes(content, "what the first process sent")
        made = read_plan(path, prepared.teacher, prepared.layers, prepared.norms)
    fitted = _fitted(prepared.teacher, made, state)
    return Start(plan=made, fitted=fitted, state=state if state.epochs else None)


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
        model=student.eval(),
        unexplained=dict(notes.get("unexplained", {})),
        seconds=dict(notes.get("seconds", {})),
        notes=tuple(map(str, notes.get("notes", ()))),
    )


def notes_of(fitted: Fitted) -> dict[str, Any]:
    """What a checkpoint says of the fit besides its numbers."""
    return {"unexplained": fitted.unexplained, "seconds": fitted.seconds, "notes": list(fitted.notes)}


def _untrained(fitted: Fitted) -> State:
    tensors = {f"model.{name}": tensor for name, tensor in fitted.model.state_dict().items()}
    return State(identity={}, step=0, steps=0, notes=notes_of(fitted), tensors=tensors)
