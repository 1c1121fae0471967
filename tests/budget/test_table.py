"""The plan of a choice: converted, left alone for the budget, or kept for a reason of its own."""

import pytest

from tests.budget.tables import GEOMETRY, KEEP, SPATIAL, keep, option, table_of
from vfconvert.budget.table import CHOSEN_TO_STAY
from vfconvert.planning import Convert, Keep

LAYER = (option(KEEP, 1000, 9000, 0), option("spatial", 500, 4500, 1))
TABLE = table_of(LAYER, LAYER, kept=(keep("first", code="first"),))


def test_plan_has_every_layer_once_in_order() -> None:
    plan = TABLE.plan((1, 0))
    assert [decision.layer for decision in plan.decisions] == ["a", "b", "first"]
    assert plan.converted == (Convert(layer="a", geometry=GEOMETRY, spec=SPATIAL, norm=None),)


def test_layer_that_stays_is_said_to_for_the_budget() -> None:
    stays, first = TABLE.plan((1, 0)).kept
    assert isinstance(stays, Keep)
    assert (stays.layer, stays.code, stays.geometry) == ("b", "budget", GEOMETRY)
    assert stays.code == CHOSEN_TO_STAY
    assert "tighter --target" in stays.reason
    assert first == keep("first", code="first")


@pytest.mark.parametrize(("chosen", "layers"), [((0, 0), []), ((1, 1), ["a", "b"]), ((0, 1), ["b"])])
def test_choice_says_which_layers_are_converted(chosen: tuple[int, ...], layers: list[str]) -> None:
    assert [decision.layer for decision in TABLE.plan(chosen).converted] == layers


def test_choice_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        TABLE.plan((1,))
