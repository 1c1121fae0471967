"""Every file that does not fit is refused in one line that says what is wrong."""

import copy
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vfconvert
from tests.recipes.helpers import Small, header_of, put, retold, write
from vfconvert.errors import (
    ArchitectureError,
    ArchitectureNeededError,
    EmptyModelError,
    IllegalSpecError,
    InputShapeError,
    NotAModelError,
    StateDictMismatchError,
    TruncatedModelError,
    UnsupportedModelError,
    UntrustedModelError,
    VfconvertError,
)


def _layer(key: str, value: Any, *inner: str) -> Any:
    def change(recipe: dict[str, Any]) -> None:
        target = recipe["layers"][0]
        for name in inner:
            target = target[name]
        target[key] = value

    return change


def _top(key: str, value: Any) -> Any:
    return lambda recipe: recipe.__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (_top("schema", 2), UnsupportedModelError, "recipe schema 2, expected 1"),
        (_top("schema", "1"), TruncatedModelError, "recipe.schema: got '1', expected a number"),
        (lambda r: r.pop("layers"), TruncatedModelError, "recipe has no 'layers'"),
        (_top("layers", []), TruncatedModelError, "recipe.layers is empty"),
        (lambda r: r["layers"].append(r["layers"][0]), TruncatedModelError, "a name that no other layer has"),
        (_top("more", 1), TruncatedModelError, "recipe has an unknown 'more'"),
        (_top("input_shape", [3, 16]), TruncatedModelError, "input_shape: got 2 entries, expected 3"),
        (_top("input_shape", [3, 0, 16]), TruncatedModelError, "input_shape: got .*, expected numbers above 0"),
        (_top("metadata", {"a": 1}), TruncatedModelError, r"metadata\['a'\]: got 1, expected a text"),
        (_layer("windows", True, "spec"), TruncatedModelError, r"layers\[0\].spec.windows: got True"),
        (_layer("padding", [1], "geometry"), TruncatedModelError, r"geometry.padding: got \[1\], expected a text"),
        (_layer("groups", 0, "geometry"), TruncatedModelError, "numbers above 0"),
        (_layer("variant", "fast"), TruncatedModelError, "variant: got 'fast', expected one of segments"),
        (_layer("windows", 17, "spec"), IllegalSpecError, "layer 'block.0': channel stride: got 4, expected 1 to 0"),
        (_layer("levels", [[9]], "spec"), IllegalSpecError, "a level names a crop beyond"),
        (_layer("levels", [[0]] * 99, "spec"), IllegalSpecError, "more crops or levels than"),
        (_layer("out_channels", 10**9, "geometry"), StateDictMismatchError, "differs from the Conv2d"),
        (_layer("name", "gone"), StateDictMismatchError, "layer 'gone' is not there"),
        (_layer("name", "bn"), StateDictMismatchError, "layer 'bn' is a BatchNorm2d"),
        (_layer("scale", True), StateDictMismatchError, r"has no tensor 'block.0.scale' \(2 such\)"),
        (_layer("order", False), StateDictMismatchError, "has an unexpected tensor 'block.0.order'"),
        (_layer("channel_stride", 5, "spec"), None, ""),
        (_layer("windows", 1, "spec"), StateDictMismatchError, r"'block.0.weight' is \(6, 16, 3, 3\), expected \(16,"),
        (lambda r: r["shared"].update({"tied.weight": "gone"}), TruncatedModelError, "cannot be shared with 'gone'"),
        (lambda r: r["shared"].update({"tied.weight": "stem.weight"}), StateDictMismatchError, "'tied.weight' is"),
        (lambda r: r["shared"].update({"tied.bias": "last.bias"}), TruncatedModelError, "'tied.bias' cannot be shared"),
    ],
)
def test_load_refuses_recipe(
    stored: Path, original: Small, tmp_path: Path, change: Any, error: type[VfconvertError] | None, said: str
) -> None:
    path = retold(stored, tmp_path / "model.safetensors", change)
    if error is None:
        assert vfconvert.load(path, like=original) is not None
        return
    with pytest.raises(error, match=f"^[^\n]*{said}[^\n]*$"):
        vfconvert.load(path, like=original)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (_top("architecture", None), ArchitectureNeededError, "is not named.*give the original network with like="),
        (_top("architecture", "evil.py:make"), ArchitectureNeededError, "is 'evil.py:make', and only those of"),
        (_top("architecture", "os:system"), ArchitectureNeededError, "only those of torchvision and timm"),
        (_top("architecture", "torchvision:resnet19"), ArchitectureError, "torchvision has no 'resnet19'"),
        (_top("architecture_arguments", {"weights": "DEFAULT"}), UntrustedModelError, "'weights' would fetch"),
        (_top("architecture_arguments", {"checkpoint_path": "x"}), UntrustedModelError, "'checkpoint_path' would"),
        (_top("architecture_arguments", {"classes": 7}), ArchitectureError, "unexpected keyword argument"),
        (_top("architecture_arguments", {"num_classes": 10**11}), StateDictMismatchError, r"'fc.weight' is \(7, 512\)"),
    ],
)
def test_load_refuses_architecture(
    stored_resnet: Path, tmp_path: Path, change: Any, error: type[VfconvertError], said: str
) -> None:
    path = retold(stored_resnet, tmp_path / "model.safetensors", change)
    with pytest.raises(error, match=f"^[^\n]*{said}[^\n]*$"):
        vfconvert.load(path)


