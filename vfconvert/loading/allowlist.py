"""Which classes and functions a pickle may name without being trusted: one rule and one short table.

The rule: a subclass of `nn.Module` that torch, torchvision or, where it is installed, timm itself defines, under one of
`_MODULE_ROOTS`. A file gets such modules as torch pickles them, empty and then filled: their constructors, which call
what they are given, are sealed. The table: harmless values that such modules hold. Whatever they are given in a file,
they can only compute, hold values and call each other: none reads a file, opens a connection, compiles, or looks up
anything by name.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import pickle
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn import functional as F
from torchvision.models.detection import _utils as detection
from torchvision.ops import box_iou

_MODULE_ROOTS = ("torch.nn.modules.", "torchvision.models.", "torchvision.ops.", "timm.layers.", "timm.models.")
_VALUES = {  # plain data, of timm
    "timm.models._pretrained.PretrainedCfg",
    "timm.models._features.FeatureInfo",
    "timm.layers.format.Format",
}

_FUNCTIONS = "relu relu6 leaky_relu elu selu celu silu mish hardswish hardsigmoid hardtanh softplus softmax log_softmax"
HARMLESS: dict[str, Callable[..., Any]] = {
    **{f"torch.nn.functional.{name}": getattr(F, name) for name in _FUNCTIONS.split()},
    "torch._C._nn.gelu": F.gelu,
    "torch.nn.parallel.data_parallel.DataParallel": nn.DataParallel,
    "functools.partial": functools.partial,  # what it calls is itself a global of the file, and so allowed
    "argparse.Namespace": argparse.Namespace,
    "torchvision.ops.boxes.box_iou": box_iou,
    **{
        f"torchvision.models.detection._utils.{name}": getattr(detection, name)
        for name in ("BalancedPositiveNegativeSampler", "BoxCoder", "BoxLinearCoder", "Matcher", "SSDMatcher")
    },
}

_QUANTIZED_ROOTS = (
    "torch.ao.",
    "torch.quantization.",
    "torch.nn.quantized.",
    "torch.nn.intrinsic.",
    "torch.nn.qat.",
    "torch.nn.quantizable.",
    "torchvision.models.quantization.",
    "torch._utils._rebuild_qtensor",
)

# Of the standard library, what a checkpoint has beside its weights. The rest of it has no business there.
_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_ORDINARY_EXTRAS: dict[str, tuple[str, ...]] = {
    "argparse": ("Namespace",),
    "builtins": (
        "bool",
        "bytes",
        "dict",
        "float",
        "frozenset",
        "int",
        "list",
        "object",
        "range",
        "slice",
        "str",
        "tuple",
    ),
    "collections": ("defaultdict", "deque"),
    "copyreg": ("_reconstructor",),
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,
    "types": ("SimpleNamespace",),
    "typing": ("Any",),
    "uuid": ("UUID",),
}


def is_quantized(name: str) -> bool:
    """Whether a dotted name belongs to torch's quantization."""
    return name.startswith(_QUANTIZED_ROOTS)


def allowed(name: str) -> Callable[..., Any] | None:
    """The object of a dotted name if the rule or the table allows it, else None.

    Only submodules of torch.nn, torchvision and timm are ever imported here. Classes that make their own objects are
    not allowed: those of `torch.fx` compile code.
    """
    if name in HARMLESS:
        return HARMLESS[name]
    module_name, _, class_name = name.rpartition(".")
    if not f"{module_name}.".startswith(_MODULE_ROOTS) or not all(part.isidentifier() for part in name.split(".")):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of places that have moved
            found = vars(importlib.import_module(module_name)).get(class_name)
    except Exception:  # an optional package that is absent or broken
        return None
    if not isinstance(found, type) or not found.__module__.startswith(_MODULE_ROOTS):
        return None
    if name in _VALUES:
        return found
    plain = not any("__new__" in vars(base) for base in found.__mro__[:-1])
    return found if issubclass(found, nn.Module) and plain else None


def sealed(found: Callable[..., Any], name: str) -> list[tuple[Callable[..., Any], str]]:
    """What torch's safe reader is to know under a name: of a class of modules one that makes them empty, or not at all.

    That reader lets a file call any class it knows, and fill objects of those classes only. So the class itself stands
    under a name that no pickle can write.
    """
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        return [(found, name)]

    def empty(_: type, *arguments: object, **named: object) -> nn.Module:
        if arguments or named:
            raise pickle.UnpicklingError(f"WeightsUnpickler error: {name} is built with arguments")
        return found.__new__(found)

    return [(type(found.__name__, (), {"__new__": empty, "__module__": found.__module__}), name), (found, f"\n{name}")]


def may_be_skipped(name: str) -> bool:
    """Whether a class that is not allowed may stand beside the weights of a state dict, unread.

    A stand-in takes its place and nothing of it is imported, so that any would be safe; but a file that names
    `os.system` or `builtins.eval` is no honest checkpoint, and it is refused rather than half read.
    """
    module, _, attribute = name.rpartition(".")
    return attribute in _ORDINARY_EXTRAS.get(module, ()) or name.partition(".")[0] not in sys.stdlib_module_names


class _Inert(list[Any]):
    """Takes the place of an object: accepts whatever the pickle does to it, and keeps nothing but list items."""

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __new__(cls, *_: object, **__: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        """Drop the state."""


class _InertMapping:
    """Takes the place of a subclass of dict: torch's reader sets items on exactly dict and OrderedDict."""

    def __new__(cls, *_: object, **__: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


def stand_in(name: str, *, mapping: bool) -> type:
    """A new class that takes the place of the class or function `name`; `mapping`: its items are set by key."""
    base = _InertMapping if mapping else _Inert
    return type(f"StandIn_{name.replace('.', '_')}", (base,), {})
