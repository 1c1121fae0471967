"""The keywords of `vfconvert.convert`: which there are, how their values are read, and which say nothing together."""

from __future__ import annotations

import dataclasses
import difflib
import numbers
import operator
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from vfconvert.combinations import TRAINING_PREFIX, wrong_combination
from vfconvert.options import ConversionOptions, Shape
from vfconvert.overrides import Override, read_count_or_share, read_override
from vfconvert.readers import read_numbers, read_shape, read_size
from vfconvert.targets import Target, read_target
from vfconvert.training_options import TrainingOptions

Found = TypeVar("Found")

_LONGEST = 80  # characters of a value in an error
_LEAST = {"max_drop": 0, "refine": 0, "threads": 1}  # as the command line has them; other bounds are checked later
_PARTS = (ConversionOptions, TrainingOptions)
# What `convert` has under another name or not at all, and where it is.
_COMMAND = "the command line has it"
_ELSEWHERE = {
    **dict.fromkeys(("formats", "output", "dynamic_size", "opset"), "Conversion.export says how a file is written"),
    **dict.fromkeys(("precision", "int8"), "the command line writes files of other precisions, by --precision, --int8"),
    **dict.fromkeys(("fail_under_saving", "fail_over_drop", "max_latency_ratio"), "Conversion.check judges"),
    **dict.fromkeys(("max_parity_error", "max_size", "keep_on_fail"), "Conversion.check judges"),
    **dict.fromkeys(("reports",), "Conversion.save_report writes them"),
    **dict.fromkeys(("dry_run", "samples", "junit", "trust_data_code"), _COMMAND),
    **dict.fromkeys(("training",), "every field of TrainingOptions is one"),
}
_NAMED = ("model", "data", "layers", "targets", "command")  # arguments of their own, and the name of the call
KEYWORDS = tuple(
    field.name
    for part in _PARTS
    for field in dataclasses.fields(part)
    if field.name not in _NAMED and field.name not in _ELSEWHERE
)
_KINDS = {field.name: str(field.type) for part in reversed(_PARTS) for field in dataclasses.fields(part)}
_DEFAULTS = {part: {field.name: field.default for field in dataclasses.fields(part)} for part in _PARTS}


def read_settings(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of the conversion and those of its training, as the options hold them.

    Raises `TypeError` for one that does not exist or is of another kind, `ValueError` for a text that cannot be read.
    """
    for name in given:
        if name not in KEYWORDS:
            raise TypeError(f"convert() has no setting {name!r}; {_where(name)}")
    values = {name: _read(name, value) for name, value in given.items()}
    conversion = {name: value for name, value in values.items() if name in _DEFAULTS[ConversionOptions]}
    return conversion, {name: value for name, value in values.items() if name not in conversion}


def read_targets(given: Mapping[str, str | float] | Sequence[Target]) -> tuple[Target, ...]:
    """Limits by their costs, or as they are. Raises `TypeError` and `ValueError`."""
    if isinstance(given, Mapping):
        return read_limits("convert(): targets", read_target, given)
    return _all_of("targets", given, Target, '{"params": "50%"}')


def read_layers(given: Mapping[str, str] | Sequence[Override]) -> tuple[Override, ...]:
    """What becomes of layers by their names, or as it is. Raises `TypeError` and `ValueError`."""
    if isinstance(given, Mapping):
        return tuple(read_named("convert(): layers", read_override, f"{glob}={kind}") for glob, kind in given.items())
    return _all_of("layers", given, Override, '{"layer4.*": "spatial"}')


def read_limits(where: str, read: Callable[[str], Found], given: Mapping[str, Any]) -> tuple[Found, ...]:
    """Limits by their costs, where numbers are shares of the original. Raises `TypeError` and `ValueError`."""
    for cost, limit in given.items():
        if isinstance(limit, bool) or not isinstance(limit, (str, numbers.Real)):
            raise TypeError(f"{where}: {cost}: got {_shown(limit)}, expected a share like 0.5, or a text like '50%'")
    return tuple(
        read_named(where, read, f"{cost}={limit if isinstance(limit, str) else f'{100 * float(limit):g}%'}")
        for cost, limit in given.items()
    )


def read_limit(where: str, value: Any) -> float | None:
    """A number, or None. Raises `TypeError`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{where}: got {_shown(value)}, expected a number or None")
    return float(value)


def read_named(where: str, read: Callable[[str], Found], text: str) -> Found:
    """What a reader finds; its `ValueError` with where the text was given, and the text."""
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"{where}: got {text!r}: {error}") from error


