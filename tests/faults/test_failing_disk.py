"""A disk or share that fails in the middle of a model file: one line that says so."""

import builtins
import errno
import io
import os

import pytest
import torch
from safetensors.torch import save_file

from tests.cli.conftest import network
from vfconvert.errors import NotAModelError
from vfconvert.files import read_to_its_end
from vfconvert.loading.model import load_model

_READABLE = 600  # bytes from the begin that the disk still has


class Failing(io.FileIO):
    """A file of which only the first bytes can be read."""

    code = errno.EIO

    def _look(self):
        if self.tell() >= _READABLE:
            raise OSError(self.code, os.strerror(self.code))

    def readinto(self, buffer):
        self._look()
        return super().readinto(memoryview(buffer)[: max(1, _READABLE - self.tell())])

    def readall(self):
        raise OSError(self.code, os.strerror(self.code))


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two forms of a network in files; `fail()` makes the disk fail from then on."""
    torch.save(network(), tmp_path / "net.pt")
    save_file(network().state_dict(), tmp_path / "net.safetensors")
    whole = builtins.open

    def opened(file, mode="r", buffering=-1, *rest, **named):
        if isinstance(file, (str, os.PathLike)) and str(file).startswith(str(tmp_path)) and mode == "rb":
            return io.BufferedReader(Failing(file, "rb"), 64)
        return whole(file, mode, buffering, *rest, **named)

    def fail():
        monkeypatch.setattr(builtins, "open", opened)
        monkeypatch.setattr(io, "open", opened)

    return tmp_path, fail


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
def test_a_disk_that_fails_in_the_middle_is_told(files, name):
    folder, fail = files
    fail()
    said = r"cannot be read to its end \(input/output error\); check the disk or share that it lies on"
    with pytest.raises(NotAModelError, match=said):
        load_model(folder / name)


def test_meta_on_a_whole_disk_it_is_read(files):
    folder, _ = files
    assert load_model(folder / "net.pt").size_bytes == (folder / "net.pt").stat().st_size


def test_other_errors_of_the_system_stay_what_they_are(tmp_path):
    with pytest.raises(OSError, match="No space left"), read_to_its_end(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
