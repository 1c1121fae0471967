"""ONNX files of several inputs, from the command line to files that have the same inputs and compute the same."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import vfconvert
from tests.cli.conftest import invoke
from tests.loading.onnx_samples import floats, node
from tests.several_nets import SIDE, Flow, Matting
from vfconvert.loading import load_model
from vfconvert.loading.onnx_inputs import StatedInput

FAST = ("--spatial", "--no-reconstruct", "--no-measure", "--calibration-images", 16)


def exported(path: Path, network: nn.Module, *channels: int) -> Path:
    """Written by torch's exporter, for any number of images."""
    images = tuple(torch.randn(2, count, SIDE, SIDE) for count in channels)
    free_axes = tuple({0: torch.export.Dim("images", min=1, max=64)} for _ in channels)
    torch.onnx.export(network.eval(), images, path, dynamo=True, dynamic_shapes=free_axes, verbose=False)
    return path


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path))


def written(path: Path, shapes: dict[str, list[Any]], *, kinds: dict[str, int] | None = None) -> Path:
    """Two convolutions of the first input, times the mean of the second."""
    first, second = shapes
    last = shapes[second][-1] == 1
    nodes = [
        node("Conv", f"{first} a", "p", pads=[1, 1, 1, 1]),
        node("Relu", "p", "q"),
        node("Conv", "q b", "r", pads=[1, 1, 1, 1]),
        *([node("Transpose", second, "s", perm=[0, 3, 1, 2])] if last else [node("Identity", second, "s")]),
        node("GlobalAveragePool", "s", "mean"),
        node("Mul", "r mean", "y"),
    ]
    constants = {"a": floats(8, 3, 3, 3), "b": floats(8, 8, 3, 3)}
    inputs = [
        helper.make_tensor_value_info(name, (kinds or {}).get(name, TensorProto.FLOAT), shape)
        for name, shape in shapes.items()
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    kept = [numpy_helper.from_array(value / 4, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, kept)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.filterwarnings("ignore")
def test_a_file_of_an_image_and_a_mask_becomes_one(tmp_path: Path) -> None:
    model, output = exported(tmp_path / "matting.onnx", Matting(), 3, 1), tmp_path / "small.onnx"
    result = invoke(model, *FAST, "--format", "onnx", "--format", "safetensors", "-o", output, exit_code=0)
    assert "The file computes what the converted network computes" in " ".join(result.output.split())
    assert [given.name for given in session(output).get_inputs()] == ["image", "mask"]
    image, mask = floats(4, 3, SIDE, SIDE), floats(4, 1, SIDE, SIDE)
    (small,) = session(output).run(None, {"image": image, "mask": mask})
    reloaded = vfconvert.load(output.with_suffix(".safetensors"), like=load_model(model).model)
    ours = reloaded(torch.from_numpy(image), torch.from_numpy(mask)).detach().numpy()
    np.testing.assert_allclose(ours, small, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_frames_of_a_folder_are_the_inputs_of_a_file(tmp_path: Path, images: Path) -> None:
    model, output = exported(tmp_path / "flow.onnx", Flow(), 3, 3), tmp_path / "small.onnx"
    arguments = ("--data", images, "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5")
    result = invoke(model, *FAST, *arguments, "-o", output, exit_code=0)
    assert "The file computes what the converted network computes" in " ".join(result.output.split())
    assert [(given.name, given.shape[1:]) for given in session(output).get_inputs()] == [
        ("first", [3, SIDE, SIDE]),
        ("second", [3, SIDE, SIDE]),
    ]


def test_an_input_with_channels_last_is_transposed_and_names_become_arguments(tmp_path: Path) -> None:
    model = written(tmp_path / "m.onnx", {"left.0": [2, 3, 8, 8], "class": [2, 8, 8, 1]})
    loaded = load_model(model)
    assert loaded.inputs == (
        StatedInput("left.0", "input_0", (3, 8, 8), 2, False, "float32"),  # "class" is a word of Python
        StatedInput("class", "input_1", (1, 8, 8), 2, True, "float32"),
    )
    image, weight = floats(2, 3, 8, 8), floats(2, 1, 8, 8)
    wanted = session(model).run(None, {"left.0": image, "class": weight.transpose(0, 2, 3, 1)})[0]
    ours = loaded.model(torch.from_numpy(image), torch.from_numpy(weight)).detach().numpy()
    np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-5)
    result = invoke(model, "--spatial", "--dry-run", exit_code=0)
    assert "takes images with their channels last" in " ".join(result.output.split())
    named = load_model(written(tmp_path / "n.onnx", {"left.0": [2, 3, 8, 8], "right-1": ["n", 1, 8, 8]})).inputs
    assert [one.argument for one in named] == ["left_0", "right_1"]


FREE, MASK = ["n", 3, "h", "w"], ["n", 1, "h", "w"]


@pytest.mark.parametrize(
    ("names", "arguments"),
    [
        (("input", "input.1"), ("input", "input_1")),  # fx calls the value of the first, a builtin, `input_1`
        (("torch", "slice"), ("input_0", "input_1")),  # read by the code of a graph
        (("left/0", "left.0"), ("input_0", "input_1")),
    ],
    ids=["builtin", "read by code", "alike"],
)
def test_names_of_inputs_are_none_of_other_values(
    tmp_path: Path, names: tuple[str, str], arguments: tuple[str, str]
) -> None:
    model = written(tmp_path / "m.onnx", dict(zip(names, (FREE, MASK), strict=True)))
    loaded = load_model(model)
    assert tuple(one.argument for one in loaded.inputs) == arguments
    images = floats(2, 3, 8, 8), floats(2, 1, 8, 8)
    (wanted,) = session(model).run(None, dict(zip(names, images, strict=True)))
    ours = loaded.model(*map(torch.from_numpy, images)).detach().numpy()
    np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shapes", "kinds", "options", "code", "said"),
    [
        ({"x": [1, 3, 8, 8], "m": [1, 1, 8, 9]}, {}, (), 20, "m.onnx: its inputs differ in width ('x': 8, 'm': 9)"),
        ({"x": [1, 3, 8, 8], "m": [2, 1, 8, 8]}, {}, (), 26, "its inputs are 1 and 2 images, expected as many of each"),
        ({"x": FREE, "m": MASK}, {"m": TensorProto.INT64}, (), 26, "its input 'm' is of type int64"),
        ({"x": FREE, "m": ["n", 1]}, {}, (), 26, "its input 'm' has 2 axes, expected 4"),
        ({"x": FREE, "m": ["n", "c", "h", "w"]}, {}, (), 20, "the file takes 2 inputs (x, m), got no --input-shape"),
        (
            {"x:0": FREE, "m:0": MASK},
            {},
            3 * ("--input-shape", "3,8,8"),
            20,
            "--input-shape is given 3 times, and the file takes 2 (x:0, m:0)",
        ),
        (
            {"x": FREE, "m": ["n", "c", "h", "w"]},
            {},
            ("--input-shape", "3,8,8", "--input-shape", "2,8,8"),
            20,
            "the network rejects inputs of 1x3x8x8, 1x2x8x8",
        ),
        (
            {"x": [1, 3, 8, 8], "m": MASK},
            {},
            ("--input-shape", "3,8,8", "--input-shape", "2,8,8"),
            20,
            "its input 'm' is 1 x any x any, got 2 x 8 x 8",
        ),
    ],
    ids=["sizes", "batches", "type", "axes", "unknown", "too many", "rejected", "stated otherwise"],
)
def test_other_inputs_are_refused_in_one_line(
    tmp_path: Path,
    shapes: dict[str, list[Any]],
    kinds: dict[str, int],
    options: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    model = written(tmp_path / "m.onnx", shapes, kinds=kinds)
    result = invoke(model, "--spatial", "--dry-run", *options, exit_code=code)
    assert said in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_sizes_that_the_file_leaves_open_are_the_users(tmp_path: Path) -> None:
    model = written(tmp_path / "m.onnx", {"x": FREE, "m": MASK})
    few = ("--calibration-images", 16)
    report = json.loads(invoke("inspect", model, "--size", "24", "--spatial", *few, "--json", exit_code=0).output)
    assert report["input_shapes"] == [[3, 24, 24], [1, 24, 24]]
