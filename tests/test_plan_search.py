"""The plan within targets, and the smallest that loses little enough by a measure that is made up."""

import itertools
from pathlib import Path

import pytest

import vfconvert.plan_search as module
from tests.budget.tables import FIXED, KEEP, costs, option, random_table, table_of
from vfconvert.budget.candidates import KINDS
from vfconvert.budget.knapsack import least_of, point_of
from vfconvert.budget.table import OptionTable
from vfconvert.errors import BudgetError
from vfconvert.options import ConversionOptions
from vfconvert.plan_search import Searched, kinds_of, search, tightest
from vfconvert.planning import Plan
from vfconvert.targets import read_target

LAYERS = 6
TABLE = table_of(
    *(
        (
            option(KEEP, 1000, 9000, 0),
            *(option("spatial", 1000 - 100 * k, 9000 - 700 * k, 0.1 * k * k) for k in range(1, 9)),
        ),
    )
    * LAYERS
)


def options(*targets: str, max_drop: float | None = None) -> ConversionOptions:
    return ConversionOptions(model=Path("m.pt"), targets=tuple(map(read_target, targets)), max_drop=max_drop)


class Drops:
    """Points lost, made up from the number of layers converted; `tried` are the plans that were asked about."""

    def __init__(self, *lost: float) -> None:
        self._lost, self.tried = itertools.cycle(lost), list[Plan]()

    def __call__(self, plan: Plan) -> float:
        self.tried.append(plan)
        return next(self._lost)


def share(found: Searched) -> float:
    return found.point.parameters_share


@pytest.mark.parametrize("cost", ["params", "macs"])
def test_search_keeps_the_target(cost: str) -> None:
    found = search(TABLE, options(f"{cost}=60%"), 10_000)
    assert (found.point.parameters_share if cost == "params" else found.point.macs_share) <= 0.6
    assert found.limits == {cost: pytest.approx(0.6 * (TABLE.parameters if cost == "params" else TABLE.macs))}
    assert found.table is TABLE
    assert found.point == point_of(TABLE, found.point.chosen)
    assert found.plan == TABLE.plan(found.point.chosen)
    assert found.point.damage > 0


def test_search_says_what_cannot_be_reached() -> None:
    with pytest.raises(BudgetError, match="is the least that can be reached"):
        search(TABLE, options("params=10%"), 10_000)


@pytest.mark.parametrize("target", ["size=1KB", "size=10%"])
def test_a_size_that_cannot_be_reached_is_one_in_bytes(target: str) -> None:
    said = (
        r"^size: 1.0 kB \(10.0% of the original\) is wanted, and 37.6 kB \(375.5%\) is the least that can be reached; "
    )
    with pytest.raises(BudgetError, match=said):
        search(TABLE, options(target), 10_000)


