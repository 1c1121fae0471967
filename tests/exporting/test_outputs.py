"""Every output has a name, and one of them is the main one."""

from collections import OrderedDict
from typing import Any

import pytest
import torch

from vfconvert.errors import ExportError
from vfconvert.exporting.outputs import main_output, named_outputs

A, B, C = torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([3.0])


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (A, ["output"]),
        ((A, B), ["output_0", "output_1"]),
        ([A, None, B], ["output_0", "output_2"]),
        (OrderedDict(out=A, aux=B), ["out", "aux"]),
        ({"a": [A, B], 7: {"b": C}}, ["a_0", "a_1", "7_b"]),
        ({"input": A}, ["input_2"]),
        ({"a": [A], "a_0": B}, ["a_0", "a_0_2"]),
    ],
    ids=["tensor", "tuple", "none", "mapping", "nested", "input", "collision"],
)
def test_named_outputs_in_order_and_unique(value: Any, names: list[str]) -> None:
    named = named_outputs(value)
    assert [name for name, _ in named] == names
    expected = [tensor for tensor in (A, B, C) if any(tensor is found for _, found in named)]
    assert [tensor for _, tensor in named] == expected


def test_named_outputs_refuses_anything_else() -> None:
    with pytest.raises(ExportError, match="boxes_0 of the network: got int, expected tensors"):
        named_outputs({"boxes": [3]})


@pytest.mark.parametrize("value", [None, (), {"aux": None}], ids=["none", "empty", "only none"])
def test_named_outputs_refuses_no_tensor(value: Any) -> None:
    with pytest.raises(ExportError, match="returns no tensor"):
        named_outputs(value)


def test_main_output_is_out_or_the_first() -> None:
    assert main_output(A) is A
    assert main_output((None, [B, A])) is B
    assert main_output({"aux": A, "out": B}) is B
    assert main_output({"aux": A, "out": None}) is A
    assert main_output({"out": {"aux": A, "out": C}}) is C


def test_main_output_is_the_last_of_maps_that_are_refined() -> None:
    flows = [torch.zeros(1, 2, 4, 4), torch.ones(1, 2, 4, 4)]
    assert main_output(flows) is flows[1]
    assert main_output({"out": flows, "aux": A}) is flows[1]
    assert main_output(tuple(flows)) is flows[0]
    assert main_output([flows[0], torch.ones(1, 2, 8, 8)]) is flows[0]
    assert main_output(flows[:1]) is flows[0]
