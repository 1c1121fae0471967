"""The estimated loss of each number of primaries, against what the fit then reaches."""

import itertools
from dataclasses import replace

import pytest
import torch

from tests.ops.test_sharing import FULL, random_problem
from vfconvert.ops.estimate import Estimate, estimates
from vfconvert.ops.fit import fit_group
from vfconvert.ops.problem import Problem, masks
from vfconvert.specs import ConvGeometry, VersatileSpec

TWO_SLOTS = [{}, {"family": "lines"}, {"spatial": False, "windows": 2}]
KINDS = [*TWO_SLOTS, {"windows": 2}, {"family": "lines", "windows": 2}]
NAMES = ["squares", "lines", "windows", "both", "lines-windows"]


def whole_window(problem: Problem) -> Problem:
    """The problem of two windows of 3 of its 4 channels, with whole filters besides."""
    geometry = ConvGeometry(in_channels=4, out_channels=problem.outputs, kernel_size=(3, 3))
    spec = VersatileSpec(crops=FULL[0], levels=FULL[1], windows=2, channel_stride=1, whole_window=True)
    return replace(problem, masks=masks(geometry, spec), slots=((0, 2), (1,)))


def agrees(estimate: Estimate, problem: Problem, primaries: int) -> bool:
    reached = fit_group(problem.with_primaries(primaries)).unexplained
    return abs(estimate.unexplained - reached) <= 0.04 * reached


@pytest.mark.parametrize("kind", TWO_SLOTS, ids=NAMES[:3])
def test_estimate_of_two_slots_is_what_the_fit_reaches(kind: dict[str, object]) -> None:
    problem = random_problem(10, **kind)  # type: ignore[arg-type]
    for estimate, count in zip(estimates(problem, (5, 7, 10)), (5, 7, 10), strict=True):
        assert agrees(estimate, problem, count)


def test_estimate_with_whole_filters_is_what_the_fit_reaches() -> None:
    problem = whole_window(random_problem(10, spatial=False, windows=2))
    for estimate, count in zip(estimates(problem, (5, 7)), (5, 7), strict=True):
        assert agrees(estimate, problem, count)


@pytest.mark.parametrize("kind", TWO_SLOTS, ids=NAMES[:3])
def test_meta_another_number_of_primaries_is_seen(kind: dict[str, object]) -> None:
    problem = random_problem(10, **kind)  # type: ignore[arg-type]
    for estimate, count in zip(estimates(problem, (6, 7, 8)), (7, 8, 7), strict=True):
        assert not agrees(estimate, problem, count)


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_estimates_fall_as_primaries_grow(kind: dict[str, object]) -> None:
    problem = random_problem(8, **kind)  # type: ignore[arg-type]
    counts = range(problem.primaries, 9)
    found = [estimate.unexplained for estimate in estimates(problem, counts)]
    slack = 1.0 if len(problem.slots) == 2 else 1.05  # with more slots outputs are assigned one after the other
    assert all(later <= slack * earlier for earlier, later in itertools.pairwise(found))
    assert found[-1] < 0.7 * found[0]


def explained(problem: Problem) -> Problem:
    """The problem of outputs that full filters give exactly."""
    cross = problem.covariance @ torch.randn(36, problem.outputs, dtype=torch.float64)
    return replace(problem, cross=cross, variance=(torch.linalg.solve(problem.covariance, cross) * cross).sum(0))


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_nothing_is_left_with_a_primary_for_each_output(kind: dict[str, object]) -> None:
    problem = random_problem(8, **kind)  # type: ignore[arg-type]
    if kind == {"spatial": False, "windows": 2}:
        problem = whole_window(problem)
    elif "windows" in kind:  # all outputs of a first slot, as ever, but of the whole filter
        problem = replace(problem, masks=problem.masks | (torch.arange(len(problem.masks)) == 0)[:, None])
    fewest, most = estimates(explained(problem), (problem.primaries, 8))
    assert most.unexplained < 1e-9 < 1e-3 < fewest.unexplained
    assert {int(problem.masks[mask].sum()) for mask in most.mask} == {36}
    assert sorted(most.primary.tolist()) == list(range(8))


def test_narrow_windows_leave_something_with_a_primary_for_each_output() -> None:
    problem = explained(random_problem(8, spatial=False, windows=2))
    assert estimates(problem, (8,))[0].unexplained > 0.01
    assert estimates(whole_window(problem), (8,))[0].unexplained < 1e-9


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_no_two_outputs_of_a_primary_are_in_one_slot(kind: dict[str, object]) -> None:
    problem = random_problem(9, **kind)  # type: ignore[arg-type]
    counts = range(problem.primaries, 10)
    for count, estimate in zip(counts, estimates(problem, counts), strict=True):
        primary, mask = estimate.primary.tolist(), estimate.mask.tolist()
        assert max(primary) < count
        assert min(primary) >= 0
        taken = [(one, slot_of(problem, at)) for one, at in zip(primary, mask, strict=True)]
        assert len(set(taken)) == 9


def slot_of(problem: Problem, mask: int) -> int:
    (slot,) = [number for number, choices in enumerate(problem.slots) if mask in choices]
    return slot
