"""A network of several inputs as one of one: the same numbers, names and tensors, and back again."""

import copy
import pickle

import pytest
import torch
from torch import fx, nn

from tests.several_nets import SIDE, Matting, Warped
from vfconvert.analysis.forward import run_once
from vfconvert.analysis.graph import Network, trace
from vfconvert.analysis.running import run_nodes
from vfconvert.errors import InputShapeError
from vfconvert.nn.several_inputs import (
    Inputs,
    input_names,
    inputs_of,
    joined,
    opened,
    part_of,
    positional_names,
    separated,
    shapes_of,
    with_own_inputs,
)

INPUTS = Inputs(("image", "mask"), (3, 1))
IMAGES = torch.randn(2, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def network() -> Matting:
    return Matting().eval()


def test_joined_takes_all_inputs_side_by_side(network):
    wanted = network(IMAGES[:, :3], IMAGES[:, 3:])
    assert torch.equal(joined(network, INPUTS)(IMAGES), wanted)
    assert not torch.allclose(joined(network, INPUTS)(IMAGES.flip(1)), wanted)


def test_joined_has_the_names_and_tensors_of_the_network(network):
    whole = joined(network, INPUTS)
    assert [name for name, _ in whole.named_modules()] == [name for name, _ in network.named_modules()]
    assert whole.state_dict().keys() == network.state_dict().keys()
    assert whole.head.weight is network.head.weight
    assert isinstance(whole, Matting)
    assert type(whole).__name__ == "Matting"
    assert type(network) is Matting


def test_separated_is_the_network_again_and_shares_what_is_changed(network):
    whole = joined(network, INPUTS)
    back = separated(whole)
    whole.head = nn.Conv2d(16, 5, 1)
    assert type(back) is Matting
    assert back(IMAGES[:, :3], IMAGES[:, 3:]).shape == (2, 5, SIDE, SIDE)
    assert separated(network) is network
    assert inputs_of(whole) == INPUTS
    assert inputs_of(network) is None


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_are_joined_and_their_own(network, copied):
    whole = joined(network, INPUTS)
    other = copied(whole)
    assert inputs_of(other) == INPUTS
    assert torch.equal(other(IMAGES), whole(IMAGES))
    with torch.no_grad():
        other.head.weight.zero_()
    assert bool(network.head.weight.any())
    assert separated(other).head is other.head


def test_a_module_with_a_graph_is_joined_and_copied_too(network):
    whole = joined(fx.symbolic_trace(network), INPUTS)
    assert torch.equal(copy.deepcopy(whole)(IMAGES), network(IMAGES[:, :3], IMAGES[:, 3:]))


def test_a_network_that_writes_into_its_inputs_leaves_the_tensor_of_all():
    images = IMAGES.repeat(1, 2, 1, 1)[:, :6]
    given = images.clone()
    joined(Warped(), Inputs(("first", "second"), (3, 3)))(given)
    assert torch.equal(given, images)


def test_a_graph_that_takes_its_input_apart_has_inputs_of_its_own():
    class Unread(nn.Module):
        def forward(self, image, mask):
            return image * 2

    graph = trace(joined(Unread(), INPUTS), IMAGES).graph
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    whole = with_own_inputs(fx.GraphModule({}, graph), INPUTS)
    assert torch.equal(whole(IMAGES), 2 * IMAGES[:, :3])
    assert torch.equal(separated(whole)(IMAGES[:, :3], IMAGES[:, 3:]), 2 * IMAGES[:, :3])
    assert [node.target for node in separated(whole).graph.nodes if node.op == "placeholder"] == ["image", "mask"]


def test_names_that_fx_gives_other_values_stay_arguments():
    class Product(nn.Module):
        def forward(self, input, input_1):
            return 2 * input * input_1

    names = Inputs(("input", "input_1"), (3, 1))  # fx calls the value of `input`, a builtin, `input_1`
    whole = with_own_inputs(fx.GraphModule({}, trace(joined(Product(), names), IMAGES).graph), names)
    assert torch.equal(separated(whole)(IMAGES[:, :3], IMAGES[:, 3:]), 2 * IMAGES[:, :3] * IMAGES[:, 3:])


def test_opened_gives_the_network_what_it_takes(network):
    own, images = opened(joined(network, INPUTS), IMAGES)
    assert type(own) is Matting
    assert [image.shape[1] for image in images] == [3, 1]
    assert torch.equal(torch.cat(images, 1), IMAGES)
    alone, whole = opened(network, IMAGES)
    assert alone is network
    assert whole[0] is IMAGES
    assert shapes_of(joined(network, INPUTS), IMAGES.shape) == ((3, SIDE, SIDE), (1, SIDE, SIDE))
    assert shapes_of(network, IMAGES.shape) == ()


def test_inputs_that_are_rejected_are_named_one_by_one(network):
    with pytest.raises(InputShapeError, match=r"^the network rejects inputs of 2x3x16x16, 2x2x16x16: "):
        run_once(joined(network, Inputs(("image", "mask"), (3, 2))), torch.cat([IMAGES, IMAGES[:, :1]], 1))


def by_pieces(network: nn.Module, found: Network) -> torch.Tensor:
    """What a traced network computes piece by piece, each with nothing but its entry and the input."""
    value = IMAGES
    for piece in found.segments:
        known = {found.source: IMAGES, piece.entry: value}
        value = run_nodes(network, piece.nodes, known)[piece.exit]
    return value


def test_a_trace_can_be_cut_between_the_inputs(network):
    """Parts of the input are taken anew in every piece, but for one that is written into."""
    found = trace(joined(network, INPUTS), IMAGES)
    assert len(found.segments) > 3
    assert torch.equal(by_pieces(joined(network, INPUTS), found), joined(network, INPUTS)(IMAGES))


def test_a_part_that_is_written_into_is_not_taken_anew():
    class Written(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, image, mask):
            features = self.one(image)
            image.mul_(2)
            return self.two(features) + self.three(image)

    whole = joined(Written(), INPUTS)
    found = trace(whole, IMAGES)
    assert torch.equal(by_pieces(whole, found), whole(IMAGES))


def test_part_of_is_a_copy():
    part = part_of(IMAGES[:1], 1, 2)
    assert part.is_contiguous()
    assert part.data_ptr() != IMAGES[:, 1:].data_ptr()
    assert torch.equal(part, IMAGES[:1, 1:3])


def test_names_are_those_of_the_forward():
    class Anything(nn.Module):
        def forward(self, *images, scale=1):
            return images[0]

    class Optional(nn.Module):
        def forward(self, image, mask=None):
            return image

    assert positional_names(Matting()) == (("image", "mask"), 2)
    assert positional_names(Optional()) == (("image", "mask"), 1)
    assert input_names(Optional(), 2) == ("image", "mask")
    assert input_names(Anything(), 2) == ("input_0", "input_1")
