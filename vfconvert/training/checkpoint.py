"""The state of a run in one file: tensors and JSON in its header, no pickle; written beside and renamed."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from vfconvert.errors import TrainingError, UnwritableOutputError
from vfconvert.files import atomic_path, read_regular
from vfconvert.shortages import reason_of
from vfconvert.training_options import PRECISIONS

NAME = "checkpoint.safetensors"
FIT = "fit.safetensors"  # the state before any step, whatever becomes of the steps
_VERSION = 1
_KEY = "training"
_MOST_BYTES = 2**36
_DIGITS = 9  # of the number of a parameter
_NUMBER = (int, float)
_KINDS: Mapping[str, tuple[type, ...]] = {  # as JSON has the fields of a state
    **dict.fromkeys(("identity", "notes"), (dict,)),
    **dict.fromkeys(("epochs", "losses"), (list,)),
    **dict.fromkeys(("step", "steps", "best_epoch", "improved"), (int,)),
    **dict.fromkeys(("slower", "seconds"), _NUMBER),
    "best": (*_NUMBER, type(None)),
    "precision": (str, type(None)),
    "channels_last": (bool, type(None)),
}


@dataclass(kw_only=True, eq=False)
class State:
    """All that the rest of a run depends on. `tensors` by dotted names; `step` is the next one, of `steps`.

    `epochs` are the records so far; `best` is the metric of `best_epoch`, the last of equals, and `improved` the first
    of them; `slower` is what the rate is multiplied by since a roll-back. `precision` and `channels_last` are how the
    run computes, None in a state of a version that did not say.
    """

    identity: Mapping[str, Any]
    step: int
    steps: int
    epochs: list[dict[str, Any]] = field(default_factory=list)
    losses: list[tuple[int, float]] = field(default_factory=list)
    best: float | None = None
    best_epoch: int = 0
    improved: int = 0
    slower: float = 1.0
    seconds: float = 0.0
    precision: str | None = None
    channels_last: bool | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)


def to_bytes(state: State) -> bytes:
    """The state as a safetensors file."""
    values = {f.name: getattr(state, f.name) for f in dataclasses.fields(state) if f.name != "tensors"}
    text = json.dumps({"version": _VERSION, **values})
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.tensors.items()}
    content: bytes = safetensors.torch.save(tensors, {_KEY: text})
    return content


def from_bytes(content: bytes, where: str) -> State:
    """The state in a file's bytes. Raises `TrainingError` for anything else."""
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        values = json.loads(header["__metadata__"][_KEY])
        if values.pop("version") != _VERSION:
            raise ValueError("of another version")
        _check_kinds(values)
        state = State(**values, tensors=safetensors.torch.load(content))
        _check_ranges(state)
        _check_epochs(state)
        _check_tensors(state)
        state.losses = [(step, float(loss)) for step, loss in state.losses]
        return state
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, SafetensorError) as error:
        raise TrainingError(
            f"{where}: no checkpoint of a training ({type(error).__name__}: {str(error).partition(chr(10))[0]}); "
            "remove it to begin anew"
        ) from error


def _check_kinds(values: Mapping[str, Any]) -> None:
    """Raise `ValueError` where a field, or what the rest of the run takes out of it, is of another kind."""
    for name, value in values.items():
        if name in _KINDS and type(value) not in _KINDS[name]:
            raise ValueError(f"{name} is {str(value)[:40]!r}")
    if not all(isinstance(record, dict) for record in values.get("epochs", ())):
        raise ValueError("a record of an epoch is none")
    for step, loss in values.get("losses", ()):
        if type(step) is not int or type(loss) not in _NUMBER:
            raise ValueError(f"a loss is {str([step, loss])[:40]}")
    notes = values.get("notes", {})
    if not isinstance(notes.get("notes", []), list):
        raise ValueError("the sentences among its notes are none")
    parts = [part for name, part in notes.items() if name != "notes"]
    if not all(isinstance(part, dict) and all(type(each) in _NUMBER for each in part.values()) for part in parts):
        raise ValueError("its notes are no numbers by name")


