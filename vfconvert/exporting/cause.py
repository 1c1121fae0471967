"""What went wrong, in one line: libraries wrap it in exceptions with pages of advice."""

from __future__ import annotations

_LONGEST = 300  # characters of what a library says


def cause_line(error: BaseException) -> str:
    """The type of the root cause and the first line of what it says."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    said = lines[0] if len(lines[0]) <= _LONGEST else f"{lines[0][:_LONGEST]} …"  # some print whole formulas
    return f"{type(error).__name__}: {said}"