def test_the_smallest_plan_is_found_where_loss_grows_with_smallness(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch(monkeypatch)
    threshold = 0.62
    found = tightest(TABLE, options(max_drop=1.0), 10_000, lambda plan: 0.5 if seen[-1] >= threshold else 5.0)
    assert len(seen) == 7  # the smallest of all, and six halvings
    least = least_of(TABLE, "params") / TABLE.parameters
    assert share(found) == pytest.approx(min(s for s in seen if s >= threshold))
    assert threshold <= share(found) <= threshold + (1 - least) / 2**6 + 100 / TABLE.parameters  # one option's step


def watch(monkeypatch: pytest.MonkeyPatch, cost: str = "params") -> list[float]:
    """The shares of the plans that are searched for, as they come."""
    seen: list[float] = []
    plain = module._searched

    def watched(table: OptionTable, limits: dict[str, float]) -> Searched:
        found = plain(table, limits)
        seen.append(found.point.parameters_share if cost == "params" else found.point.macs_share)
        return found

    monkeypatch.setattr(module, "_searched", watched)
    return seen


def test_the_least_of_all_is_taken_at_once_where_it_loses_little() -> None:
    drops = Drops(0.0)
    found = tightest(TABLE, options(max_drop=1.0), 10_000, drops)
    assert found.point.parameters == least_of(TABLE, "params")
    assert len(drops.tried) == 1


def test_targets_are_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch(monkeypatch, "macs")
    threshold = 0.55
    drop = lambda plan: 0.0 if seen[-1] >= threshold else 9.0  # noqa: E731
    found = tightest(TABLE, options("macs=70%", "params=70%", max_drop=1.0), 10_000, drop)
    assert threshold <= found.point.macs_share <= 0.6
    assert found.point.parameters_share <= 0.7
    assert all(macs <= 0.7 + 1e-9 for macs in seen)


def test_target_that_cannot_be_reached_is_said() -> None:
    with pytest.raises(BudgetError, match=r"params: .* is wanted, and .* is the least that can be reached"):
        tightest(TABLE, options("params=5%", max_drop=1.0), 10_000, Drops(0.0))


def test_second_target_that_cannot_be_reached_is_said() -> None:
    with pytest.raises(BudgetError, match=r"macs: .* is wanted, and .* is the least that can be reached"):
        tightest(TABLE, options("params=90%", "macs=5%", max_drop=1.0), 10_000, Drops(0.0))


def test_noise_in_the_loss_still_ends_with_a_plan_that_kept_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, kept = watch(monkeypatch), []
    noisy = itertools.cycle([5.0, 0.3, 2.0, 0.9, 0.0, 3.0])

    def drop(plan: Plan) -> float:
        lost = next(noisy)
        if lost <= 1.0:
            kept.append(seen[-1])
        return lost

    found = tightest(TABLE, options(max_drop=1.0), 10_000, drop)
    assert share(found) == min(kept)
    assert len(seen) == 7


def test_nothing_loses_as_little() -> None:
    said = r"--max-drop 0.5: no plan that was tried loses as little \(the best lost 2.25 points\); allow more, or give"
    with pytest.raises(BudgetError, match=said):
        tightest(TABLE, options(max_drop=0.5), 10_000, Drops(4.0, 2.25, 3.0))


def test_keeping_all_is_no_plan_that_is_found() -> None:
    table = table_of((option(KEEP, 1000, 9000, 0), option("spatial", 500, 4500, 1.0)))
    drops = Drops(7.0)
    with pytest.raises(BudgetError, match=r"no plan that was tried loses as little \(the best lost 7.00 points\)"):
        tightest(table, options(max_drop=1.0), 10_000, drops)
    assert all(plan.converted for plan in drops.tried)


def test_latency_first_needs_times() -> None:
    with pytest.raises(BudgetError, match="nothing was measured"):
        tightest(TABLE, options("latency=50%", max_drop=1.0), 10_000, Drops(0.0))


@pytest.mark.parametrize("seed", range(3))
def test_plans_of_random_tables_have_what_they_say(seed: int) -> None:
    table = random_table(seed)
    found = search(table, options("params=70%"), 10_000)
    cost, damage = costs(table, found.point.chosen)
    assert found.point.parameters == cost["params"] <= 0.7 * table.parameters
    assert found.point.damage == pytest.approx(damage)
    assert found.point.parameters > FIXED


@pytest.mark.parametrize(
    ("given", "kinds"),
    [
        ({}, KINDS),
        ({"spatial": True}, ("spatial",)),
        ({"spatial": True, "crops": "lines"}, ("spatial", "lines")),
        ({"channel": True}, ("channel", "group")),
        ({"spatial": True, "channel": True}, ("spatial", "channel", "group", "both")),
        ({"spatial": True, "channel": True, "crops": "lines"}, KINDS),
    ],
)
def test_kinds_are_those_that_are_asked_for(given: dict[str, object], kinds: tuple[str, ...]) -> None:
    assert kinds_of(ConversionOptions(model=Path("m.pt"), **given)) == kinds  # type: ignore[arg-type]
