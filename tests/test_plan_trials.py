"""Plans that are fitted and compared: which are tried, and which is taken."""

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.budget.tables import KEEP, SPATIAL, table_of
from tests.budget.tables import option as any_option
from vfconvert.budget.candidates import KINDS
from vfconvert.budget.knapsack import choose, point_of
from vfconvert.budget.table import Option, OptionTable
from vfconvert.errors import FitError
from vfconvert.options import ConversionOptions
from vfconvert.plan_search import Searched, search
from vfconvert.plan_trials import distance, refined, rivals
from vfconvert.planning import Plan
from vfconvert.targets import read_target
from vfconvert.tasks.structure import VaryingOutputError


def option(kind: str, parameters: int, macs: int, damage: float, seconds: float | None = None) -> Option:
    """With a spec that tells the kinds apart, so that the plans of two choices differ."""
    made = any_option(kind, parameters, macs, damage, seconds)
    return (
        made
        if kind == KEEP
        else dataclasses.replace(made, spec=dataclasses.replace(SPATIAL, group_primaries=8 + KINDS.index(kind)))
    )


TABLE = table_of(
    *(
        (
            option(KEEP, 1000, 9000, 0),
            option("spatial", 500, 6000, 0.4),
            option("lines", 500, 6000, 0.3),
            option("channel", 400, 8000, 0.2 + 0.1 * layer),
            option("both", 250, 3000, 1.0),
        )
        for layer in range(4)
    )
)
LIMITS = {"params": 0.62 * TABLE.parameters}


def found() -> Searched:
    options = ConversionOptions(model=Path("m.pt"), targets=(read_target("params=62%"),))
    return search(TABLE, options, 10_000)


def kinds(chosen: tuple[int, ...], table: OptionTable = TABLE) -> set[str]:
    return {layer.options[i].kind for layer, i in zip(table.layers, chosen, strict=True)} - {KEEP}


def test_rivals_are_of_one_kind_first_and_none_is_repeated() -> None:
    made = list(rivals(TABLE, LIMITS))
    assert [len(kinds(chosen)) for chosen in made] == sorted(len(kinds(chosen)) for chosen in made)
    assert [kinds(chosen) for chosen in made[:3]] == [{"lines"}, {"channel"}, {"spatial"}]
    assert {"both"} not in map(kinds, made)  # predicted to harm more than half as much again
    least = point_of(TABLE, choose(TABLE, LIMITS).chosen).damage
    assert all(point_of(TABLE, chosen).damage <= 1.5 * least for chosen in made)
    assert len(set(made)) == len(made)
    assert choose(TABLE, LIMITS).chosen not in made
    for chosen in made:
        assert point_of(TABLE, chosen).parameters <= LIMITS["params"]


def mixed_table(seed: int) -> OptionTable:
    random = np.random.default_rng(seed)

    def drawn(kind: str) -> Option:
        return option(kind, int(1000 * random.uniform(0.2, 0.9)), 6000, float(random.uniform(0.5, 1)))

    kinds = ("spatial", "lines", "channel")
    return table_of(*((option(KEEP, 1000, 9000, 0), *(drawn(kind) for kind in kinds * 2)) for _ in range(3)))


@pytest.mark.parametrize("seed", range(4))
def test_a_rival_is_the_least_harmful_of_its_kinds(seed: int) -> None:
    table = mixed_table(seed)
    limits = {"params": 0.6 * table.parameters}
    found = list(rivals(table, limits))
    assert found
    every = [
        point_of(table, chosen) for chosen in itertools.product(*(range(len(layer.options)) for layer in table.layers))
    ]
    every = [point for point in every if point.parameters <= limits["params"]]
    for chosen in found:
        mine = kinds(chosen, table)
        same = [point.damage for point in every if kinds(point.chosen, table) <= mine]
        assert point_of(table, chosen).damage == pytest.approx(min(same), rel=1e-3)
        assert min(same) > min(point.damage for point in every)


def test_kinds_that_cannot_keep_the_limits_are_not_tried() -> None:
    tight = {"params": 0.45 * TABLE.parameters}
    assert {"lines"} not in [kinds(chosen) for chosen in rivals(TABLE, tight)]
    assert kinds(choose(TABLE, tight).chosen)


