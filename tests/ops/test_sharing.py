"""Pair costs against a general minimiser, and matchings against all matchings."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from vfconvert.ops.crops import crops_and_levels
from vfconvert.ops.matching import _perfect_matching
from vfconvert.ops.moments import Moments
from vfconvert.ops.problem import Problem
from vfconvert.ops.sharing import Sharing
from vfconvert.specs import ConvGeometry, Crop, VersatileSpec

FULL = ((Crop(0, 3, 0, 3),), ((0,),))


def random_problem(outputs: int = 6, *, windows: int = 1, spatial: bool = True, family: str = "squares") -> Problem:
    geometry = ConvGeometry(in_channels=4, out_channels=outputs, kernel_size=(3, 3))
    crops, levels = crops_and_levels((3, 3), family) if spatial else FULL
    spec = VersatileSpec(crops=crops, levels=levels, windows=windows, channel_stride=1 if windows > 1 else 0)
    samples = torch.randn(400, 36, dtype=torch.float64) @ torch.randn(36, 36, dtype=torch.float64)
    targets = samples @ torch.randn(36, outputs, dtype=torch.float64) + torch.randn(400, outputs, dtype=torch.float64)
    joint = torch.cat([samples, targets], 1).T.cov(correction=0)
    moments = Moments(
        covariance=joint[:36, :36],
        cross=joint[:36, 36:],
        input_mean=torch.zeros(36),
        target_mean=torch.zeros(outputs),
        target_variance=joint.diagonal()[36:],
        count=400,
    )
    return Problem.of(moments, geometry, spec, torch.rand(outputs, dtype=torch.float64) + 0.1)


def loss_of(problem: Problem, output: int, mask: int, filters: Tensor) -> float:
    f = filters * problem.masks[mask]
    left = problem.variance[output] - 2 * f @ problem.cross[:, output] + f @ problem.covariance @ f
    return float(problem.weights[output] * left)


def best_pair(problem: Problem, a: int, b: int, t: int, u: int) -> float:
    """The least loss of two outputs on one primary, by a general minimiser over the ratio of their scales."""

    def at(log_ratio: float, sign: float) -> float:
        ratio = sign * float(np.exp(log_ratio))
        ma, mb = problem.masks[t].double(), problem.masks[u].double()
        system = problem.weights[a] * torch.outer(ma, ma) * problem.covariance
        system = system + problem.weights[b] * ratio**2 * torch.outer(mb, mb) * problem.covariance
        right = problem.weights[a] * ma * problem.cross[:, a] + problem.weights[b] * ratio * mb * problem.cross[:, b]
        system.diagonal().add_(torch.where((ma + mb) > 0, 0.0, 1.0))
        f = torch.linalg.solve(system, right)
        return loss_of(problem, a, t, f) + loss_of(problem, b, u, ratio * f)

    starts = [(x, sign) for x in np.linspace(-5, 5, 41) for sign in (1.0, -1.0)]
    start = min(starts, key=lambda start: at(*start))
    return float(minimize(lambda x: at(float(x[0]), start[1]), [start[0]], method="Nelder-Mead").fun)


@pytest.mark.parametrize("kind", [{"spatial": True}, {"spatial": False, "windows": 2}], ids=["crops", "windows"])
def test_pair_cost_is_the_optimum(kind: dict[str, bool]) -> None:
    problem = random_problem(**kind)
    t, u = problem.slots[0][0], problem.slots[1][0]
    cost, _ = Sharing(problem).cost(t, u)
    for a, b in [(0, 1), (1, 0), (2, 5), (4, 3)]:
        alone = float(problem.unshared_loss[t, a] + problem.unshared_loss[u, b])
        best = best_pair(problem, a, b, t, u)
        assert alone < best  # sharing costs something here, so that the next line can fail
        assert 0 <= alone + float(cost[a, b]) - best <= 0.03 * best


def test_pair_cost_is_zero_without_anything_shared() -> None:
    geometry = ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3, 3))
    problem = random_problem()
    spec = VersatileSpec(crops=FULL[0], levels=FULL[1], windows=2, channel_stride=2)
    assert spec.is_group_convolution(geometry)
    from vfconvert.ops.problem import masks

    apart = Problem(
        covariance=problem.covariance,
        cross=problem.cross,
        variance=problem.variance,
        weights=problem.weights,
        masks=masks(geometry, spec),
        slots=((0,), (1,)),
        primaries=3,
    )
    cost, _ = Sharing(apart).cost(0, 1)
    assert (cost == 0).all()


def all_matchings(left: list[int]) -> Iterator[list[tuple[int, int]]]:
    if not left:
        yield []
        return
    first, rest = left[0], left[1:]
    for other in rest:
        for matching in all_matchings([x for x in rest if x != other]):
            yield [(first, other), *matching]


@pytest.mark.parametrize("count", [2, 6, 8, 7], ids=str)
def test_matching_is_the_best_of_all(count: int) -> None:
    generator = np.random.default_rng(count)
    cost, alone = generator.random((count, count)), generator.random(count)
    found = _perfect_matching(cost, alone, count % 2)

    def total(pairs: list[tuple[int, int]]) -> float:
        return sum(alone[a] if b in (-1, count) else min(cost[a, b], cost[b, a]) for a, b in pairs)

    everyone = list(range(count + count % 2))
    assert sorted(x for pair in found for x in pair if x >= 0) == list(range(count))
    assert total(found) == pytest.approx(min(map(total, all_matchings(everyone))), rel=1e-6)


def test_matching_of_a_large_layer_is_perfect_and_better_than_by_halves() -> None:
    generator = np.random.default_rng(0)
    points = generator.normal(size=(301, 3))
    cost = ((points[:, None] - points[None]) ** 2).sum(-1)
    found = _perfect_matching(cost, np.full(301, 0.5), 1)
    assert sorted(x for pair in found for x in pair if x >= 0) == list(range(301))
    total = sum(0.5 if b < 0 else cost[a, b] for a, b in found)
    naive = sum(cost[a, a + 1] for a in range(0, 300, 2)) + 0.5
    assert total < 0.2 * naive
