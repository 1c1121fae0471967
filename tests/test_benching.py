"""Files take turns with the threads asked for, on one input; the report's ratios are those of its medians."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from tests.benching_samples import QUICK, SHAPE, export_onnx, write_files
from vfconvert.benching import bench, memory
from vfconvert.benching.formats import FileFormat
from vfconvert.benching.runners import Runner
from vfconvert.benching.shapes import common_shapes
from vfconvert.errors import IllegalSpecError, InputShapeError
from vfconvert.measuring import timing


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> SimpleNamespace:
    return write_files(tmp_path_factory.mktemp("files"))


@pytest.fixture
def clock(monkeypatch):
    """Seconds pass only where a fake run lets them."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now.seconds))
    return now


@pytest.fixture
def fake_runs(monkeypatch, clock, tmp_path):
    """`fake_runs({"a": [1.0, 2.0], ...})`: files whose runs last so many seconds; their paths and the order of runs."""

    def make(durations):
        order = []

        def fake_open(path, runtime, threads):
            lasting = iter(durations[path.name])

            def run():
                order.append(path.name)
                clock.seconds += next(lasting)

            return Runner(
                path=path,
                format=FileFormat.TORCHSCRIPT,
                runtime="torch",
                version="0",
                threads=threads,
                shapes=(SHAPE,),
                input_type="float32",
                prepare=lambda arrays: run,
            )

        monkeypatch.setattr("vfconvert.benching.comparing.open_model", fake_open)
        paths = [tmp_path / name for name in durations]
        for path in paths:
            path.write_bytes(b"1234")
        return paths, order

    return make


def test_runs_alternate_and_ratios_are_those_of_the_medians(fake_runs):
    paths, order = fake_runs({"a": [9, 9, 1.0, 2.0, 3.0], "b": [9, 9, 2.0, 5.0, 6.0]})
    report = bench(paths, rounds=3, warm_up=1, memory=False)
    assert "".join(order) == "ab" + "ab" + "ab" + "ba" + "ab"
    assert [file.median_ms for file in report.files] == [2000.0, 5000.0]
    assert [file.spread_ms for file in report.files] == [1000.0, 2000.0]
    assert [file.ratio for file in report.files] == [1.0, 2.5]
    assert [(file.rounds, file.bytes) for file in report.files] == [(3, 4), (3, 4)]


def test_rounds_end_when_the_seconds_are_over(fake_runs):
    paths, _ = fake_runs({"a": [1.0] * 9})
    assert bench(paths, rounds=8, warm_up=0, seconds=2.5, memory=False).files[0].rounds == 3


def test_all_formats_side_by_side(files):
    paths = [files.onnx, files.program, files.script, files.onnx]
    report = bench(paths, **QUICK)
    assert [(file.format, file.runtime) for file in report.files] == [
        ("onnx", "onnxruntime"),
        ("program", "torch"),
        ("torchscript", "torch"),
        ("onnx", "onnxruntime"),
    ]
    assert report.runtimes == (f"onnxruntime {onnxruntime.__version__}", f"torch {torch.__version__}")
    assert [file.ratio for file in report.files] == [
        pytest.approx(file.median_ms / report.files[0].median_ms) for file in report.files
    ]
    assert [file.bytes for file in report.files] == [path.stat().st_size for path in paths]
    assert all(file.peak_memory_bytes is None for file in report.files)
    assert (report.input_shape, report.threads, report.batch, report.warm_up) == (SHAPE, 1, 1, 0)
    assert report.machine.processor
    assert report.machine.logical_cores == os.cpu_count()


def test_threads_reach_torch_and_are_put_back(files, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "vfconvert.benching.comparing.in_turns",
        lambda calls, **_: seen.append(torch.get_num_threads()) or dict.fromkeys(calls, timing.Timing((1.0,))),
    )
    before = torch.get_num_threads()
    bench([files.script], threads=before + 1, input_shape=SHAPE[1:], memory=False)
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_more_threads_than_cores_are_warned_of(fake_runs):
    paths, _ = fake_runs({"a": [1.0] * 9})
    cores = os.cpu_count()
    report = bench(paths, threads=cores + 1, **QUICK)
    assert report.warnings == (f"{cores + 1} threads share {cores} logical cores",)


def test_peak_memory_is_beyond_that_of_the_runtime(files, tmp_path):
    large = export_onnx(tmp_path / "large.onnx", nn.Conv2d(3, 2_000_000, 1), (1, 3, 1, 1))
    alone = memory.peak_bytes("onnxruntime")
    small = memory.peak_bytes("onnxruntime", files.onnx, shapes=[SHAPE])
    assert 2**20 < alone < small
    assert memory.peak_bytes("onnxruntime", large, shapes=[(1, 3, 1, 1)]) - small > large.stat().st_size


def test_peak_memory_is_not_that_of_this_process(files):
    ballast = np.ones(2**26)  # 512 MiB
    assert memory.peak_bytes("onnxruntime", files.onnx, shapes=[SHAPE]) < ballast.nbytes // 2


