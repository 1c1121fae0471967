"""Numbers as people read them. The only place where anything is rounded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

KIB, MIB = 2**10, 2**20


def whole(number: int) -> str:
    """All digits, in threes: 1,234,567."""
    return f"{number:,}"


def metric(number: int) -> str:
    """Three digits or more and a thousand's letter: 999, 18.4 k, 1.18 M, 115 M, 4.12 G."""
    size, unit = float(number), ""
    for letter in ("k", "M", "G", "T"):
        if abs(size) < 999.5:
            break
        size, unit = size / 1000, letter
    if not unit:
        return str(number)
    digits = 2 if abs(size) < 9.995 else 1 if abs(size) < 99.95 else 0
    return f"{size:.{digits}f} {unit}"


def shapes_text(shapes: Iterable[Sequence[int]]) -> str:
    """The shape of each input: 3 x 128 x 128 and 3 x 128 x 128."""
    return " and ".join(" x ".join(map(str, shape)) for shape in shapes)


def mebibytes(size: int) -> str:
    """Bytes in MiB = 2^20 bytes; below 1 MiB in KiB = 2^10 bytes."""
    return f"{size / MIB:,.2f} MiB" if size >= MIB else f"{size / KIB:,.1f} KiB"


def percent(share: float) -> str:
    """A share of 1 in percent with two decimals, cut off and not rounded, so that 99.999 % never reads 100."""
    if not math.isfinite(share):
        return "not finite"
    return f"{math.floor(share * 10_000 + 1e-6) / 100:.2f} %"


def decibels(value: float) -> str:
    """A PSNR; infinite where both outputs are equal."""
    if value == math.inf:
        return "equal outputs (infinite dB)"
    return f"{value:.2f} dB" if math.isfinite(value) else "not finite"


def judged_value(measure: str, value: float) -> str:
    """How far two networks agree, as `measure` has it: "PSNR" in dB, all else a share of 1."""
    return percent(value) if is_share(measure) else decibels(value)


def is_share(measure: str) -> bool:
    """Whether what tells how far two networks agree is a share of 1, and no PSNR."""
    return measure != "PSNR"


def small(value: float) -> str:
    """An error or tolerance, three digits."""
    return f"{value:.3g}" if math.isfinite(value) else "not finite"


def ratio(after: float, before: float) -> str:
    """`after / before`; a dash where there is nothing to compare with."""
    return f"{after / before:.3f}" if before else "-"


def seconds(value: float) -> str:
    """A duration: 0.42 s, 12.3 s or 3 min 05 s."""
    if value < 10:
        return f"{value:.2f} s"
    if value < 99.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02} s"


def milliseconds(value: float) -> str:
    """Seconds as 0.123 ms, 12.30 ms or 123.4 ms."""
    digits = 3 if value < 1e-3 else 2 if value < 0.1 else 1
    return f"{1000 * value:.{digits}f} ms"


def plural(count: int, noun: str) -> str:
    """`1 layer`, `2 layers`."""
    return f"{whole(count)} {noun}" if count == 1 else f"{whole(count)} {noun}s"
