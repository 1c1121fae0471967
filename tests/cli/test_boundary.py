import errno
import os
import re
import signal
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from vfconvert.cli import boundary
from vfconvert.cli.group import MainJobGroup
from vfconvert.errors import NoImagesError
from vfconvert.files import atomic_path


def run(error: BaseException):
    """A command that raises, called as the real ones are."""

    @click.group(cls=MainJobGroup)
    def group() -> None:
        pass

    @group.command()
    def convert() -> None:
        raise error

    return CliRunner().invoke(group, ["convert"])


@pytest.fixture
def logs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_known_error_is_one_line_and_its_exit_code(logs):
    result = run(NoImagesError("no images in x:\n  looked\n  everywhere"))
    assert result.exit_code == NoImagesError.exit_code
    assert (result.stdout, result.stderr) == ("", "Error: no images in x: looked everywhere\n")
    assert list(logs.iterdir()) == []


def test_what_a_terminal_would_obey_is_shown_as_escapes(logs):
    result = run(NoImagesError("no images in \x1b]0;owned\x07 \x9b2J \u202egnp \udc80 ü é 図"))
    assert result.stderr == "Error: no images in \\x1b]0;owned\\x07 \\x9b2J \\u202egnp \\udc80 ü é 図\n"
    assert run(ValueError("\x1b[2J")).stderr.rstrip("\n").isprintable()


def test_interrupt_exits_as_a_shell_expects():
    result = run(KeyboardInterrupt())
    assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")


def test_termination_removes_what_was_half_written(tmp_path):
    handler = signal.getsignal(signal.SIGTERM)
    target = tmp_path / "a.onnx"

    def half_write() -> None:
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

    with pytest.raises(SystemExit, match="143"):
        boundary.one_line_errors(half_write)()
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is handler


def test_fault_leaves_its_traceback_in_a_log(logs):
    result = run(ValueError("inner\nsecret"))
    assert result.exit_code == 1
    (log,) = logs.iterdir()
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Sorry, ")
    assert str(log) in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in log.read_text(encoding="utf-8")
    assert "ValueError: inner\nsecret" in log.read_text(encoding="utf-8")


def test_fault_without_a_place_for_the_log_is_still_one_line(monkeypatch):
    def refuse(*_args, **_settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(boundary.tempfile, "mkstemp", refuse)
    result = run(ValueError("inner\nmessage"))
    assert result.exit_code == 1
    said = (
        r"inner message at cli/group\.py:\d+ \(and no log can be written: No space left on device\); please report it"
    )
    assert re.search(said, result.stderr)
    assert result.stderr.count("\n") == 1


def test_wrong_command_line_keeps_clicks_words():
    result = run(click.UsageError("say more"))
    assert result.exit_code == 2
    assert result.stderr.endswith("Error: say more\n")


def test_exit_passes_through():
    assert run(click.exceptions.Exit(7)).exit_code == 7


def test_gone_reader_is_no_error():
    result = run(BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)))
    assert (result.exit_code, result.output) == (boundary.BROKEN_PIPE, "")


def test_result_is_returned():
    assert boundary.one_line_errors(lambda: 5)() == 5
