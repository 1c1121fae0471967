"""Pipes and devices where files of ours are looked for: never waited for, never read without end, never written to."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.budget.test_cache import HARMS
from vfconvert.budget.cache import is_cache, is_damaged, read_harms, write_harms
from vfconvert.errors import TrainingError
from vfconvert.files import read_regular, regular_file
from vfconvert.training.checkpoint import NAME, read_checkpoint

KINDS = ("pipe", "endless", "empty device")


@pytest.fixture(autouse=True)
def soon() -> Iterator[None]:
    """Whoever waits for a pipe fails, instead of all tests waiting."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("waits without end"))
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def made(path: Path, kind: str) -> Path:
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "endless" else "/dev/null")
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_damaged_cache_and_left_alone(tmp_path: Path, kind: str) -> None:
    path = made(tmp_path / "m.pt.damage.json", kind)
    before = path.lstat()
    assert read_harms(path, "key", {}) is None
    assert is_damaged(path, "key")
    assert not is_cache(path)
    assert not write_harms(path, "key", HARMS, "nats")
    assert os.path.samestat(path.lstat(), before)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_no_checkpoint(tmp_path: Path, kind: str) -> None:
    path = made(tmp_path / NAME, kind)
    with pytest.raises(TrainingError, match=f"{path}: no regular file, or larger .*; remove it to begin anew"):
        read_checkpoint(tmp_path)


def test_a_checkpoint_is_no_larger_than_any(tmp_path: Path) -> None:
    with (tmp_path / NAME).open("wb") as file:
        file.truncate(2**36 + 1)  # no blocks on the disk
    with pytest.raises(TrainingError, match="or larger than any checkpoint"):
        read_checkpoint(tmp_path)


def test_a_cache_is_no_larger_than_any(tmp_path: Path) -> None:
    path = tmp_path / "m.pt.damage.json"
    assert write_harms(path, "key", HARMS, "nats")
    assert read_harms(path, "key", {}) is not None
    os.truncate(path, 2**40)
    assert read_harms(path, "key", {}) is None
    assert is_damaged(path, "key")


def test_regular_files_are_read_to_their_bound(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"four")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert [read_regular(tmp_path / "link", most) for most in (3, 4, 2**40)] == [None, b"four", b"four"]
    with pytest.raises(FileNotFoundError, match="No such file"):
        read_regular(tmp_path / "none", 4)
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        read_regular(tmp_path, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_meta_a_bound_on_the_size_alone_would_let_them_through(tmp_path: Path, kind: str) -> None:
    path = made(tmp_path / "a", kind)
    assert path.stat().st_size == 0
    with regular_file(path) as file:
        assert file is None


def test_meta_waiting_for_a_pipe_fails(tmp_path: Path) -> None:
    signal.alarm(1)
    with pytest.raises(pytest.fail.Exception, match="waits without end"):
        made(tmp_path / "a", "pipe").read_bytes()
