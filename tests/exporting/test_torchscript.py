"""The file is a trace that computes what the network computes, holds every tensor once and says how it was made."""

import json
import warnings
import zipfile
from collections.abc import Callable
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
from vfconvert.exporting.torchscript import METADATA_FILE, export_torchscript
from vfconvert.nn import VersatileConv2d
from vfconvert.silence import silenced


@dataclass(frozen=True)
class Export:
    path: Path
    before: list[tuple]
    after: list[tuple]


@pytest.fixture(scope="module")
def export(lowered: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The one export that most tests look at, of a network in train mode."""
    path = tmp_path_factory.mktemp("torchscript") / "model.pt"
    lowered.train()
    next(lowered.children()).eval()
    before = state_of(lowered)
    export_torchscript(lowered, IMAGES[:1], path, metadata=METADATA)
    after = state_of(lowered)
    lowered.eval()
    return Export(path, before, after)


def _load(path: Path, extra_files: dict[str, str] | None = None) -> nn.Module:
    with silenced():
        return torch.jit.load(str(path), _extra_files=extra_files)


def _stored(path: Path) -> list[bytes]:
    """The bytes of every tensor in the archive."""
    with zipfile.ZipFile(path) as archive:
        return [archive.read(name) for name in archive.namelist() if "/data/" in name or "/constants/" in name]


@pytest.mark.parametrize(("batch", "size"), [(1, (16, 16)), (2, (16, 16)), (5, (24, 20))])
def test_file_computes_what_the_network_computes(
    export: Export, lowered: nn.Module, batch: int, size: tuple[int, int]
) -> None:
    images = nn.functional.interpolate(IMAGES[:batch], size=size)
    with torch.no_grad():
        expected, got = lowered(images), _load(export.path)(images)
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_metadata_is_read_back(export: Export) -> None:
    found = {METADATA_FILE: ""}
    _load(export.path, found)
    assert json.loads(found["vfconvert.json"]) == METADATA


def test_file_holds_every_tensor_once_and_no_expanded_weight(
    export: Export, lowered: nn.Module, versatile_network: nn.Module
) -> None:
    assert_stored_once(export.path, _stored(export.path), lowered, versatile_network)


def test_meta_an_expanded_weight_and_a_missing_bank_are_seen(
    export: Export, lowered: nn.Module, versatile_network: nn.Module
) -> None:
    stored, layer = _stored(export.path), next(m for m in versatile_network.modules() if isinstance(m, VersatileConv2d))
    expanded = bytes_of(layer.expanded_weight())
    with pytest.raises(AssertionError, match="more than the weights"):
        assert_stored_once(export.path, [*stored, expanded], lowered, versatile_network)
    with pytest.raises(AssertionError, match="a bank is missing"):
        assert_stored_once(export.path, [], lowered, versatile_network)
    with pytest.raises(AssertionError, match="a bank is missing or stored again"):
        assert_banks_kept([bytes_of(layer.weight)] * 2, versatile_network)


def test_layers_that_are_not_lowered_keep_their_banks(versatile_network: nn.Module, tmp_path: Path) -> None:
    export_torchscript(versatile_network, IMAGES[:1], tmp_path / "model.pt", metadata={})
    stored = _stored(tmp_path / "model.pt")
    assert_banks_kept(stored, versatile_network)


def test_export_leaves_the_network_as_it_was(export: Export) -> None:
    assert export.before == export.after
    assert {True, False} == {entry[1] for entry in export.before if isinstance(entry[1], bool)}
    assert list(export.path.parent.iterdir()) == [export.path]


class Tied(nn.Module):
    """One weight under two names, and a view of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.part = (nn.Linear(64, 64, bias=False) for _ in range(3))
        self.second.weight, self.part.weight = self.first.weight, nn.Parameter(self.first.weight.detach()[:32])
        self.again = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.part(self.again(self.second(self.first(x))))


def test_shared_tensors_are_stored_once(tmp_path: Path) -> None:
    export_torchscript(Tied(), torch.rand(2, 64), tmp_path / "model.pt", metadata={})
    assert [len(tensor) for tensor in _stored(tmp_path / "model.pt") if len(tensor) > 64] == [64 * 64 * 4]


STRUCTURES = {
    "mapping": (lambda y: {"out": y, "aux": y + 1}, lambda z: z["out"] + 1 - z["aux"], dict),
    "tuple": (lambda y: (y, [y + 1, y + 2]), lambda z: z[0] + 1 - z[1][0], tuple),
    "tuple of a mapping": (lambda y: (y + 1, {"b": y + 1}), lambda z: z[1]["b"] - z[0], tuple),
}


@pytest.mark.parametrize(("make", "zero", "kind"), STRUCTURES.values(), ids=STRUCTURES.keys())
def test_outputs_keep_their_structure(tmp_path: Path, make: Callable, zero: Callable, kind: type) -> None:
    example = IMAGES[:2].clone()
    export_torchscript(Returning(make), example, tmp_path / "model.pt", metadata={})
    assert torch.equal(example, IMAGES[:2])
    with torch.no_grad():
        got = _load(tmp_path / "model.pt")(IMAGES.clone())
    assert type(got) is kind
    assert zero(got).abs().max() <= 1e-5
    assert zero(got).shape == (5, 4, 14, 14)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda y: (y, None), "RuntimeError: Only tensors, lists, tuples"),
        (lambda y: {"out": y, "all": [y]}, "RuntimeError: Tracer cannot infer type"),
        (lambda y: y.view(7, 7), "RuntimeError: shape .* is invalid"),
    ],
    ids=["none", "mixed", "fails"],
)
def test_export_refuses_untraceable_network_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], make: Callable, said: str
) -> None:
    model, filters = Returning(make).train(), list(warnings.filters)
    with pytest.raises(ExportError, match=rf"^TorchScript export failed: {said}[^\n]*of one kind of them$"):
        export_torchscript(model, IMAGES[:1], tmp_path / "model.pt", metadata={})
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert list(warnings.filters) == filters
    assert all(module.training for module in model.modules())


def test_export_refuses_unwritable_path_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UnwritableOutputError, match="does not exist"):
        export_torchscript(nn.Identity(), IMAGES[:1], tmp_path / "no" / "model.pt", metadata={})
