"""A recipe rebuilt by `vfconvert.load`: the trainable network bit for bit, and its inference form in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from vfconvert.errors import ParityError
from vfconvert.exporting.outputs import named_outputs
from vfconvert.nn.several_inputs import Inputs, inputs_of, separated
from vfconvert.recipes import load
from vfconvert.verification.parity import BATCH_SIZES, FLOAT32_TOLERANCE, Cases, OpenFile, Parity, verify


def verify_recipe(
    path: Path,
    model: nn.Module,
    inputs: Tensor,
    *,
    like: nn.Module,
    lowered: bool,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    tolerance: float = FLOAT32_TOLERANCE,
) -> Parity:
    """Rebuild the network from the file, with `like`, the original, where the recipe does not name it.

    Its tensors must be those of `model`, and with `lowered` its inference form is compared with `model` on `inputs`
    `(N, C, H, W)`, else the trainable form. Raises `ParityError` where either is not so.
    """
    like, several = separated(like), inputs_of(model)
    again, wanted = load(path, like=like).state_dict(), model.state_dict()
    wrong = [name for name, tensor in wanted.items() if name not in again or not _same(again[name], tensor)]
    if wrong or wanted.keys() != again.keys():
        raise ParityError(f"the recipe gives back another network ({', '.join(wrong[:3])}); do not use it, report it")
    cases = Cases(images=inputs, batch_sizes=tuple(batch_sizes), sizes=(), tolerance=tolerance)
    opening = partial(_open, path, like, lowered, inputs[: batch_sizes[-1]], several)
    return verify(opening, "vfconvert.load", model, cases)


def _same(first: Tensor, second: Tensor) -> bool:
    """Bit by bit, as far as NaN has but one form."""
    if not first.is_floating_point() or first.dtype != second.dtype or first.shape != second.shape:
        return torch.equal(first, second)
    return torch.equal(first.isnan(), second.isnan()) and torch.equal(first.nan_to_num(), second.nan_to_num())


def _open(path: Path, like: nn.Module, lowered: bool, images: Tensor, several: Inputs | None) -> OpenFile:
    example = images if several is None else several.split(images)
    network = load(path, like=like, lowered=lowered, example=example if lowered else None)

    def run(images: Tensor) -> list[tuple[str, Tensor]]:
        with torch.no_grad():
            return named_outputs(network(*((images.clone(),) if several is None else several.split(images))))

    return OpenFile(runtime="safetensors", version=version("safetensors"), fixed_batch=None, run=run)
