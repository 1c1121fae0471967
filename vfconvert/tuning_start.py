"""What a fine-tuning starts from: a fitted student, or what an earlier run left; the same in all processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vfconvert.delivery import paths_of
from vfconvert.errors import TrainingError, UnwritableOutputError
from vfconvert.files import check_writable
from vfconvert.fitting.sweep import Fitted
from vfconvert.nn import VersatileConv2d
from vfconvert.nn.flattened import flattened_convs
from vfconvert.options import ConversionOptions
from vfconvert.plan_entries import entry_of
from vfconvert.plan_file import read_plan, write_plan
from vfconvert.planning import Plan
from vfconvert.preparation import Prepared
from vfconvert.rewriting import rewrite
from vfconvert.shortages import reason_of
from vfconvert.temporary import claimed, scratch
from vfconvert.training.checkpoint import NAME, State, check_identity, from_bytes, read_checkpoint, to_bytes
from vfconvert.training.learner import part
from vfconvert.training.ranks import Ranks

PLAN, DONE = "plan.json", "exported"
_METHOD = (
    *(
        "spatial",
        "channel",
        "windows",
        "channel_stride",
        "crops",
        "linear",
        "include",
        "exclude",
        "include_first",
        "layers",
    ),
    *("targets", "max_drop", "refine", "reconstruct", "augment", "calibration_images", "target_data", "input_shape"),
)
_BEFORE = {"views": 1, "refine": "0", "linear": "False"}  # what checkpoints have that do not say so


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
    check_writable(folder / NAME if folder.is_dir() else folder)  # before any work
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UnwritableOutputError(f"cannot write checkpoints to {folder}: {reason_of(error)}") from error
    try:
        with claimed(folder) as mine:
            if not mine:
                raise TrainingError(
                    f"{folder}: another process trains with this folder now; wait for it, or give other --checkpoints"
                )
            yield
    finally:
        with contextlib.suppress(OSError):  # not empty, as a rule
            folder.rmdir()


def saved(prepared: Prepared, options: ConversionOptions) -> Start | None:
    """What an earlier run left to go on from; None where there is nothing.

    Raises `TrainingError` where its checkpoint is damaged, of another run, or there without `--resume`.
    """
    folder = folder_of(options)
    state = read_checkpoint(folder)
    if state is None:
        return None
    if not options.training.resume:
        if (folder / DONE).exists():
            return None  # a run whose file was written is in nobody's way
        raise TrainingError(
            f"{folder} holds the checkpoint of a run of which no file was written yet (step {state.step} of "
            f"{state.steps}); add --resume to go on from it, or remove the folder"
        )
    check_identity({**_BEFORE, **state.identity}, identity_of(prepared, options), folder)
    plan = read_plan(folder / PLAN, prepared.teacher, prepared.layers, prepared.norms)
    return Start(plan=plan, fitted=_fitted(prepared.teacher, plan, state), state=state)


def done(options: ConversionOptions) -> None:
    """Note that a run's files are written, so that a later run may take its folder."""
    with contextlib.suppress(OSError):  # the files are there, which is what counts
        (folder_of(options) / DONE).touch()


def shared(start: Start | None, prepared: Prepared, options: ConversionOptions, ranks: Ranks) -> Start:
    """The start that the first process has, for all of them."""
    if ranks.world == 1 and start is not None:
        return start
    plan, content = b"", b""
    with scratch() as folder:
        path = folder / PLAN
        if start is not None:
            write_plan(
                start.plan, path, source_sha256=prepared.loaded.sha256, linear=bool(flattened_convs(prepared.teacher))
            )
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


def identity_of(prepared: Prepared, options: ConversionOptions) -> dict[str, Any]:
    """What a run has to have in common with the checkpoint that it goes on from."""
    examples = prepared.source.examples
    transform = prepared.source.transform
    plan = [] if options.searches else [entry_of(decision) for decision in prepared.plan.decisions]
    return {
        **{name: str(getattr(options, name)) for name in _METHOD},
        "prepared": transform.describe() if transform is not None else "none",
        "plan": hashlib.sha256(json.dumps(plan).encode()).hexdigest(),
        "model": prepared.loaded.sha256,
        "data": examples.root if examples is not None else "none",
        "images": len(examples) if examples is not None else 0,
        "seed": options.seed,
        **options.training.shaping(),
    }


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
