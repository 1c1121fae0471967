"""Parts of networks that cannot be traced as a whole are found, and fitted as the networks that they are."""

import copy
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.fitting.nets import ResidualNet, images, settled
from tests.fitting.test_sweep import FIT_ALONE, error
from vfconvert.analysis.graph import trace
from vfconvert.analysis.parts import Part, parts_of
from vfconvert.analysis.profile import profile
from vfconvert.fitting.options import FitOptions
from vfconvert.fitting.passes import Passes
from vfconvert.fitting.sweep import Fitted, compress
from vfconvert.fitting.untraced import entry_of
from vfconvert.nn import VersatileConv2d
from vfconvert.planning import Plan, Wish, make_plan


class Trunk(ResidualNet):
    """The same without its classifier."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(x)))
        x = F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))) + x)
        return F.relu(self.norm3(self.conv3(x)) + self.project(x))


class Router(nn.Module):
    """A branch on values around a trunk that has none; `before` and `head` are convolutions of their own."""

    def __init__(self, before: bool = False) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 5, 1))
        self.before = nn.Conv2d(3, 3, 3, padding=1) if before else nn.Identity()
        self.trunk = Trunk()

    def forward(self, x: Tensor) -> Tensor:
        x = self.trunk(self.before(2 * x))
        if float(x.detach().mean()) < -1e6:
            return x.mean((2, 3))
        return self.head(x).mean((2, 3))


class Twice(Router):
    """Calls the trunk twice."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + super().forward(x.flip(3))


class Keyword(Router):
    """Calls the trunk by keyword."""

    def forward(self, x: Tensor) -> Tensor:
        if float(x.detach().mean()) < -1e6:
            return x
        return self.trunk(x=x).mean((2, 3))


def data(count: int = 96) -> Tensor:
    return images(count)


def router(kind: type[Router] = Router, before: bool = False) -> Router:
    torch.manual_seed(1)
    return settled(kind(before))


def planned(model: nn.Module, parts: tuple[Part, ...], include: tuple[str, ...] = ()) -> Plan:
    norms = {layer: norm for part in parts for layer, norm in part.following_norm.items()}
    return make_plan(model, profile(model, data(2)), norms, Wish(), include=include)


def fitted(model: nn.Module, parts: tuple[Part, ...], options: FitOptions = FIT_ALONE) -> Fitted:
    return compress(model, None, planned(model, parts), data(), options, parts=parts)


def test_the_largest_parts_are_found_in_the_order_of_their_calls() -> None:
    model = router()
    assert trace(model, data(2)) is None
    parts = parts_of(model, data(2))
    assert [part.name for part in parts] == ["trunk", "head"]
    assert parts[0].following_norm["trunk.conv1"] == "trunk.norm1"
    assert (parts[0].own("trunk.conv1"), parts[0].own("head.0"), parts[0].own("trunk2.conv1")) == ("conv1", None, None)


def test_what_is_called_twice_or_otherwise_is_no_part() -> None:
    assert parts_of(router(Twice), data(2)) == ()
    assert [part.name for part in parts_of(router(Keyword), data(2))] == []


def test_inputs_of_parts_are_held_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, held = router(), list[weakref.ref[Tensor]]()

    def tried(module: nn.Module, given: Tensor) -> None:
        assert sum(each() is not None for each in held) == 0
        torch.testing.assert_close(given, entry_of(Passes(model), names[module], data(2), 2))
        held.append(weakref.ref(given))

    names = {module: name for name, module in model.named_modules()}
    monkeypatch.setattr("vfconvert.analysis.parts.trace", tried)
    assert parts_of(model, data(2)) == ()
    assert len(held) == 2


def test_what_is_called_by_chance_is_no_part() -> None:
    class Chance(Router):
        passes = 0

        def forward(self, x: Tensor) -> Tensor:
            Chance.passes += 1
            return super().forward(x) if Chance.passes == 1 else x.mean((2, 3))

    assert parts_of(settled(Chance()), data(2)) == ()


def test_a_part_is_fitted_as_the_network_that_it_is() -> None:
    model = router()
    before = copy.deepcopy(model.state_dict())
    parts = parts_of(model, data(2))
    student = fitted(model, parts).model
    own = trace(model.trunk, 2 * data(2))
    plan = make_plan(model.trunk, profile(model.trunk, 2 * data(2)), own.following_norm, Wish())
    alone = compress(model.trunk, own, plan, 2 * data(), FIT_ALONE)
    for name, tensor in alone.model.state_dict().items():
        assert torch.equal(student.trunk.state_dict()[name], tensor), name
    assert isinstance(student.head[0], VersatileConv2d)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_it_is_better_than_layer_by_layer() -> None:
    model, options = router(), FitOptions(block_steps=60, output_steps=0)
    with_parts, without = fitted(model, parts_of(model, data(2)), options), fitted(model, (), options)
    assert with_parts.unexplained.keys() == without.unexplained.keys()
    fresh = 2 * data(160)[96:]
    errors = [error(model.trunk, found.model.trunk, fresh) for found in (with_parts, without)]
    assert errors[0] < 0.8 * errors[1]


def test_a_part_behind_what_was_converted_is_fitted_by_whole_passes() -> None:
    """Its input is no longer the original's, which the fit of a network of its own does not know of."""
    model = router(before=True)
    plan = planned(model, parts_of(model, data(2)), include=("before", "trunk.*"))
    assert "before" in [decision.layer for decision in plan.converted]
    found = compress(model, None, plan, data(), FIT_ALONE, parts=parts_of(model, data(2)))
    assert set(found.unexplained) == {decision.layer for decision in plan.converted}


def test_entries_are_what_the_part_is_given() -> None:
    model = router()
    assert torch.equal(entry_of(Passes(model), "trunk", data(5), 2), 2 * data(5))
    assert entry_of(Passes(model), "head", data(5), 2).shape[:2] == (5, 16)
    assert not model.trunk._forward_pre_hooks
