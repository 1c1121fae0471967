"""Where ONNX's definition of an operator differs from torch's function of that name, or from opset to opset."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from tests.loading.onnx_definitions import CASES, ints, scales
from tests.loading.onnx_samples import assert_alike, floats, node, run, saved
from vfconvert.errors import UnsupportedModelError
from vfconvert.loading.onnx_file import read_onnx


def case_name(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(str(part) for part in value.values())[:50]
    return str(value) if isinstance(value, (str, int)) else ""


@pytest.mark.parametrize(("kind", "others", "attributes", "opset"), CASES, ids=case_name)
def test_an_operator_is_read_by_its_definition(
    tmp_path: Path, kind: str, others: list[Any], attributes: dict[str, Any], opset: int
) -> None:
    attributes = {key: value for key, value in attributes.items() if value != []}
    names = [f"c{i}" if np.asarray(value).size else "" for i, value in enumerate(others)]
    constants = {name: np.asarray(value) for name, value in zip(names, others, strict=True) if name}
    nodes = [helper.make_node(kind, ["x", *names], ["y"], **attributes)]
    assert_alike(saved(tmp_path / "model.onnx", nodes, constants, opset=opset))


@pytest.mark.parametrize("keep", [0, 1])
def test_places_of_the_largest_are_found(tmp_path: Path, keep: int) -> None:
    nodes = [
        node("ArgMax", "x", "most", axis=1, keepdims=keep),
        node("ArgMin", "x", "least", axis=1, keepdims=keep),
        node("Sub", "most least", "d"),
        node("Cast", "d", "y", to=TensorProto.FLOAT),
    ]
    assert_alike(saved(tmp_path / "model.onnx", nodes, {}))


def test_all_axes_of_one_are_dropped_but_never_the_images(tmp_path: Path) -> None:
    nodes = [node("GlobalMaxPool", "x", "p"), node("Squeeze", "p", "y")]
    path, images = saved(tmp_path / "model.onnx", nodes, {}, batch="n"), floats(3, 4, 8, 8)
    network = read_onnx(path).module
    got = network(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(got, run(path, images), rtol=1e-6)
    assert network(torch.from_numpy(images[:1])).shape == (1, 4)


@pytest.mark.parametrize(
    ("inputs", "constants", "attributes"),
    [
        ("v w b", {"w": floats(4, 5), "b": floats(1, 5)}, {"alpha": 0.5, "beta": 3.0}),
        ("v w b", {"w": floats(5, 4), "b": floats(1)}, {"transB": 1, "beta": 0.5}),
        ("v w", {"w": floats(4, 5)}, {}),
    ],
    ids=["scaled", "one bias", "none"],
)
def test_a_linear_map_is_read_with_its_factors(
    tmp_path: Path, inputs: str, constants: dict[str, np.ndarray], attributes: dict[str, Any]
) -> None:
    nodes = [node("GlobalMaxPool", "x", "p"), node("Flatten", "p", "v"), node("Gemm", inputs, "y", **attributes)]
    assert_alike(saved(tmp_path / "model.onnx", nodes, constants))


CONSTANTS = [
    {"value_float": 0.7},
    {"value_floats": [0.7] * 8},
    {"value": helper.make_tensor("t", TensorProto.FLOAT, [1], [0.7])},
    {"value": helper.make_tensor("t", TensorProto.FLOAT16, [1], [0.5])},
]


@pytest.mark.parametrize("attributes", CONSTANTS, ids=["float", "floats", "tensor", "half"])
def test_constants_are_read_in_every_form(tmp_path: Path, attributes: dict[str, Any]) -> None:
    nodes = [
        helper.make_node("Constant", [], ["c"], **attributes),
        node("Cast", "c", "f", to=TensorProto.FLOAT),
        node("Sub", "f x", "y"),
    ]
    assert_alike(saved(tmp_path / "model.onnx", nodes, {}))


def test_numbers_are_read_on_either_side(tmp_path: Path) -> None:
    nodes = [
        *(
            node(kind, f"{'half x' if i == 0 else f'half v{i - 1}'}", f"v{i}")
            for i, kind in enumerate(("Add", "Mul", "Sub"))
        ),
        node("Div", "half v2", "v3"),
        node("Cast", "v3", "whole", to=TensorProto.INT32),
        node("Cast", "whole", "truth", to=TensorProto.BOOL),
        node("Not", "truth", "not"),
        node("Greater", "x half", "more"),
        *(node(kind, "not more", kind) for kind in ("And", "Or", "Xor")),
        node("And", "And Or", "both"),
        node("Or", "both Xor", "all"),
        node("Cast", "all", "y", to=TensorProto.FLOAT),
    ]
    assert_alike(saved(tmp_path / "model.onnx", nodes, {"half": np.float32(0.5)}))


def test_places_are_counted_and_cast(tmp_path: Path) -> None:
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s three", "width"),
        node("Cast", "width", "real", to=TensorProto.FLOAT),
        node("Div", "real two", "half"),
        node("Floor", "half", "whole"),
        node("Cast", "whole", "end", to=TensorProto.INT64),
        node("Range", "zero end one", "places"),
        node("Cast", "places", "offsets", to=TensorProto.FLOAT),
        node("Slice", "x from to axis", "left"),
        node("Add", "left offsets", "moved"),
        node("Size", "x", "count"),
        node("ReduceProd", "s", "product", keepdims=0),
        node("Div", "count product", "same"),
        node("Cast", "same", "factor", to=TensorProto.FLOAT),
        node("Mul", "moved factor", "y"),
    ]
    constants = {"three": np.array(3), "two": np.float32(2), "zero": np.array(0), "one": np.array(1)}
    constants |= {"from": ints(0), "to": ints(4), "axis": ints(3)}
    assert_alike(saved(tmp_path / "model.onnx", nodes, constants))


def test_weights_that_are_also_inputs_are_weights(tmp_path: Path) -> None:
    import onnx

    path = saved(tmp_path / "model.onnx", [node("Conv", "x w", "y")], {"w": floats(6, 4, 3, 3)})
    model = onnx.load(path)
    model.graph.input.insert(0, helper.make_tensor_value_info("w", TensorProto.FLOAT, [6, 4, 3, 3]))
    onnx.save(model, path)
    assert_alike(path)


REFUSED = [
    ([node("Dropout", "x ratio yes", "y")], {"ratio": np.float32(0.5), "yes": np.array(True)}, 13, "as in training"),
    (
        [node("BatchNormalization", "x a a a v", "y m n", training_mode=1)],
        {"a": floats(4), "v": np.ones(4, np.float32)},
        15,
        "as in training",
    ),
    (
        [node("QuantizeLinear", "x s", "q"), node("DequantizeLinear", "q s", "y")],
        {"s": np.float32(0.1)},
        13,
        "quantized",
    ),
    ([node("Relu", "x", "y")], {}, 6, "its opset is 6, expected 7 or later"),
    ([node("LSTM", "x w w", "y", hidden_size=3)], {"w": floats(1, 12, 8)}, 14, "operator LSTM is not known"),
    ([node("ArgMax", "x", "y", select_last_index=1)], {}, 13, "of equal numbers the last"),
    ([node("Squeeze", "x", "y")], {}, 13, "number of images may be among them"),
    ([node("MaxPool", "x", "y", kernel_shape=[3, 3], pads=[0, 0, 1, 1], ceil_mode=1)], {}, 12, "uneven padding"),
    ([node("Resize", "x  s", "y", antialias=1, mode="linear")], {"s": scales(0.5, 0.5)}, 18, "antialias"),
]


@pytest.mark.parametrize(("nodes", "constants", "opset", "said"), REFUSED, ids=[said for *_, said in REFUSED])
def test_what_cannot_be_computed_alike_is_refused(
    tmp_path: Path, nodes: list[Any], constants: dict[str, np.ndarray], opset: int, said: str
) -> None:
    for one in nodes:
        if one.op_type == "Resize":
            one.input[:] = ["x", "", "s"]
    with pytest.raises(UnsupportedModelError, match=said):
        read_onnx(saved(tmp_path / "model.onnx", nodes, constants, opset=opset))
