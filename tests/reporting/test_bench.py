import json
from dataclasses import fields, replace

import pytest

from tests.reporting.test_terminal import text_of
from vfconvert.benching import BenchedFile, BenchReport, Machine
from vfconvert.reporting.bench import bench_to_json, render_bench

FIRST = BenchedFile(
    path="before.onnx",
    format="onnx",
    runtime="onnxruntime",
    runtime_version="1.32.0",
    input_type="float32",
    bytes=46_735_360,
    median_ms=42.1234,
    spread_ms=0.75,
    ratio=1.0,
    rounds=30,
    peak_memory_bytes=169_869_312,
)
SECOND = replace(FIRST, path="after.onnx", bytes=11_534_336, median_ms=33.7, ratio=0.8004, peak_memory_bytes=62_914_560)
REPORT = BenchReport(
    files=(FIRST, SECOND),
    threads=1,
    batch=1,
    input_shape=(1, 3, 224, 224),
    seed=0,
    warm_up=3,
    machine=Machine(processor="Some CPU", logical_cores=8),
)


@pytest.mark.parametrize("width", [60, 100])
def test_table_reads_as_agreed(golden, width):
    golden(f"bench_{width}.txt", text_of(render_bench(REPORT), width))


def test_every_number_is_in_the_line_of_its_file():
    _, _, first, second, *_ = (line for line in text_of(render_bench(REPORT), 80).splitlines() if line)
    assert first.split() == ["before.onnx", "42.12", "ms", "0.750", "ms", "1.000", "44.57", "MiB", "162.00", "MiB"]
    assert second.split() == ["after.onnx", "33.70", "ms", "0.750", "ms", "0.800", "11.00", "MiB", "60.00", "MiB"]


def test_runtimes_are_told_apart_where_they_differ():
    mixed = replace(REPORT, files=(FIRST, replace(SECOND, runtime="torch", runtime_version="2.14.1")))
    shown = text_of(render_bench(mixed), 120)
    assert "runtime" in shown.splitlines()[1]
    assert "onnxruntime 1.32.0, torch 2.14.1; 1 thread, batch 1, input 1 x 3 x 224 x 224 of seed 0" in shown
    assert "runtime " not in text_of(render_bench(REPORT), 120).splitlines()[1]


def test_unknown_memory_is_a_dash_and_unmeasured_is_no_column():
    unknown = replace(REPORT, files=(FIRST, replace(SECOND, peak_memory_bytes=None)), warnings=("not known",))
    shown = text_of(render_bench(unknown), 80)
    assert any(line.split()[-1:] == ["-"] for line in shown.splitlines())
    assert "Warning: not known" in shown
    unmeasured = replace(REPORT, files=tuple(replace(file, peak_memory_bytes=None) for file in REPORT.files))
    assert "memory" not in text_of(render_bench(unmeasured), 80)


def test_brackets_in_a_path_are_shown():
    assert "[red]a.onnx" in text_of(render_bench(replace(REPORT, files=(replace(FIRST, path="[red]a.onnx"),))), 80)


def test_json_holds_every_field_unrounded_and_its_version_first():
    found = json.loads(bench_to_json(REPORT))
    assert list(found) == [field.name for field in fields(BenchReport)]
    assert next(iter(found.items())) == ("schema_version", 1)
    assert found["files"][0]["median_ms"] == FIRST.median_ms
    assert list(found["files"][1]) == [field.name for field in fields(BenchedFile)]
    assert found["machine"] == {"processor": "Some CPU", "logical_cores": 8}


def test_json_can_hold_any_path():
    odd = replace(REPORT, files=(replace(FIRST, path="\udcff.onnx"),))
    assert json.loads(bench_to_json(odd).encode("ascii"))["files"][0]["path"] == "\udcff.onnx"
