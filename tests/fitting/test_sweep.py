"""The whole sweep on small networks: exact where nothing is lost, better with every stage where something is."""

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.fitting.nets import DataDependent, PlainRestorer, ResidualNet, images, settled
from tests.references import assert_close_enough
from vfconvert.analysis.graph import Network, trace
from vfconvert.analysis.profile import profile
from vfconvert.fitting.options import FitOptions
from vfconvert.fitting.sweep import Fitted, compress
from vfconvert.nn import VersatileConv2d
from vfconvert.planning import Convert, Plan, Wish, make_plan
from vfconvert.specs import ConvGeometry, Crop, VersatileSpec

FIT_ALONE = FitOptions(block_steps=0, output_steps=0)
PLAIN = FitOptions(block_steps=0, output_steps=0, residual_targets=False, refit_kept=False)


def planned(
    model: nn.Module, example: Tensor, wish: Wish, include: tuple[str, ...] = ()
) -> tuple[Network | None, Plan]:
    network = trace(model, example)
    norms = network.following_norm if network is not None else {}
    return network, make_plan(model, profile(model, example), norms, wish, include=include)


def fitted(model: nn.Module, data: Tensor, options: FitOptions, wish: Wish | None = None) -> Fitted:
    network, plan = planned(model, data[:2], wish or Wish())
    return compress(model, network, plan, data, options)


def error(model: nn.Module, student: nn.Module, data: Tensor) -> float:
    with torch.no_grad():
        wanted = model(data)
        return float((student(data) - wanted).norm() / (wanted - wanted.mean(0)).norm())


def full_filters(model: nn.Module, network: Network | None) -> Plan:
    """Every convolution to a versatile one that loses nothing: one full filter per output."""
    norms = network.following_norm if network is not None else {}
    decisions = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            kh, kw = module.kernel_size
            spec = VersatileSpec(crops=(Crop(0, kh, 0, kw),), levels=((0,),))
            geometry = ConvGeometry.of(module)
            decisions.append(Convert(layer=name, geometry=geometry, spec=spec, norm=norms.get(name)))
    return Plan(decisions=tuple(decisions))


@pytest.mark.parametrize(
    ("build", "channels"),
    [(ResidualNet, 3), (PlainRestorer, 1), (lambda: PlainRestorer(bias=True), 1), (DataDependent, 3)],
    ids=["residual", "no-norm-no-bias", "no-norm", "untraceable"],
)
def test_full_filters_give_the_teacher_back(build: type[nn.Module], channels: int) -> None:
    model, data = settled(build(), channels), images(96, channels)
    network = trace(model, data[:2])
    assert (network is None) == isinstance(model, DataDependent)
    student = compress(model, network, full_filters(model, network), data, FIT_ALONE).model
    assert sum(isinstance(m, VersatileConv2d) for m in student.modules()) >= 2
    assert error(model, student, data) < 0.01  # the ridge's share


@pytest.mark.parametrize(
    "wish",
    [Wish(), Wish(crops="lines"), Wish(spatial=False, channel=True), Wish(channel=True)],
    ids=["squares", "lines", "windows", "both"],
)
def test_every_stage_brings_the_student_nearer(wish: Wish) -> None:
    model, data = settled(ResidualNet()), images(256)
    held_out = images(400)[256:]
    random_bank = fitted(model, data, PLAIN, wish).model
    for module in random_bank.modules():
        if isinstance(module, VersatileConv2d):
            nn.init.kaiming_uniform_(module.weight)
    plain, full, trained = (
        error(model, fitted(model, data, options, wish).model, held_out)
        for options in (PLAIN, FIT_ALONE, FitOptions(block_steps=60, output_steps=60))
    )
    assert trained < full < error(model, random_bank, held_out)
    assert full < 1.05 * plain
    assert trained < 0.8 * plain


def test_restorer_without_norm_or_bias_is_fitted() -> None:
    model, data = settled(PlainRestorer(), 1), images(128, 1)
    wish = Wish()
    student = fitted(model, data, FitOptions(block_steps=40, output_steps=40), wish).model
    grouped = student.get_submodule("grouped")
    assert isinstance(grouped, VersatileConv2d)
    assert grouped.scale is not None
    assert grouped.bias is not None
    assert error(model, student, images(200, 1)[128:]) < 0.2


def test_teacher_is_untouched_bit_for_bit() -> None:
    model, data = settled(ResidualNet()), images(64)
    before, copied, state = copy.deepcopy(model.state_dict()), data.clone(), torch.random.get_rng_state()
    flags = [p.requires_grad for p in model.parameters()]
    fitted(model, data, FitOptions(block_steps=3, output_steps=3))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    assert torch.equal(data, copied)
    assert torch.equal(state, torch.random.get_rng_state())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_same_seed_gives_the_same_student_bit_for_bit() -> None:
    model, data = settled(ResidualNet()), images(64)
    first, second, other = (
        fitted(model, data, FitOptions(block_steps=3, output_steps=3, seed=seed)).model.state_dict()
        for seed in (5, 5, 6)
    )
    assert all(torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.values(), other.values(), strict=True))


def test_untraceable_network_is_fitted_by_whole_passes() -> None:
    model, data = settled(DataDependent()), images(128)
    student = fitted(model, data, FitOptions(block_steps=40, output_steps=60))
    assert set(student.unexplained) == {"second"}
    assert error(model, student.model, images(200)[128:]) < 0.25


def test_progress_counts_up_to_its_total() -> None:
    model, data = settled(ResidualNet()), images(32)
    seen: dict[str, tuple[int, int]] = {}

    def note(stage: str, done: int, total: int) -> None:
        assert done == seen.get(stage, (0, total))[0] + 1
        seen[stage] = done, total

    network, plan = planned(model, data[:2], Wish())
    compress(model, network, plan, data, FitOptions(block_steps=3, output_steps=4), note)
    assert {stage: done == total for stage, (done, total) in seen.items()} == {
        "fit": True,
        "reconstruct": True,
        "output pass": True,
    }


def test_unexplained_share_is_that_of_the_layer() -> None:
    """The reported figure against the error of the fitted layer itself, on the same inputs."""
    model, data = settled(PlainRestorer(), 1), images(128, 1)
    network, plan = planned(model, data[:2], Wish(), include=("middle",))
    found = compress(model, network, plan, data, PLAIN)
    with torch.no_grad():
        x = torch.relu(model.get_submodule("first")(data))
        wanted, got = model.get_submodule("middle")(x), found.model.get_submodule("middle")(x)
    centred = wanted - wanted.mean((0, 2, 3), keepdim=True)
    share = float((got - wanted).square().sum() / centred.square().sum())
    assert_close_enough(torch.tensor(found.unexplained["middle"]), torch.tensor(share), tolerance=0.05)
