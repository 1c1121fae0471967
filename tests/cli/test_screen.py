import contextlib
import io
import warnings

import pytest
from rich.text import Text

from vfconvert.cli.screen import progress_bars, show, silent_libraries
from vfconvert.progress import no_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_every_stage_has_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    with contextlib.redirect_stderr(Terminal()) as stderr, progress_bars(quiet=False) as progress:
        progress("read [red]images", 3, 10)
        progress("fit", 1, 4)
        progress("fit", 4, 4)
        progress("count", 1, 0)
    assert "read [red]images" in stderr.getvalue()
    assert "3/10" in stderr.getvalue()
    assert "4/4" in stderr.getvalue()


def test_quiet_shows_no_bar():
    with contextlib.redirect_stderr(Terminal()) as stderr, progress_bars(quiet=True) as progress:
        progress("fit", 1, 4)
    assert progress is no_progress
    assert stderr.getvalue() == ""


def test_no_bar_into_a_file():
    with contextlib.redirect_stderr(io.StringIO()), progress_bars(quiet=False) as progress:
        assert progress is no_progress


def test_result_goes_to_stdout_without_colours(capsys):
    show(Text("a result", style="bold red"))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("a result\n", "")


def test_gone_reader_is_told_to_the_caller():
    class Gone(io.StringIO):  # a pipe whose reader has left
        def write(self, text: str) -> int:
            raise BrokenPipeError("gone")

    with contextlib.redirect_stdout(Gone()), pytest.raises(BrokenPipeError, match="gone"):
        show(Text("a result"))


def test_warnings_of_libraries_stay_off_the_screen():
    with silent_libraries(verbose=False):
        warnings.warn("noise", stacklevel=1)
    with silent_libraries(verbose=True), pytest.warns(UserWarning, match="noise"):
        warnings.warn("noise", stacklevel=1)
