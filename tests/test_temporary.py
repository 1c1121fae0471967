"""Temporary folders: one's own go, those of ended processes go, those in use and all else stay."""

import errno
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from vfconvert.errors import UnwritableOutputError
from vfconvert.temporary import Turn, claimed, remove_stale, scratch, temporary_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from vfconvert.temporary import temporary_folder
with temporary_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    print(folder, flush=True)
    sys.stdin.read(1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def process(tmp_path):
    """A process within its temporary folder in `tmp_path`, until it is told to kill itself."""
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        started.folder = Path(started.stdout.readline().strip())
        yield started
        started.kill()


def test_folder_is_new_private_and_gone_afterwards(tmp_path):
    with temporary_folder(tmp_path) as one, temporary_folder(tmp_path) as other:
        assert one.parent == other.parent == tmp_path
        assert one != other
        assert one.stat().st_mode & 0o077 == 0
        (one / "file").write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_what_a_living_process_writes_stays_and_what_a_killed_one_left_goes(process, tmp_path):
    remove_stale(tmp_path)
    with temporary_folder(tmp_path):
        assert (process.folder / "half").read_text() == "half"
    process.communicate("x")
    assert (process.folder / "half").exists()
    with temporary_folder(tmp_path) as mine:
        assert list(tmp_path.iterdir()) == [mine]


def test_other_names_links_and_files_stay(tmp_path):
    names = (".vfconvert-backup", "vfconvert-0123456789ab", ".vfconvert-0123456789abc", ".vfconvert-0123456789AB")
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / ".vfconvert-000000000000").symlink_to(tmp_path / "mine")
    (tmp_path / ".vfconvert-111111111111").write_text("a file")
    before = sorted(tmp_path.iterdir())
    remove_stale(tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / ".vfconvert-222222222222").mkdir()
    remove_stale(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_folders_of_others_stay(tmp_path, monkeypatch):
    (tmp_path / ".vfconvert-222222222222").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    remove_stale(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_listed_is_no_error(tmp_path):
    remove_stale(tmp_path / "none")


def test_without_locks_nothing_is_stale(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOTSUP, "no locks here")

    monkeypatch.setattr("vfconvert.temporary.fcntl.flock", unsupported)
    monkeypatch.setattr("vfconvert.temporary.time.sleep", lambda _: pytest.fail("waits for a lock"))
    with temporary_folder(tmp_path) as one, claimed(tmp_path) as mine, ExitStack() as held:
        Turn(held).take([tmp_path])
        remove_stale(tmp_path)
        assert mine
        assert one.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_taken_for_stale_at_once_is_made_anew(tmp_path, monkeypatch):
    mkdir, made = os.mkdir, []

    def made_and_removed(path, mode):
        mkdir(path, mode)
        made.append(path)
        if len(made) < 3:
            os.rmdir(path)

    monkeypatch.setattr(os, "mkdir", made_and_removed)
    with temporary_folder(tmp_path) as folder:
        assert folder == made[2]
    monkeypatch.setattr(os, "mkdir", lambda path, mode: None)
    with pytest.raises(FileNotFoundError, match="removed at once"), temporary_folder(tmp_path):
        pass


def test_scratch_says_where_there_is_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fill():
        with scratch() as folder:
            assert folder.parent == tmp_path
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UnwritableOutputError, match=f"cannot write to {tmp_path}: no space left .* set TMPDIR"):
        fill()
    assert list(tmp_path.iterdir()) == []

    def other():
        with scratch():
            raise OSError(errno.ENOENT, "No such file")

    with pytest.raises(OSError, match="No such file"):
        other()


def test_scratch_without_any_temporary_folder(monkeypatch):
    def none():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(UnwritableOutputError, match=r"no usable temporary directory found.*set TMPDIR"), scratch():
        pass


def test_claimed_is_for_one_at_a_time(tmp_path):
    with claimed(tmp_path) as mine:
        assert mine
        with claimed(tmp_path) as again:
            assert not again
    with claimed(tmp_path) as mine:
        assert mine


def test_turn_waits_for_the_other_and_not_for_ever(tmp_path, monkeypatch):
    waits = []
    with ExitStack() as first:
        Turn(first).take([tmp_path, tmp_path])

        def wait(seconds):
            waits.append(seconds)
            if len(waits) == 3:
                first.close()

        monkeypatch.setattr("vfconvert.temporary.time.sleep", wait)
        with ExitStack() as second:
            Turn(second).take([tmp_path])
            assert len(waits) == 3
            monkeypatch.setattr("vfconvert.temporary._PATIENCE", 0.0)
            with ExitStack() as third:
                Turn(third).take([tmp_path, tmp_path / "none"])
                with claimed(tmp_path) as mine:
                    assert not mine
