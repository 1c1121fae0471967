"""The choice under limits against all choices, and what is said where no choice keeps them."""

import itertools
import math

import pytest

from tests.budget.tables import FIXED, best_damage, choices, costs, keep, option, random_table, table_of
from vfconvert.budget.knapsack import check_size, choose, frontier_of, least_of, point_of, uniform
from vfconvert.budget.table import KEEP, OptionTable
from vfconvert.budget.targets import file_bytes
from vfconvert.errors import BudgetError
from vfconvert.planning import Keep


def limits_between(table: OptionTable, shares: dict[str, float]) -> dict[str, float]:
    """Limits so far of the way from the least to the whole."""
    whole = {"params": table.parameters, "macs": table.macs}
    return {
        cost: least_of(table, cost) + share * (whole[cost] - least_of(table, cost)) for cost, share in shares.items()
    }


@pytest.mark.parametrize("shares", [{"params": 0.3}, {"macs": 0.5}, {"params": 0.5, "macs": 0.6}], ids=str)
@pytest.mark.parametrize("seed", range(12))
def test_choice_is_the_least_harmful_of_all(seed: int, shares: dict[str, float]) -> None:
    table = random_table(seed)
    limits = limits_between(table, shares)
    wanted = best_damage(table, limits)
    if wanted is None:
        with pytest.raises(BudgetError, match=r"no plan keeps params of .* and macs of .* together"):
            choose(table, limits)
        return
    found = choose(table, limits)
    cost, damage = costs(table, found.chosen)
    assert all(cost[name] <= limit for name, limit in limits.items())
    assert wanted <= damage <= wanted * (1 + 2e-4)
    assert 0 <= found.gap <= 2e-4


def test_meta_the_second_best_choice_is_seen() -> None:
    table = random_table(0)
    limits = limits_between(table, {"params": 0.3})
    within = sorted(
        damage for cost, damage in (costs(table, c) for c in choices(table)) if cost["params"] <= limits["params"]
    )
    assert within[1] > within[0] * (1 + 2e-4)
    assert costs(table, choose(table, limits).chosen)[1] < within[1]


@pytest.mark.parametrize("cost", ["params", "macs"])
@pytest.mark.parametrize("seed", range(4))
def test_the_least_that_can_be_reached_is_reached(seed: int, cost: str) -> None:
    table = random_table(seed)
    least = least_of(table, cost)
    assert least == min(costs(table, chosen)[0][cost] for chosen in choices(table))
    assert costs(table, choose(table, {cost: least}).chosen)[0][cost] == least
    with pytest.raises(BudgetError, match=rf"^{cost}: .* is wanted, and .* is the least that can be reached"):
        choose(table, {cost: least - 1})


