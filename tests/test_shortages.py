"""What comes from a shortage is told apart from what does not, however it is wrapped."""

import errno
import os
import re

import pytest
import torch

from vfconvert.errors import (
    FitError,
    ResourceError,
    TruncatedModelError,
    UnwritableOutputError,
)
from vfconvert.shortages import is_out_of_memory, shortage_of, shortages_named


def failed_allocation():
    """The very error of torch on a processor."""
    with pytest.raises(RuntimeError, match="allocate") as caught:
        torch.empty(2**60, dtype=torch.uint8)
    return caught.value


def wrapped(cause, kind=TruncatedModelError, times=1):
    for _ in range(times):
        error = kind("damaged")
        error.__cause__ = cause
        cause = error
    return cause


def system(number, name=None):
    return OSError(number, os.strerror(number), name)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        system(errno.ENOMEM),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: not enough memory: you tried to allocate 4"
        ),
        RuntimeError("std::bad_alloc"),
        RuntimeError("could not create a primitive"),
    ],
    ids=["python", "system", "cuda", "processor", "library", "kernel"],
)
def test_out_of_memory_is_recognised(error):
    assert is_out_of_memory(error)
    assert is_out_of_memory(failed_allocation())
    with pytest.raises(ResourceError, match=r"not enough memory .* smaller images"), shortages_named():
        raise wrapped(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape"),
        RuntimeError("could not create a primitive descriptor for a convolution"),
        ValueError("std::bad_alloc"),
        system(errno.ENOENT),
    ],
)
def test_other_errors_are_not(error):
    assert not is_out_of_memory(error)
    assert shortage_of(error) is None
    assert shortage_of(wrapped(error)) is None
    with pytest.raises(type(error), match=re.escape(str(error))) as caught, shortages_named():
        raise error
    assert caught.value is error


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_too_many_open_files(number):
    for error in (system(number), wrapped(system(number), times=3), wrapped(system(number), UnwritableOutputError)):
        with pytest.raises(ResourceError, match=r"too many open files .*ulimit -n"), shortages_named():
            raise error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_names_the_file_where_it_is_known(number):
    with pytest.raises(UnwritableOutputError, match=r"^cannot write: \w.*; make room"), shortages_named():
        raise system(number)
    with pytest.raises(UnwritableOutputError, match=r"^cannot write /tmp/x: "), shortages_named():
        raise wrapped(system(number, "/tmp/x"), FitError)


def test_errors_that_say_so_already_stay():
    for kind in (ResourceError, UnwritableOutputError):
        error = wrapped(system(errno.ENOSPC), kind)
        assert shortage_of(error) is error
    assert shortage_of(UnwritableOutputError("it is a folder")) is not None


def test_a_ring_of_causes_ends():
    error = ValueError("x")
    error.__cause__ = TypeError("y")
    error.__cause__.__cause__ = error
    assert shortage_of(error) is None


def test_what_is_returned_passes():
    @shortages_named()
    def five():
        return 5

    assert five() == five() == 5
