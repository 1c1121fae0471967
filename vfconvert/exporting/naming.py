"""What a written file calls the inputs and outputs of its graph."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vfconvert.exporting.outputs import named_outputs
from vfconvert.nn.several_inputs import inputs_of


@dataclass(frozen=True, slots=True)
class FileNames:
    """The names of a graph's inputs and outputs, in order."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def file_names(model: nn.Module, outputs: Sequence[str], own: FileNames | None = None) -> FileNames:
    """The names in a file of `model`, whose outputs are called `outputs` by `named_outputs`; all of them differ.

    One input is "input", several are called as the network's forward calls them. `own` are the names in the ONNX file
    that the network was read from, and come first: of inputs or outputs of another number they say nothing, and a name
    that cannot be kept (an output that is an input, too) is replaced by what would have been there without them.
    """
    inputs = inputs_of(model)
    names = ("input",) if inputs is None else inputs.names
    plain = FileNames(tuple(f"{name}_input" if name in outputs else name for name in names), tuple(outputs))
    if own is None:
        return plain
    wanted_inputs = own.inputs if len(own.inputs) == len(plain.inputs) else plain.inputs
    wanted_outputs = own.outputs if len(own.outputs) == len(plain.outputs) else plain.outputs
    wanted = (*wanted_inputs, *wanted_outputs)
    found: list[str] = []
    for name, instead in zip(wanted, (*plain.inputs, *plain.outputs), strict=True):
        keep = name.isprintable() and name and name not in found  # messages are of one line
        found.append(name if keep else _free(instead, {*wanted, *found}))
    return FileNames(tuple(found[: len(wanted_inputs)]), tuple(found[len(wanted_inputs) :]))


def outputs_in_file(model: nn.Module, value: Any, own: FileNames | None) -> list[tuple[str, Tensor]]:
    """What `model` returned, as `named_outputs` has it, by the names in a file (see `file_names`)."""
    found = dict(named_outputs(value))
    return list(zip(file_names(model, tuple(found), own).outputs, found.values(), strict=True))


def _free(name: str, taken: set[str]) -> str:
    numbered = (f"{name}_{number}" for number in itertools.count(2))
    return next(other for other in itertools.chain((name,), numbered) if other not in taken)
