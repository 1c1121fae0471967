"""How the values of options are read: `16` or `1/4`, `32` or `32x64`, `0.5,0.5,0.5`, `3,224,224`, `KEY=VALUE`.

Whether a value makes sense for the network is decided where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from vfconvert.gates import read_bytes, read_saving
from vfconvert.overrides import read_count_or_share, read_override
from vfconvert.readers import MOST_PIXELS, SEEDS, read_numbers, read_seed, read_shape, read_size
from vfconvert.targets import read_target

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:  # generic from click 8.4 on
    _ParamType = click.ParamType

_WORDS = {"true": True, "false": False}


class Value(_ParamType):
    """A value read by a plain function that raises `ValueError` where the text is not `expected`."""

    def __init__(self, name: str, read: Callable[[str], Any], expected: str) -> None:
        self.name, self._read, self._expected = name, read, expected

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value; one that is no string has been read before."""
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except (ValueError, ZeroDivisionError):
            self.fail(f"got {value!r}, expected {self._expected}", param, ctx)


class Explained(_ParamType):
    """A value read by a plain function that itself says, in a `ValueError`, what is wrong with the text.

    `quoted`: what was got is not in its message.
    """

    def __init__(self, name: str, read: Callable[[str], Any], *, quoted: bool = True) -> None:
        self.name, self._read, self._quoted = name, read, quoted

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value; one that is no string has been read before."""
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(f"got {value!r}: {error}" if self._quoted else str(error), param, ctx)


class FiniteRange(click.FloatRange):
    """Neither infinity, which limits nothing, nor what is no number, which nothing is below or above."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"got {value!r}, expected a finite number", param, ctx)
        return number


def read_pair(text: str) -> tuple[str, object]:
    """`depth=20`: the value is an integer, a float, true or false if it reads as one, else text."""
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise ValueError(text)
    return key, _scalar(value)


def one_or_all(shapes: Sequence[Any]) -> Any:
    """What a repeatable option of one value, or of one for each input, says: None, the one, or all."""
    return tuple(shapes) if len(shapes) > 1 else next(iter(shapes), None)


def mapping_of(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    """All pairs of a repeatable option; a key given twice is a wrong command line."""
    values: dict[str, object] = {}
    for key, value in pairs:
        if key in values:
            raise click.UsageError(f"--arch-arg {key} is given twice; give it once")
        values[key] = value
    return values


def _scalar(text: str) -> object:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


_SIDES = f"each from 1 to {MOST_PIXELS}"
STRIDE = Value("stride", read_count_or_share, "a count of channels like 16 or a share of them like 0.25 or 1/4")
SIZE = Value("size", read_size, f"one side like 224, or HxW like 224x320, {_SIDES}")
NUMBERS = Value("numbers", read_numbers, "numbers with commas between them, like 0.485,0.456,0.406")
SHAPE = Value("shape", read_shape, f"three numbers C,H,W like 3,224,224, {_SIDES}")
SEED = Value("seed", read_seed, f"a whole number from {SEEDS[0]} to {SEEDS[1]}")
PAIR = Value("pair", read_pair, "KEY=VALUE like num_classes=10")
LAYER = Explained("layer", read_override, quoted=False)
FINITE = FiniteRange(min=0)
TARGET = Explained("target", read_target)
SAVING = Explained("saving", read_saving)
BYTES = Explained("bytes", read_bytes)
