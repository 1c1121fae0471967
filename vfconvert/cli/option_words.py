"""Options as Python values, by the keys of a recipe: what the command line would say for them."""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterator, Mapping
from typing import Any

import click

from vfconvert.cli.convert import convert
from vfconvert.cli.recipe import JOINED, is_flag, keys_of, texts_of, words_of
from vfconvert.config.document import Entry
from vfconvert.json_fields import near
from vfconvert.keyword_values import shown

_SHARES = ("target", "fail-under-saving")  # whose numbers are shares of the original


def arguments_of(options: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The words for options of a conversion; None says nothing.

    A key is that of a recipe, with underscores perhaps, or the keyword of `vfconvert.convert`. A value is True or
    False, one value, a sequence or a mapping of several. `where` names the call. Raises `TypeError` for a key that is
    none and for a value of another kind; whether a value makes sense is not looked at.
    """
    keys, words = keys_of(convert), list[str]()
    names = {name: key for key, parameter in keys.items() for name in (str(parameter.name), key.replace("-", "_"), key)}
    for given, value in options.items():
        key = names.get(given, "model")
        if key == "model":
            known = sorted({key.replace("-", "_") for key in keys} - {"model"})
            hint = near(str(given), known) if given != "model" else ""
            raise TypeError(f"{where}: got {shown(given)}, expected an option of a conversion{hint}")
        words += _words(key, keys[key], value, f"{where}: {given}")
    return tuple(words)


def _words(key: str, parameter: click.Parameter, value: Any, where: str) -> Iterator[str]:
    if value is None:
        return
    if isinstance(value, bool):
        if not is_flag(parameter):
            raise TypeError(f"{where}: got {value}, expected a value")
        yield from words_of(key, parameter, "true" if value else "false")
        return
    try:
        entry = _entry(key, parameter, value)
        for text in texts_of(entry, parameter):
            yield from words_of(key, parameter, text)
    except (TypeError, ValueError) as error:
        expected = "True or False" if is_flag(parameter) else "a value, or several where it may be given again"
        raise TypeError(f"{where}: got {shown(value)}, expected {expected}") from error


def _spelled(key: str, parameter: click.Parameter, value: Any) -> str:
    """The text of one of several values, which may be a sequence itself where the command line joins it: a shape."""
    joint = JOINED.get(parameter.type.name) if parameter.multiple else None
    if joint is not None and isinstance(value, (list, tuple)):
        return joint.join(_text(key, each) for each in value)
    return _text(key, value)


def _entry(key: str, parameter: click.Parameter, value: Any) -> Entry:
    if isinstance(value, Mapping):
        texts = tuple(_text(key, each) for each in value.values())
        return Entry(key=key, line=0, kind="mapping", texts=texts, names=tuple(_text(key, name) for name in value))
    if isinstance(value, (list, tuple)):
        return Entry(key=key, line=0, kind="list", texts=tuple(_spelled(key, parameter, each) for each in value))
    return Entry(key=key, line=0, kind="one", texts=(_text(key, value),))


def _text(key: str, value: Any) -> str:
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, numbers.Real) and key in _SHARES:
        return f"{100 * float(value):g}%"
    if not isinstance(value, (str, numbers.Real)):
        raise TypeError(value)
    return str(value)
