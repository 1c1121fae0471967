"""The closed-form fit: exact where it can be, the optimum of its equations, never worse than what is simple."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ops.test_sharing import random_problem
from tests.references import assert_close_enough
from vfconvert.errors import FitError
from vfconvert.nn import VersatileConv2d
from vfconvert.ops.crops import crops_and_levels
from vfconvert.ops.fit import _solve, fit_group
from vfconvert.ops.matching import Assignment, assign
from vfconvert.ops.moments import Moments, MomentSum
from vfconvert.ops.problem import Problem
from vfconvert.specs import ConvGeometry, Crop, VersatileSpec


def exact_moments(weight: torch.Tensor) -> Moments:
    """Moments of white inputs and the outputs `weight @ x`, `weight` `(N, D)`."""
    size = weight.shape[1]
    mix = torch.randn(size, size, dtype=torch.float64) / size**0.5 + torch.eye(size, dtype=torch.float64)
    covariance = mix @ mix.T
    return Moments(
        covariance=covariance,
        cross=covariance @ weight.T,
        input_mean=torch.zeros(size),
        target_mean=torch.zeros(len(weight)),
        target_variance=((weight @ covariance) * weight).sum(1),
        count=1,
    )


@st.composite
def layers(draw: st.DrawFn) -> tuple[ConvGeometry, VersatileSpec]:
    """Layers whose primaries serve at most two outputs: there the grouping is exact."""
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    channels = draw(st.integers(2, 6))
    crops, levels = crops_and_levels(kernel, draw(st.sampled_from(["squares", "lines"])))
    windows = draw(st.integers(1, 2)) if len(levels) == 1 else 1
    stride = draw(st.integers(1, channels // 2)) if windows == 2 else 0
    spec = VersatileSpec(crops=crops, levels=levels[:2], windows=windows, channel_stride=stride)
    outputs = draw(st.integers(1, 8))
    return ConvGeometry(in_channels=channels, out_channels=outputs, kernel_size=kernel, bias=False), spec


@settings(max_examples=40)
@given(layer=layers(), seed=st.integers(0, 99))
def test_fit_of_a_versatile_weight_finds_it_again(layer: tuple[ConvGeometry, VersatileSpec], seed: int) -> None:
    torch.manual_seed(seed)
    geometry, spec = layer
    weight = VersatileConv2d(geometry, spec, dtype=torch.float64).expanded_weight().detach().flatten(1)
    weight = weight / weight.norm(dim=1, keepdim=True).clamp_min(1e-3)
    importance = torch.ones(len(weight), dtype=torch.float64)
    found = fit_group(Problem.of(exact_moments(weight), geometry, spec, importance))
    assert found.unexplained < 2e-3  # what the ridge and the grid of ratios cost


@pytest.mark.parametrize(
    "kind",
    [{}, {"spatial": False, "windows": 2}, {"windows": 2}, {"family": "lines"}, {"family": "lines", "windows": 2}],
    ids=["squares", "windows", "both", "lines", "lines-windows"],
)
def test_fit_of_a_versatile_weight_explains_nearly_all(kind: dict[str, bool]) -> None:
    problem = random_problem(8, **kind)
    bank = torch.randn(problem.primaries, 36, dtype=torch.float64)
    slot = torch.arange(8) // problem.primaries
    mask = torch.tensor([problem.slots[s][0] for s in slot.tolist()])
    weight = bank[torch.arange(8) % problem.primaries] * problem.masks[mask] * (torch.rand(8, 1).double() + 0.5)
    cross = problem.covariance @ weight.T
    exact = Problem(
        covariance=problem.covariance,
        cross=cross,
        variance=(weight * cross.T).sum(1),
        weights=1 / (weight * cross.T).sum(1),
        masks=problem.masks,
        slots=problem.slots,
        primaries=problem.primaries,
    )
    found = fit_group(exact)
    assert found.unexplained < (1e-4 if len(problem.slots) == 2 else 0.02)


def test_fit_is_no_worse_than_the_papers_order() -> None:
    problem = random_problem(8)
    found = fit_group(problem)
    order = Assignment(mask=torch.arange(8) // 4, primary=torch.arange(8) % 4, scale=torch.ones(8, dtype=torch.float64))
    bank = _solve(problem, order, torch.zeros(4, 36, dtype=torch.float64))
    filters = bank[order.primary] * problem.masks[order.mask]
    left = problem.variance - 2 * (filters * problem.cross.T).sum(1) + ((filters @ problem.covariance) * filters).sum(1)
    ordered = float((problem.weights * left).sum() / (problem.weights * problem.variance).sum())
    assert found.unexplained < ordered


def test_solve_equals_the_dense_solution() -> None:
    problem = random_problem(8, windows=2)
    state = assign(problem)
    state = Assignment(mask=state.mask, primary=state.primary, scale=torch.randn(8, dtype=torch.float64))
    bank = _solve(problem, state, torch.zeros(2, 36, dtype=torch.float64))
    for primary in range(2):
        system, right = torch.zeros(36, 36, dtype=torch.float64), torch.zeros(36, dtype=torch.float64)
        for o in (state.primary == primary).nonzero().flatten().tolist():
            m, alpha, w = problem.masks[state.mask[o]].double(), state.scale[o], problem.weights[o]
            system += w * alpha**2 * torch.outer(m, m) * problem.covariance
            right += w * alpha * m * problem.cross[:, o]
        assert_close_enough(bank[primary], torch.linalg.lstsq(system, right, driver="gelsd").solution, tolerance=1e-3)


@pytest.mark.parametrize("outputs", [1, 2, 5, 7], ids=str)
@pytest.mark.parametrize("kind", [{}, {"windows": 2}], ids=["pairs", "fours"])
def test_assignment_uses_every_slot_at_most_once(outputs: int, kind: dict[str, bool]) -> None:
    found = fit_group(random_problem(outputs, **kind))
    assert len({*zip(found.mask.tolist(), found.primary.tolist(), strict=True)}) == outputs


def test_dead_output_takes_no_weight_and_does_no_harm() -> None:
    problem = random_problem(6)
    dead = Problem(
        covariance=problem.covariance,
        cross=torch.cat([problem.cross[:, :5], torch.zeros(36, 1, dtype=torch.float64)], 1),
        variance=torch.cat([problem.variance[:5], torch.zeros(1, dtype=torch.float64)]),
        weights=problem.weights,
        masks=problem.masks,
        slots=problem.slots,
        primaries=problem.primaries,
    )
    found = fit_group(dead)
    assert torch.isfinite(found.bank).all()
    assert torch.isfinite(found.scale).all()


def test_few_samples_hold_to_the_old_weight() -> None:
    geometry = ConvGeometry(in_channels=8, out_channels=6, kernel_size=(3, 3), bias=False)
    spec = VersatileSpec(crops=(Crop(0, 3, 0, 3),), levels=((0,),))
    old = torch.randn(6, 72)
    seen, unseen = torch.randn(40, 72), torch.randn(500, 72)  # fewer samples than inputs
    total = MomentSum(72, 6)
    total.add(seen, seen @ old.T + 0.5 * torch.randn(40, 6))
    moments, importance = total.result(), torch.ones(6, dtype=torch.float64)

    def error(trusted: torch.Tensor | None) -> float:
        found = fit_group(Problem.of(moments, geometry, spec, importance, trusted))
        filters = (found.bank[found.primary] * found.scale[:, None]).float()
        return float((unseen @ (filters - old).T).norm() / (unseen @ old.T).norm())

    assert error(old) < 0.6 * error(None)


def moments_of_silent(channels: list[int], old: torch.Tensor) -> Moments:
    """Of 3x3 layers of four channels with the weight `old` `(N, 36)`, some channels always 0."""
    samples = torch.randn(500, 36)
    for channel in channels:
        samples[:, 9 * channel : 9 * channel + 9] = 0
    total = MomentSum(36, len(old))
    total.add(samples, samples @ old.T)
    return total.result()


@pytest.mark.parametrize("silent", [[0], [0, 1], [0, 1, 3], [1, 2, 3], [0, 1, 2, 3]])
@pytest.mark.parametrize("windows", [1, 2])
@pytest.mark.parametrize("outputs", [2, 4, 9])
def test_channels_that_nothing_lights_leave_a_fit_finite(silent: list[int], windows: int, outputs: int) -> None:
    torch.manual_seed(outputs)
    geometry = ConvGeometry(in_channels=4, out_channels=outputs, kernel_size=(3, 3), bias=False)
    crops, levels = crops_and_levels((3, 3))
    spec = VersatileSpec(crops=crops, levels=levels, windows=windows, channel_stride=2 if windows > 1 else 0)
    old, importance = torch.randn(outputs, 36), torch.ones(outputs, dtype=torch.float64)
    for trusted in (None, old):
        found = fit_group(Problem.of(moments_of_silent(silent, old), geometry, spec, importance, trusted))
        assert torch.isfinite(found.bank).all()
        assert torch.isfinite(found.scale).all()
        assert 0 <= found.unexplained <= 1.01


def test_inputs_that_never_vary_hold_to_the_old_weight() -> None:
    geometry = ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3, 3), bias=False)
    spec = VersatileSpec(crops=(Crop(0, 3, 0, 3),), levels=((0,),))
    old, importance = torch.randn(6, 36), torch.ones(6, dtype=torch.float64)

    def filters(trusted: torch.Tensor | None) -> torch.Tensor:
        found = fit_group(Problem.of(moments_of_silent([1], old), geometry, spec, importance, trusted))
        return (found.bank[found.primary] * found.scale[:, None]).float()

    assert_close_enough(filters(old)[:, 9:18], old[:, 9:18], tolerance=1e-3)
    assert not filters(None)[:, 9:18].any()


def test_fit_refuses_activations_that_are_not_finite() -> None:
    problem = random_problem(4)
    problem.covariance[0, 0] = float("nan")
    with pytest.raises(FitError, match="not finite on these images"):
        fit_group(problem)
