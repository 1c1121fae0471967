"""Gates in the terminal, in JSON and as JUnit XML; the same figures in all of them."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from tests.reporting.samples import FULL
from tests.reporting.test_terminal import text_of
from vfconvert.errors import UnwritableOutputError
from vfconvert.reporting.gates import figure_text, gate_text
from vfconvert.reporting.json_report import to_json
from vfconvert.reporting.junit import to_junit, write_junit
from vfconvert.reporting.report import ConversionReport, GateReport
from vfconvert.reporting.terminal import render


def gate(name: str, figure: str, unit: str, bound: str, limit: float, got: float | None, passed: bool) -> GateReport:
    return GateReport(name=name, figure=figure, unit=unit, bound=bound, limit=limit, got=got, passed=passed)


SAVING = gate("fail-under-saving params", "parameters saved", "share", "at least", 0.4, 0.4645, True)
SIZE = gate("max-size", "the largest file", "bytes", "at most", 29_999, 30_000, False)
ONNX = replace(FULL.artefacts[0], parity=FULL.parity)
GATED = replace(FULL, gates=(SAVING,))
FAILED = replace(FULL, gates=(SAVING, SIZE), output=None, artefacts=(), discarded=(ONNX,))


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.399999, "share", "39.9999 %"),
        (0.5, "points", "0.5 points"),
        (1.0, "points", "1 point"),
        (1e-5, "ratio", "1e-05"),
        (5_000_001, "bytes", "5,000,001 bytes"),
        (None, "bytes", "not measured"),
        (float("nan"), "points", "not finite"),
    ],
)
def test_figure_has_digits_enough(value, unit, text):
    assert figure_text(value, unit) == text


def test_terminal_lists_every_gate_and_what_is_not_there():
    printed = text_of(render(FAILED))
    assert "Gates: 1 of 2 failed.\n" in printed
    assert "\n  passed fail-under-saving params: parameters saved 46.45 %, at least 40 %\n" in printed
    assert "\n  FAILED max-size: the largest file 30,000 bytes, at most 29,999 bytes\n" in printed
    assert "\nNot written, since a gate failed: models/a.onnx (29.3 KiB)\n" in printed
    assert "Written: " not in printed.replace("Written: models/a.int8.onnx", "")
    assert "Dry run" not in printed


def test_terminal_says_where_all_passed_and_nothing_where_there_is_none():
    assert "Gates: all passed.\n" in text_of(render(GATED))
    assert "Gates" not in text_of(render(FULL))


def test_terminal_fits_60_columns():
    printed = text_of(render(FAILED), 60)
    assert "  FAILED max-size: the largest file 30,000 bytes, at most\n  29,999 bytes\n" in printed


def test_json_holds_every_gate():
    read = json.loads(to_json(FAILED))
    assert [(one["name"], one["passed"]) for one in read["gates"]] == [
        ("fail-under-saving params", True),
        ("max-size", False),
    ]
    assert (read["gates"][1]["got"], read["gates"][1]["limit"]) == (30_000, 29_999)
    assert read["output"] is None
    assert [file["path"] for file in read["discarded"]] == ["models/a.onnx"]


def cases(report: ConversionReport) -> dict[str, ElementTree.Element]:
    (suite,) = ElementTree.fromstring(to_junit(report))
    found = {f"{case.get('classname')}: {case.get('name')}": case for case in suite.iter("testcase")}
    failures = sum(case.find("failure") is not None for case in found.values())
    assert (suite.get("tests"), suite.get("failures")) == (str(len(found)), str(failures))
    return found


def test_junit_has_a_case_for_every_gate_and_file():
    found = cases(FAILED)
    assert list(found) == [
        "vfconvert.parity: parity onnx",
        "vfconvert.gates: fail-under-saving params",
        "vfconvert.gates: max-size",
    ]
    assert [name for name, case in found.items() if case.find("failure") is not None] == ["vfconvert.gates: max-size"]
    failure = found["vfconvert.gates: max-size"].find("failure")
    assert failure is not None
    assert failure.get("message") == gate_text(SIZE)


def test_junit_passes_where_all_gates_do():
    assert all(case.find("failure") is None for case in cases(replace(GATED, artefacts=(ONNX,))).values())


def test_junit_can_be_read_whatever_names_hold(tmp_path):
    path = b"caf\xe9\x01<&>.pt".decode("utf-8", "surrogateescape")
    write_junit(replace(FAILED, command=f"vfconvert {path}", input=replace(FULL.input, path=path)), tmp_path / "g.xml")
    (suite,) = ElementTree.parse(tmp_path / "g.xml").getroot()
    assert suite.get("name") == "vfconvert caf??<&>.pt"


def test_junit_in_no_folder_is_refused(tmp_path):
    with pytest.raises(UnwritableOutputError, match="does not exist"):
        write_junit(FAILED, tmp_path / "none" / "g.xml")
