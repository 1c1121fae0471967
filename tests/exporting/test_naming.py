"""What a file calls the inputs and outputs of its graph."""

import pytest
from torch import nn

from vfconvert.exporting.naming import FileNames, file_names
from vfconvert.nn.several_inputs import Inputs, joined

TWO = joined(nn.Identity(), Inputs(("left", "right"), (3, 3)))


@pytest.mark.parametrize(
    ("model", "outputs", "own", "wanted"),
    [
        (nn.Identity(), ("output",), None, (("input",), ("output",))),
        (TWO, ("left", "b"), None, (("left_input", "right"), ("left", "b"))),
        (nn.Identity(), ("output",), (("image",), ("logits",)), (("image",), ("logits",))),
        (nn.Identity(), ("output",), (("output",), ("input",)), (("output",), ("input",))),
        (TWO, ("output",), (("l.0", "r.0"), ("y", "z")), (("l.0", "r.0"), ("output",))),
        (nn.Identity(), ("output",), (("a", "b"), ("y",)), (("input",), ("y",))),
        (nn.Identity(), ("output",), (("a",), ("a",)), (("a",), ("output",))),
        (nn.Identity(), ("output",), (("output",), ("output",)), (("output",), ("output_2",))),
        (nn.Identity(), ("output",), (("a\nb",), ("",)), (("input",), ("output",))),
        (nn.Identity(), ("output_0", "output_1"), (("a",), ("a", "output_0")), (("a",), ("output_0_2", "output_0"))),
    ],
    ids=["none", "keys", "one", "swapped", "outputs", "inputs", "both", "default too", "no names", "later"],
)
def test_own_names_come_first_and_all_differ(
    model: nn.Module,
    outputs: tuple[str, ...],
    own: tuple[tuple[str, ...], tuple[str, ...]] | None,
    wanted: tuple[tuple[str, ...], tuple[str, ...]],
) -> None:
    assert file_names(model, outputs, FileNames(*own) if own else None) == FileNames(*wanted)
