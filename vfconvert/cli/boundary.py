"""The one way out for errors: one line on stderr and an exit code, never a traceback."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import NoReturn, ParamSpec, TypeVar

import click

from vfconvert.errors import VfconvertError
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
        try:
            with _terminable():
                result = function(*args, **kwargs)
            sys.stdout.flush()  # here and not at exit, where a broken pipe could not be caught
            return result
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except VfconvertError as error:
            _leave(f"Error: {_one_line(error)}", error.exit_code)
        except TrainingInterrupted as stopped:
            _leave(str(stopped), 128 + stopped.number)
        except _Terminated:
            _leave("Terminated.", TERMINATED)
        except KeyboardInterrupt:
            _leave("Interrupted.", INTERRUPTED)
        except BrokenPipeError:
            _silence_stdout()
            sys.exit(BROKEN_PIPE)
        except Exception as error:
            _leave(_apology(error), INTERNAL_ERROR)

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
    click.echo(line, err=True)
    sys.exit(exit_code)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _apology(error: Exception) -> str:
    """One line that says what broke and where the rest is; the traceback goes to a file."""
    what = f"Sorry, this is a fault in vfconvert {__version__} ({type(error).__name__})"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="vfconvert-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as log:
            log.write(f"vfconvert {__version__}, Python {sys.version}\n{sys.argv}\n\n")
            log.write("".join(traceback.format_exception(error)))
    except OSError as unwritable:
        return f"{what}: {_one_line(error)[:200]} (and no log can be written: {unwritable.strerror})"
    return f"{what}; the details are in {log.name}: please report it with that file."


def _silence_stdout() -> None:
    """Let the flush at exit go nowhere: the reader is gone."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):  # not a real file
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
