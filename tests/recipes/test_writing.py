"""The file holds each number once and little besides, and is complete or absent."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.recipes.helpers import Small, header_of, write
from vfconvert.errors import ExportError, UnwritableOutputError, VfconvertError


def test_file_has_little_besides_the_numbers(stored_resnet: Path, resnet: nn.Module) -> None:
    statistics = sum(buffer.numel() for buffer in resnet.buffers() if buffer.is_floating_point())
    floats = sum(parameter.numel() for parameter in resnet.parameters()) + statistics
    assert stored_resnet.stat().st_size <= 1.03 * 4 * floats + 64 * 1024


def test_recipe_is_beside_the_file_and_each_tensor_is_in_it_once(stored: Path) -> None:
    header, numbers = header_of(stored)
    beside = json.loads(stored.with_suffix(".json").read_text())
    assert beside == json.loads(header["__metadata__"]["vfconvert"])
    assert sorted(path.name for path in stored.parent.iterdir()) == ["model.json", "model.safetensors"]
    assert (beside["schema"], beside["input_shape"], beside["metadata"]) == (1, [3, 16, 16], {"seed": "3"})
    assert [layer["name"] for layer in beside["layers"]] == ["block.0", "grouped"]
    assert beside["shared"]["tied.weight"] == "last.weight"
    assert beside["shared"]["again.0.weight"] == "block.0.weight"
    assert not set(beside["shared"]) & set(header)
    assert {header[f"block.0.{name}"]["dtype"] for name in ("rows", "order")} == {"I16"}
    assert len(numbers) == max(entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__")


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"variants": {"stem": "full"}}, ExportError, "'stem' is no versatile layer; the first is 'block.0'"),
        ({"variants": {"grouped": "fast"}}, ExportError, "variant: got 'fast', expected one of segments"),
        ({"architecture_arguments": {"norm": nn.ReLU}}, ExportError, "not JSON serializable"),
        ({"input_shape": (3, 16)}, ExportError, "input_shape: got 2 entries, expected 3"),
        ({"readable": Path("no/such/folder.json")}, UnwritableOutputError, "does not exist"),
    ],
)
def test_write_refuses(
    student: nn.Module, tmp_path: Path, changes: dict[str, Any], error: type[VfconvertError], said: str
) -> None:
    with pytest.raises(error, match=f"^[^\n]*{said}[^\n]*$"):
        write(student, tmp_path / "model.safetensors", **changes)
    assert list(tmp_path.iterdir()) == []


def test_write_refuses_network_and_name(original: Small, student: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="Small contains no versatile layer"):
        write(original, tmp_path / "model.safetensors")
    with pytest.raises(UnwritableOutputError, match="its recipe has this name"):
        write(student, tmp_path / "model.json")
    sparse = copy.deepcopy(student)
    sparse.register_buffer("extra", torch.eye(3).to_sparse())
    with pytest.raises(ExportError, match=r"^extra of the network is no dense tensor[^\n]*$"):
        write(sparse, tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []
