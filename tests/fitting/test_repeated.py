"""Layers that a pass calls several times: fitted by least squares over all of their calls, in every kind of network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.fitting.nets import images
from tests.references import assert_close_enough
from tests.repeated_nets import Decides, OwnNorms, Pyramid, Recurrent, normed, pyramid, recurrent
from vfconvert.analysis.graph import Network, trace
from vfconvert.analysis.parts import parts_of
from vfconvert.fitting.options import FitOptions
from vfconvert.fitting.sweep import Fitted, compress
from vfconvert.nn import VersatileConv2d
from vfconvert.planning import Convert, Plan
from vfconvert.specs import ConvGeometry, Crop, VersatileSpec

PLAIN = FitOptions(block_steps=0, output_steps=0, residual_targets=False, refit_kept=False)
COLUMN = VersatileSpec(crops=(Crop(0, 3, 1, 2),), levels=((0,),))  # every output reads the middle column of its filter
FULL = VersatileSpec(crops=(Crop(0, 3, 0, 3),), levels=((0,),))
DATA = images(96)  # few enough that every position of every call is a sample

Call = tuple[Tensor, Tensor]


def plan_of(model: nn.Module, names: list[str], spec: VersatileSpec, norms: dict[str, str] | None = None) -> Plan:
    layers = {name: model.get_submodule(name) for name in names}
    return Plan(
        decisions=tuple(
            Convert(layer=name, geometry=ConvGeometry.of(layer), spec=spec, norm=(norms or {}).get(name))
            for name, layer in layers.items()
            if isinstance(layer, nn.Conv2d)
        )
    )


def traced(model: nn.Module) -> Network:
    network = trace(model, DATA[:2])
    assert network is not None
    return network


def fitted(model: nn.Module, names: list[str], *, as_a_graph: bool, prefix: str = "") -> Fitted:
    network = traced(model) if as_a_graph else None
    return compress(model, network, plan_of(model, [f"{prefix}{name}" for name in names], COLUMN), DATA, PLAIN)


@torch.no_grad()
def calls_of(model: nn.Module, name: str) -> list[Call]:
    """What a layer reads and gives in every call of a pass on all data."""
    found: list[Call] = []
    layer = model.get_submodule(name)
    hook = layer.register_forward_hook(lambda _, inputs, output: found.append((inputs[0].clone(), output.clone())))
    try:
        model(DATA.clone())
    finally:
        hook.remove()
    return found


def columns(x: Tensor) -> Tensor:
    """The middle columns under a 3x3 kernel and a constant: `(B, C, H, W) -> (B H W, 3 C + 1)` float64."""
    unfolded = F.unfold(x.double(), 3, padding=1).unflatten(1, (x.shape[1], 3, 3))[:, :, :, 1]  # (B, C, 3, L)
    rows = unfolded.flatten(1, 2).transpose(1, 2).flatten(0, 1)
    return torch.cat([rows, torch.ones(len(rows), 1)], 1)


def flat(t: Tensor) -> Tensor:
    """`(B, N, H, W) -> (B H W, N)` float64."""
    return t.double().flatten(2).transpose(1, 2).flatten(0, 1)


def dense_fit(calls: list[Call]) -> Tensor:
    """Least squares `(3 C + 1, N)` over all positions of these calls."""
    design, wanted = torch.cat([columns(x) for x, _ in calls]), torch.cat([flat(t) for _, t in calls])
    return torch.linalg.lstsq(design, wanted).solution


def weights_of(found: Fitted, name: str) -> Tensor:
    """What was fitted, as `dense_fit` gives it."""
    layer = found.model.get_submodule(name)
    assert isinstance(layer, VersatileConv2d)
    assert layer.bias is not None
    column = layer.expanded_weight().detach()[:, :, :, 1].flatten(1).T
    return torch.cat([column, layer.bias.detach()[None]]).double()


def loss(weights: Tensor, calls: list[Call]) -> float:
    """The squared error over all positions of these calls."""
    return sum(float((columns(x) @ weights - flat(t)).square().sum()) for x, t in calls)


def assert_fitted_to(weights: Tensor, calls: list[Call]) -> None:
    """Hardly worse than least squares over all positions of these calls."""
    least = loss(dense_fit(calls), calls)
    assert loss(weights, calls) <= 1.002 * least, f"{loss(weights, calls) / least} times the least error"


@pytest.mark.parametrize("as_a_graph", [True, False], ids=["traced", "untraced"])
@pytest.mark.parametrize(
    ("build", "layer"), [(pyramid, "tower"), (pyramid, "scores"), (recurrent, "first"), (recurrent, "second")]
)
def test_fit_is_that_of_all_calls(build, layer, as_a_graph):
    model = build().eval()
    prefix = "" if as_a_graph else "network."
    found = fitted(model if as_a_graph else Decides(model).eval(), [layer], as_a_graph=as_a_graph, prefix=prefix)
    calls = calls_of(model, layer)
    assert len(calls) == 3
    assert_fitted_to(weights_of(found, prefix + layer), calls)
    for call in calls:
        with pytest.raises(AssertionError, match="times the least error"):
            assert_fitted_to(dense_fit([call]), calls)


@pytest.mark.parametrize("as_a_graph", [True, False], ids=["traced", "untraced"])
def test_calls_of_a_head_are_fitted_to_what_the_student_gives_it(as_a_graph):
    model = pyramid().eval()
    prefix = "" if as_a_graph else "network."
    whole = model if as_a_graph else Decides(model).eval()
    found = fitted(whole, ["stem", "tower"], as_a_graph=as_a_graph, prefix=prefix)
    theirs, ours = calls_of(model, "tower"), calls_of(found.model, f"{prefix}tower")
    calls = [(read, given) for (read, _), (_, given) in zip(ours, theirs, strict=True)]
    assert_fitted_to(weights_of(found, f"{prefix}tower"), calls)
    with pytest.raises(AssertionError, match="times the least error"):
        assert_fitted_to(dense_fit(theirs), calls)


def test_unexplained_share_is_that_of_all_calls():
    model = pyramid().eval()
    found = fitted(model, ["tower"], as_a_graph=True)
    wanted, got = (torch.cat([flat(t) for _, t in calls_of(network, "tower")]) for network in (model, found.model))
    share = (got - wanted).var(0).sum() / wanted.var(0).sum()
    assert_close_enough(torch.tensor(found.unexplained["tower"]).double(), share, tolerance=0.01)


@pytest.mark.parametrize("build", [pyramid, recurrent, normed], ids=lambda build: build.__name__)
def test_full_filters_give_the_teacher_back(build):
    model = build().eval()
    network = traced(model)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    plan = plan_of(model, names, FULL, network.following_norm)
    student = compress(model, network, plan, DATA, replace(PLAIN, residual_targets=True)).model
    with torch.no_grad():
        assert_close_enough(student(DATA), model(DATA), tolerance=0.02)


def test_all_calls_of_a_layer_are_in_one_segment():
    network = traced(recurrent().eval())
    homes = [
        {number for number, s in enumerate(network.segments) for node in s.nodes if str(node.target) == name}
        for name in ("stem", "first", "second", "last")
    ]
    assert [len(home) for home in homes] == [1, 1, 1, 1]
    assert homes[1] == homes[2]
    assert len(network.segments) > 2


@pytest.mark.parametrize(
    "build", [Recurrent, Pyramid, lambda: Recurrent(norms=True)], ids=["recurrent", "head", "norm"]
)
def test_reconstruction_trains_all_calls_together(build):
    torch.manual_seed(3)
    model = build().eval()
    network = traced(model)
    plan = plan_of(model, [name for name in ("first", "second", "tower") if hasattr(model, name)], COLUMN)
    plan = Plan(decisions=tuple(replace(d, norm=network.following_norm.get(d.layer)) for d in plan.converted))
    held_out = images(160)[96:]

    def error(options: FitOptions) -> float:
        student = compress(model, network, plan, DATA, options).model
        with torch.no_grad():
            return float((student(held_out) - model(held_out)).norm())

    steps = {"output_steps": 100, "output_rate": 1e-3} if build is Pyramid else {"block_steps": 100}
    assert error(replace(PLAIN, **steps)) < 0.96 * error(PLAIN)  # a head on levels ends the network: it has no block


def test_norm_that_follows_every_call_is_the_layers():
    assert traced(normed()).following_norm == {"first": "norm"}


def test_norm_that_follows_one_call_alone_is_not_the_layers():
    model = OwnNorms().eval()
    with torch.no_grad():
        for norm in model.norms:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    network = traced(model)
    assert network.following_norm == {}
    student = compress(model, network, plan_of(model, ["twice"], FULL), DATA, PLAIN).model
    for number in range(2):
        assert torch.equal(student.norms[number].running_mean, model.norms[number].running_mean)
    with torch.no_grad():
        assert_close_enough(student(DATA), model(DATA), tolerance=0.02)


class Borrows(nn.Module):
    """A part that could be traced, one of whose layers is called from outside too."""

    def __init__(self, borrow: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
        self.borrow = borrow

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x if float(x.detach().sum()) > -1e9 else -x)
        return self.body[2](x) if self.borrow else x


def test_part_whose_layer_is_called_from_outside_is_none():
    assert [part.name for part in parts_of(Borrows(borrow=False).eval(), DATA[:2])] == ["body"]
    assert parts_of(Borrows(borrow=True).eval(), DATA[:2]) == ()
