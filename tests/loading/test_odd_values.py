"""Numbers that no layer has, and tensors that are none of torch's plain ones, are refused before anything uses them."""

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from tests.loading.onnx_samples import assert_alike, floats, node, saved
from vfconvert.errors import UnsupportedModelError, UntrustedModelError
from vfconvert.loading import load_model

LARGEST = 2**63 - 1


def padded(padding: Any) -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReplicationPad2d(1), nn.Conv2d(8, 8, 3)).eval()
    vars(model[1])["padding"] = padding
    return model


@pytest.mark.parametrize("padding", [(LARGEST,) * 4, [1, -LARGEST, 1, 1], 2**31])
def test_a_number_of_no_layer_is_refused(tmp_path: Path, padding: Any) -> None:
    torch.save(padded(padding), tmp_path / "m.pt")
    with pytest.raises(UntrustedModelError, match=r"a ReplicationPad2d in it has the number -?[29]\.[12]"):
        load_model(tmp_path / "m.pt")


def test_meta_numbers_of_layers_are_taken(tmp_path: Path) -> None:
    torch.save(padded((2, 0, 1, 1)), tmp_path / "m.pt")
    assert load_model(tmp_path / "m.pt").model(torch.zeros(1, 3, 8, 8)).shape == (1, 8, 8, 8)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name", ["numel", "detach", "data_ptr", "shape_of"])
def test_attributes_in_the_place_of_a_tensors_own_are_refused(tmp_path: Path, name: str, whole: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3))
    setattr(model[0].weight, name, 3)
    torch.save(model if whole else dict(model.named_parameters()), tmp_path / "m.pt")
    (tmp_path / "arch.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 8, 3))\n"
    )
    arch = None if whole else f"{tmp_path / 'arch.py'}:make"
    if name == "shape_of":  # no name of torch's
        assert load_model(tmp_path / "m.pt", architecture=arch).model is not None
        return
    with pytest.raises(UntrustedModelError, match=f"a tensor in it has its own '{name}' in the place of torch's"):
        load_model(tmp_path / "m.pt", architecture=arch)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])}, tmp_path / "m.pt")
    with pytest.raises(UntrustedModelError, match="a tensor in it is nested; save plain tensors"):
        load_model(tmp_path / "m.pt", architecture="torchvision:resnet18")


@pytest.mark.parametrize(
    ("kind", "attributes", "said"),
    [
        ("LayerNormalization", {"axis": LARGEST}, f"'LayerNormalization' has {LARGEST} as 'axis'"),
        ("LayerNormalization", {"axis": -65}, "has -65 as 'axis'"),
        ("Softmax", {"axis": 65}, "has 65 as 'axis'"),
        ("MaxPool", {"kernel_shape": [2, LARGEST]}, f"has {LARGEST} as 'kernel_shape'"),
        ("MaxPool", {"kernel_shape": [2, 2], "strides": [-1, 1]}, "has -1 as 'strides'"),
        ("GatherND", {"batch_dims": -2}, "operator GatherND is not known here"),
    ],
)
def test_numbers_of_nodes_are_looked_at_before_onnx_uses_them(
    tmp_path: Path, kind: str, attributes: dict[str, Any], said: str
) -> None:
    path = saved(tmp_path / "m.onnx", [node(kind, "x w", "y", **attributes)], {"w": floats(8)})
    with pytest.raises(UnsupportedModelError, match=said):
        load_model(path)


def test_functions_are_looked_at_too(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", [node("Conv", "x w", "y")], {"w": floats(8, 4, 3, 3)})
    model = onnx.load(path)
    inner = helper.make_node("Softmax", ["a"], ["b"], axis=LARGEST)
    model.functions.append(helper.make_function("own", "F", ["a"], ["b"], [inner], list(model.opset_import)))
    onnx.save(model, path)
    with pytest.raises(UnsupportedModelError, match=r"'Softmax' has .* as 'axis'"):
        load_model(path)


def test_padding_out_of_a_tensor_is_looked_at(tmp_path: Path) -> None:
    import numpy as np

    pads = {"p": np.array([0, 0, LARGEST, 1, 0, 0, 1, 1]), "w": floats(8, 4, 3, 3)}
    nodes = [node("Pad", "x p", "z", mode="edge"), node("Conv", "z w", "y")]
    with pytest.raises(UnsupportedModelError, match=f"'Pad' pads by {LARGEST}"):
        load_model(saved(tmp_path / "m.onnx", nodes, pads))
    pads["p"][2] = 1
    assert_alike(saved(tmp_path / "fine.onnx", nodes, pads))