def check_settings(options: ConversionOptions, given: Collection[str], *, has_images: bool) -> None:
    """Raise `ValueError` where keywords say nothing beside each other; one of its default value is not stated."""
    stated = {
        f"{prefix}{name}"
        for part, prefix in ((options, ""), (options.training, TRAINING_PREFIX))
        for name, default in _DEFAULTS[type(part)].items()
        if name in given and getattr(part, name) != default
    }
    problem = wrong_combination(options, stated, lambda name: name.removeprefix(TRAINING_PREFIX), has_images=has_images)
    if problem is not None:
        raise ValueError(f"convert(): {problem}")


def _where(name: str) -> str:
    """Where what is no keyword is instead."""
    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    nearest = difflib.get_close_matches(name, KEYWORDS, n=1)
    return f"the nearest is {nearest[0]!r}" if nearest else "the page From Python has all of them"


def _all_of(name: str, given: Any, kind: type[Found], example: str) -> tuple[Found, ...]:
    values = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    if wrong := [value for value in values if not isinstance(value, kind)]:
        raise TypeError(
            f"convert(): {name}: got {_shown(wrong[0])}, expected a mapping like {example} or {kind.__name__}s"
        )
    return values


def _read(name: str, value: Any) -> Any:
    """A value as the field of this name holds it."""
    kind, optional, _ = _KINDS[name].partition(" | None")
    if value is None and optional:
        return None
    read, expected = _READERS[kind]
    try:
        found = read(value)
    except (TypeError, ValueError, ArithmeticError) as error:
        said = f"convert(): {name}: got {_shown(value)}, expected {expected}{' or None' if optional else ''}"
        if isinstance(value, str) and kind not in ("bool", "tuple[str, ...]"):  # whose texts are not read
            raise ValueError(said) from error
        raise TypeError(said) from error
    if name in _LEAST and not found >= _LEAST[name]:
        raise ValueError(f"convert(): {name}: got {_shown(value)}, expected at least {_LEAST[name]}")
    return found


def _shown(value: Any) -> str:
    """A value in one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError(value)
    return int(value) if isinstance(value, str) else operator.index(value)


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError(value)
    return float(value)


def _count_or_share(value: Any) -> int | float:
    if isinstance(value, str):
        return read_count_or_share(value)
    return _number(value) if isinstance(value, float) else _count(value)


def _text(value: Any) -> str:
    if not isinstance(value, (str, torch.device)):
        raise TypeError(value)
    return str(value)


def _path(value: Any) -> Path:
    return Path(os.fspath(value))


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        raise TypeError(value)
    return tuple(_text(one) for one in value)


def _size(value: Any) -> tuple[int, int]:
    if isinstance(value, str):
        return read_size(value)
    height, width = value if isinstance(value, Iterable) else (value, value)
    return _count(height), _count(width)


def _numbers(value: Any) -> tuple[float, ...]:
    if isinstance(value, str):
        return read_numbers(value)
    return tuple(_number(one) for one in value) if isinstance(value, Iterable) else (_number(value),)


def _span(value: Any) -> tuple[float, float]:
    least, most = _numbers(value)
    return least, most


def _shape(value: Any) -> Shape:
    if isinstance(value, str):
        return read_shape(value)
    channels, height, width = value
    return _count(channels), _count(height), _count(width)


def _shapes(value: Any) -> Shape | tuple[Shape, ...]:
    """One shape, or one for each of several inputs."""
    several = not isinstance(value, str) and all(isinstance(one, (str, Iterable)) for one in value) and len(value) > 0
    if not several:
        return _shape(value)
    shapes = tuple(_shape(one) for one in value)
    return shapes if len(shapes) > 1 else shapes[0]


_READERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "bool": (_flag, "True or False"),
    "int": (_count, "a whole number"),
    "float": (_number, "a number"),
    "int | float": (_count_or_share, "a count like 16 or a share like 0.25 or '1/4'"),
    "str": (_text, "a text"),
    "Path": (_path, "a path"),
    "tuple[str, ...]": (_texts, "a sequence of texts like ['layer4.*']"),
    "tuple[int, int]": (_size, "one side like 224, or (height, width)"),
    "tuple[float, ...]": (_numbers, "numbers like (0.485, 0.456, 0.406)"),
    "tuple[float, float]": (_span, "two numbers like (0.5, 1.0)"),
    "Shape | tuple[Shape, ...]": (_shapes, "three numbers (C, H, W) like (3, 224, 224)"),
    "Mapping[str, object]": (dict, "a mapping like {'num_classes': 10}"),
}