def test_the_nearest_plan_is_taken_and_all_are_told() -> None:
    begun = found()
    lines = next(rivals(TABLE, LIMITS))
    asked: list[Plan] = []

    def loss(plan: Plan) -> float:
        asked.append(plan)
        return 0.1 if plan == TABLE.plan(lines) else 0.2

    best, trials = refined(begun, 3, loss)
    assert best.plan == TABLE.plan(lines)
    assert best.point == point_of(TABLE, lines)
    assert best.limits == begun.limits
    assert [trial.loss for trial in trials] == [0.2, 0.1, 0.2, 0.2]
    assert trials[0].point == begun.point
    assert trials[1].kinds == ("lines",)
    assert len(set(asked)) == len(asked) == 4


def test_the_gap_is_that_of_the_plan_that_is_taken() -> None:
    begun = found()
    best, _ = refined(begun, 1, lambda plan: 1.0 if plan == begun.plan else 0.5)
    assert best.gap == pytest.approx(1 - (1 - begun.gap) * begun.point.damage / best.point.damage)
    assert best.gap > 0.05


def test_a_plan_that_cannot_be_fitted_is_passed_over_and_one_that_is_no_number_never_wins() -> None:
    begun, seen = found(), iter([math.nan, FitError("no fit"), 0.3, 0.2])

    def loss(plan: Plan) -> float:
        told = next(seen)
        if isinstance(told, FitError):
            raise told
        return told

    best, trials = refined(begun, 3, loss)
    assert [trial.loss for trial in trials[1:]] == [0.3, 0.2]
    assert best.plan != begun.plan
    assert best.point == trials[-1].point


def test_the_predicted_plan_has_to_be_fitted() -> None:
    def loss(plan: Plan) -> float:
        raise FitError("no fit")

    with pytest.raises(FitError, match="no fit"):
        refined(found(), 2, loss)


def test_with_no_other_plan_none_is_fitted() -> None:
    only = dataclasses.replace(
        TABLE, layers=tuple(dataclasses.replace(layer, options=layer.options[:2]) for layer in TABLE.layers)
    )
    options = ConversionOptions(model=Path("m.pt"), targets=(read_target("params=62%"),))
    begun = search(only, options, 10_000)
    assert refined(begun, 2, lambda plan: pytest.fail("fitted")) == (begun, ())


def test_of_equals_the_predicted_plan_stays() -> None:
    begun = found()
    assert refined(begun, 2, lambda plan: 1.0)[0] == begun


def test_plans_that_are_too_slow_are_passed_over() -> None:
    options = ConversionOptions(model=Path("m.pt"), targets=(read_target("latency=60%"),))
    timed = table_of(
        *(
            (
                option(KEEP, 1000, 9000, 0, seconds=1.0),
                option("lines", 500, 6000, 0.3, seconds=0.4),
                option("channel", 400, 8000, 0.2, seconds=0.5),
            )
            for _ in range(3)
        ),
        seconds=3.0,
    )
    begun = search(timed, options, 10_000)
    slow = timed.plan(next(rivals(timed, begun.limits)))
    _, trials = refined(begun, 5, lambda plan: 1.0, lambda plan: 0.9 if plan == slow else 0.5)
    _, all_of_them = refined(begun, 5, lambda plan: 1.0, lambda plan: 0.5)
    assert len(trials) == len(all_of_them) - 1
    assert slow not in [timed.plan(trial.point.chosen) for trial in trials]


def test_distance_is_the_divergence_in_nats_and_does_not_depend_on_batches() -> None:
    torch.manual_seed(0)
    teacher, student = nn.Linear(5, 3).eval(), nn.Linear(5, 3).eval()
    with torch.no_grad():
        teacher.weight.mul_(8)  # answers that differ, as those of a classifier
    images = torch.randn(130, 5)
    wanted, got = (model(images).log_softmax(1).detach() for model in (teacher, student))
    by_hand = float((wanted.exp() * (wanted - got)).sum(1).mean())
    assert distance(teacher, student, images) == pytest.approx(by_hand, rel=1e-5)
    assert distance(teacher, teacher, images) == pytest.approx(0, abs=1e-6)
    assert by_hand > 0.01


def test_distance_of_outputs_that_vary_is_refused() -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, images: torch.Tensor) -> list[dict[str, torch.Tensor]]:
            return [{"boxes": torch.zeros(n, 4), "scores": torch.zeros(n)} for n in range(len(images))]

    with pytest.raises(VaryingOutputError, match="vary in size"):
        distance(Detector(), Detector(), torch.zeros(2, 3, 4, 4))
