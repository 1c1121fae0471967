"""What the machine lacks (memory, room on a disk, open files), told apart from faults of ours wherever it shows.

Libraries wrap such errors in their own and we wrap theirs, so the chain of causes is looked at too.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from vfconvert.errors import ResourceError, UnwritableOutputError, VfconvertError, first_line

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_FILES = frozenset({errno.EMFILE, errno.ENFILE})
# torch has no type for it on a processor; ONNX Runtime has none at all.
_SAID = (
    *("not enough memory: you tried to allocate", "can't allocate memory", "CUDA out of memory"),
    *("std::bad_alloc", "bad allocation", "Failed to allocate memory"),
)
# oneDNN's whole message where it finds no memory for a kernel; what it does not support is a "primitive descriptor".
_SAID_ALONE = frozenset({"could not create a primitive", "could not execute a primitive"})
_LONGEST_CHAIN = 32


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, in Python, NumPy, torch on any device, or ONNX Runtime."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    kind = type(error)
    if kind.__name__ == "OutOfMemoryError" and kind.__module__.partition(".")[0] == "torch":
        return True
    known = isinstance(error, RuntimeError) or kind.__module__.partition(".")[0] == "onnxruntime"
    return known and (str(error) in _SAID_ALONE or any(sign in str(error) for sign in _SAID))


def shortage_of(error: BaseException) -> VfconvertError | None:
    """The error of ours that says what the machine lacks; None where that is not what `error` comes from.

    An error of ours that says so already is its own.
    """
    ours = error if isinstance(error, (ResourceError, UnwritableOutputError)) else None
    if isinstance(ours, ResourceError):
        return ours
    cause: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if cause is None:
            return ours
        if is_out_of_memory(cause):
            said = first_line(cause).partition(". Buy new RAM")[0]  # torch's joke
            return ResourceError(
                f"not enough memory ({said}); free some, or give smaller images (--size), fewer of them "
                "(--calibration-images) or, in training, a smaller --batch"
            )
        if isinstance(cause, OSError) and cause.errno in _NO_FILES:
            return ResourceError(f"too many open files ({first_line(cause)}); raise the limit with ulimit -n")
        if isinstance(cause, OSError) and cause.errno in NO_ROOM:
            if ours is not None:
                return ours
            where = f" {cause.filename}" if cause.filename else ""
            return UnwritableOutputError(f"cannot write{where}: {reason_of(cause)}; make room and run it again")
        cause = cause.__cause__
    return ours


def reason_of(error: OSError) -> str:
    """What the system says, in lower case."""
    return (error.strerror or type(error).__name__).lower()


@contextmanager
def shortages_named() -> Iterator[None]:
    """Within, what comes from a shortage is raised as `ResourceError` or `UnwritableOutputError`; also a decorator."""
    try:
        yield
    except Exception as error:
        found = shortage_of(error)
        if found is None or found is error:
            raise
        raise found from error
