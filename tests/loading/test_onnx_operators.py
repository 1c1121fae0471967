"""Every operator of ONNX that is read computes what ONNX Runtime does, of any number of images."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from tests.loading.onnx_definitions import CASES
from tests.loading.onnx_samples import assert_alike, floats, node, saved
from vfconvert.loading.onnx_file import read_onnx
from vfconvert.loading.onnx_graph import known_operators


def test_assert_alike_sees_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "model.onnx", [helper.make_node("Relu", ["x"], ["y"])], {})
    monkeypatch.setattr("tests.loading.onnx_samples.run", lambda path, images: images)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_alike(path)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ReduceSum")
NO_REGION, TWICE = np.array([], np.float32), np.array([1, 1, 2, 2], np.float32)
OLD_NEAREST = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
ALIGNED = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}

# Operator, other inputs, attributes.
SINGLE: list[tuple[str, list[np.ndarray], dict[str, Any]]] = [
    *(
        (kind, [], {})
        for kind in ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Mish", "Selu", "HardSwish", "Erf")
    ),
    *(
        (kind, [], {})
        for kind in ("Exp", "Abs", "Neg", "Floor", "Ceil", "Round", "Reciprocal", "Sin", "Cos", "Identity")
    ),
    *((kind, [], {}) for kind in ("HardSigmoid", "LeakyRelu", "Elu", "Dropout", "GlobalAveragePool", "GlobalMaxPool")),
    *((kind, [], {"axis": 1}) for kind in ("Softmax", "LogSoftmax", "Flatten")),
    ("HardSigmoid", [], {"alpha": 1 / 6, "beta": 0.5}),
    ("LeakyRelu", [], {"alpha": 0.3}),
    ("PRelu", [floats(4, 1, 1)], {}),
    *((kind, [floats(4, 1, 1)], {}) for kind in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Sum")),
    *((kind, [np.float32(2.0).reshape(())], {}) for kind in ("Add", "Sub", "Mul", "Div", "Pow")),
    ("Mod", [np.float32(0.7).reshape(())], {"fmod": 1}),
    ("MatMul", [floats(8, 5)], {}),
    ("Clip", [np.float32(-0.2), np.float32(0.9)], {}),
    ("Clip", [np.float32(0), np.float32(6)], {}),
    *(
        (kind, [ints(2, 3)], {"keepdims": keep})
        for keep in (0, 1)
        for kind in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ReduceSum")
    ),
    ("Reshape", [ints(0, -1)], {}),
    ("Reshape", [ints(1, 2, 2, 8, 8)], {}),
    ("Reshape", [ints(1, -1)], {}),
    ("Transpose", [], {"perm": [0, 2, 3, 1]}),
    ("Unsqueeze", [ints(1, -1)], {}),
    ("Slice", [ints(1, 0), ints(4, 2**40), ints(1, 3), ints(1, 2)], {}),
    ("Gather", [np.array(2)], {"axis": 1}),
    ("Gather", [ints(2, 0)], {"axis": 1}),
    ("Expand", [ints(1, 4, 8, 8)], {}),
    ("Pad", [ints(0, 0, 1, 2, 0, 0, 0, 1)], {}),
    ("Pad", [ints(1, 2, 3, 0), np.float32(0.5), ints(2, 3)], {}),
    ("Pad", [ints(0, 0, 1, 1, 0, 0, 1, 1)], {"mode": "reflect"}),
    ("DepthToSpace", [], {"blocksize": 2, "mode": "DCR"}),
    ("DepthToSpace", [], {"blocksize": 2, "mode": "CRD"}),
    ("Resize", [NO_REGION, TWICE], {"mode": "linear"}),
    (
        "Resize",
        [np.array([], np.float32), np.array([1, 1, 2, 2], np.float32)],
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    (
        "Resize",
        [np.array([], np.float32), np.array([1, 1, 2, 2], np.float32)],
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    (
        "Resize",
        [np.array([], np.float32), np.array([], np.float32), ints(1, 4, 16, 24)],
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    ("Conv", [floats(6, 4, 3, 3), floats(6)], {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("Conv", [floats(6, 2, 3, 2)], {"pads": [0, 1, 2, 0], "group": 2}),
    ("Conv", [floats(6, 4, 3, 3)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", [floats(6, 4, 2, 2)], {"auto_pad": "SAME_LOWER"}),
    ("Conv", [floats(6, 4, 3, 3)], {"dilations": [2, 1], "auto_pad": "VALID"}),
    (
        "ConvTranspose",
        [floats(4, 3, 3, 3), floats(6)],
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1], "group": 2},
    ),
    ("BatchNormalization", [floats(4), floats(4), floats(4), np.abs(floats(4)) + 0.1], {"epsilon": 1e-3}),
    ("InstanceNormalization", [floats(4), floats(4)], {}),
    ("LayerNormalization", [floats(8), floats(8)], {"axis": -1}),
    ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("AveragePool", [], {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1], "count_include_pad": 1}),
]


@pytest.mark.parametrize(
    ("kind", "others", "attributes"), SINGLE, ids=lambda value: value if isinstance(value, str) else ""
)
def test_an_operator_computes_what_onnx_runtime_does(tmp_path: Path, kind: str, others: Any, attributes: Any) -> None:
    names = [f"c{i}" if np.asarray(value).size or kind != "Resize" else "" for i, value in enumerate(others)]
    constants = {name: np.asarray(value) for name, value in zip(names, others, strict=True) if name}
    assert_alike(
        saved(tmp_path / "model.onnx", [helper.make_node(kind, ["x", *names], ["y"], **attributes)], constants)
    )


IN_CHAINS = (
    "Shape Concat Split Squeeze Where Equal Greater GreaterOrEqual Less LessOrEqual Gemm Cast Not Log Sqrt Gelu "
    "ConstantOfShape Upsample And Or Xor Range Size ArgMax ArgMin Asin Acos Atanh Acosh ReduceLogSum Swish"
)


def test_every_operator_is_among_those_tested() -> None:
    tested = {kind for kind, *_ in SINGLE} | {kind for kind, *_ in CASES} | set(IN_CHAINS.split())
    assert set(known_operators()) == tested


CHAINS: dict[str, tuple[list[onnx.NodeProto], dict[str, np.ndarray]]] = {
    "flattened by its shape": (
        [
            node("Shape", "x", "s"),
            node("Gather", "s zero", "n"),
            node("Unsqueeze", "n axis", "first"),
            node("Concat", "first rest", "to", axis=0),
            node("Reshape", "x to", "y"),
        ],
        {"zero": np.array(0), "axis": ints(0), "rest": ints(-1)},
    ),
    "resized by its shape": (
        [
            node("Shape", "x", "s"),
            node("Slice", "s two four", "size"),
            node("Mul", "size twice", "larger"),
            node("Slice", "s zero two", "front"),
            node("Cast", "larger", "cast", to=TensorProto.INT64),
            node("Concat", "front cast", "to", axis=0),
            helper.make_node("Resize", ["x", "", "", "to"], ["y"], mode="linear"),
        ],
        {"zero": ints(0), "two": ints(2), "four": ints(4), "twice": ints(2)},
    ),
    "split": (
        [node("Split", "x", "a b c", axis=1, num_outputs=3), node("Concat", "c a b", "y", axis=1)],
        {},
    ),
    "split by sizes": (
        [node("Split", "x sizes", "a b", axis=1), node("Concat", "b a", "y", axis=1)],
        {"sizes": ints(1, 3)},
    ),
    "masked": (
        [
            *(node(kind, "x half", name) for kind, name in (("Greater", "a"), ("LessOrEqual", "b"), ("Equal", "c"))),
            *(node(kind, "x half", name) for kind, name in (("GreaterOrEqual", "d"), ("Less", "e"))),
            node("Not", "b", "f"),
            node("Where", "a x half", "g"),
            node("Where", "f g one", "h"),
            node("Where", "c one h", "i"),
            node("Where", "d i one", "j"),
            node("Where", "e x j", "y"),
        ],
        {"half": np.float32(0.5), "one": np.float32(1)},
    ),
    "linear": (
        [
            node("GlobalAveragePool", "x", "p"),
            node("Squeeze", "p axes", "v"),
            node("Gemm", "v w b", "g", transB=1),
            node("Gemm", "g u", "y"),
        ],
        {"axes": ints(2, 3), "w": floats(5, 4), "b": floats(5), "u": floats(5, 3)},
    ),
    "gelu of logarithms": (
        [
            node("Abs", "x", "a"),
            node("Add", "a one", "p"),
            node("Log", "p", "l"),
            node("Sqrt", "l", "r"),
            node("Gelu", "r", "y"),
        ],
        {"one": np.float32(1)},
    ),
    "inverse functions": (
        [
            node("Sigmoid", "x", "s"),
            *(node(kind, "s", kind) for kind in ("Asin", "Acos", "Atanh")),
            node("Cosh", "x", "c"),
            node("Acosh", "c", "a"),
            node("ReduceLogSum", "c axes", "l"),
            node("Sum", "Asin Atanh a l", "t"),
            node("Sub", "t Acos", "y"),
        ],
        {"axes": ints(1)},
    ),
    "constants combined": (
        [node("ConstantOfShape", "shape", "zeros"), node("Add", "zeros one", "c"), node("Mul", "x c", "y")],
        {"shape": ints(4, 1, 1), "one": np.float32(1.5)},
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_operators_work_together(tmp_path: Path, name: str) -> None:
    nodes, constants = CHAINS[name]
    assert_alike(saved(tmp_path / "model.onnx", nodes, constants, opset=20))


def test_the_older_upsampling_is_read(tmp_path: Path) -> None:
    nodes, constants = (
        [node("Upsample", "x scales", "y", mode="nearest")],
        {"scales": np.array([1, 1, 2, 3], np.float32)},
    )
    assert_alike(saved(tmp_path / "model.onnx", nodes, constants, opset=9))


@pytest.mark.parametrize("alpha", [1.0, 1.7])
def test_the_newest_activation_is_read(tmp_path: Path, alpha: float) -> None:
    network = read_onnx(saved(tmp_path / "model.onnx", [node("Swish", "x", "y", alpha=alpha)], {}, opset=24)).module
    images = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(network(images), images / (1 + torch.exp(-alpha * images)))
