import inspect
import re
from pathlib import Path

import pytest

from vfconvert import errors

ROOT = Path(__file__).parent.parent
FAMILY = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, errors.VfconvertError) and found is not errors.VfconvertError
]


def test_every_error_has_its_own_exit_code():
    codes = [error.exit_code for error in FAMILY]
    assert len(FAMILY) > 10
    assert len(set(codes)) == len(codes)
    assert all("exit_code" in vars(error) for error in FAMILY)


def test_exit_codes_leave_out_those_that_are_taken():
    # 0 success, 1 an internal error, 2 a wrong command line; from 126 on the shell speaks.
    assert all(3 <= error.exit_code < 126 for error in FAMILY)
    assert errors.VfconvertError.exit_code == 1


@pytest.mark.parametrize("error", FAMILY, ids=lambda error: error.__name__)
def test_every_error_says_when_it_is_raised(error):
    assert error.__name__.endswith("Error")
    assert error.__doc__ is not None
    assert error.__doc__.strip().endswith(".")


def _table(text: str) -> set[tuple[int, str]]:
    """The rows `| 10 | NotAModelError | ...` of a page in Markdown, with or without backticks."""
    rows = re.findall(r"^\|\s*`?(\d+)`?\s*\|\s*`?(\w+Error)`?\s*\|", text, flags=re.MULTILINE)
    return {(int(code), name) for code, name in rows}


def test_the_page_of_exit_codes_lists_every_error_with_its_code():
    page = ROOT / "docs" / "exit-codes.md"
    assert _table(page.read_text(encoding="utf-8")) == {(error.exit_code, error.__name__) for error in FAMILY}


def test_meta_the_table_is_read_and_a_gap_is_seen():
    text = "| 10 | `NotAModelError` | x |\n| `11` | TruncatedModelError | y |\n| 3 | no error | z |\n"
    assert _table(text) == {(10, "NotAModelError"), (11, "TruncatedModelError")}
    assert _table("") == set()