@pytest.mark.parametrize(
    ("architecture", "arguments", "error", "said"),
    [
        ("torchvision:resnet50", {"width_per_group": 10**6}, StateDictMismatchError, "differs from the Conv2d"),
        ("timm:resnet18", {"layers": [10**9, 2, 2, 2]}, ArchitectureError, "more than [0-9]+ modules"),
    ],
    ids=["wide", "deep"],
)
def test_load_refuses_architecture_without_building_it(
    stored_resnet: Path, tmp_path: Path, architecture: str, arguments: Any, error: type[VfconvertError], said: str
) -> None:
    def change(recipe: dict[str, Any]) -> None:
        recipe.update(architecture=architecture, architecture_arguments=arguments)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(error, match=said):
        vfconvert.load(retold(stored_resnet, tmp_path / "model.safetensors", change))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 * 1024  # KiB


def _renamed(header: dict[str, Any]) -> None:
    header["stem.wait"] = header.pop("stem.weight")


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (_renamed, StateDictMismatchError, r"has no tensor 'stem.weight' \(1 such\)"),
        (lambda h: h["stem.weight"].update(dtype="I32"), StateDictMismatchError, "'stem.weight' is torch.int32"),
        (lambda h: h["stem.weight"].update(shape=[16, 27]), StateDictMismatchError, r"'stem.weight' is \(16, 27\)"),
        (lambda h: h["stem.weight"].update(shape=[10**12]), TruncatedModelError, "not a complete safetensors file"),
        (lambda h: h["__metadata__"].pop("vfconvert"), NotAModelError, "has no recipe in its header"),
        (lambda h: h.pop("__metadata__"), NotAModelError, "has no recipe in its header"),
        (lambda h: h["__metadata__"].update(vfconvert="["), TruncatedModelError, "no JSON"),
        (lambda h: h["__metadata__"].update(vfconvert="[" * 10**6), TruncatedModelError, "no JSON"),
        (lambda h: h["__metadata__"].update(vfconvert="[]"), TruncatedModelError, "expected an object"),
        (lambda h: h["__metadata__"].update(vfconvert="1" * 9999), TruncatedModelError, "no JSON"),
    ],
)
def test_load_refuses_header(
    stored: Path, original: Small, tmp_path: Path, change: Any, error: type[VfconvertError], said: str
) -> None:
    header, numbers = header_of(stored)
    change(header)
    with pytest.raises(error, match=f"^[^\n]*{said}[^\n]*$"):
        vfconvert.load(put(tmp_path / "model.safetensors", header, numbers), like=original)


