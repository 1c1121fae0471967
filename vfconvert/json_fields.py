"""JSON that people edit: parsed whatever it holds, and its fields read with checks that collect every error."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

MOST_LISTED = 100  # errors in one message; the others are counted
_SHOWN = 80  # characters of a value in a message
_DIGITS = 18  # of a whole number; longer ones are floats, which no field takes


class JsonObject(dict[str, Any]):
    """An object of JSON and the keys that it has more than once."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(key for key, _ in pairs)
        self.repeated = [key for key, count in counts.items() if count > 1]


def parse(text: bytes) -> Any:
    """The value of a JSON text in UTF-8, objects as `JsonObject`. Raises `ValueError` that says where it is none."""
    try:
        return json.loads(text.decode("utf-8-sig"), object_pairs_hook=JsonObject, parse_int=_whole_number)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"line {error.lineno}, column {error.colno}: {error.msg[:1].lower()}{error.msg[1:]}"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start}: got no UTF-8 text") from error
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error


def _whole_number(text: str) -> int | float:
    return int(text) if len(text) <= _DIGITS else float(text)


def shown(value: object) -> str:
    """A value as the file has it: on one line, printable, short."""
    try:
        text = json.dumps(value)
    except RecursionError:
        text = "a deeply nested value"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"


def printable(text: str) -> str:
    """A text of any length on one line, with escapes for what a terminal would obey or not show."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def listed(errors: Sequence[str]) -> str:
    """The first errors, and how many more there are."""
    more = f"; and {len(errors) - MOST_LISTED} more" if len(errors) > MOST_LISTED else ""
    return "; ".join(errors[:MOST_LISTED]) + more


def near(name: str, names: Sequence[str], errors: Sequence[object] = ()) -> str:
    """`; did you mean "layer1.0"?`, or nothing where there are no names; `name` is cut, since a file may hold any.

    `errors` are those before: none is looked for where enough are listed, since each takes its time and none is read.
    """
    if len(errors) >= MOST_LISTED:
        return ""
    found = get_close_matches(name[:_SHOWN], names, n=1, cutoff=0.0)
    return f"; did you mean {shown(found[0])}?" if found else ""


@dataclass(frozen=True, eq=False)
class Checked:
    """The fields of one object, read with a check; what is wrong is appended to `errors`, and a stand-in returned."""

    where: str
    given: Mapping[str, Any]
    errors: list[str]
    own: list[str] = field(default_factory=list)

    def wrong(self, name: str, what: str) -> None:
        """Note an error of a field."""
        self.own.append(name)
        self.errors.append(f"{self.where}field {name}: {what}")

    def only(self, names: Sequence[str], passed_over: Sequence[str] = ()) -> None:
        """Note fields of other names, but for those to pass over, and those given twice."""
        for name in self.given:
            if name not in names and name not in passed_over:
                hint = near(name, names, self.errors)
                self.wrong(shown(name), f"got an unknown field, expected {', '.join(names)}{hint}")
        for name in getattr(self.given, "repeated", ()):
            self.wrong(shown(name), "got it more than once, expected once")

    def read(self, name: str, default: Any, fits: Callable[[Any], bool], expected: str) -> Any:
        """The value of a field, `default` where it is absent or unfit."""
        if name not in self.given:
            return default
        if fits(self.given[name]):
            return self.given[name]
        self.wrong(name, f"got {shown(self.given[name])}, expected {expected}")
        return default


def is_number(value: object) -> bool:
    """A whole number; true and false are none."""
    return type(value) is int


def is_line(value: object) -> bool:
    """A text that a terminal shows on one line as it is."""
    return isinstance(value, str) and value.isprintable()
