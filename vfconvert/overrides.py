"""What `--layer 'GLOB=KIND:field=value,…'` says: plain, frozen data, and how its text is read."""

from __future__ import annotations

import math
from dataclasses import dataclass

KINDS = ("keep", "spatial", "lines", "channel", "both")
_FIELDS = {
    "keep": (),
    "spatial": ("primaries",),
    "lines": ("primaries",),
    "channel": ("windows", "stride", "primaries"),
    "both": ("windows", "stride", "primaries"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Override:
    """What becomes of the layers of names that match `glob`, whatever the options for all layers say.

    `stride` is a count of channels or, a float, a share of the layer's; `primaries` a count of each group or a share
    of its outputs. None: as for all layers, and as few primaries as serve all outputs.
    """

    glob: str
    kind: str
    windows: int | None = None
    stride: int | float | None = None
    primaries: int | float | None = None

    def __str__(self) -> str:
        given = [(name, getattr(self, name)) for name in ("windows", "stride", "primaries")]
        fields = ",".join(f"{name}={value}" for name, value in given if value is not None)
        return f"{self.glob}={self.kind}{':' if fields else ''}{fields}"


def read_override(text: str) -> Override:
    """`layer4.*=both:windows=2,stride=1/4,primaries=0.75`; raises `ValueError` with what is wrong."""
    before, colon, said = text.partition(":")  # the fields after it have equals signs of their own
    glob, equals, kind = before.rpartition("=")
    if not equals or not glob:
        raise ValueError(f"got {text!r}, expected GLOB=KIND like 'layer4.*=spatial'")
    if kind not in KINDS:
        raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(KINDS)}")
    values: dict[str, int | float] = {}
    for part in said.split(",") if colon else ():
        name, _, value = part.partition("=")
        if name not in _FIELDS[kind]:
            expected = f"one of {', '.join(_FIELDS[kind])}" if _FIELDS[kind] else "none"
            raise ValueError(f"field of {kind}: got {name!r}, expected {expected}")
        if name in values:
            raise ValueError(f"{name}: given twice, expected once")
        values[name] = _number(name, value)
    windows = values.get("windows")
    return Override(
        glob=glob,
        kind=kind,
        windows=int(windows) if windows is not None else None,
        stride=values.get("stride"),
        primaries=values.get("primaries"),
    )


def read_count_or_share(text: str) -> int | float:
    """`16` is a count; `0.25` and `1/4` are shares. Raises `ValueError` where the text is neither."""
    above, slash, below = text.partition("/")
    if slash:
        try:
            return int(above) / int(below)
        except ArithmeticError as error:
            raise ValueError(text) from error
    try:
        return int(text)
    except ValueError:
        return float(text)


def _number(name: str, text: str) -> int | float:
    expected = "a count like 2" if name == "windows" else "a count like 16 or a share like 0.25 or 1/4"
    try:
        value = int(text) if name == "windows" else read_count_or_share(text)
        if not math.isfinite(value):
            raise ValueError(text)
    except (ValueError, OverflowError) as error:  # isfinite of a huge count overflows
        raise ValueError(f"{name}: got {text!r}, expected {expected}") from error
    return value
