"""What is said of a plan within targets, and of those that were fitted beside it."""

from vfconvert.reporting.budget import few_tried
from vfconvert.reporting.budget_lines import budget_lines
from vfconvert.reporting.report import BudgetReport, TargetReport, TrialReport


def report(*trials: TrialReport) -> BudgetReport:
    target = TargetReport(target="params=50%", allowed=500.0, predicted=480.0, reached=481.0)
    return BudgetReport(targets=(target,), damage=0.06, measure="nats", gap=0.2, trials=trials)


def test_every_plan_that_was_fitted_has_a_line_and_one_is_taken() -> None:
    trials = (
        TrialReport(kinds=("lines", "both"), damage=0.05, loss=0.11, chosen=False),
        TrialReport(kinds=("lines",), damage=0.06, loss=0.09, chosen=True),
    )
    assert [line.plain for line in budget_lines(report(*trials))] == [
        "Target params=50%: at most 500, predicted 480, reached 481.",
        "Predicted damage of the plan: 0.0600 nats (at best 20.00% less).",
        "  Fitted with lines, both: predicted 0.0500, found 0.1100.",
        "  Fitted with lines: predicted 0.0600, found 0.0900, and is taken.",
    ]


def test_fewer_plans_than_were_asked_for_are_told() -> None:
    trial = TrialReport(kinds=("lines",), damage=0.05, loss=0.11, chosen=True)
    assert few_tried(report(trial, trial, trial), 2) == ()
    assert few_tried(report(trial, trial, trial), 3)[0].startswith("--refine 3 found 2 other plan(s)")
    assert few_tried(report(), 1)[0].startswith("--refine 1 found 0 other plan(s)")
    assert few_tried(report(), 0) == few_tried(None, 2) == ()


def test_without_trials_there_are_none() -> None:
    assert len(list(budget_lines(report()))) == 2
    assert not list(budget_lines(None))
