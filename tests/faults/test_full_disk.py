"""Every writer on a disk that takes no more: an error that names the file, what was there before, and nothing else."""

import contextlib
import errno
import json
import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.budget.test_cache import HARMS
from tests.plan_files import SHA, planned
from tests.reporting.inspect_samples import INSPECTED
from tests.reporting.samples import FULL
from tests.training.test_checkpoint import STATE
from vfconvert.budget.cache import write_harms
from vfconvert.cli import demo_steps
from vfconvert.errors import ExportError, UnwritableOutputError
from vfconvert.exporting.exported_program import export_program
from vfconvert.exporting.onnx import export_onnx
from vfconvert.exporting.recipe import write_safetensors
from vfconvert.exporting.torchscript import export_torchscript
from vfconvert.files import atomic_path
from vfconvert.lowering.costs import CostTable
from vfconvert.nn import VersatileConv2d
from vfconvert.ops.crops import crops_and_levels
from vfconvert.plan_file import write_plan
from vfconvert.quantizing import quantize_int8, to_fp16
from vfconvert.reporting.frontier_plot import draw_frontier
from vfconvert.reporting.writing import write_report
from vfconvert.specs import ConvGeometry, VersatileSpec
from vfconvert.training.checkpoint import NAME, read_checkpoint, write_checkpoint
from vfconvert.training.watching import LOG, Log

ROOM = 64  # bytes


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Within, no file of this process grows beyond a few bytes: `write` fails as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    crops, levels = crops_and_levels((3, 3), "squares")
    geometry = ConvGeometry(in_channels=3, out_channels=4, kernel_size=(3, 3))
    return nn.Sequential(VersatileConv2d(geometry, VersatileSpec(crops=crops, levels=levels)), nn.ReLU()).eval()


EXAMPLE = torch.zeros(1, 3, 6, 6)
WRITERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "ONNX": ("m.onnx", lambda path: export_onnx(network(), EXAMPLE, path, metadata={})),
    "TorchScript": ("m.ts", lambda path: export_torchscript(network(), EXAMPLE, path, metadata={})),
    "torch.export": ("m.pt2", lambda path: export_program(network(), EXAMPLE, path, metadata={})),
    "safetensors": (
        "m.safetensors",
        lambda path: write_safetensors(
            network(), path, architecture=None, architecture_arguments={}, input_shape=(3, 6, 6), metadata={}
        ),
    ),
    "report": ("r.json", lambda path: write_report(FULL, path)),
    "plan": ("p.json", lambda path: write_plan(planned(), path, source_sha256=SHA)),
    "costs": ("c.json", lambda path: CostTable(threads=1).write(path)),
    "picture": ("f.svg", lambda path: draw_frontier(INSPECTED, path)),
    "demo's model": ("m.pt", lambda path: demo_steps.train_model(path.parent, path, 0, lambda *_: None)),
}


@pytest.fixture(autouse=True)
def _no_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_steps, "_read", lambda _: (EXAMPLE, torch.zeros(1)))
    monkeypatch.setattr(demo_steps, "train_network", lambda *_, **__: network())


@pytest.mark.parametrize("writer", WRITERS)
def test_full_disk_leaves_what_was_there(writer: str, tmp_path: Path) -> None:
    name, write = WRITERS[writer]
    path = tmp_path / name
    path.write_text("old")
    said = (
        rf"^cannot write {re.escape(str(path.with_suffix('')))}\.\w+: file too large; make room or choose another path$"
    )
    with pytest.raises(UnwritableOutputError, match=said), full_disk():
        write(path)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [(name, "old")]


@pytest.mark.parametrize("writer", WRITERS)
def test_meta_with_room_the_same_is_written(writer: str, tmp_path: Path) -> None:
    name, write = WRITERS[writer]
    write(tmp_path / name)
    assert (tmp_path / name).stat().st_size > ROOM
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".vfconvert")]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "m.onnx"
    export_onnx(network(), EXAMPLE, path, metadata={})
    return path


@pytest.mark.parametrize("convert", [to_fp16, quantize_int8])
def test_full_disk_leaves_no_smaller_precision(convert, source: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # What ONNX Runtime itself writes on the way fails without saying that it was for want of room.
    with pytest.raises((UnwritableOutputError, ExportError), match=r"too large|quantizing failed"), full_disk():
        convert(source, tmp_path / "small.onnx", torch.randn(4, 3, 6, 6))
    assert list(tmp_path.iterdir()) == []


def test_damage_that_cannot_be_kept_is_no_error(tmp_path: Path) -> None:
    with full_disk():
        assert not write_harms(tmp_path / "m.damage.json", "key", HARMS, "nats")
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_before_is_kept_and_told_of(tmp_path: Path) -> None:
    write_checkpoint(STATE, tmp_path)
    said = r"file too large; make room or choose another path; --resume goes on from the checkpoint before$"
    with pytest.raises(UnwritableOutputError, match=said), full_disk():
        write_checkpoint(STATE, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert read_checkpoint(tmp_path).step == STATE.step


def test_log_keeps_its_lines(tmp_path: Path) -> None:
    log = Log(tmp_path, 0)
    log.write({"step": 1})
    with pytest.raises(UnwritableOutputError, match=r"log\.jsonl: File too large; make room and --resume"), full_disk():
        log.write({"step": 2, "text": "x" * ROOM})
    before = (tmp_path / LOG).read_bytes()
    log = Log(tmp_path, 9)  # what was cut off goes
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert lines == [{"step": 1}]
    assert before.startswith(b'{"step": 1}\n')
    for step in range(2, 12):
        log.write({"step": step})
    with pytest.raises(UnwritableOutputError, match=r"log\.jsonl: file too large"), full_disk():
        Log(tmp_path, 20)
    assert len((tmp_path / LOG).read_text().splitlines()) == 11


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_errors_of_the_disk_are_those_of_the_file(number: int, tmp_path: Path) -> None:
    def write() -> None:
        with atomic_path(tmp_path / "m.onnx") as temporary:
            temporary.write_text("half")
            raise OSError(number, "no")

    with pytest.raises(UnwritableOutputError, match=r"m\.onnx: no; make room"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_errors_of_other_files_pass_through(tmp_path: Path) -> None:
    def read() -> None:
        with atomic_path(tmp_path / "m.onnx"):
            (tmp_path / "none").read_text()

    with pytest.raises(FileNotFoundError, match="none"):
        read()


def test_errors_of_ours_name_the_target(tmp_path: Path) -> None:
    def check() -> None:
        with atomic_path(tmp_path / "m.onnx") as outer, atomic_path(outer) as inner:
            raise ExportError(f"{inner} in {inner.parent} is not valid")

    with pytest.raises(ExportError, match=f"^{tmp_path}/m.onnx in {tmp_path} is not valid$"):
        check()


def test_full_disk_shows_when_it_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network disks tell only then."""

    def late(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "m.onnx").write_text("old")
    monkeypatch.setattr("os.fsync", late)

    def write() -> None:
        with atomic_path(tmp_path / "m.onnx") as temporary:
            temporary.write_text("new")

    with pytest.raises(UnwritableOutputError, match="no space left on device"):
        write()
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("m.onnx", "old")]
