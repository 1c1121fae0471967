"""ONNX in, ONNX out: the written file has the names of the inputs and outputs of the one that was read."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import vfconvert
from tests.loading.onnx_samples import floats, node
from vfconvert.errors import ParityError
from vfconvert.verification import verify_onnx

FAST: dict[str, Any] = {"spatial": True, "reconstruct": False, "measure": False, "calibration_images": 16}
FREE = ["n", 3, 12, 12]
PRECISIONS = ("fp32", "fp16", "int8")
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "int8": 0.2}  # of the largest output


def written(path: Path, inputs: dict[str, list[Any]], outputs: tuple[str, ...], weight: str = "a") -> Path:
    """Two convolutions of the sum of the inputs, their mean, and of a second output the sigmoid of that."""
    given = [name if shape[1] == 3 else f"{name}_t" for name, shape in inputs.items()]
    nodes = [
        *(node("Transpose", i, o, perm=[0, 3, 1, 2]) for i, o in zip(inputs, given, strict=True) if i != o),
        node("Add", f"{given[0]} {given[-1]}", "value_x"),
        node("Conv", f"value_x {weight}", "value_p", pads=[1, 1, 1, 1]),
        node("Relu", "value_p", "value_q"),
        node("Conv", "value_q value_b", "value_r", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", "value_r", "value_s"),
        node("Flatten", "value_s", outputs[0]),
        *(node("Sigmoid", "value_r", name) for name in outputs[1:]),
    ]
    weights = {weight: floats(8, 3, 3, 3) / 4, "value_b": floats(8, 8, 3, 3) / 4}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("inputs", "outputs", "weight", "precisions"),
    [
        (("image",), ("logits",), "a", PRECISIONS),
        (("image:0", "mask/1"), ("logits", "map.out"), "conv.weight", PRECISIONS),
        (("output",), ("input",), "a", PRECISIONS),
        (("output_1", "v0"), ("input_0", "w0"), "a", ("fp32", "int8")),
        (("relu",), ("a.weight", "layer_a.weight"), "a", ("fp32",)),
        (("conv2d", "relu"), ("x0", "x1"), "a", ("fp32",)),
        (("image",), ("logits", "logits_scale", "logits_zero_point", "out"), "a", ("int8",)),
    ],
    ids=["one", "two", "swapped", "numbered", "weights", "operators", "quantizer's"],
)
def test_a_file_runs_by_the_names_of_the_one_it_was_made_from(
    tmp_path: Path, inputs: tuple[str, ...], outputs: tuple[str, ...], weight: str, precisions: tuple[Any, ...]
) -> None:
    model = written(tmp_path / "m.onnx", dict.fromkeys(inputs, FREE), outputs, weight)
    converted = vfconvert.convert(model, **FAST)
    arrays = {name: floats(3, 3, 12, 12) for name in inputs}
    with torch.no_grad():
        found = converted.model(*map(torch.from_numpy, arrays.values()))
    wanted = [tensor.numpy() for tensor in (found if isinstance(found, tuple) else (found,))]
    for precision in precisions:
        converted.export(tmp_path / "small.onnx", precision=precision)
        small = session(tmp_path / "small.onnx")
        assert [one.name for one in small.get_inputs()] == list(inputs)
        assert [one.name for one in small.get_outputs()] == list(outputs)
        assert small.get_inputs()[0].shape == ["batch", 3, 12, 12]
        for ours, theirs in zip(wanted, small.run(list(outputs), arrays), strict=True):
            np.testing.assert_allclose(theirs, ours, rtol=0, atol=TOLERANCE[precision] * np.abs(ours).max())


@pytest.mark.filterwarnings("ignore")
def test_an_input_with_channels_last_keeps_its_name(tmp_path: Path) -> None:
    model = written(tmp_path / "m.onnx", {"image": ["n", 12, 12, 3]}, ("logits",))
    converted = vfconvert.convert(model, **FAST)
    converted.export(tmp_path / "small.onnx")
    images = floats(2, 3, 12, 12)
    (logits,) = session(tmp_path / "small.onnx").run(["logits"], {"image": images})
    with torch.no_grad():
        wanted = converted.model(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_file_by_other_names_is_not_the_one_that_was_to_be_written(tmp_path: Path) -> None:
    """Verification asks for the names that the delivery has, and finds others."""
    converted = vfconvert.convert(written(tmp_path / "m.onnx", {"image": FREE}, ("logits",)), **FAST)
    converted.export(tmp_path / "small.onnx")
    images = torch.from_numpy(floats(2, 3, 12, 12))
    names = converted._delivery.names
    assert verify_onnx(tmp_path / "small.onnx", converted.model, images, names=names).relative_error < 1e-4
    with pytest.raises(ParityError, match=r"got logits, expected output$"):
        verify_onnx(tmp_path / "small.onnx", converted.model, images)
