"""Samples in the place of a covariance: the same numbers as the matrix gives, down to the fit of a whole layer."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.references import assert_close_enough
from vfconvert.ops.crops import crops_and_levels
from vfconvert.ops.fit import _solve, fit_group
from vfconvert.ops.matching import Assignment, _into_slots, assign
from vfconvert.ops.metric import Dense, Factored
from vfconvert.ops.moments import Moments, MomentSum, SampleSum
from vfconvert.ops.problem import Problem
from vfconvert.ops.sharing import Sharing
from vfconvert.specs import ConvGeometry, VersatileSpec

SAMPLES, CHANNELS, KERNEL = 12, 4, (5, 5)
INPUTS = CHANNELS * 25


def twins(diagonal: float = 0.3) -> tuple[Factored, Dense]:
    samples = torch.randn(SAMPLES, INPUTS, dtype=torch.float64)
    return Factored(samples, diagonal), Dense(samples.T @ samples + diagonal * torch.eye(INPUTS, dtype=torch.float64))


def problems(outputs: int = 9, windows: int = 1) -> tuple[Problem, Problem, Tensor]:
    """One layer with fewer samples than inputs twice: by its samples, and by their covariance; and its old weight."""
    torch.manual_seed(1)
    geometry = ConvGeometry(in_channels=CHANNELS, out_channels=outputs, kernel_size=KERNEL)
    crops, levels = crops_and_levels(KERNEL)
    spec = VersatileSpec(crops=crops, levels=levels, windows=windows, channel_stride=1 if windows > 1 else 0)
    old = torch.randn(outputs, INPUTS, dtype=torch.float64)
    x = torch.randn(SAMPLES, INPUTS, dtype=torch.float64).relu()
    t = x @ old.T + 0.3 * torch.randn(SAMPLES, outputs, dtype=torch.float64)
    x, t = (x - x.mean(0)) / SAMPLES**0.5, (t - t.mean(0)) / SAMPLES**0.5
    moments = Moments(
        covariance=Factored(x),
        cross=x.T @ t,
        input_mean=torch.zeros(INPUTS),
        target_mean=torch.zeros(outputs),
        target_variance=t.square().sum(0),
        count=SAMPLES,
    )
    importance = torch.rand(outputs, dtype=torch.float64) + 0.1
    matrices = (moments, replace(moments, covariance=x.T @ x))
    factored, dense = (Problem.of(each, geometry, spec, importance, old) for each in matrices)
    return factored, dense, old


def test_products_and_solutions_are_those_of_the_matrix() -> None:
    factored, dense = twins()
    rows, at = torch.randn(7, INPUTS, dtype=torch.float64), torch.randperm(INPUTS)[:60].sort().values
    assert_close_enough(factored.times(rows), dense.times(rows))
    assert_close_enough(factored.solve(rows.T), dense.solve(rows.T))
    assert_close_enough(factored.on(at).solve(rows.T[at]), dense.on(at).solve(rows.T[at]))


def test_meta_another_diagonal_gives_another_solution() -> None:
    factored, dense = twins()
    rows = torch.randn(7, INPUTS, dtype=torch.float64)
    with pytest.raises(AssertionError, match="differs by"):
        assert_close_enough(factored.raised(1e-6).solve(rows.T), dense.solve(rows.T))


def test_average_is_solved_as_the_matrix_is() -> None:
    factored, dense = twins()
    parts = [(torch.arange(start, INPUTS), torch.tensor(w, dtype=torch.float64)) for start, w in ((10, 0.5), (40, 2.0))]
    columns = torch.randn(INPUTS, 3, dtype=torch.float64)
    found, wanted = factored.averaged(parts)(columns), dense.averaged(parts)(columns)
    assert_close_enough(found[10:], wanted[10:], tolerance=1e-3)  # the matrix is raised by 1e-6 of its diagonal
    with pytest.raises(AssertionError, match="differs by"):
        assert_close_enough(factored.averaged(parts[:1])(columns)[10:], wanted[10:], tolerance=1e-3)


@pytest.mark.parametrize("windows", [1, 2], ids=["crops", "crops-and-windows"])
def test_costs_of_sharing_are_those_of_the_matrix(windows: int) -> None:
    factored, dense, _ = problems(windows=windows)
    for first in range(len(factored.masks)):
        for second in range(len(factored.masks)):
            if first != second:
                found, ratio = Sharing(factored).cost(first, second)
                wanted, wanted_ratio = Sharing(dense).cost(first, second)
                assert_close_enough(found, wanted, tolerance=1e-4)
                assert_close_enough(ratio.abs().log(), wanted_ratio.abs().log(), tolerance=1e-4)


def test_solve_equals_the_dense_solution_of_every_primary() -> None:
    factored, dense, _ = problems()
    state = assign(factored)
    state = Assignment(mask=state.mask, primary=state.primary, scale=torch.rand(9, dtype=torch.float64) + 0.5)
    bank = _solve(factored, state, torch.zeros(factored.primaries, INPUTS, dtype=torch.float64))
    for primary in range(factored.primaries):
        system, right = torch.zeros(INPUTS, INPUTS, dtype=torch.float64), torch.zeros(INPUTS, dtype=torch.float64)
        for o in (state.primary == primary).nonzero().flatten().tolist():
            m, alpha, w = dense.masks[state.mask[o]].double(), state.scale[o], dense.weights[o]
            system += w * alpha**2 * torch.outer(m, m) * dense.covariance
            right += w * alpha * m * dense.cross[:, o]
        assert_close_enough(bank[primary], torch.linalg.lstsq(system, right, driver="gelsd").solution, tolerance=1e-3)


def test_fit_by_samples_is_that_by_the_covariance() -> None:
    factored, dense, _ = problems()
    found, wanted = fit_group(factored), fit_group(dense)
    assert found.unexplained == pytest.approx(wanted.unexplained, rel=1e-4)
    assert torch.equal(found.primary, wanted.primary)
    filters = [(fit.bank[fit.primary] * fit.scale[:, None]) for fit in (found, wanted)]
    assert_close_enough(filters[0], filters[1], tolerance=1e-3)


def test_what_no_sample_shows_keeps_the_old_weight() -> None:
    factored, _, old = problems()
    full = factored.unshared[0].T  # the whole kernel, shared with none
    space = torch.linalg.svd(factored.metric.samples, full_matrices=False).Vh[:SAMPLES]  # type: ignore[union-attr]
    outside = torch.eye(INPUTS, dtype=torch.float64) - space.T @ space
    assert_close_enough(full @ outside, old @ outside, tolerance=2e-3)  # the ridge takes a little
    with pytest.raises(AssertionError, match="differs by"):
        assert_close_enough(full, old, tolerance=2e-3)  # what samples do show is fitted to them


def test_sharing_in_what_no_sample_shows_is_least_squares_on_the_weights() -> None:
    """With one sample nearly all is unseen: the fit is then that of the old weights themselves."""
    torch.manual_seed(2)
    geometry = ConvGeometry(in_channels=CHANNELS, out_channels=6, kernel_size=KERNEL)
    crops, levels = crops_and_levels(KERNEL)
    spec = VersatileSpec(crops=crops, levels=levels)
    old = torch.randn(6, INPUTS, dtype=torch.float64)
    nothing = Moments(
        covariance=Factored(torch.zeros(1, INPUTS, dtype=torch.float64)),
        cross=torch.zeros(INPUTS, 6, dtype=torch.float64),
        input_mean=torch.zeros(INPUTS),
        target_mean=torch.zeros(6),
        target_variance=torch.zeros(6, dtype=torch.float64),
        count=1,
    )
    dense = replace(nothing, covariance=torch.zeros(INPUTS, INPUTS, dtype=torch.float64))
    importance = torch.ones(6, dtype=torch.float64)
    found = fit_group(Problem.of(nothing, geometry, spec, importance, old))
    wanted = fit_group(Problem.of(dense, geometry, spec, importance, old))
    assert torch.equal(found.primary, wanted.primary)
    assert found.unexplained < 0.6  # of the old weights' squares, which are white
    assert found.unexplained == pytest.approx(wanted.unexplained, rel=1e-6)


def test_kept_samples_have_the_moments_of_all() -> None:
    x, t = torch.randn(30, 50) * 2 + 5, torch.randn(30, 3) - 2
    kept, total = SampleSum(30), MomentSum(50, 3)
    for at in range(0, 30, 8):
        kept.add(x[at : at + 8], t[at : at + 8])
        total.add(x[at : at + 8], t[at : at + 8])
    found, wanted = kept.result(), total.result()
    eye = torch.eye(50)
    assert isinstance(found.covariance, Factored)
    assert_close_enough(found.covariance.times(eye), wanted.covariance, tolerance=1e-5)
    for name in ("cross", "input_mean", "target_mean", "target_variance"):
        assert_close_enough(getattr(found, name), getattr(wanted, name), tolerance=1e-5)
    assert found.count == wanted.count == 30


def test_kept_samples_are_limited_and_asked_for_once() -> None:
    kept = SampleSum(5)
    for _ in range(3):
        kept.add(torch.randn(4, 9), torch.randn(4, 2))
    assert kept.result().count == 5
    with pytest.raises(ValueError, match="taken twice"):
        kept.result()


def test_slots_of_many_outputs_are_filled_as_well_as_those_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = torch.rand(101, 3, dtype=torch.float64).numpy()
    few = _into_slots(losses, 34)
    monkeypatch.setattr("vfconvert.ops.matching._HUNGARIAN", 10)
    many = _into_slots(losses, 34)
    assert int(torch.bincount(many).max()) <= 34
    assert losses[range(101), many].sum() == pytest.approx(losses[range(101), few].sum())
    assert losses[range(101), many].sum() < losses[range(101), torch.arange(101) % 3].sum()
