"""Streams that are full, closed or left by their reader: an exit code of ours, no traceback, nothing at exit."""

import subprocess
import sys
from pathlib import Path

import pytest

from vfconvert.cli import boundary
from vfconvert.errors import ArchitectureError, ResourceError, TruncatedModelError, UnwritableOutputError

VERSION = [sys.executable, "-m", "vfconvert", "--version"]
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def shell(redirection: str) -> subprocess.CompletedProcess[str]:
    """`vfconvert --version` with a redirection of the shell."""
    line = " ".join([*VERSION, redirection])
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)


@needs_full
@pytest.mark.parametrize("what", ["--version", "--help"])
def test_full_stdout_is_one_line(what):
    with FULL.open("wb") as full:
        ran = subprocess.run([*VERSION[:-1], what], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == UnwritableOutputError.exit_code
    assert ran.stderr == "Error: cannot write: no space left on device; make room and run it again\n"


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_error(redirection):
    assert shell(redirection).returncode == 0


def test_reader_that_is_gone_is_told_by_the_code_alone():
    ran = shell("| true; echo")
    assert ran.stderr == ""


@needs_full
def test_full_stderr_leaves_the_exit_code():
    command = f"from vfconvert.cli import boundary\nboundary._leave('Error: x', {ArchitectureError.exit_code})"
    with FULL.open("wb") as full:
        ran = subprocess.run([sys.executable, "-c", command], stderr=full, check=False)
    assert ran.returncode == ArchitectureError.exit_code


def raising(error: BaseException, cause: BaseException | None = None):
    def fail() -> None:
        raise error from cause

    return boundary.one_line_errors(fail)


@pytest.mark.parametrize("error", [MemoryError("no room for 9 bytes"), OSError(24, "Too many open files")])
def test_shortages_are_no_faults(error, capsys):
    for fail in (raising(error), raising(TruncatedModelError("the file is damaged"), error)):
        with pytest.raises(SystemExit, match=f"^{ResourceError.exit_code}$"):
            fail()
        told = capsys.readouterr().err
        assert told.startswith("Error: ")
        assert "damaged" not in told
        assert told.count("\n") == 1


def test_log_that_ends_half_written_is_removed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("traceback.format_exception", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(SystemExit, match=r"^1$"):
        raising(ValueError("inner"))()
    assert "inner" in (told := capsys.readouterr().err)
    assert "(and no log can be written: No space left); please report it." in told
    assert list(tmp_path.iterdir()) == []


def test_error_that_cannot_be_written_out_is_named_by_its_type(tmp_path, monkeypatch, capsys):
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def no_log(*_, **__):
        raise OSError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", no_log)
    with pytest.raises(SystemExit, match=r"^1$"):
        raising(MuteError())()
    told = capsys.readouterr().err
    assert "(MuteError): MuteError" in told
    assert "Permission denied" in told
