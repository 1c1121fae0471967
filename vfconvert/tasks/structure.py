"""Outputs of any structure: walked side by side with a teacher's, and the loss that distils them.

Logits are distilled as in Hinton et al., "Distilling the Knowledge in a Neural Network" (2015), section 2: the
divergence of softened probabilities, times the squared temperature so that gradients keep their size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vfconvert.errors import TrainingError

_LOGIT_CONFIDENCE = 1.5  # times the uniform probability: what rows of logits reach in the mean
_MAIN_KEYS = ("out", "logits")  # torchvision's and transformers' names of what a network is judged by


class VaryingOutputError(TrainingError):
    """Outputs hold as many rows as the network finds objects; see `varies`."""


def matched(got: Any, wanted: Any) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Pairs of floating-point tensors of two outputs of the same structure, in order, with dotted names.

    Structures are tensors, lists, tuples, named tuples, mappings and dataclasses, nested at will; a tensor that stands
    alone is called "output". Integers, booleans, strings, None and other tensors are passed over. The kinds of two
    mappings or two sequences may differ, a dict and an OrderedDict match. Raises `TrainingError` where
    structures or shapes differ, and `VaryingOutputError` where `varies` holds for one of the two.
    """
    if varies(wanted) or varies(got):
        raise VaryingOutputError(
            "the network's outputs vary in size with what it finds and cannot be matched with the teacher's; "
            "match the features of the converted blocks instead"
        )
    yield from _walk(got, wanted, "")


def varies(output: Any) -> bool:
    """Whether an output is a list with an entry for each image, of as many rows as objects were found there.

    Either mappings as of torchvision's detection networks, told by a tensor `(n, 4)` of boxes beside one of `(n,)`, by
    nothing found or by different counts; or tensors `(n, columns)` with different `n`, as after a suppression of boxes.
    """
    if _is_list_of_mappings(output):
        return _is_detections(output)
    if isinstance(output, list) and output and all(isinstance(part, Tensor) and part.dim() == 2 for part in output):
        return len({len(part) for part in output}) > 1 and len({part.shape[1] for part in output}) == 1
    return any(varies(part) for part in (_parts(output) or {}).values())


def of_one_image(output: Any) -> Any:
    """What a network found in the one image that it was given: its mapping, out of a list with that one entry.

    In an output that holds more than detections the list gives way to its entry; all else is as it was.
    """
    if _is_list_of_mappings(output) and len(output) == 1 and _is_detections(output):
        return output[0]
    if isinstance(output, Mapping):
        return {key: of_one_image(part) for key, part in output.items()}
    if isinstance(output, (list, tuple)):
        parts = [of_one_image(part) for part in output]
        return parts if isinstance(output, list) else tuple(parts)
    return output


def main_tensor(output: Any) -> Tensor | None:
    """What a network is judged by: of named outputs "out" or "logits", else the first floating-point tensor.

    Of a list of maps of one shape it is the last (see `is_refined`).
    """
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    if is_refined(output):
        return main_tensor(output[-1])
    parts = _parts(output) or {}
    named = [parts[key] for key in _MAIN_KEYS if key in parts]
    return next((found for part in (*named, *parts.values()) if (found := main_tensor(part)) is not None), None)


def is_refined(value: Any) -> bool:
    """Whether an output is a list of maps `(B, C, H, W)` of one shape: an answer refined in steps (optical flow)."""
    if not isinstance(value, list) or not all(isinstance(part, Tensor) and part.dim() == 4 for part in value):
        return False
    return len(value) > 1 and len({part.shape for part in value}) == 1


def sizes_of(wanted: Any, *, pixelwise: bool = False) -> dict[str, float | None]:
    """Of each tensor of a teacher's outputs the variance, None of logits, as `distillation_loss` takes them."""
    found: dict[str, float | None] = {}
    for name, theirs, _ in matched(wanted, wanted):
        theirs = full_precision(theirs)
        found[name] = None if _are_logits(theirs, pixelwise) else float(_size(theirs))
    return found


def distillation_loss(
    got: Any,
    wanted: Any,
    temperature: float,
    *,
    pixelwise: bool = False,
    sizes: Mapping[str, float | None] | None = None,
) -> Tensor:
    """How far an output of any structure is from the teacher's: a scalar, the sum over the tensors of `matched`.

    Rows of logits `(B, K)`, and with `pixelwise` also maps of logits `(B, K, H, W)`, count the divergence from the
    teacher at `temperature`, times its square, in the mean over rows or pixels. Other tensors count the mean squared
    error over the teacher's variance; so do rows whose softmax is nearly uniform, coordinates or an embedding, in
    which the divergence would not see a common shift. 0 without a gradient where nothing is floating point.
    `sizes` of other outputs of the teacher settle what is logits, and the variances: then the loss of a batch is the
    mean of those of its parts.
    Raises as `matched` does, and `TrainingError` for a temperature that is not positive.
    """
    if not temperature > 0:
        raise TrainingError(f"the distillation temperature is {temperature:g}, expected more than 0; try 2 to 4")
    total = torch.zeros(())
    for name, ours, theirs in matched(got, wanted):
        ours, theirs = full_precision(ours), full_precision(theirs)
        known = sizes is not None and name in sizes
        size = sizes[name] if sizes is not None and known else None
        if size is None and (known or _are_logits(theirs, pixelwise)):
            total = total + _divergence(ours, theirs, temperature)
        else:
            total = total + (ours - theirs).square().mean() / (_size(theirs) if size is None else size)
    return total


