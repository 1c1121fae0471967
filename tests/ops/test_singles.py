"""Matchings in which some outputs share with none: against all partitions, and of layers too large for that."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tests.ops.test_sharing import random_problem
from vfconvert.ops.matching import _perfect_matching, match_pairs, pair_costs
from vfconvert.ops.sharing import Sharing

Pairs = list[tuple[int, int]]


def partitions(left: list[int], singles: int) -> Iterator[Pairs]:
    """All ways to pair outputs but for so many, which stand alone."""
    if not left:
        yield []
        return
    first, rest = left[0], left[1:]
    if singles:
        yield from ([(first, -1), *found] for found in partitions(rest, singles - 1))
    if len(left) > singles:
        for other in rest:
            yield from ([(first, other), *found] for found in partitions([x for x in rest if x != other], singles))


def total(pairs: Pairs, cost: np.ndarray, alone: np.ndarray) -> float:
    return sum(alone[a] if b < 0 else min(cost[a, b], cost[b, a]) for a, b in pairs)


def best_of_all(cost: np.ndarray, alone: np.ndarray, singles: int) -> float:
    return min(total(found, cost, alone) for found in partitions(list(range(len(cost))), singles))


def random_costs(count: int, size: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Costs of pairs, and of outputs alone, which cost less than in any pair."""
    generator = np.random.default_rng(count)
    alone = 0.3 * generator.random(count)
    return size * (generator.random((count, count)) + alone[:, None] + alone), size * alone


@pytest.mark.parametrize("size", [1.0, 1e-9, 1e9], ids=["", "small", "large"])
@pytest.mark.parametrize(
    ("count", "singles"),
    [(1, 1), (2, 0), (2, 2), (3, 1), (5, 3), (6, 2), (6, 4), (6, 6), (7, 1), (7, 5), (8, 4)],
)
def test_matching_with_singles_is_the_best_of_all(count: int, singles: int, size: float) -> None:
    cost, alone = random_costs(count, size)
    found = _perfect_matching(cost, alone, singles)
    assert sorted(x for pair in found for x in pair if x >= 0) == list(range(count))
    assert sum(b < 0 for _, b in found) == singles
    assert total(found, cost, alone) == pytest.approx(best_of_all(cost, alone, singles), rel=1e-6)


def test_meta_another_matching_is_seen() -> None:
    cost, alone = random_costs(6)
    found = sorted(total(pairs, cost, alone) for pairs in partitions(list(range(6)), 2))
    assert len(found) == 45  # 15 choices of the singles, 3 pairings of the rest
    assert found[1] != pytest.approx(found[0], rel=1e-6)


@pytest.mark.parametrize(("count", "singles"), [(200, 0), (200, 60), (201, 61), (200, 200), (170, 2), (150, 30)])
def test_large_layers_cover_every_output_once(count: int, singles: int) -> None:
    cost, alone = random_costs(count)
    found = _perfect_matching(cost, alone, singles)
    assert sorted(x for pair in found for x in pair if x >= 0) == list(range(count))
    assert sum(b < 0 for _, b in found) == singles
    assert len(found) == (count + singles) // 2
    naive = [(a, -1) for a in range(singles)] + [(a, a + 1) for a in range(singles, count, 2)]
    assert singles == count or total(found, cost, alone) < 0.8 * total(naive, cost, alone)


def test_large_layers_part_the_pairs_that_cost_the_most() -> None:
    generator = np.random.default_rng(0)
    cost = 1 + generator.random((200, 200))
    cost[np.arange(0, 200, 2), np.arange(1, 200, 2)] = np.where(np.arange(100) < 10, 0.5, 0.01)  # cheapest in pairs
    found = _perfect_matching(cost, np.zeros(200), 20)
    assert sorted(a for a, b in found if b < 0) == list(range(20))
    assert sorted((a, b) for a, b in found if b >= 0) == [(a, a + 1) for a in range(20, 200, 2)]


@pytest.mark.parametrize("kind", [{}, {"family": "lines"}, {"spatial": False, "windows": 2}], ids=str)
@pytest.mark.parametrize("primaries", [3, 4, 6])
def test_groupings_of_a_layer_are_the_best_of_all(kind: dict[str, object], primaries: int) -> None:
    problem = random_problem(6, **kind)  # type: ignore[arg-type]
    costs = pair_costs(problem, Sharing(problem))
    assignment, loss = match_pairs(problem.with_primaries(primaries), costs)
    assert sorted(set(assignment.primary.tolist())) == list(range(primaries))
    cost, alone = costs.cost.numpy(), costs.alone.numpy()
    assert loss == pytest.approx(best_of_all(cost, alone, 2 * primaries - 6), rel=1e-6)
    assert torch.equal(costs.alone, problem.unshared_loss[list(problem.slots[0])].min(0).values)
