import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from tests.reporting.conftest import compare
from tests.reporting.samples import DRY, FULL, IMAGES_OUT
from vfconvert.reporting.report import ConversionReport
from vfconvert.reporting.terminal import render, totals_table

REPORTS = {"full": FULL, "dry": DRY, "images_out": IMAGES_OUT}


def text_of(renderable: object, width: int = 80, **settings: object) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, **{"force_terminal": False, "color_system": None, **settings})
    console.print(renderable, crop=False)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def weight_columns(printed: str) -> list[tuple[int, int]]:
    """The last two integers of every line of the layers table, in order; the last pair is the table's footer."""
    begin = next(index for index, line in enumerate(printed.splitlines()) if line.startswith(" layer "))
    found = []
    for line in printed.splitlines()[begin + 1 :]:
        numbers = re.search(r" ([\d,]+) +([\d,]+)$", line)
        if numbers:
            found.append((int(numbers[1].replace(",", "")), int(numbers[2].replace(",", ""))))
        if line.startswith(" all "):
            break
    return found


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("verbose", [False, True], ids=["normal", "verbose"])
@pytest.mark.parametrize("width", [60, 100])
def test_report_reads_as_agreed(golden, name, verbose, width):
    golden(
        f"{name}_{'verbose' if verbose else 'normal'}_{width}.txt",
        text_of(render(REPORTS[name], verbose=verbose), width),
    )


def test_meta_another_text_is_seen(tmp_path):
    (tmp_path / "a.txt").write_text("one\n")
    compare(tmp_path / "a.txt", "one\n", overwrite=False)
    with pytest.raises(AssertionError, match="two"):
        compare(tmp_path / "a.txt", "two\n", overwrite=False)


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("width", [60, 80, 160])
def test_printed_layers_add_up_to_the_printed_totals(name, width):
    report = REPORTS[name]
    *rows, totals = weight_columns(text_of(render(report, verbose=True), width))
    assert len(rows) == len(report.layers) + 1
    assert tuple(sum(column) for column in zip(*rows, strict=True)) == totals
    assert totals == (report.before.parameters, report.after.parameters)


def test_meta_a_wrong_row_breaks_the_sum():
    printed = text_of(render(FULL, verbose=True)).replace("2,304", "2,305")
    *rows, totals = weight_columns(printed)
    assert sum(before for before, _ in rows) == totals[0] + 1


@pytest.mark.parametrize("name", REPORTS)
def test_report_fits_60_columns_but_for_paths_and_commands(name):
    lines = text_of(render(REPORTS[name], verbose=True), 60).splitlines()
    assert {line.split(":")[0] for line in lines if len(line) > 60} <= {"Command", "Read", "Wrote"}


def test_path_is_never_broken():
    path = f"/a/{'deep/' * 30}model.onnx"
    report = replace(FULL, output=replace(FULL.output, path=path))
    assert path in text_of(render(report), 60)


def test_no_colour_codes_into_a_pipe():
    assert "\x1b" not in text_of(render(FULL), color_system="auto")


def test_warnings_are_yellow_on_a_terminal_and_never_under_no_color(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = text_of(render(FULL), 200, force_terminal=True, color_system="standard")
    assert "\x1b[33mWarning: the converted network agrees" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[33m" not in text_of(render(FULL), 200, force_terminal=True, color_system="standard")


def test_names_are_not_read_as_markup():
    layers = (replace(FULL.layers[1], name="[red]a[/red]", spec=":smile: [bold]"), *FULL.layers[2:])
    printed = text_of(render(replace(FULL, layers=layers), verbose=True), 120)
    assert "[red]a[/red]" in printed
    assert ":smile: [bold]" in printed


@pytest.mark.parametrize(
    ("executed", "said"), [(4_505_920, True), (4_600_000, True), (4_505_919, False)], ids=["same", "more", "fewer"]
)
def test_report_says_where_executed_macs_have_not_fallen(executed, said):
    report = replace(FULL, after=replace(FULL.after, macs_executed=executed))
    assert ("The executed MACs have not fallen: smaller, not faster" in text_of(render(report))) is said


@pytest.mark.parametrize(("spread", "settled"), [(0.006, True), (0.0062, False)])
def test_report_calls_nothing_faster_by_less_than_its_runs_vary(spread, settled):
    noisy = replace(FULL, latency=replace(FULL.latency, spread_after=spread))
    said = " ".join(text_of(render(noisy)).split())
    assert ("2.00 times as fast" in said) == settled
    assert ("runs of one file vary by more than the files differ" in said) != settled


def test_agreement_on_images_of_the_fit_is_not_called_held_out():
    report = replace(FULL, agreement=replace(FULL.agreement, held_out=False))
    printed = text_of(render(report))
    assert "200 images of the fit" in printed
    assert "held-out" not in printed


def test_many_specs_are_shortened_and_the_counts_still_add_up():
    rows = tuple(replace(FULL.layers[1], name=f"l{index}", spec=f"spec {index}") for index in range(20))
    printed = text_of(render(replace(FULL, layers=rows)))
    counts = [int(count) for count in re.findall(r"^  (\d+) x ", printed, flags=re.MULTILINE)]
    assert len(counts) == 7
    assert sum(counts) == 20
    assert "14 x 14 other choices; -v lists every layer" in printed


def test_every_kept_layer_is_named_with_its_reason():
    printed = " ".join(text_of(render(FULL), 200).split())
    for row in (row for row in FULL.layers if row.decision == "keep"):
        assert re.search(rf"{re.escape(row.name)}[^:]*: {re.escape(row.reason)}", printed)


def test_totals_table_shows_added_rows_first():
    lines = text_of(totals_table(FULL, ("accuracy", "98.00 %", "97.00 %"))).splitlines()
    first = next(line for line in lines if "accuracy" in line)
    assert first.split() == ["accuracy", "98.00", "%", "97.00", "%"]
    assert lines.index(first) < next(index for index, line in enumerate(lines) if "parameters" in line)


def test_non_finite_agreement_is_said():
    agreement = replace(FULL.agreement, value=float("nan"), relative_error=float("inf"))
    report: ConversionReport = replace(FULL, agreement=agreement)
    assert text_of(render(report)).count("not finite") == 2
