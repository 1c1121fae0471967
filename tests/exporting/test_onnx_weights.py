"""The nodes compute the very weight that the layer computes, and store each tensor once."""

import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from vfconvert.exporting.onnx_weights import WeightGraph
from vfconvert.nn import VersatileConv2d
from vfconvert.ops.crops import crops_and_levels
from vfconvert.specs import ConvGeometry, Crop, VersatileSpec


def _layer(
    kernel_size: tuple[int, int], *, family: str = "squares", windows: int = 1, groups: int = 1, scale: bool = False
) -> VersatileConv2d:
    torch.manual_seed(1)
    geometry = ConvGeometry(in_channels=12 * groups, out_channels=14 * groups, kernel_size=kernel_size, groups=groups)
    crops, levels = crops_and_levels(kernel_size, family)
    spec = VersatileSpec(crops=crops, levels=levels, windows=windows, channel_stride=2 if windows > 1 else 0)
    layer = VersatileConv2d(geometry, spec, scale=scale)
    stack = len(crops) * windows * len(layer.weight)
    layer.rows.copy_(torch.randint(stack, layer.rows.shape))
    if layer.scale is not None:
        torch.nn.init.uniform_(layer.scale, 0.5, 2.0)
    return layer


def _computed(graph: WeightGraph, name: str) -> Tensor:
    output = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph(graph.nodes, "weights", [], [output], graph.initializers),
        opset_imports=[helper.make_opsetid("", 18)],
    )
    return torch.tensor(ReferenceEvaluator(model).run([name], {})[0])


CASES = {
    "squares": _layer((3, 3)),
    "lines": _layer((3, 3), family="lines"),
    "windows": _layer((1, 1), windows=3),
    "both": _layer((5, 5), windows=2),
    "lines and windows": _layer((4, 6), family="lines", windows=3),
    "rectangle": _layer((1, 7), windows=2),
    "even": _layer((4, 4)),
    "one copy": _layer((2, 2)),
    "groups": _layer((3, 3), windows=2, groups=3),
    "scale": _layer((3, 3), windows=2, scale=True),
}


@pytest.mark.parametrize("layer", CASES.values(), ids=CASES.keys())
def test_nodes_compute_the_expanded_weight(layer: VersatileConv2d) -> None:
    graph = WeightGraph(taken={"w0"})
    graph.add("features.0", layer, "w0")
    assert torch.equal(_computed(graph, "w0"), layer.expanded_weight())


def test_nodes_compute_the_expanded_weight_of_crops_off_the_centre() -> None:
    geometry = ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3, 3))
    crops = (Crop(0, 2, 1, 3), Crop(1, 3, 0, 1))
    layer = VersatileConv2d(geometry, VersatileSpec(crops=crops, levels=((0,), (1,))))
    graph = WeightGraph(taken=set())
    graph.add("", layer, "w0")
    assert torch.equal(_computed(graph, "w0"), layer.expanded_weight())


def test_nodes_of_other_rows_are_told_apart() -> None:
    layer = _layer((3, 3), windows=2)
    graph = WeightGraph(taken=set())
    graph.add("features.0", layer, "w0")
    layer.rows.copy_(layer.rows.roll(1))
    assert not torch.equal(_computed(graph, "w0"), layer.expanded_weight())


def test_only_bank_rows_and_scale_are_stored_per_layer() -> None:
    layer = _layer((3, 3), windows=2, scale=True)
    graph = WeightGraph(taken=set())
    graph.add("features.0", layer, "w0")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializers}
    named = {name: array for name, array in stored.items() if "." in name}
    assert set(named) == {"features.0.weight", "features.0.rows", "features.0.scale"}
    assert named["features.0.weight"].shape == layer.weight.shape
    assert named["features.0.rows"].dtype.name == "int32"
    assert all(array.size <= 6 for name, array in stored.items() if name not in named)


def test_layers_share_constants_and_a_common_bank() -> None:
    first, second = _layer((3, 3), windows=2), _layer((3, 3), windows=2)
    second.weight = first.weight
    graph = WeightGraph(taken=set())
    graph.add("a", first, "w0")
    once = len(graph.initializers)
    graph.add("b", second, "w1")
    assert [tensor.name for tensor in graph.initializers[once:]] == ["b.rows"]
    assert torch.equal(_computed(graph, "w1"), second.expanded_weight())


def test_names_that_are_taken_are_avoided() -> None:
    taken = {"a.weight", "a.rows", "c0", "e0", "w0"}
    graph = WeightGraph(taken=set(taken))
    graph.add("a", CASES["both"], "w0")
    new = {tensor.name for tensor in graph.initializers} | {node.output[0] for node in graph.nodes}
    assert new & taken == {"w0"}
    assert len(new) == len(graph.initializers) + len(graph.nodes)
