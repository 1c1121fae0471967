"""Standard output holds what the program writes, and nothing of the solver's, in a process of its own."""

import os
import subprocess
import sys

import pytest

CHOICES = """
from tests.budget.tables import random_table
from vfconvert.budget.knapsack import choose, least_of
table = random_table(3, 40, 30)  # of whose solutions HiGHS 1.12 polishes some, and says so
print("before")
choose(table, {"params": 0.75 * table.parameters + 0.25 * least_of(table, "params")})
print("after")
"""
WRITES = """
import ctypes, os
from vfconvert.budget.muted import no_output
def write(text):
    ctypes.CDLL(None).printf(text.encode())
print("python 1")
write("c 1\\n")
with no_output():
    write("c 2\\n")
    os.write(1, b"descriptor\\n")
write("c 3\\n")
print("python 2")
"""


def output_of(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_choices_write_nothing() -> None:
    assert output_of(CHOICES) == "before\nafter\n"


@pytest.mark.skipif(os.name == "nt", reason="C's output is reached otherwise there")
def test_c_code_is_silent_within_and_heard_without() -> None:
    assert sorted(output_of(WRITES).splitlines()) == ["c 1", "c 3", "python 1", "python 2"]


@pytest.mark.skipif(os.name == "nt", reason="C's output is reached otherwise there")
def test_meta_c_code_is_heard_where_nothing_mutes_it() -> None:
    unmuted = WRITES.replace("with no_output():", "if True:")
    assert {"c 2", "descriptor"} < set(output_of(unmuted).splitlines())


def test_closed_output_is_no_fault() -> None:
    code = "import os; os.close(1)\nfrom vfconvert.budget.muted import no_output\nwith no_output():\n    pass\n"
    assert output_of(code + "raise SystemExit(0)") == ""


def test_failure_within_gives_the_output_back() -> None:
    code = (
        "from vfconvert.budget.muted import no_output\ntry:\n    with no_output():\n        raise ValueError\n"
        "except ValueError:\n    print('back')\n"
    )
    assert output_of(code) == "back\n"
