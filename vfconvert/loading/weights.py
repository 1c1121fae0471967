"""State dicts into networks: the names as some wrapper left them, matched strictly against the architecture's."""

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vfconvert.errors import StateDictMismatchError, UnsupportedModelError, first_line

_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.")  # prefixes of a network inside another
_INNER_WRAPPERS = ("module", "_orig_mod")  # DataParallel and torch.compile also wrap single layers
_AVERAGE_COUNT = "n_averaged"  # of torch.optim.swa_utils.AveragedModel
_UNNEEDED = "num_batches_tracked"  # of a BatchNorm: no use in inference, absent in old files
_SHOWN = 3
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")  # norm.1 became norm1 when modules lost dots


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: Path, architecture: str) -> None:
    """Put the tensors of a state dict into a network in the place of its own, converted to the types of those.

    Names may carry the prefixes of wrappers, several deep. Raises `StateDictMismatchError` unless, these apart, names
    and shapes are exactly the architecture's (`num_batches_tracked` may be missing), and `UnsupportedModelError` for
    quantized tensors.
    """
    if any(tensor.is_quantized for tensor in tensors.values()):
        raise UnsupportedModelError(f"{path}: holds quantized weights, expected floating point; save those instead")
    expected = model.state_dict()
    named = max(_renamings(tensors), key=lambda names: len(names.keys() & expected.keys()))  # the first of equals
    _check(named, expected, path, architecture)
    try:
        # Given over, not copied: a large file would be in memory twice. But tied weights would come apart.
        tied = _tied(model)
        given = {name: tensor for name, tensor in named.items() if name not in tied}
        model.load_state_dict(_versioned(_as_expected(given, expected), expected), strict=False, assign=True)
        shared = {name: named[name] for name in tied if name in named}
        model.load_state_dict(_versioned(shared, expected), strict=False)
    except Exception as error:
        raise StateDictMismatchError(
            f"{path}: {architecture} does not take these weights ({first_line(error)}); name the network they come from"
        ) from error


def _versioned(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Any:
    """With the versions of the network's layers, which some ask for although what fits needs none."""
    found: Any = OrderedDict(tensors)
    # Of its own: what loads notes there whether tensors are handed over.
    found._metadata = copy.deepcopy(getattr(expected, "_metadata", None))
    return found


def _tied(model: nn.Module) -> set[str]:
    """Names of tensors that have several."""
    names: dict[int, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    return {name for shared in names.values() if len(shared) > 1 for name in shared}


def _as_expected(named: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of the network's types, contiguous, no two in the same memory; the very tensors where they are that already."""
    found = {name: tensor.to(expected[name].dtype).contiguous() for name, tensor in named.items()}
    end = 0
    for name in sorted(found, key=lambda name: found[name].data_ptr()):
        begin, size = found[name].data_ptr(), found[name].nbytes
        if size and begin < end:
            found[name] = found[name].clone()
        end = max(end, begin + size)
    return found


def _renamings(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The state dict as it is, then with one wrapper's prefix after another taken off."""
    names = dict(tensors)
    yield names
    names.pop(_AVERAGE_COUNT, None)
    while prefix := next((p for p in _WRAPPERS if names and all(name.startswith(p) for name in names)), None):
        names = {name.removeprefix(prefix): tensor for name, tensor in names.items()}
        yield names
    for renamed in (_without_inner_wrappers(names), {_OLD_DENSENET.sub(r"\1\2", n): t for n, t in names.items()}):
        if len(renamed) == len(names):  # no two names became one
            yield renamed


def _without_inner_wrappers(names: dict[str, Tensor]) -> dict[str, Tensor]:
    return {".".join(part for part in n.split(".") if part not in _INNER_WRAPPERS): t for n, t in names.items()}


def _check(named: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path, architecture: str) -> None:
    missing = [name for name in expected if name not in named and name.rpartition(".")[2] != _UNNEEDED]
    unexpected = [name for name in named if name not in expected]
    misshaped = [name for name in named if name in expected and named[name].shape != expected[name].shape]
    shapes = [f"{name!r} {_shape(named[name])} for {_shape(expected[name])}" for name in misshaped]
    parts = [
        f"{len(entries)} {what} ({', '.join(entries[:_SHOWN])}{', …' if len(entries) > _SHOWN else ''})"
        for what, entries in (
            ("missing", [repr(name) for name in missing]),
            ("unexpected", [repr(name) for name in unexpected]),
            ("mis-shaped", shapes),
        )
        if entries
    ]
    if not parts:
        return
    classes = None if missing or unexpected else _other_classes(misshaped, named, expected)
    advice = (
        f"the file's classifier has another size: try --arch-arg num_classes={classes}"
        if classes is not None
        else "name the network that these weights come from, with the arguments it was built with (--arch-arg)"
    )
    raise StateDictMismatchError(
        f"{path}: the weights do not match {architecture} ({len(expected)} expected, {len(named)} in the file): "
        f"{'; '.join(parts)}; {advice}"
    )


def _other_classes(names: list[str], named: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> int | None:
    """The file's number of classes, where only the numbers of outputs differ, and all in the same way."""
    pairs = [(tuple(named[name].shape), tuple(expected[name].shape)) for name in names]
    if any(len(got) != len(want) or not got or got[1:] != want[1:] for got, want in pairs):
        return None
    sizes = {(got[0], want[0]) for got, want in pairs}
    return next(iter(sizes))[0] if len(sizes) == 1 else None


def _shape(tensor: Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "a number"
