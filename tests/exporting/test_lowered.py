"""Lowered networks as files: small, of standard operators, the same in every runtime and at every size."""

import math
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from tests.lowering.nets import WISHES, Mixed, Plain, Residual, converted
from tests.references import assert_close_enough
from vfconvert.errors import ExportError, ParityError
from vfconvert.exporting.onnx import export_onnx
from vfconvert.lowering.network import lower
from vfconvert.verification import verify_onnx

# All of these are in the lists of supported operators of TensorRT's and of OpenVINO's ONNX importers.
_OPERATORS = """
    Add AveragePool BatchNormalization Cast Clip Concat Constant Conv Div Expand Flatten Gather Gemm GlobalAveragePool
    HardSigmoid HardSwish Identity LeakyRelu MatMul MaxPool Mul Pad ReduceMean Relu Reshape Resize Shape Sigmoid Slice
    Split Squeeze Sub Tanh Transpose Unsqueeze
"""
SUPPORTED = frozenset(_OPERATORS.split())


def lowered(network: nn.Module, shape: tuple[int, ...], wish: str):
    torch.manual_seed(0)
    student, graph = converted(network, torch.randn(shape, dtype=torch.float64), WISHES[wish])
    student = student.float()
    return student, lower(student, graph).model


@pytest.mark.parametrize(
    ("network", "shape", "wish"),
    [(Residual, (2, 3, 12, 12), "both"), (Mixed, (2, 3, 14, 14), "three windows"), (Plain, (2, 1, 9, 9), "lines")],
)
def test_the_file_computes_what_the_trainable_network_does(network, shape, wish, tmp_path):
    student, model = lowered(network(), shape, wish)
    path = tmp_path / "a.onnx"
    export_onnx(model, torch.randn(1, *shape[1:]), path, metadata={})
    parity = verify_onnx(path, student, torch.randn(4, *shape[1:]))
    assert parity.relative_error < 1e-5
    assert {node.op_type for node in onnx.load(str(path)).graph.node} <= SUPPORTED


def test_the_bank_stands_once_in_the_file(tmp_path):
    student, model = lowered(Residual(), (2, 3, 12, 12), "both")
    path = tmp_path / "a.onnx"
    export_onnx(model, torch.randn(1, 3, 12, 12), path, metadata={})
    tensors = [tuple(t.dims) for t in onnx.load(str(path)).graph.initializer if len(t.dims) == 4]
    stored = sorted(shape for shape in tensors if math.prod(shape) > 256)  # smaller slices may be stored as such
    assert stored == sorted(tuple(p.shape) for p in student.parameters() if p.dim() == 4 and p.numel() > 256)


def test_a_file_of_any_size_is_compared_at_other_sizes(tmp_path):
    student, model = lowered(Plain(), (2, 1, 9, 9), "both")
    path = tmp_path / "a.onnx"
    export_onnx(model, torch.randn(1, 1, 9, 9), path, metadata={}, dynamic_size=True)
    given = onnx.load(str(path)).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in given] == ["batch", 1, "height", "width"]
    images = torch.randn(3, 1, 9, 9)
    assert verify_onnx(path, student, images, sizes=((13, 11), (9, 12))).relative_error < 1e-5
    with torch.no_grad():
        next(student.parameters()).mul_(3)
    with pytest.raises(ParityError, match="relative error"):
        verify_onnx(path, student, images, sizes=((13, 11),))


class Fixed(nn.Module):
    """Takes one size only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.conv(x).flatten(1))


def test_a_network_of_one_size_says_so(tmp_path):
    with pytest.raises(ExportError, match="leave out --dynamic-size"):
        export_onnx(Fixed().eval(), torch.randn(1, 3, 6, 6), tmp_path / "a.onnx", metadata={}, dynamic_size=True)
    assert list(tmp_path.iterdir()) == []


def test_openvino_gives_the_same_numbers(tmp_path: Path):
    openvino = pytest.importorskip("openvino")
    student, model = lowered(Residual(), (2, 3, 12, 12), "both")
    path = tmp_path / "a.onnx"
    export_onnx(model, torch.randn(1, 3, 12, 12), path, metadata={})
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for batch in (1, 3):
        x = torch.randn(batch, 3, 12, 12)
        with torch.no_grad():
            assert_close_enough(torch.from_numpy(compiled(x.numpy())[0]), student(x), tolerance=1e-4)
