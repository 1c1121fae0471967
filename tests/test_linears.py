"""Which Linear layers may become convolutions of the map that they read, rule by rule; what such a one computes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.linear_nets import (
    CHANNELS,
    INPUTS,
    OUTPUTS,
    SIDE,
    Decides,
    Flat,
    OwnLinear,
    Twice,
    hooked,
    looked_at,
    parametrized,
    shared,
    tied,
)
from tests.references import assert_close_enough
from vfconvert.analysis.graph import trace
from vfconvert.analysis.profile import profile
from vfconvert.errors import SelectionError
from vfconvert.ledger import flag_of
from vfconvert.linears import kept_linears
from vfconvert.nn import FlattenedConv
from vfconvert.nn.flattened import flattened_convs, with_flattened_convs
from vfconvert.overrides import read_override
from vfconvert.planning import Plan, make_plan
from vfconvert.rewriting import rewrite, with_ordinary_layers
from vfconvert.wishes import Wish

FLATTENS: dict[str, Callable[[Tensor], Tensor]] = {
    "torch-flatten": lambda x: torch.flatten(x, 1),
    "flatten": lambda x: x.flatten(1),
    "view": lambda x: x.view(x.size(0), -1),
    "reshape": lambda x: x.reshape(x.shape[0], INPUTS),
    "module": nn.Flatten(),
}


def plan_of(net: nn.Module, **selection: object) -> Plan:
    """The plan of the network with its Linear layers as convolutions."""
    found, _ = looked_at(net)
    noise = torch.randn(2, 3, 8, 8)
    viewed = with_flattened_convs(net, {linear.name: linear.features for linear in found if linear.reason is None})
    wish = selection.pop("wish", Wish())
    return make_plan(viewed, profile(viewed, noise), {}, wish, **selection)  # type: ignore[arg-type]


@pytest.mark.parametrize("flatten", FLATTENS.values(), ids=FLATTENS)
def test_linear_after_a_flatten_is_found(flatten: Callable[[Tensor], Tensor]) -> None:
    found, _ = looked_at(Flat(flatten))
    assert [(linear.name, linear.features, linear.reason) for linear in found] == [
        ("first", (CHANNELS, SIDE, SIDE), None)
    ]


@pytest.mark.parametrize(
    "between", [nn.Dropout(), nn.ReLU(), nn.BatchNorm1d(INPUTS), nn.Sequential(nn.Dropout(), nn.Tanh())], ids=repr
)
def test_linear_is_found_behind_what_treats_every_number_by_itself(between: nn.Module) -> None:
    found, _ = looked_at(Flat(between=between))
    assert [linear.name for linear in found] == ["first"]


def test_linear_is_found_at_another_size_of_input() -> None:
    found, _ = looked_at(Flat(), side=17)
    assert found[0].features == (CHANNELS, SIDE, SIDE)


@pytest.mark.parametrize(
    "net",
    [
        Flat(side=1),
        Flat(between=nn.Linear(INPUTS, INPUTS), flatten=lambda x: x.flatten(1).flip(1)),
        Flat(linear=nn.Linear(CHANNELS * SIDE, OUTPUTS), flatten=lambda x: x.mean(2).flatten(1)),
    ],
    ids=["one-pixel", "flipped", "mean-of-rows"],
)
def test_linear_that_reads_no_flattened_map_is_not_offered(net: nn.Module) -> None:
    assert looked_at(net)[0] == ()


def test_network_that_cannot_be_traced_offers_none() -> None:
    found, network = looked_at(Decides())
    assert network is None
    assert found == ()


@pytest.mark.parametrize(
    ("net", "code", "said"),
    [
        (Flat(linear=OwnLinear(INPUTS, OUTPUTS)), "subclass", "OwnLinear is a subclass of Linear"),
        (Flat(linear=parametrized()), "parametrized", "computed by a parametrization"),
        (Flat(linear=hooked()), "hooks", "a forward hook"),
        (tied(), "tied", "tied to again.weight"),
        (shared(), "shared", "the same module is also other"),
        (Twice(), "called-repeatedly", "called 2 times"),
        (Flat(flatten=lambda x: x.permute(0, 2, 3, 1).flatten(1)), "moved-axes", "axes moved (permute)"),
    ],
    ids=["subclass", "parametrized", "hooks", "tied", "shared", "called-twice", "channels-last"],
)
def test_rule_keeps_a_linear(net: nn.Module, code: str, said: str) -> None:
    (linear,), _ = looked_at(net)
    assert linear.reason is not None
    assert linear.reason[0] == code
    assert said in linear.reason[1]
    (kept,) = kept_linears((linear,), asked=True)
    assert flag_of(kept) is None


def test_ledger_says_which_flag_includes_a_linear() -> None:
    found, _ = looked_at(Flat())
    (kept,) = kept_linears(found, asked=False)
    assert (kept.layer, kept.code, flag_of(kept)) == ("first", "linear", "--linear")
    assert "features of 3x3" in kept.reason
    assert kept_linears(found, asked=True) == ()


def test_convolution_computes_what_the_linear_does_and_leaves_the_network_alone() -> None:
    net = Flat(between=nn.Dropout()).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    viewed = with_flattened_convs(net, {"first": (CHANNELS, SIDE, SIDE)})
    x = torch.randn(5, 3, 9, 9)
    assert_close_enough(viewed(x), net(x), tolerance=1e-6)
    assert type(net.first) is nn.Linear
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert flattened_convs(viewed) == {"first": (CHANNELS, SIDE, SIDE)}
    assert viewed.first.conv.weight.data_ptr() == net.first.weight.data_ptr()  # no number is held twice
    assert trace(viewed, x) is not None


def test_meta_another_map_computes_something_else() -> None:
    net, x = nn.Linear(12, 3), torch.randn(4, 12)
    conv = FlattenedConv.of(net, (3, 2, 2))
    conv.conv.weight = nn.Parameter(net.weight.detach().view(3, 2, 2, 3).permute(0, 3, 1, 2).contiguous())
    with pytest.raises(AssertionError, match="differs by"):
        assert_close_enough(conv(x), F.linear(x, net.weight, net.bias), tolerance=1e-6)


def test_ordinary_layers_are_the_linear_again() -> None:
    net = Flat().eval()
    viewed = with_flattened_convs(net, {"first": (CHANNELS, SIDE, SIDE)})
    student, x = rewrite(viewed, plan_of(net, include=["first"])), torch.randn(5, 3, 9, 9)
    wanted = student(x)
    with pytest.raises(TypeError, match="got a VersatileConv2d, expected a Conv2d; replace versatile layers first"):
        student.first.as_linear()
    plain = with_ordinary_layers(student)
    assert type(plain.first) is nn.Linear
    assert plain.state_dict().keys() == net.state_dict().keys()
    assert_close_enough(plain(x), wanted, tolerance=1e-6)
    with torch.no_grad():
        plain.first.weight.copy_(plain.first.weight.flip(1))
    with pytest.raises(AssertionError, match="differs by"):
        assert_close_enough(plain(x), wanted, tolerance=1e-6)


def test_globs_call_a_linear_by_its_own_name() -> None:
    only = plan_of(Flat(), include=["first"])
    assert [decision.layer for decision in only.converted] == ["first.conv"]
    kept = plan_of(Flat(), exclude=["first"], include_first=True)
    assert [decision.layer for decision in kept.converted] == ["conv"]
    named = plan_of(Flat(), overrides=[read_override("first=lines")], wish=Wish(spatial=False))
    assert [(d.layer, len(d.spec.crops)) for d in named.converted] == [("first.conv", 4)]
    with pytest.raises(SelectionError, match="no Conv2d layer matches 'second'"):
        plan_of(Flat(), exclude=["second"])
