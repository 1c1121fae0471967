import contextlib
import io
import signal
import time
import warnings

import pytest
from rich.text import Text

from vfconvert.cli.screen import progress_bars, show, silent_libraries
from vfconvert.cli.stopping import telling_of_stops
from vfconvert.cli.training_screen import Screen
from vfconvert.progress import no_progress
from vfconvert.training.signals import Signals


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


def test_how_a_training_goes_stands_beneath_its_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with contextlib.redirect_stderr(Terminal()) as stderr, progress_bars(quiet=False) as progress:
        screen = Screen(progress, quiet=False)
        screen.step(3, 40, 0.25, 0.0005, 512.3)
        progress.bars.refresh()
        assert "loss 0.2500, rate 0.0005, 512 images/s" in stderr.getvalue()
        assert "3/40" in stderr.getvalue()
        screen.epoch({"epoch": 1, "step": 40, "seconds": 2.0, "top1": 90.0})
        progress.bars.refresh()
        drawn = len(stderr.getvalue())
        progress.bars.refresh()
        assert "fine-tune" in stderr.getvalue()[drawn:]
        assert "loss" not in stderr.getvalue()[drawn:]


def test_a_signal_that_a_training_notes_is_answered_once(capsys):
    told, end = "", time.monotonic() + 20
    with telling_of_stops(quiet=False), Signals().noted() as noted:
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        assert noted.number == signal.SIGTERM
        while not told and time.monotonic() < end:  # by another thread, while the step goes on
            told = capsys.readouterr().err
    assert told + capsys.readouterr().err == "Stopping when this step or validation ends ...\n"


@pytest.mark.parametrize("quiet", [True, False])
def test_signals_of_others_are_not_answered(capsys, quiet):
    noted = Signals().noted() if quiet else contextlib.nullcontext()
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    with telling_of_stops(quiet=quiet), noted:
        signal.raise_signal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err == ""
    assert signal.set_wakeup_fd(-1) == -1
