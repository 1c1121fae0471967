"""The file is a program that computes what the network computes, holds every tensor once and says how it was made."""

import json
import struct
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.exporting.archives import (
    IMAGES,
    METADATA,
    Returning,
    assert_banks_kept,
    assert_stored_once,
    bytes_of,
    state_of,
)
from vfconvert.errors import ExportError, UnwritableOutputError
from vfconvert.exporting.exported_program import export_program


@dataclass(frozen=True)
class Export:
    path: Path
    dynamic_batch: bool
    before: list[tuple]
    after: list[tuple]


@dataclass(frozen=True)
class Loaded:
    program: torch.export.ExportedProgram
    module: nn.Module
    metadata: str


@pytest.fixture(scope="module")
def export(lowered: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The one export that most tests look at, of a network in train mode and an example of one image."""
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    lowered.train()
    next(lowered.children()).eval()
    before = state_of(lowered)
    dynamic_batch = export_program(lowered, IMAGES[:1], path, metadata=METADATA)
    after = state_of(lowered)
    lowered.eval()
    return Export(path, dynamic_batch, before, after)


def _stored(path: Path) -> list[bytes]:
    """The bytes of every tensor in the archive."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if "/data/" in name and not name.endswith(".json")]
        return [archive.read(name) for name in names]


@pytest.fixture(scope="module")
def loaded(export: Export) -> Loaded:
    """Read once, since that takes seconds."""
    extra_files = {"vfconvert.json": ""}
    program = torch.export.load(export.path, extra_files=extra_files)
    return Loaded(program, program.module(), extra_files["vfconvert.json"])


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_file_computes_what_the_network_computes(loaded: Loaded, lowered: nn.Module, batch: int) -> None:
    with torch.no_grad():
        expected, got = lowered(IMAGES[:batch]), loaded.module(IMAGES[:batch])
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_metadata_is_read_back(loaded: Loaded) -> None:
    assert json.loads(loaded.metadata) == METADATA


def test_file_holds_every_tensor_once_and_no_expanded_weight(
    export: Export, lowered: nn.Module, versatile_network: nn.Module
) -> None:
    assert_stored_once(export.path, _stored(export.path), lowered, versatile_network)


def test_layers_that_are_not_lowered_keep_their_banks(versatile_network: nn.Module, tmp_path: Path) -> None:
    export_program(versatile_network, IMAGES[:2], tmp_path / "model.pt2", metadata={})
    stored = _stored(tmp_path / "model.pt2")
    assert_banks_kept(stored, versatile_network)


def test_weights_are_aligned_and_only_text_is_deflated(export: Export) -> None:
    content = export.path.read_bytes()
    with zipfile.ZipFile(export.path) as archive:
        assert archive.testzip() is None
        for record in archive.infolist():
            assert (record.compress_type == zipfile.ZIP_DEFLATED) == record.filename.endswith(".json")
            name, extra = struct.unpack_from("<HH", content, record.header_offset + 26)
            begin = record.header_offset + 30 + name + extra
            assert record.filename.endswith(".json") or begin % 64 == 0
            assert record.filename.endswith(".json") or content[begin:].startswith(archive.read(record))


def test_file_tells_nothing_of_the_source_and_the_example(export: Export, loaded: Loaded) -> None:
    with zipfile.ZipFile(export.path) as archive:
        text = b"".join(archive.read(name) for name in archive.namelist())
    assert str(Path(__file__).parent.parent).encode() not in text
    assert b"stack_trace" not in text
    assert bytes_of(IMAGES[0])[:64] not in text
    torch.export.unflatten(loaded.program)  # reads which module each node is of


def test_export_leaves_the_network_as_it_was(export: Export) -> None:
    assert export.dynamic_batch
    assert export.before == export.after
    assert {True, False} == {entry[1] for entry in export.before if isinstance(entry[1], bool)}
    assert list(export.path.parent.iterdir()) == [export.path]


class Tied(nn.Module):
    """One weight under two names, and a view of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.part = (nn.Linear(16, 16, bias=False) for _ in range(3))
        self.second.weight, self.part.weight = self.first.weight, nn.Parameter(self.first.weight.detach()[:8])

    def forward(self, x: Tensor) -> Tensor:
        return self.part(self.second(self.first(x)))


def test_shared_tensors_are_stored_once(tmp_path: Path) -> None:
    assert export_program(Tied(), IMAGES[:2], tmp_path / "model.pt2", metadata={})
    assert [len(tensor) for tensor in _stored(tmp_path / "model.pt2") if len(tensor) > 64] == [16 * 16 * 4]


def test_outputs_keep_their_structure(tmp_path: Path) -> None:
    model, example = Returning(lambda y: {"out": y, "aux": None, "all": (y + 1, [y + 2])}), IMAGES[:2].clone()
    assert export_program(model, example, tmp_path / "model.pt2", metadata={})
    assert torch.equal(example, IMAGES[:2])
    with torch.no_grad():
        got, expected = torch.export.load(tmp_path / "model.pt2").module()(IMAGES.clone()), model(IMAGES.clone())
    assert list(got) == ["out", "aux", "all"]
    assert got["aux"] is None
    torch.testing.assert_close(got["out"], expected["out"])
    torch.testing.assert_close(got["all"], expected["all"])


def test_network_that_fixes_the_batch_is_written_for_that_batch(tmp_path: Path) -> None:
    model, path = Returning(lambda y: y.view(2, -1)), tmp_path / "model.pt2"
    assert not export_program(model, IMAGES[:2], path, metadata={})
    with torch.no_grad():
        program = torch.export.load(path).module()
        torch.testing.assert_close(program(IMAGES[:2].clone()), model(IMAGES[:2].clone()))
        with pytest.raises(RuntimeError, match=r"shape\[0\] to be equal to 2, but got 3"):
            program(IMAGES[:3].clone())


def test_export_refuses_untraceable_network_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, filters = Returning(lambda y: y if y.sum() > 0 else -y).train(), list(warnings.filters)
    with pytest.raises(ExportError, match=r"^torch.export failed: GuardOnDataDependent[^\n]*rewritten there$"):
        export_program(model, IMAGES[:1], tmp_path / "model.pt2", metadata={})
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert list(warnings.filters) == filters
    assert all(module.training for module in model.modules())


def test_export_refuses_unwritable_path_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UnwritableOutputError, match="does not exist"):
        export_program(nn.Identity(), IMAGES[:1], tmp_path / "no" / "model.pt2", metadata={})