def _are_logits(theirs: Tensor, pixelwise: bool) -> bool:
    return looks_like_logits(theirs) or (pixelwise and theirs.dim() == 4 and theirs.shape[1] > 1)


def looks_like_logits(rows: Tensor) -> bool:
    """Whether a tensor is rows of logits: `(B, K)`, no shares already as after a softmax, and not all alike."""
    if rows.dim() != 2 or rows.shape[1] < 2:
        return False
    if bool((rows >= 0).all()) and torch.allclose(rows.sum(1), rows.new_ones(len(rows)), atol=1e-3):
        return False
    return float(rows.softmax(1).amax(1).mean()) > _LOGIT_CONFIDENCE / rows.shape[1]


def full_precision(tensor: Tensor) -> Tensor:
    """The tensor in float32 where autocast has made it a 16-bit one."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _divergence(got: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    got, wanted = (logits.movedim(1, -1).flatten(0, -2) for logits in (got, wanted))  # (rows or pixels, K)
    divergence = F.kl_div(
        F.log_softmax(got / temperature, 1), F.softmax(wanted / temperature, 1), reduction="batchmean"
    )
    return divergence * temperature**2


def _size(wanted: Tensor) -> Tensor:
    """The variance that errors are counted in."""
    size = wanted.var(correction=0) if wanted.numel() > 1 else wanted.square()  # one number has no variance
    floor = 1e-6 * wanted.square().mean() + 1e-12
    return torch.maximum(size, floor)


def _is_list_of_mappings(output: Any) -> bool:
    return isinstance(output, (list, tuple)) and bool(output) and all(isinstance(part, Mapping) for part in output)


def _is_detections(entries: list[Any] | tuple[Any, ...]) -> bool:
    shapes = [{key: tuple(part.shape) for key, part in entry.items() if isinstance(part, Tensor)} for entry in entries]
    if not shapes[0] or any(entry.keys() != shapes[0].keys() for entry in shapes):
        return False
    found = [[shape[0] for shape in entry.values() if shape] for entry in shapes]
    if 0 in found[0] or any(counts != found[0] for counts in found):
        return True
    return any((count,) in shapes[0].values() and (count, 4) in shapes[0].values() for count in found[0])


def _walk(got: Any, wanted: Any, name: str) -> Iterator[tuple[str, Tensor, Tensor]]:
    where = name or "output"
    if isinstance(wanted, Tensor) or isinstance(got, Tensor):
        if not isinstance(wanted, Tensor) or not isinstance(got, Tensor):
            raise _differ(where, got, wanted)
        if got.shape != wanted.shape or got.is_floating_point() != wanted.is_floating_point():
            raise _differ(where, got, wanted)
        if wanted.is_floating_point():
            yield where, got, wanted
        return
    ours, theirs = _parts(got), _parts(wanted)
    if ours is None and theirs is None:
        return
    if ours is None or theirs is None or isinstance(got, Mapping) != isinstance(wanted, Mapping):
        raise _differ(where, got, wanted)
    if isinstance(got, (list, tuple)) and len(got) == len(theirs) and not hasattr(got, "_fields"):
        ours = dict(zip(theirs, got, strict=True))  # tracing turns a named tuple into a plain one
    if ours.keys() != theirs.keys():
        raise _differ(where, got, wanted)
    for key, part in theirs.items():
        yield from _walk(ours[key], part, f"{name}.{key}" if name else key)


def _parts(value: Any) -> dict[str, Any] | None:
    """The named parts of a structure; None for what has none."""
    if isinstance(value, Mapping):
        return {str(key): part for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    if isinstance(value, (list, tuple)):
        return {str(index): part for index, part in enumerate(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None


def _differ(where: str, got: Any, wanted: Any) -> TrainingError:
    return TrainingError(
        f"{where} of the network: got {_kind(got)}, expected {_kind(wanted)} as from the teacher; "
        "give both the same architecture and input"
    )


def _kind(value: Any) -> str:
    """What a part of an output is, for an error."""
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    parts = _parts(value)
    if parts is None:
        return "None" if value is None else type(value).__name__
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return f"{type(value).__name__} of {len(parts)}"
    return f"{type(value).__name__} with {', '.join(parts) or 'nothing'}"
