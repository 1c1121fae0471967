"""How a plan was chosen, in lines."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from vfconvert.reporting.report import BudgetReport
from vfconvert.reporting.units import mebibytes, milliseconds, whole


def budget_lines(found: BudgetReport | None) -> Iterator[Text]:
    """A line for each target, and one for the damage."""
    if found is None:
        return
    for row in found.targets:
        cost = row.target.partition("=")[0]
        said = f"Target {row.target}: at most {_amount(cost, row.allowed)}, predicted {_amount(cost, row.predicted)}"
        if row.reached is not None:
            said += f", reached {_amount(cost, row.reached)}"
        yield Text(said + ".")
    unit = "nats" if found.measure == "nats" else "of the output's variance"
    drop = f" The smallest plan tried that loses at most {found.max_drop:g} points." if found.max_drop else ""
    yield Text(f"Predicted damage of the plan: {found.damage:.4f} {unit} (at best {found.gap:.2%} less).{drop}")
    for trial in found.trials:
        told = f"  Fitted with {', '.join(trial.kinds)}: predicted {trial.damage:.4f}, found {trial.loss:.4f}"
        yield Text(f"{told}{', and is taken' if trial.chosen else ''}.")


def _amount(cost: str, value: float) -> str:
    if cost == "size":
        return mebibytes(round(value))
    return milliseconds(value) if cost == "latency" else whole(round(value))