def _set(name: str, value: int) -> Any:
    return lambda model: model.get_submodule("block.0").get_buffer(name).__setitem__(0, value)


def _swapped(model: nn.Module) -> None:
    model.get_submodule("grouped").rows.copy_(model.get_submodule("grouped").rows.flip(0))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_set("rows", -1), "'block.0': rows outside 0 to"),
        (_set("rows", 30_000), "'block.0': rows outside 0 to"),
        (_set("rows", 70_000), "'block.0': rows outside 0 to"),
        (_set("order", 16), "'block.0': order names a channel twice or not at all"),
        (_swapped, "'grouped': rows of another group's filters"),
    ],
    ids=["negative", "large", "int32", "order", "groups"],
)
def test_load_refuses_indices(original: Small, student: nn.Module, tmp_path: Path, change: Any, said: str) -> None:
    model = copy.deepcopy(student)
    change(model)
    with pytest.raises(TruncatedModelError, match=said):
        vfconvert.load(write(model, tmp_path / "model.safetensors"), like=original)


def test_load_refuses_other_files(stored: Path, original: Small, student: nn.Module, tmp_path: Path) -> None:
    path, data = tmp_path / "model.safetensors", stored.read_bytes()
    with pytest.raises(NotAModelError, match="no such file"):
        vfconvert.load(path)
    torch.save(student.state_dict(), tmp_path / "model.pt")
    with pytest.raises(NotAModelError, match=r"is torch.save's archive, expected a .safetensors file that vfconvert"):
        vfconvert.load(tmp_path / "model.pt", like=original)
    for cut, error in ((0, EmptyModelError), (5, TruncatedModelError), (500, TruncatedModelError), (-1, None)):
        path.write_bytes(data[:cut])
        with pytest.raises(error or TruncatedModelError, match=r"^[^\n]*download or save it again$"):
            vfconvert.load(path, like=original)


def test_load_refuses_another_network(stored: Path, original: Small) -> None:
    other = copy.deepcopy(original)
    other.last = nn.Linear(32, 6)
    other.tied = other.last
    with pytest.raises(StateDictMismatchError, match=r"'last.weight' is \(5, 32\), expected \(6, 32\)"):
        vfconvert.load(stored, like=other)
    other = copy.deepcopy(original)
    other.tied.bias = other.last.bias
    with pytest.raises(StateDictMismatchError, match=r"'tied.bias' and 'last.bias' are one tensor"):
        vfconvert.load(stored, like=other)
    other = copy.deepcopy(original)
    other.tied.weight = nn.Parameter(torch.zeros(5, 32))
    again = vfconvert.load(stored, like=other)
    assert torch.equal(again.tied.weight, again.last.weight)
    assert again.tied.weight.data_ptr() != again.last.weight.data_ptr()
    with pytest.raises(ArchitectureError, match="like= is on the meta device"):
        vfconvert.load(stored, like=copy.deepcopy(original).to("meta"))


class Deciding(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


def test_lowered_refuses_what_it_cannot_trace_or_run(stored: Path, original: Small, tmp_path: Path) -> None:
    deciding = Deciding().eval()
    with pytest.raises(UnsupportedModelError, match="control flow cannot be traced; load it without lowered="):
        vfconvert.load(stored, like=deciding, lowered=True)
    with pytest.raises(InputShapeError, match="the network rejects an input of 1x4x9x9"):
        vfconvert.load(stored, like=original, lowered=True, example=torch.zeros(1, 4, 9, 9))
    huge = retold(stored, tmp_path / "model.safetensors", _top("input_shape", [3, 10**9, 10**9]))
    with pytest.raises(InputShapeError, match="give one with example="):
        vfconvert.load(huge, like=original, lowered=True)
    assert vfconvert.load(huge, like=original) is not None
