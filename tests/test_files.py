"""Output files are refused early, or are complete, or are not there."""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vfconvert.errors import UnwritableOutputError
from vfconvert.files import atomic_path, check_writable, sha256_of


def test_atomic_path_renames_on_success(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    target.write_text("old")
    with atomic_path(target) as temporary:
        assert temporary.parent.parent == tmp_path
        assert temporary.name == "model.onnx"
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_atomic_path_gives_the_permissions_of_a_new_file(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with atomic_path(tmp_path / "model.safetensors") as temporary:
            temporary.touch(0o600)  # as the library of safetensors does
    finally:
        os.umask(before)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_atomic_path_on_failure_leaves_things_as_they_were(tmp_path: Path, failure: type[BaseException]) -> None:
    target = tmp_path / "model.onnx"
    target.write_text("old")

    def write_half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise failure("stop")

    with pytest.raises(failure, match="stop"):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_atomic_path_follows_a_symbolic_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.onnx", tmp_path / "link.onnx"
    link.symlink_to(real)
    with atomic_path(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_atomic_path_refuses_before_the_body_runs(tmp_path: Path) -> None:
    entered = False
    with pytest.raises(UnwritableOutputError, match="does not exist"), atomic_path(tmp_path / "no" / "model.onnx"):
        entered = True
    assert not entered


def test_atomic_path_refuses_a_target_that_became_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"

    def write() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("new")
            target.mkdir()

    with pytest.raises(UnwritableOutputError, match=r"model\.onnx: .*directory"):
        write()
    assert list(tmp_path.iterdir()) == [target]


def test_check_writable_accepts_new_and_existing_files_and_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "new.onnx")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old.onnx").write_text("old")
    check_writable(tmp_path / "old.onnx")
    assert (tmp_path / "old.onnx").read_text() == "old"


def test_check_writable_refuses_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UnwritableOutputError, match=f"folder {re.escape(str(tmp_path / 'no'))} does not exist"):
        check_writable(tmp_path / "no" / "model.onnx")


@pytest.mark.parametrize(("below", "message"), [("model.onnx", "is a file, expected a folder"), ("a/b", "directory")])
def test_check_writable_refuses_a_file_in_place_of_the_folder(tmp_path: Path, below: str, message: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableOutputError, match=message):
        check_writable(tmp_path / "file" / below)


def test_check_writable_refuses_folder_as_target(tmp_path: Path) -> None:
    with pytest.raises(UnwritableOutputError, match="it is a folder, expected a file name"):
        check_writable(tmp_path)


def test_check_writable_refuses_device(tmp_path: Path) -> None:
    with pytest.raises(UnwritableOutputError, match="a device or pipe, expected a regular file"):
        check_writable(Path(os.devnull))


def test_check_writable_refuses_read_only_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "model.onnx"
    target.write_text("old")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write any file
    with pytest.raises(UnwritableOutputError, match="the file there is read-only"):
        check_writable(target)


def test_check_writable_refuses_folder_that_takes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*, dir: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(UnwritableOutputError, match=r"takes no new file \(no space left on device\)"):
        check_writable(tmp_path / "model.onnx")


@pytest.fixture
def forbidden_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that this process may not write to, even where the tests run as root."""
    folder = tmp_path / "forbidden"
    folder.mkdir(mode=0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if user == 0:
            os.seteuid(0)


def test_check_writable_refuses_forbidden_folder(forbidden_folder: Path) -> None:
    with pytest.raises(UnwritableOutputError, match="permission denied"):
        check_writable(forbidden_folder / "model.onnx")


def test_sha256_of_known_value_and_of_several_chunks(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"abc")
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    long = bytes(range(256)) * 9000
    path.write_bytes(long)
    assert sha256_of(path) == hashlib.sha256(long).hexdigest()
