"""ONNX files of a few nodes, and what ONNX Runtime computes with them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from vfconvert.loading.onnx_file import read_onnx

NUMBERS = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return NUMBERS.standard_normal(shape).astype(np.float32)


def saved(
    path: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], *, opset: int = 18, batch: Any = 1
) -> Path:
    """A file with the input "x" (batch, 4, 8, 8) and the output "y"."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def run(path: Path, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    found: np.ndarray = onnxruntime.InferenceSession(str(path), options).run(None, {"x": images})[0]
    return found


def assert_alike(path: Path) -> nn.Module:
    """The imported network gives ONNX Runtime's outputs, for three images what it gives for each."""
    images, network = floats(3, 4, 8, 8), read_onnx(path).module
    with torch.no_grad():
        got = network(torch.from_numpy(images)).numpy()
    wanted = np.concatenate([run(path, images[i : i + 1]) for i in range(3)])
    assert got.dtype == wanted.dtype
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-5)
    return network


def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), output.split(), **attributes)