@pytest.mark.parametrize("size", [10**4, 10**6, 10**8])
def test_limit_is_kept_to_the_last_parameter(size: int) -> None:
    milder = option("spatial", size // 2 + 1, 10, 0.001)
    table = table_of((option(KEEP, size, 90, 0), milder, option("both", size // 2, 10, 1.0)))
    assert choose(table, {"params": FIXED + size // 2 + 1}).chosen == (1,)
    assert choose(table, {"params": FIXED + size // 2}).chosen == (2,)


def test_two_limits_that_exclude_each_other() -> None:
    table = table_of((option(KEEP, 100, 100, 0), option("spatial", 50, 100, 1), option("channel", 100, 50, 1)))
    said = "no plan keeps params of 1,050 and macs of 1,050 together; give more room to one of them"
    with pytest.raises(BudgetError, match=said):
        choose(table, {"params": 1050, "macs": 1050})
    assert choose(table, {"params": 1050, "macs": 1100}).chosen == (1,)


def test_kept_layers_that_stand_in_the_way_are_named() -> None:
    kept = tuple(keep(f"k{outputs}", outputs, "first") for outputs in (1, 64, 2, 32))
    table = table_of((option(KEEP, 1000, 9000, 0), option("spatial", 600, 5000, 1)), kept=kept)
    said = (
        r"params: 1,000 \(50.0% of the original\) is wanted, and 1,600 \(80.0%\) is the least that can be reached; "
        r"kept layers stand in the way: k64 \(first, 9,216 weights\), k32 \(first, 4,608 weights\), "
        r"k2 \(first, 288 weights\); convert these too, or give a higher limit$"
    )
    with pytest.raises(BudgetError, match=said):
        choose(table, {"params": 1000})


HALF = (option(KEEP, 1000, 9000, 0), option("spatial", 500, 4500, 1))


@pytest.mark.parametrize("kept", [(), (keep("k", 2, "first"),), (keep("k", 640, "depthwise"),)], ids=len)
def test_layers_that_cannot_close_the_gap_are_not_named(kept: tuple[Keep, ...]) -> None:
    """The kept layer has 288 weights, and of those at most half could go, as of the others."""
    table = table_of(HALF, kept=kept)
    with pytest.raises(BudgetError, match=r"can be reached; these filters allow no less here; give a higher limit$"):
        choose(table, {"params": 1500 - 145})
    with pytest.raises(BudgetError, match=r"^size: .* these filters allow no less here; give a higher limit$"):
        check_size(table, file_bytes(table, 1500 - 145), 10_000)


def test_meta_a_gap_of_half_the_kept_layer_names_it() -> None:
    table = table_of(HALF, kept=(keep("k", 2, "first"),))
    with pytest.raises(BudgetError, match=r"stand in the way: k \(first, 288 weights\); convert these too"):
        choose(table, {"params": 1500 - 143})
    with pytest.raises(BudgetError, match=r"^size: .* stand in the way: k \(first, 288 weights\)"):
        check_size(table, file_bytes(table, 1500 - 143), 10_000)


def test_of_multiply_adds_all_that_is_no_choice_might_be_the_kept_layer() -> None:
    table = table_of(HALF, kept=(keep("k", 2, "first"),))
    with pytest.raises(BudgetError, match="stand in the way: k"):
        choose(table, {"macs": FIXED + 4500 - FIXED // 2})
    with pytest.raises(BudgetError, match="these filters allow no less here"):
        choose(table, {"macs": FIXED + 4500 - FIXED // 2 - 1})


def test_where_ordinary_convolutions_are_fastest_no_layer_is_named() -> None:
    slower = (option(KEEP, 100, 900, 0, 0.3), option("spatial", 50, 450, 1, 0.4))
    table = table_of(slower, kept=(keep("k", 2, "first"),), seconds=1.0)
    said = "on this machine ordinary convolutions are the fastest form of the rest; give a higher limit$"
    with pytest.raises(BudgetError, match=said):
        choose(table, {"latency": 0.9})


def test_ties_fall_the_same_way_every_time() -> None:
    same = tuple((option(KEEP, 100, 900, 0), *(option("spatial", 50, 450, 1.0) for _ in range(3))) for _ in range(5))
    table = table_of(*same)
    found = [choose(table, {"params": FIXED + 300}).chosen for _ in range(3)]
    assert found[0] == found[1] == found[2]
    assert sorted(found[0]) == [0, 1, 1, 1, 1]  # of equal options the first


def test_nothing_is_chosen_where_nothing_must_be() -> None:
    table = random_table(1)
    assert choose(table, {"params": table.parameters}).chosen == (0, 0, 0, 0)
    assert point_of(table, (0, 0, 0, 0)).damage == 0


def test_layers_without_any_harm_are_chosen_by_cost() -> None:
    table = table_of((option(KEEP, 100, 900, 0), option("spatial", 50, 450, 0.0)))
    assert choose(table, {"params": FIXED + 60}).chosen == (1,)


def test_empty_table_has_one_choice() -> None:
    table = table_of(kept=(keep("a", code="first"),))
    with pytest.raises(BudgetError, match="kept layers stand in the way: a"):
        choose(table, {"params": FIXED - 1})


@pytest.mark.parametrize("cost", ["params", "macs"])
@pytest.mark.parametrize("seed", range(3))
def test_frontier_falls_and_harms_more(seed: int, cost: str) -> None:
    table = random_table(seed)
    frontier = frontier_of(table, cost)
    points = frontier.points
    assert frontier.cost == cost
    assert 3 < len(points) <= 17
    values = [point.parameters if cost == "params" else point.macs for point in points]
    assert all(later < earlier for earlier, later in itertools.pairwise(values))
    assert all(later.damage >= earlier.damage for earlier, later in itertools.pairwise(points))
    assert points[0].damage == 0
    assert values[-1] == least_of(table, cost)
    for point in points:
        assert point.damage <= best_damage(table, {cost: values[points.index(point)]}) * (1 + 2e-4)


def test_point_counts_the_whole_network() -> None:
    table = random_table(2)
    chosen = (1, 0, 2, 3)
    point, (cost, damage) = point_of(table, chosen), costs(table, chosen)
    assert (point.parameters, point.macs) == (cost["params"], cost["macs"])
    assert point.damage == pytest.approx(damage)
    assert point.parameters_share == pytest.approx(cost["params"] / table.parameters)
    assert point.macs_share == pytest.approx(cost["macs"] / table.macs)
    assert point.seconds is point.seconds_share is None


TIMED = table_of(
    (option(KEEP, 100, 900, 0, 0.3), option("spatial", 50, 450, 1, 0.3), option("channel", 60, 500, 2, 0.1)),
    (option(KEEP, 100, 900, 0, 0.4), option("spatial", 50, 450, 1, 0.2)),
    seconds=1.0,
)


def test_latency_is_a_limit_where_it_was_measured() -> None:
    assert least_of(TIMED, "latency") == pytest.approx(0.6)
    assert choose(TIMED, {"latency": 0.8}).chosen == (0, 1)
    assert choose(TIMED, {"latency": 0.7, "params": FIXED + 110}).chosen == (2, 1)
    point = point_of(TIMED, (2, 1))
    assert point.seconds == pytest.approx(0.6)
    assert point.seconds_share == pytest.approx(0.6)
    assert [point.chosen for point in frontier_of(TIMED, "latency").points] == [(0, 0), (0, 1), (2, 1)]
    with pytest.raises(
        BudgetError, match=r"latency: 500 ms \(50.0% of the original\) is wanted, and 600 ms \(60.0%\) is"
    ):
        choose(TIMED, {"latency": 0.5})


def test_latency_is_refused_where_it_was_not_measured() -> None:
    with pytest.raises(BudgetError, match="this option was not measured; drop --no-measure"):
        choose(random_table(0), {"latency": 1.0})
    with pytest.raises(BudgetError, match="nothing was measured; drop --no-measure"):
        least_of(random_table(0), "latency")
    half = table_of((option(KEEP, 100, 900, 0, 0.3), option("spatial", 50, 450, 1)), seconds=1.0)
    with pytest.raises(BudgetError, match="this option was not measured"):
        choose(half, {"latency": 1.0})
    assert point_of(half, (1,)).seconds is None


def test_uniform_takes_the_fewest_primaries_everywhere() -> None:
    table = table_of(
        (option(KEEP, 100, 900, 0), option("spatial", 75, 700, 1), option("spatial", 50, 450, 2)),
        (option(KEEP, 100, 900, 0), option("channel", 50, 450, 3), option("channel", 50, 500, 2)),
    )
    assert uniform(table, "spatial") == (2, 0)
    assert uniform(table, "channel") == (0, 2)
    assert uniform(table, "both") == (0, 0)


def test_damage_far_from_one_is_told_apart() -> None:
    for size in (1e-9, 1e9):
        table = random_table(3)
        scaled = table_of(
            *(
                tuple(option(o.kind, o.parameters, o.macs, size * o.damage) for o in layer.options)
                for layer in table.layers
            )
        )
        limits = limits_between(table, {"params": 0.4})
        assert choose(scaled, limits).chosen == choose(table, limits).chosen
        assert math.isfinite(point_of(scaled, choose(scaled, limits).chosen).damage)
