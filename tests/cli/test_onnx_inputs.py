"""ONNX files whose input is not the usual one: channels last, odd names, fixed sizes and batches, other types."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.cli.conftest import invoke
from tests.loading.onnx_samples import floats, node
from vfconvert.loading import load_model

FAST = ("--spatial", "--no-reconstruct", "--no-measure", "--calibration-images", 16)


def written(path: Path, shape: list[Any], *, kind: int = TensorProto.FLOAT) -> Path:
    """A classifier whose input "images:0" has this shape."""
    last = shape[-1] == 3
    numbers = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    weights = {"a": floats(8, 3, 3, 3), "b": floats(8, 8, 3, 3), "c": floats(8, 5)}
    nodes = [
        *([node("Transpose", "images:0", "x", perm=[0, 3, 1, 2])] if last else [node("Identity", "images:0", "x")]),
        node("Conv", "x a", "p", pads=[1, 1, 1, 1]),
        node("Relu", "p", "q"),
        node("Conv", "q b", "r"),
        node("GlobalAveragePool", "r", "s"),
        node("Flatten", "s", "t"),
        node("Gemm", "t c", "y"),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images:0", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array((value / 4).astype(numbers), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.filterwarnings("ignore")
def test_channels_last_become_channels_first_and_the_report_says_so(tmp_path: Path) -> None:
    model, output = written(tmp_path / "model.onnx", ["n", 12, 14, 3]), tmp_path / "small.onnx"
    result = invoke(model, *FAST, "-o", output, exit_code=0)
    assert "takes images with their channels last" in " ".join(result.output.split())
    session = onnxruntime.InferenceSession(str(output))
    assert session.get_inputs()[0].shape[1:] == [3, 12, 14]
    images = floats(2, 3, 12, 14)
    network = load_model(model).model
    wanted = onnxruntime.InferenceSession(str(model)).run(None, {"images:0": images.transpose(0, 2, 3, 1)})[0]
    np.testing.assert_allclose(network(torch.from_numpy(images)).detach().numpy(), wanted, rtol=1e-4, atol=1e-5)
    assert "permute" not in network.code  # there and back again is left out
    assert "Transpose" not in [entry.op_type for entry in onnx.load(output).graph.node]


@pytest.mark.parametrize(
    ("shape", "kind"),
    [([4, 3, 12, 14], TensorProto.FLOAT), (["n", 3, 12, 14], TensorProto.FLOAT16)],
    ids=["four images", "half precision"],
)
def test_a_file_is_compared_as_its_input_is(tmp_path: Path, shape: list[Any], kind: int) -> None:
    model = written(tmp_path / "model.onnx", shape, kind=kind)
    result = invoke(model, "--spatial", "--dry-run", exit_code=0)
    assert "nothing is written" in result.output
    (images,) = load_model(model).inputs
    assert (images.name, images.shape, images.channels_last) == ("images:0", (3, 12, 14), False)


@pytest.mark.parametrize(
    ("shape", "kind", "options", "code", "said"),
    [
        (
            [1, 3, 12, 14],
            TensorProto.FLOAT,
            ("--size", "16"),
            20,
            "its input 'images:0' is 3 x 12 x 14, got 3 x 16 x 16",
        ),
        ([1, 3, 12, 14], TensorProto.UINT8, (), 26, "its input 'images:0' is of type uint8"),
        ([1, 3, 12], TensorProto.FLOAT, (), 26, "its input 'images:0' has 3 axes, expected 4"),
    ],
    ids=["size", "type", "axes"],
)
def test_an_input_that_is_no_image_is_refused_in_one_line(
    tmp_path: Path, shape: list[Any], kind: int, options: tuple[str, ...], code: int, said: str
) -> None:
    result = invoke(written(tmp_path / "model.onnx", shape, kind=kind), "--spatial", *options, exit_code=code)
    assert said in result.output
    assert len(result.output.strip().splitlines()) == 1