def test_measured_process_loads_no_other_runtime():
    loaded = "import sys, vfconvert.benching.memory; print([name for name in ('torch', 'onnx') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_peaks_enter_the_report(fake_runs, monkeypatch):
    def peak(runtime, path=None, **_):
        if path is not None and path.name == "b":
            raise memory.UnknownPeakError("its process ended with code -9")
        return 100 if path is None else 140

    monkeypatch.setattr("vfconvert.benching.comparing.peak_bytes", peak)
    paths, _ = fake_runs({"a": [1.0] * 9, "b": [1.0] * 9})
    report = bench(paths, rounds=2, warm_up=0)
    assert [file.peak_memory_bytes for file in report.files] == [40, None]
    assert report.warnings == (f"the peak memory of {paths[1]} is not known: its process ended with code -9",)


def test_unknown_peak_says_how_its_process_ended(tmp_path):
    with pytest.raises(memory.UnknownPeakError, match="ended with code 1"):
        memory.peak_bytes("onnxruntime", tmp_path / "missing.onnx", shapes=[SHAPE])


def test_bytes_count_external_data(tmp_path):
    path = export_onnx(tmp_path / "a.onnx", nn.Conv2d(3, 64, 3))
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="weights", size_threshold=0)
    expected = path.stat().st_size + (tmp_path / "weights").stat().st_size
    assert bench([path], **QUICK).files[0].bytes == expected


def test_size_and_batch_fill_in_what_a_file_leaves_open(files):
    assert bench([files.sized], batch=2, size=(6, 10), **QUICK).input_shape == (2, 3, 6, 10)


def test_file_that_tells_no_shape_takes_the_shape_of_the_others(files):
    assert bench([files.script, files.onnx], **QUICK).input_shape == SHAPE


@pytest.mark.parametrize(
    ("names", "settings", "said"),
    [
        (["sized"], {}, "sized.onnx: takes any height or width; add --size HxW"),
        (["onnx"], {"size": (9, 9)}, "a.onnx: takes any x 3 x 8 x 8, got 9 at dimension 2; choose 8"),
        (["onnx"], {"input_shape": (1, 8, 8)}, "got 1 at dimension 1; choose 3"),
        (["onnx", "gray"], {}, "gray.onnx: takes 1 x 1 x 8 x 8, and .*a.onnx takes 1 x 3 x 8 x 8"),
        (["fixed"], {}, "takes batches of 4, got 1; choose --batch 4"),
        (["script"], {}, "a.pt: the file does not tell its input's shape; add --input-shape C,H,W"),
        (["script"], {"input_shape": (4, 8, 8)}, "does not run on an input of 1 x 4 x 8 x 8: .*expected input"),
        (["script"], {"input_shape": (0, 8, 8)}, "got 1 x 0 x 8 x 8, expected positive numbers"),
    ],
)
def test_wrong_shapes_say_what_to_choose(files, names, settings, said):
    with pytest.raises(InputShapeError, match=said):
        bench([getattr(files, name) for name in names], **settings, **QUICK)


def test_shape_of_another_rank_takes_no_size():
    runner = SimpleNamespace(path=Path("flat.onnx"), shapes=((None, 7),))
    assert common_shapes([runner], batch=2) == ((2, 7),)
    with pytest.raises(InputShapeError, match=r"flat.onnx: its input has 2 dimensions, expected 4 with --size"):
        common_shapes([runner], batch=2, size=(4, 4))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"threads": 0}, "--threads: got 0, expected at least 1"),
        ({"batch": 0}, "--batch: got 0, expected at least 1"),
        ({"rounds": 0}, "--rounds: got 0, expected at least 1"),
        ({"warm_up": -1}, "--warm-up: got -1, expected at least 0"),
        ({"seconds": float("nan")}, "--seconds: got nan, expected more than 0"),
        ({"runtime": "tvm"}, "--runtime: got 'tvm', expected one of onnxruntime, openvino, torch"),
    ],
)
def test_numbers_and_names_are_checked_before_any_file(settings, said):
    with pytest.raises(IllegalSpecError, match=said):
        bench([Path("missing.onnx")], **settings)


def test_no_file_is_an_error():
    with pytest.raises(IllegalSpecError, match="no file to run"):
        bench([])


def test_half_precision_is_compared_with_single(files, tmp_path):
    half = export_onnx(tmp_path / "half.onnx", nn.ReLU().half(), SHAPE)
    model = onnx.load(half)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(model, half)
    assert [file.input_type for file in bench([files.onnx, half], **QUICK).files] == ["float32", "float16"]


def test_numbers_of_a_seed_are_always_the_same(fake_runs, monkeypatch):
    seen = []
    paths, _ = fake_runs({"a": [1.0] * 9})

    def keep(runner, arrays):
        seen.append(*arrays)
        return lambda: None

    monkeypatch.setattr("vfconvert.benching.comparing._accepted", keep)
    monkeypatch.setattr("vfconvert.benching.comparing.in_turns", lambda calls, **_: {"0": timing.Timing((1.0,))})
    for _ in range(2):
        assert bench(paths, **QUICK).seed == 0
    one, other = seen
    np.testing.assert_array_equal(one, other)
    assert one.std() > 0.5
