"""How values from Python are read: of their kind, or texts as the command line takes them, else one clear line."""

from __future__ import annotations

import math
import numbers
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from vfconvert.options import Shape
from vfconvert.overrides import read_count_or_share
from vfconvert.readers import MOST_PIXELS, are_sides, read_numbers, read_shape, read_size

Found = TypeVar("Found")

_LONGEST = 80  # characters of a value in an error


def read_value(
    where: str, kind: str, value: Any, *, least: float | None = None, most: float | None = None, expected: str = ""
) -> Any:
    """A value as a field of this kind (one of `READERS`, with " | None" perhaps) holds it.

    `where` names the call and the argument, `expected` stands for what the kind expects. Raises `TypeError` for one of
    another kind, `ValueError` for a text that cannot be read, for a number below `least`, above `most` or not finite,
    and for sides that no image has.
    """
    kind, optional, _ = kind.partition(" | None")
    if value is None and optional:
        return None
    read, usual = READERS[kind]
    try:
        found = read(value)
    except (TypeError, ValueError, ArithmeticError) as error:
        said = f"{where}: got {shown(value)}, expected {expected or usual}{' or None' if optional else ''}"
        if isinstance(value, str) and kind not in ("bool", "tuple[str, ...]"):  # whose texts are not read
            raise ValueError(said) from error
        raise TypeError(said) from error
    if kind in _SIDED and not are_sides(_flat(found)):
        raise ValueError(f"{where}: got {shown(value)}, expected numbers from 1 to {MOST_PIXELS}")
    if least is not None and not found >= least:
        raise ValueError(f"{where}: got {shown(value)}, expected at least {least}")
    if most is not None and not found <= most:
        raise ValueError(f"{where}: got {shown(value)}, expected at most {most}")
    if isinstance(found, float) and not math.isfinite(found) and kind == "float":
        raise ValueError(f"{where}: got {shown(value)}, expected a finite number")
    return found


def read_one_of(where: str, known: Iterable[str], value: Any) -> str:
    """One of some words. Raises `TypeError` for what is no text, `ValueError` for another word."""
    words = tuple(known)
    if not isinstance(value, str):
        raise TypeError(f"{where}: got {shown(value)}, expected one of {', '.join(words)}")
    if value not in words:
        raise ValueError(f"{where}: got {shown(value)}, expected one of {', '.join(words)}")
    return value


def check_callable(where: str, value: Any, example: str) -> None:
    """Raise `TypeError` where a value cannot be called."""
    if not callable(value):
        raise TypeError(f"{where}: got {shown(value)}, expected a function like {example}")


def read_limits(where: str, read: Callable[[str], Found], given: Mapping[str, Any]) -> tuple[Found, ...]:
    """Limits by their costs, where numbers are shares of the original. Raises `TypeError` and `ValueError`."""
    if not isinstance(given, Mapping):
        raise TypeError(f'{where}: got {shown(given)}, expected a mapping like {{"params": "50%"}}')
    for cost, limit in given.items():
        if isinstance(limit, bool) or not isinstance(limit, (str, numbers.Real)):
            raise TypeError(f"{where}: {cost}: got {shown(limit)}, expected a share like 0.5, or a text like '50%'")
    return tuple(
        read_named(where, read, f"{cost}={limit if isinstance(limit, str) else f'{100 * float(limit):g}%'}")
        for cost, limit in given.items()
    )


def read_limit(where: str, value: Any) -> float | None:
    """A finite number, or None. Raises `TypeError` and `ValueError`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{where}: got {shown(value)}, expected a number or None")
    if not math.isfinite(number := float(value)):
        raise ValueError(f"{where}: got {shown(value)}, expected a finite number")
    return number


def read_named(where: str, read: Callable[[str], Found], text: str) -> Found:
    """What a reader finds; its `ValueError` with where the text was given, and the text."""
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"{where}: got {text!r}: {error}") from error


def shown(value: Any) -> str:
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


def _flat(shape: Any) -> Iterator[int]:
    """The numbers of a size, a shape, or several shapes."""
    for one in shape:
        yield from one if isinstance(one, tuple) else (one,)


READERS: dict[str, tuple[Callable[[Any], Any], str]] = {
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
    "Shape | tuple[Shape, ...]": (_shapes, "three numbers (C, H, W) like (3, 224, 224), or such for each input"),
    "Mapping[str, object]": (dict, "a mapping like {'num_classes': 10}"),
}
_SIDED = ("tuple[int, int]", "Shape | tuple[Shape, ...]")  # kinds whose numbers count pixels and channels
