"""What went wrong, in one line: libraries wrap it in exceptions with pages of advice."""

from __future__ import annotations


def cause_line(error: BaseException) -> str:
    """The type of the root cause and the first line of what it says."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
