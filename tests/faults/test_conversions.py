"""Whole conversions that are killed, starved or set against each other; see `tests.faults.driver`."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

from tests.faults.driver import OUTPUTS, STAGES
from vfconvert.errors import ResourceError, UnwritableOutputError

KILLED = [stage for stage in STAGES if stage != "rename"]


@pytest.fixture(scope="module")
def found():
    # One arena: with one for each thread the room that a process takes changes from run to run.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.faults.driver"]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=900)
    return json.loads(ran.stdout)


def result(found, name):
    if name not in found:
        pytest.skip("needs what this user or system does not have")
    return found[name]


def files(one):
    """The files, and of folders only those that are not a file's."""
    return [name for name in one["files"] if not name.startswith(".vfconvert-")]


@pytest.mark.parametrize("stage", KILLED)
def test_killed_at_any_stage_the_files_before_are_untouched(found, stage):
    one = found[f"killed {stage}"]
    assert one["code"] == -9
    assert files(one) == sorted(OUTPUTS)
    assert set(one["texts"].values()) == {"old"}
    assert set(one["sha256"].values()) == {hashlib.sha256(b"old").hexdigest()}


def test_killed_while_files_are_renamed_each_is_whole(found):
    one = found["killed rename"]
    assert one["code"] == -9
    changed = [name for name in OUTPUTS if one["sha256"][name] != hashlib.sha256(b"old").hexdigest()]
    assert changed == ["m.safetensors"]  # the first of the renames
    assert one["texts"]["r.json"] == "old"


def test_killed_runs_leave_what_the_next_one_removes(found):
    left = {stage: {n.partition("/")[0] for n in found[f"killed {stage}"]["files"]} - set(OUTPUTS) for stage in STAGES}
    assert len(left["export"]) == len(left["verify"]) == 2
    assert not any(left[one] & left[other] for one in left for other in left if one != other)


def test_a_run_after_killed_ones_succeeds_and_nothing_else_is_left(found):
    one = found["killed not"]
    assert one["code"] == 0
    assert one["files"] == sorted(OUTPUTS)
    assert_one_run(one)


def test_two_processes_on_the_same_files_both_succeed_and_one_has_all(found):
    first, second = found["two 0"], found["two 1"]
    assert first["code"] == second["code"] == 0
    assert second["files"] == sorted(name for name in OUTPUTS if name != "m.onnx")
    assert_one_run(second)


def assert_one_run(one):
    """The report is of the very files beside it, and the recipe of the same run."""
    report = json.loads(one["texts"]["r.json"])
    told = {os.path.basename(each["path"]): each["sha256"] for each in report["artefacts"]}
    assert told == {name: digest for name, digest in one["sha256"].items() if not name.endswith(".json")}
    assert json.loads(one["texts"]["m.json"])["metadata"]["seed"] == str(report["seed"])


def test_meta_files_of_two_runs_are_seen(found):
    one = found["killed not"]
    other = {**one, "sha256": {**one["sha256"], "m.onnx": "0" * 64}}
    with pytest.raises(AssertionError, match=r"m\.onnx"):
        assert_one_run(other)


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("no permission", UnwritableOutputError, "takes no new file (permission denied); choose another path"),
        ("no open files", ResourceError, "too many open files"),
        ("full disk", UnwritableOutputError, "no space left on device; make room or choose another path"),
        ("read-only disk", UnwritableOutputError, "takes no new file (read-only file system)"),
    ],
)
def test_what_lacks_is_one_line_and_leaves_nothing(found, name, error, said):
    one = result(found, name)
    assert one["code"] == error.exit_code
    assert said in one["said"]
    assert one["said"].startswith("Error: ")
    assert one["said"].count("\n") == 1
    assert ".vfconvert-" not in one["said"]
    assert [left for left in one["files"] if left != "ballast"] == []


def test_a_fault_with_no_room_for_its_log_says_where_it_was(found):
    one = result(found, "full temporary disk")
    assert one["code"] == 1
    assert one["said"].startswith("Sorry, this is a fault in vfconvert")
    assert "something of ours at pipeline.py:" in one["said"]
    assert "no log can be written: No space left on device" in one["said"]
    assert one["said"].count("\n") == 1
    assert one["files"] == ["ballast"]


def test_little_memory_makes_smaller_portions_and_is_told(found):
    one = found["little memory"]
    assert one["code"] == 0, one["said"]
    told = json.loads(one["said"])
    assert "memory did not suffice for 32 images at once in the fit" in told["notes"][0]
    enough = json.loads(found["enough memory"]["said"])
    assert enough["notes"] == []
    assert told["unexplained"] == pytest.approx(enough["unexplained"], rel=0.05)  # of another draw of positions
