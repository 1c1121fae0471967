"""What is taken out of a graph, and how its values are called afterwards."""

import onnx
import pytest
from onnx import checker, parser

from vfconvert.exporting.onnx_compact import (
    fresh_names,
    name_dimensions_,
    names_read,
    names_written,
    rename_,
    rename_apart_,
    strip_,
)

TEXT = """
<ir_version: 10, opset_import: ["" : 18]>
network (float[s77, 3] input) => (float[s77, 3] last, float[m, 3] twice)
<float[3] network_bias = {1, 2, 3}, float[1] val_0 = {2}, float[1] network_unread = {9}>
{
    added = Add(input, network_bias)
    flag = Constant<value = bool {1}>()
    last = If (flag) <
        then_branch = yes () => (float[s77, 3] yes_out) { yes_out = Mul(added, val_0) },
        else_branch = no () => (float[s77, 3] no_out) { no_out = Neg(added) }
    >
    twice = Concat<axis = 0>(last, added)
}
"""


@pytest.fixture
def model() -> onnx.ModelProto:
    model = parser.parse_model(TEXT)
    model.graph.output[1].type.tensor_type.shape.dim[0].dim_param = "2*s77"  # which the text form cannot say
    checker.check_model(model, full_check=True)
    return model


def test_strip_removes_notes_and_unread_initializers(model: onnx.ModelProto) -> None:
    node = model.graph.node[0]
    node.name, node.doc_string = "node_add", "note"
    for holder in (model, model.graph, node, model.graph.input[0]):
        holder.metadata_props.add(key="stack_trace", value="line 1")
    model.graph.value_info.add(name="added")
    strip_(model)
    assert b"stack_trace" not in model.SerializeToString()
    assert (node.name, node.doc_string, len(model.graph.value_info)) == ("", "", 0)
    assert [tensor.name for tensor in model.graph.initializer] == ["network_bias", "val_0"]
    checker.check_model(model, full_check=True)


def test_names_are_found_in_subgraphs(model: onnx.ModelProto) -> None:
    assert names_read(model.graph) >= {"val_0", "added", "twice", "yes_out"}
    assert "network_unread" not in names_read(model.graph)
    assert names_written(model.graph) >= {"yes_out", "network_unread", "input", "last"}


def test_rename_gives_outputs_their_names_and_numbers_the_rest(model: onnx.ModelProto) -> None:
    rename_(model.graph, ["images"], ["v0", "added"], "network_")
    checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.output] == ["v0", "added"]
    assert [value.name for value in model.graph.input] == ["images"]
    assert [tensor.name for tensor in model.graph.initializer] == ["bias", "v1", "unread"]
    assert list(model.graph.node[0].input) == ["images", "bias"]
    inner = model.graph.node[0].output[0]
    assert inner == "v2"
    branch = model.graph.node[2].attribute[0].g
    assert list(branch.node[0].input) == [inner, "v1"]


def test_rename_keeps_a_prefix_where_the_short_name_is_an_output(model: onnx.ModelProto) -> None:
    rename_(model.graph, ["images"], ["bias", "twice"], "network_")
    checker.check_model(model, full_check=True)
    assert model.graph.initializer[0].name == "v0"


def test_name_dimensions_reaches_every_output(model: onnx.ModelProto) -> None:
    name_dimensions_(model.graph)
    dims = [value.type.tensor_type.shape.dim[0].dim_param for value in (*model.graph.input, *model.graph.output)]
    assert dims == ["batch", "batch", "2*batch"]


def test_name_dimensions_leaves_a_fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    name_dimensions_(model.graph)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "s77"


def test_fresh_names_skip_those_taken() -> None:
    assert fresh_names("w", 3, {"w0", "w2"}) == ["w1", "w3", "w4"]


def test_rename_takes_names_from_values_within_subgraphs(model: onnx.ModelProto) -> None:
    rename_(model.graph, ["yes_out"], ["no_out", "twice"], "network_")
    checker.check_model(model, full_check=True)
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["yes_out", "no_out", "twice"]
    for graph in (attribute.g for attribute in model.graph.node[2].attribute):
        assert graph.output[0].name == graph.node[0].output[0]
        assert graph.output[0].name not in ("yes_out", "no_out")


def test_rename_apart_moves_other_values_and_can_be_undone(model: onnx.ModelProto) -> None:
    rename_apart_(model.graph, {"input": "added", "last": "input", "twice": "yes_out"})
    checker.check_model(model, full_check=True)
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["added", "input", "yes_out"]
    assert list(model.graph.node[0].output) == ["v0"]
    rename_apart_(model.graph, {"added": "input", "input": "last", "yes_out": "twice"})
    checker.check_model(model, full_check=True)
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["input", "last", "twice"]
