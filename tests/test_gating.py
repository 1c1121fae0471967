"""What gates make of a report, by hand-counted figures, and which runs could not check them."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.reporting.samples import FULL as BASE
from tests.reporting.shown_samples import TRAINED
from vfconvert.errors import GateError, UncheckableGateError
from vfconvert.gates import Saving
from vfconvert.gating import check_gates, gated, refuse_failed
from vfconvert.options import ConversionOptions

PARITY = replace(BASE.parity, relative_error=5e-6)
FULL = replace(
    BASE,
    before=replace(BASE.before, parameters=1000, macs_executed=4000, file_bytes=50_000),
    after=replace(BASE.after, parameters=600, macs_executed=3000, file_bytes=30_000),
    artefacts=tuple(
        replace(file, parity=parity) for file, parity in zip(BASE.artefacts, (BASE.parity, PARITY), strict=True)
    ),
    agreement=replace(BASE.agreement, accuracy_before=0.9, accuracy_after=0.885),
    precisions=tuple(replace(row, bytes=40_000) if row.path is not None else row for row in BASE.precisions),
)


def options(**given: object) -> ConversionOptions:
    return ConversionOptions(model=Path("m.pt"), data=Path("images"), **given)


def saving(cost: str, share: float) -> ConversionOptions:
    return options(fail_under_saving=(Saving(cost=cost, share=share),))


@pytest.mark.parametrize(
    ("asked", "name", "got", "passed"),
    [
        (saving("params", 0.39), "fail-under-saving params", 0.4, True),
        (saving("params", 0.41), "fail-under-saving params", 0.4, False),
        (saving("macs", 0.25), "fail-under-saving macs", 0.25, True),
        (saving("macs", 0.2501), "fail-under-saving macs", 0.25, False),
        (saving("size", 0.19), "fail-under-saving size", 0.2, True),  # of the largest file, that in eight bits
        (saving("size", 0.21), "fail-under-saving size", 0.2, False),
        (saving("latency", 0.49), "fail-under-saving latency", 0.5, True),
        (saving("latency", 0.51), "fail-under-saving latency", 0.5, False),
        (options(fail_over_drop=1.6), "fail-over-drop", 1.5, True),
        (options(fail_over_drop=1.4), "fail-over-drop", 1.5, False),
        (options(max_latency_ratio=0.51), "max-latency-ratio", 0.5, True),
        (options(max_latency_ratio=0.49), "max-latency-ratio", 0.5, False),
        (options(max_parity_error=5e-6), "max-parity-error", 5e-6, True),
        (options(max_parity_error=4e-6), "max-parity-error", 5e-6, False),
        (options(max_size=40_000), "max-size", 40_000, True),
        (options(max_size=39_999), "max-size", 40_000, False),
    ],
)
def test_gate_compares_what_was_measured_with_its_limit(asked, name, got, passed):
    (gate,) = gated(FULL, asked).gates
    assert (gate.name, gate.passed) == (name, passed)
    assert gate.got == pytest.approx(got, rel=1e-9)


@pytest.mark.parametrize(
    ("asked", "report", "name"),
    [
        (options(max_latency_ratio=9.0), replace(FULL, latency=None), "max-latency-ratio"),
        (options(fail_over_drop=99.0), replace(FULL, agreement=None), "fail-over-drop"),
        (
            options(fail_over_drop=99.0),
            replace(FULL, agreement=replace(FULL.agreement, accuracy_before=float("nan"))),
            "fail-over-drop",
        ),
        (
            options(max_parity_error=1e-4),
            replace(
                FULL,
                artefacts=(
                    replace(FULL.artefacts[0], parity=replace(FULL.parity, relative_error=float("nan"))),
                    FULL.artefacts[1],
                ),
            ),
            "max-parity-error",
        ),
        (saving("size", 0.01), replace(FULL, before=replace(FULL.before, file_bytes=None)), "fail-under-saving size"),
    ],
    ids=["no latency", "no agreement", "an accuracy that is no number", "a parity that is no number", "no file before"],
)
def test_figure_that_is_missing_passes_no_gate(asked, report, name):
    (gate,) = gated(report, asked).gates
    assert (gate.name, gate.passed) == (name, False)


def test_macs_that_are_lower_bounds_are_told_as_such():
    report = replace(FULL, before=replace(FULL.before, uncounted={"aten.mystery": 2}))
    (gate,) = gated(report, saving("macs", 0.1)).gates
    assert gate.figure == "executed MACs saved (of those counted: aten.mystery not)"
    assert gated(FULL, saving("macs", 0.1)).gates[0].figure == "executed MACs saved"


def test_drop_is_of_agreement_where_there_are_no_labels():
    unlabelled = replace(FULL.agreement, accuracy_before=None, accuracy_after=None, value=0.98)
    (gate,) = gated(replace(FULL, agreement=unlabelled), options(fail_over_drop=2.5)).gates
    assert (gate.figure, gate.passed) == ("agreement lost", True)
    assert gate.got == pytest.approx(2.0)


def test_failed_gate_discards_the_files_and_keeps_what_is_known_of_them():
    report = gated(FULL, options(max_size=1))
    assert (report.output, report.artefacts) == (None, ())
    assert report.discarded == FULL.artefacts
    assert [row.path for row in report.precisions] == [None, None, None]
    assert (report.parity, report.after.file_bytes) == (FULL.parity, 30_000)


@pytest.mark.parametrize("asked", [options(max_size=1, keep_on_fail=True), options(max_size=10**9)])
def test_files_are_kept_where_gates_pass_or_that_is_asked_for(asked):
    report = gated(FULL, asked)
    assert (report.output, report.artefacts, report.discarded) == (FULL.output, FULL.artefacts, ())


def test_failed_gates_are_an_error_that_names_each():
    report = gated(FULL, options(max_size=39_999, max_latency_ratio=0.4, fail_over_drop=5))
    said = (
        r"2 of 3 gate\(s\) failed: --max-latency-ratio: latency, after / before 0\.5, at most 0\.4; --max-size: the "
        r"largest file 40,000 bytes, at most 39,999 bytes; no file was written \(--keep-on-fail writes it\)"
    )
    with pytest.raises(GateError, match=said):
        refuse_failed(report)
    with pytest.raises(GateError, match=r"the files were kept$"):
        refuse_failed(gated(FULL, options(max_size=1, keep_on_fail=True)))
    refuse_failed(gated(FULL, options(max_size=10**9)))


def test_a_training_is_gone_on_from_under_other_gates():
    report = gated(replace(FULL, training=TRAINED.training), options(max_size=1))
    said = (
        r"; no file was written \(repeat the command with --resume under other gates, or with --keep-on-fail --resume "
        r"to have it\)$"
    )
    with pytest.raises(GateError, match=said):
        refuse_failed(report)


def test_gate_just_missed_is_told_apart_from_its_limit():
    with pytest.raises(GateError, match=r"parameters saved 40 %, at least 40\.001 %"):
        refuse_failed(gated(FULL, saving("params", 0.40001)))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (options(max_latency_ratio=0.8, measure=False), "--max-latency-ratio: --no-measure times nothing"),
        (
            options(fail_under_saving=(Saving(cost="latency", share=0.1),), measure=False),
            "--fail-under-saving latency: --no-measure times nothing",
        ),
        (ConversionOptions(model=Path("m.pt"), fail_over_drop=1.0), "--fail-over-drop is judged on images"),
        (options(max_parity_error=1e-3), r"got 0\.001, expected at most 0\.0001"),
        (options(max_parity_error=float("nan")), "got nan, expected at most"),
    ],
)
def test_gate_that_the_run_could_not_check_is_refused(asked, said):
    with pytest.raises(UncheckableGateError, match=said):
        check_gates(asked)


@pytest.mark.parametrize(
    "asked",
    [options(), options(dry_run=True), options(max_size=1, measure=False), options(max_parity_error=1e-4)],
)
def test_gates_that_can_be_checked_are_let_be(asked):
    check_gates(asked)


def test_dry_run_judges_no_gate_and_says_so():
    report = gated(FULL, options(max_size=1, dry_run=True))
    assert (report.gates, report.output) == ((), FULL.output)
    assert report.warnings[-1].endswith("a dry run makes nothing: none was judged")
    assert gated(FULL, options(dry_run=True)) == FULL


def test_searched_plan_that_falls_short_on_other_images_is_told_and_no_failure():
    report = gated(FULL, options(max_drop=1.0))
    assert report.gates == ()
    assert report.warnings[-1] == (
        "accuracy lost on the images that judge: 1.5 points; --max-drop 1 holds on those that chose the plan, and "
        "--fail-over-drop sets a limit here"
    )
    assert gated(FULL, options(max_drop=1.6)).warnings == FULL.warnings
    assert gated(FULL, options(max_drop=1.0, fail_over_drop=1.0)).warnings == FULL.warnings


@pytest.mark.parametrize(("spread", "told"), [(0.001, False), (0.5, True)])
@pytest.mark.parametrize("asked", [options(max_latency_ratio=1.5), saving("latency", 0.1)])
def test_a_gate_on_time_says_where_another_run_may_judge_otherwise(asked, spread, told):
    noisy = replace(FULL, latency=replace(FULL.latency, spread_before=spread))
    for report in (gated(noisy, asked), gated(gated(noisy, asked), asked)):
        assert sum("another run may judge otherwise" in text for text in report.warnings) == told
    assert not any("another run" in text for text in gated(noisy, options(max_size=10**9)).warnings)