def _check_ranges(state: State) -> None:
    """Raise `ValueError` where a number is one that no run has."""
    if not 0 <= state.step <= state.steps:
        raise ValueError(f"step {state.step} of {state.steps}")
    if not 0 < state.slower <= 1:
        raise ValueError(f"slower is {state.slower}, expected a share of the rate")
    if state.precision is not None and state.precision not in PRECISIONS[1:]:
        raise ValueError(f"precision is {state.precision[:40]!r}")
    if not 0 <= state.seconds < math.inf:
        raise ValueError(f"seconds is {state.seconds}")
    for step, loss in state.losses:
        if not (0 <= step <= state.steps and math.isfinite(loss)):
            raise ValueError(f"the loss at step {step} is {loss}")


def _check_tensors(state: State) -> None:
    """Raise `ValueError` where one is called as if it were the optimizer's, and is none of its."""
    for name in state.tensors:
        kind, _, rest = name.partition(".")
        index, dot, _ = rest.partition(".")
        if kind == "optimizer" and not (dot and index.isascii() and index.isdecimal() and len(index) < _DIGITS):
            raise ValueError(f"a tensor is called {name[:40]!r}")


def _check_epochs(state: State) -> None:
    """Raise `ValueError` where the records are not those of epochs 0, 1, 2 ..., or the best is none of them.

    Reports look them up by number, and print every value. Metrics may be NaN or infinite, and then `best` is, too.
    """
    for number, record in enumerate(state.epochs):
        if not all(type(value) in _NUMBER for value in record.values()):
            raise ValueError(f"the record of epoch {number} has what is no number")
        if type(record["epoch"]) is not int or record["epoch"] != number:
            raise ValueError(f"the record of epoch {number} is that of {record['epoch']}")
        if not state.epochs[0].keys() <= record.keys():
            raise ValueError(f"the record of epoch {number} has fewer metrics than the first")
    if not 0 <= state.improved <= state.best_epoch < max(1, len(state.epochs)):
        raise ValueError(f"best_epoch is {state.best_epoch}, improved {state.improved}, of {len(state.epochs)} epochs")
    if state.best is not None:
        values = state.epochs[state.best_epoch].values() if state.epochs else ()
        if not any(value == state.best or (math.isnan(value) and math.isnan(state.best)) for value in values):
            raise ValueError(f"best is {state.best}, which epoch {state.best_epoch} has not")


def write_checkpoint(state: State, folder: Path, name: str = NAME) -> None:
    """Write the state into the folder, complete or not at all. Raises `UnwritableOutputError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(to_bytes(state))
    except UnwritableOutputError as error:
        on = "; --resume goes on from the checkpoint before" if (folder / NAME).exists() else ""
        raise UnwritableOutputError(f"{error}{on}") from error
    except OSError as error:
        raise UnwritableOutputError(f"cannot write checkpoints to {folder}: {reason_of(error)}") from error


def read_checkpoint(folder: Path, name: str = NAME) -> State | None:
    """The state in the folder, None where there is none. Raises `TrainingError` where the file is damaged."""
    path = folder / name
    try:
        content = read_regular(path, _MOST_BYTES)
        if content is None:
            raise TrainingError(f"{path}: no regular file, or larger than any checkpoint; remove it to begin anew")
        return from_bytes(content, str(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """In which of the names what a checkpoint says of its run differs from what is said of this one."""
    wanted = json.loads(json.dumps(wanted))
    return [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]


def check_identity(found: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    """Raise `TrainingError` naming all in which a checkpoint's run differs from this one, and what else to do."""
    if names := differences(found, wanted):
        said = ", ".join(f"{name} {found.get(name)!r} there and {wanted.get(name)!r} here" for name in names[:4])
        raise TrainingError(
            f"{folder}: its checkpoint is of another run: {said}; give the same options, or remove "
            f"{folder / NAME} to train anew"
        )


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by "optimizer.<parameter>.<name>"."""
    found = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if value is not None:
                found[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
    return found


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put such a state back."""
    held: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            held.setdefault(int(index), {})[name] = tensor.clone()
    optimizer.load_state_dict({"state": held, "param_groups": optimizer.state_dict()["param_groups"]})
