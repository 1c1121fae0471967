"""Gates and parity as JUnit XML, which continuous integration systems list as tests: one test case each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from vfconvert.files import atomic_path
from vfconvert.reporting.gates import gate_text
from vfconvert.reporting.report import ConversionReport
from vfconvert.reporting.units import small


def to_junit(report: ConversionReport) -> bytes:
    """One suite: a case for the parity of every file (those that differ too much raise before), one for every gate."""
    cases = [*_parity(report), *_gates(report)]
    told = {"command": report.command, **report.versions}
    return _document(report.input.path, told, cases, sum((report.seconds or {}).values()))


def write_junit(report: ConversionReport, path: Path) -> None:
    """Write `to_junit(report)`: the whole file or none. Raises `UnwritableOutputError`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(to_junit(report))


def write_error(model: str, command: str, kind: str, said: str, path: Path) -> None:
    """Write one case, the conversion, which ended in an error of this kind. Raises `UnwritableOutputError`."""
    case = ElementTree.Element("testcase", {"classname": "vfconvert.conversion", "name": "conversion"})
    ElementTree.SubElement(case, "error", {"message": _legal(said), "type": kind}).text = _legal(said)
    with atomic_path(path) as temporary:
        temporary.write_bytes(_document(model, {"command": command}, [case], 0.0))


def _document(model: str, told: Mapping[str, str], cases: Sequence[ElementTree.Element], seconds: float) -> bytes:
    """All cases as one suite; `told` are its properties."""
    found = {kind: sum(case.find(kind) is not None for case in cases) for kind in ("failure", "error")}
    counts = {"tests": str(len(cases)), "failures": str(found["failure"]), "errors": str(found["error"])}
    counts |= {"skipped": "0", "time": f"{seconds:.3f}"}
    root = ElementTree.Element("testsuites", {"name": "vfconvert", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": f"vfconvert {_legal(model)}", **counts})
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in told.items():
        ElementTree.SubElement(properties, "property", {"name": name, "value": _legal(value)})
    suite.extend(cases)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f"<?xml version='1.0' encoding='utf-8'?>\n{text}\n".encode()


def _parity(report: ConversionReport) -> Iterator[ElementTree.Element]:
    for file in report.artefacts or report.discarded:
        if file.parity is None:
            continue
        case = ElementTree.Element("testcase", {"classname": "vfconvert.parity", "name": f"parity {file.format}"})
        told = ElementTree.SubElement(case, "system-out")
        told.text = (
            f"max|d|/max|y| {small(file.parity.relative_error)}, allowed {small(file.parity.tolerance)}, in "
            f"{file.parity.runtime}"
        )
        yield case


def _gates(report: ConversionReport) -> Iterator[ElementTree.Element]:
    for gate in report.gates:
        case = ElementTree.Element("testcase", {"classname": "vfconvert.gates", "name": gate.name})
        said = gate_text(gate)
        if not gate.passed:
            failure = ElementTree.SubElement(case, "failure", {"message": said, "type": "GateError"})
            failure.text = said
        else:
            ElementTree.SubElement(case, "system-out").text = said
        yield case


def _legal(text: str) -> str:
    """Without what XML cannot hold: control characters, and the halves of characters that names in no UTF-8 leave."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
