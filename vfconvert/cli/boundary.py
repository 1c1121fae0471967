"""The one way out for errors: one line on stderr and an exit code, never a traceback."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from typing import NoReturn, ParamSpec, TypeVar

import click

from vfconvert.errors import VfconvertError
from vfconvert.json_fields import printable
from vfconvert.shortages import shortage_of
from vfconvert.training.signals import TrainingInterrupted
from vfconvert.version import __version__

INTERNAL_ERROR = VfconvertError.exit_code
INTERRUPTED = 130  # 128 + SIGINT, as shells count
BROKEN_PIPE = 141  # 128 + SIGPIPE
TERMINATED = 143  # 128 + SIGTERM

Given = ParamSpec("Given")
Result = TypeVar("Result")


def one_line_errors(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Turn whatever escapes into one line and an exit code; click's own exceptions pass through."""

    @wraps(function)
    def guarded(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        _have_streams()
        try:
            with _terminable():
                result = function(*args, **kwargs)
            sys.stdout.flush()  # here and not at exit, where a broken pipe could not be caught
            return result
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except VfconvertError as error:
            known = shortage_of(error) or error
            _leave(f"Error: {_one_line(known)}", known.exit_code)
        except TrainingInterrupted as stopped:
            _leave(str(stopped), 128 + stopped.number)
        except _Terminated:
            _leave("Terminated.", TERMINATED)
        except KeyboardInterrupt:
            _leave("Interrupted.", INTERRUPTED)
        except BrokenPipeError:
            sys.exit(BROKEN_PIPE)
        except Exception as error:
            if (lacking := shortage_of(error)) is not None:
                _leave(f"Error: {_one_line(lacking)}", lacking.exit_code)
            _leave(_apology(error), INTERNAL_ERROR)
        finally:
            _silence_where_unwritable()

    return guarded


class _Terminated(BaseException):
    """SIGTERM as an exception, so that temporary files are removed on the way out."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Within, SIGTERM unwinds the stack. Only where it would have ended the process anyway."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def unwind(*_: object) -> NoReturn:
        raise _Terminated

    signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _leave(line: str, exit_code: int) -> NoReturn:
    with suppress(OSError, ValueError):  # stderr may be full, gone or closed: the exit code is left to tell
        click.echo(printable(line), err=True)  # names out of files may hold what a terminal would obey
    sys.exit(exit_code)


def _one_line(error: BaseException) -> str:
    try:
        return " ".join(str(error).split())
    except Exception:  # another library's error that cannot be written out
        return type(error).__name__


def _apology(error: Exception) -> str:
    """One line that says what broke and where the rest is; the traceback goes to a file."""
    what = f"Sorry, this is a fault in vfconvert {__version__} ({type(error).__name__})"
    try:
        log = _written_log(error)
    except OSError as unwritable:
        # What a log would be opened for first: where it was.
        said = f"{_one_line(error)[:200]} {_place_of(error)}".strip()
        return f"{what}: {said} (and no log can be written: {unwritable.strerror or unwritable}); please report it."
    return f"{what}; the details are in {log}: please report it with that file."


def _written_log(error: Exception) -> str:
    """The name of a file with the traceback, complete; raises `OSError` where there is no room for one."""
    descriptor, name = tempfile.mkstemp(prefix="vfconvert-", suffix=".log")
    try:
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as log:
            log.write(f"vfconvert {__version__}, Python {sys.version}\n{sys.argv}\n\n")
            log.write("".join(traceback.format_exception(error)))
    except OSError:
        with suppress(OSError):
            os.unlink(name)
        raise
    return name


def _place_of(error: Exception) -> str:
    """File and line of the innermost call of ours."""
    ours = [f for f in traceback.extract_tb(error.__traceback__) if f"{os.sep}vfconvert{os.sep}" in f.filename]
    return f"at {ours[-1].filename.rpartition(f'{os.sep}vfconvert{os.sep}')[2]}:{ours[-1].lineno}" if ours else ""


def _have_streams() -> None:
    """Where the caller has closed stdout or stderr, what is said goes nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 # until the process ends


def _silence_where_unwritable() -> None:
    """Let the flush at exit go nowhere where it would fail: the reader is gone, or the disk behind it is full."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # gone, closed, none at all
            with suppress(OSError, ValueError, AttributeError):  # not a real file
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
