"""Every rule that keeps a layer, each with a network that breaks just that rule."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from vfconvert.analysis.profile import profile
from vfconvert.errors import NothingEligibleError
from vfconvert.planning import Convert, Keep, Plan, Wish, make_plan


class OwnConv(nn.Conv2d):
    """A subclass, which may do anything."""


def network(*layers: nn.Module) -> nn.Sequential:
    """A stem that is kept and converted company, around what is tested: layer "1"."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), *layers, nn.Conv2d(8, 8, 3)).eval()


def plan_of(model: nn.Module, wish: Wish | None = None, **selection: object) -> Plan:
    example = torch.zeros(1, 3, 16, 16)
    return make_plan(model, profile(model, example), {}, wish or Wish(), **selection)  # type: ignore[arg-type]


def decision(plan: Plan, layer: str) -> Convert | Keep:
    return next(d for d in plan.decisions if d.layer == layer)


def subclass() -> nn.Module:
    return OwnConv(8, 8, 3)


def weight_norm() -> nn.Module:
    return parametrizations.weight_norm(nn.Conv2d(8, 8, 3))


def pruned() -> nn.Module:
    return prune.random_unstructured(nn.Conv2d(8, 8, 3), "weight", 0.5)


def hooked() -> nn.Module:
    conv = nn.Conv2d(8, 8, 3)
    conv.register_forward_hook(lambda module, inputs, output: output * 2)
    return conv


def depthwise() -> nn.Module:
    return nn.Conv2d(8, 8, 3, groups=8)


def pointwise() -> nn.Module:
    return nn.Conv2d(8, 8, 1)


@pytest.mark.parametrize(
    ("build", "code", "reason"),
    [
        (subclass, "subclass", "OwnConv is a subclass of Conv2d"),
        (weight_norm, "parametrized", "computed by a parametrization"),
        (pruned, "parametrized", "computed from other tensors"),
        (hooked, "hooks", "forward hook"),
        (depthwise, "depthwise", "each of the 8 groups has one output"),
        (pointwise, "nothing-to-share", "a 1x1 kernel cannot be cropped; --channel would include it"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_rule_keeps_the_layer_and_says_why(build: Callable[[], nn.Module], code: str, reason: str) -> None:
    plan = plan_of(network(build()))
    kept = decision(plan, "1")
    assert isinstance(kept, Keep)
    assert kept.code == code
    assert reason in kept.reason
    assert [c.layer for c in plan.converted] == ["2"]


def test_rule_keeps_a_module_with_two_names() -> None:
    conv = nn.Conv2d(8, 8, 3, padding=1)
    kept = decision(plan_of(network(conv, conv)), "1")
    assert isinstance(kept, Keep)
    assert kept.code == "shared"
    assert "also 2" in kept.reason


class CallsTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.unused = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x))


def test_rules_keep_what_is_never_called_and_not_what_is_called_twice() -> None:
    plan = plan_of(network(CallsTwice()))
    never = decision(plan, "1.unused")
    assert isinstance(decision(plan, "1.conv"), Convert)
    assert isinstance(never, Keep)
    assert never.code == "never-run"
    assert "does not call it" in never.reason


def test_rule_keeps_tied_weights() -> None:
    model = network(nn.Conv2d(8, 8, 3))
    model[2].weight = model[1].weight
    plan = plan_of(nn.Sequential(*model, nn.Conv2d(8, 8, 3)))
    assert {d.layer: getattr(d, "code", "convert") for d in plan.decisions} == {
        "0": "first",
        "1": "tied",
        "2": "tied",
        "3": "convert",
    }


def test_first_convolution_is_kept_by_default_and_by_no_other_name() -> None:
    assert decision(plan_of(network()), "0") == Keep(
        layer="0",
        geometry=decision(plan_of(network()), "0").geometry,
        code="first",
        reason="first convolution, of few input channels (3); --include-first converts it",
    )
    assert isinstance(decision(plan_of(network(), include_first=True), "0"), Convert)
    assert isinstance(decision(plan_of(network(), include=["0"]), "0"), Convert)


def test_globs_select_layers() -> None:
    model = nn.Sequential(network(nn.Conv2d(8, 8, 3)), nn.Conv2d(8, 8, 3)).eval()
    only = plan_of(model, include=["0.*"], exclude=["*.1"])
    assert [c.layer for c in only.converted] == ["0.0", "0.2"]
    assert {k.layer: k.code for k in only.kept} == {"0.1": "excluded", "1": "not-included"}
    assert next(k.reason for k in only.kept if k.layer == "0.1") == "--exclude *.1"


def test_first_convolution_is_the_first_that_runs() -> None:
    class HeadFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.stem = nn.Conv2d(8, 8, 3), nn.Conv2d(3, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.stem(x))

    plan = plan_of(HeadFirst().eval())
    assert {d.layer: getattr(d, "code", "convert") for d in plan.decisions} == {"head": "convert", "stem": "first"}


def test_network_that_is_one_layer_is_refused() -> None:
    with pytest.raises(NothingEligibleError, match="wrap it in a Sequential"):
        plan_of(nn.Conv2d(3, 8, 3).eval())
