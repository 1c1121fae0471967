"""What a CI system is told of a run that ends in an error: the JUnit file and the step's summary say so themselves.

Else those of an earlier run would stand there as if they were of this one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from vfconvert.cli.step_summary import STEP_SUMMARY, append_text
from vfconvert.errors import VfconvertError
from vfconvert.options import ConversionOptions


@contextmanager
def telling(options: ConversionOptions, check: Callable[[], None]) -> Iterator[None]:
    """Within, an error of the conversion is written to the JUnit file and to the step's summary, and goes on.

    `check` raises where the JUnit file is something else besides, and has to be left alone.
    """
    try:
        yield
    except VfconvertError as error:
        from vfconvert.reporting.junit import write_error
        from vfconvert.reporting.markdown import code, plain

        kind, said = type(error).__name__, " ".join(str(error).split())
        if options.junit is not None and not options.dry_run:
            with suppress(VfconvertError):
                check()
                write_error(str(options.model), options.command, kind, said, options.junit)
        if summary := os.environ.get(STEP_SUMMARY):
            append_text(f"**No conversion** of {code(str(options.model))}: {plain(said)} ({kind})\n", summary)
        raise
