"""Reports of conversions in memory: they have the files that were written since, and the gates that were judged."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import vfconvert
from tests.cli.conftest import network
from vfconvert.errors import GateError
from vfconvert.reporting.units import metric


@pytest.fixture
def found() -> vfconvert.Conversion:
    images = torch.randn(40, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    targets = {"params": 0.8, "size": "1MB"}
    return vfconvert.convert(network(), targets=targets, data=images, reconstruct=False, measure=False)


def saved(found: vfconvert.Conversion, path: Path) -> Any:
    found.save_report(path)
    return json.loads(path.read_text())


def test_a_saved_report_has_the_files(found: vfconvert.Conversion, tmp_path: Path) -> None:
    before = saved(found, tmp_path / "r.json")
    assert (before["artefacts"], before["output"], before["parity"]) == ([], None, None)
    written = found.export(tmp_path / "small.onnx")
    found.export(tmp_path / "small.safetensors")
    assert written.parity is not None
    after = saved(found, tmp_path / "r.json")
    assert [file["format"] for file in after["artefacts"]] == ["onnx", "safetensors"]
    assert after["output"] == {"path": written.path, "bytes": written.bytes, "sha256": written.sha256}
    assert after["parity"]["relative_error"] == written.parity.relative_error
    assert after["after"]["file_bytes"] == written.bytes
    assert [row["reached"] for row in after["budget"]["targets"]] == [after["after"]["parameters"], written.bytes]
    assert found.report.warnings == tuple(before["warnings"])


def test_a_file_that_is_written_again_is_told_once(found: vfconvert.Conversion, tmp_path: Path) -> None:
    found.export(tmp_path / "small.onnx", opset=20)
    again = found.export(tmp_path / "small.onnx")
    assert found.report.artefacts == (again,)


def test_a_target_that_the_file_misses_is_told(found: vfconvert.Conversion, tmp_path: Path) -> None:
    large = dataclasses.replace(found.export(tmp_path / "small.onnx"), bytes=2_000_000)
    said = "target size=1e+06 is missed; give a lower one"
    assert said in found.check(files=[large], max_size="5MB").warnings
    assert said not in found.report.warnings


def test_a_saved_report_has_the_gates_of_all_files(found: vfconvert.Conversion, tmp_path: Path) -> None:
    first, second = (found.export(tmp_path / f"small{suffix}") for suffix in (".onnx", ".safetensors"))
    report = found.check(max_size="1MB", max_parity_error=1e-4)
    assert report.artefacts == (first, second)
    gates = saved(found, tmp_path / "r.json")["gates"]
    assert [(gate["name"], gate["passed"]) for gate in gates] == [("max-parity-error", True), ("max-size", True)]
    assert gates[1]["got"] == max(first.bytes, second.bytes)
    found.export(tmp_path / "small.ts")
    assert saved(found, tmp_path / "r.json")["gates"] == []  # they have not judged this file


def test_a_failed_gate_is_in_the_report_and_in_its_error(found: vfconvert.Conversion, tmp_path: Path) -> None:
    written = found.export(tmp_path / "small.onnx")
    with pytest.raises(GateError, match="--max-size: the largest file") as raised:
        found.check(max_size=10)
    assert raised.value.report.artefacts == (written,)
    assert [(gate.got, gate.passed) for gate in raised.value.report.gates] == [(written.bytes, False)]
    assert found.report.gates == raised.value.report.gates
    assert [gate["passed"] for gate in saved(found, tmp_path / "r.json")["gates"]] == [False]
    found.check(max_size="1MB")
    assert [gate.passed for gate in found.report.gates] == [True]


def test_gates_may_judge_some_of_the_files(found: vfconvert.Conversion, tmp_path: Path) -> None:
    first, second = (found.export(tmp_path / f"small{suffix}") for suffix in (".onnx", ".safetensors"))
    report = found.check(files=[second], max_size="1MB")
    assert report.artefacts == (second,)
    assert report.gates[0].got == second.bytes
    assert found.report.artefacts == (first, second)
    assert found.report.gates == report.gates


def test_a_conversion_is_shown_in_a_line(found: vfconvert.Conversion) -> None:
    assert found.report.agreement is not None
    found.report = dataclasses.replace(
        found.report, agreement=dataclasses.replace(found.report.agreement, measure="top-1 agreement", value=0.984)
    )
    before, after = found.report.before.parameters, found.report.after.parameters
    shown = f"{metric(before)} -> {metric(after)} parameters"
    assert repr(found) == f"Conversion({shown}, top-1 agreement 98.40 %)"
    found.report = dataclasses.replace(found.report, agreement=None)
    assert repr(found) == f"Conversion({shown})"
