"""One line says what went wrong."""

import pytest

from vfconvert.exporting.cause import cause_line


def _chained() -> Exception:
    try:
        try:
            raise KeyError("\n inner \n advice")
        except KeyError as error:
            raise RuntimeError("outer") from error
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("first\nsecond"), "ValueError: first"),
        (ValueError(), "ValueError"),
        (_chained(), r"KeyError: '\n inner \n advice'"),
    ],
    ids=["lines", "silent", "chained"],
)
def test_cause_line_is_the_first_line_of_the_root_cause(error: Exception, line: str) -> None:
    assert cause_line(error) == line
