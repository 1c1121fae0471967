import json
from pathlib import Path

import pytest

from tests.benching_samples import write_files
from tests.reporting.test_bench import REPORT
from vfconvert.benching.runners import RUNTIMES
from vfconvert.cli.bench import RUNTIMES as OFFERED
from vfconvert.errors import InputShapeError, NotAModelError, UnsupportedModelError


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("files"))


@pytest.fixture
def asked(monkeypatch):
    """What a bench was asked for; it runs nothing."""
    seen = []

    def bench(paths, **settings):
        seen.append((paths, settings))
        return REPORT

    monkeypatch.setattr("vfconvert.benching.bench", bench)
    return seen


def test_every_option_arrives(cli_invoke, asked):
    line = (
        "bench a.onnx b.pt2 --batch 2 --size 32x64 --input-shape 3,32,64 --threads 4 --runtime torch --rounds 5 "
        "--warm-up 1 --seconds 2.5 --no-memory"
    )
    cli_invoke(*line.split(), exit_code=0)
    settings = {
        "batch": 2,
        "size": (32, 64),
        "input_shape": (3, 32, 64),
        "threads": 4,
        "runtime": "torch",
        "rounds": 5,
        "warm_up": 1,
        "seconds": 2.5,
        "memory": False,
    }
    assert asked == [((Path("a.onnx"), Path("b.pt2")), settings)]


def test_shapes_of_several_inputs_arrive(cli_invoke, asked):
    cli_invoke("bench", "a.pt", "--input-shape", "3,8,8", "--input-shape", "1,8,8", exit_code=0)
    assert asked[0][1]["input_shape"] == ((3, 8, 8), (1, 8, 8))


def test_defaults_are_those_of_the_library(cli_invoke, asked):
    from vfconvert.benching.comparing import bench

    cli_invoke("bench", "a.onnx", exit_code=0)
    assert asked == [((Path("a.onnx"),), bench.__kwdefaults__)]


def test_runtimes_are_those_of_the_library():
    assert OFFERED == RUNTIMES


def test_table_has_a_line_for_every_file(cli_invoke, files):
    result = cli_invoke("bench", files.onnx, files.onnx, "--rounds", 2, "--no-memory", exit_code=0)
    assert "2 rounds in turns" in result.stdout
    assert result.stdout.count(" ms ") == 4
    assert "memory" not in result.stdout
    assert result.stderr == ""


def test_json_is_one_object_with_its_version(cli_invoke, files):
    result = cli_invoke("bench", files.onnx, files.sized, "--size", 8, "--rounds", 2, "--json", exit_code=0)
    found = json.loads(result.stdout)
    assert found["schema_version"] == 1
    assert [file["path"] for file in found["files"]] == [str(files.onnx), str(files.sized)]
    assert all(file["peak_memory_bytes"] > 0 for file in found["files"])
    assert found["files"][1]["ratio"] == pytest.approx(found["files"][1]["median_ms"] / found["files"][0]["median_ms"])


@pytest.mark.parametrize(
    ("names", "options", "error", "said"),
    [
        (["pickled"], [], NotAModelError, "is a pickle of torch.save"),
        (["sized"], [], InputShapeError, "add --size HxW"),
        (["onnx", "gray"], [], InputShapeError, "compare files of the same input"),
        (["onnx"], ["--runtime", "torch"], UnsupportedModelError, "which torch does not run"),
    ],
)
def test_errors_are_one_line(cli_invoke, files, names, options, error, said):
    paths = [getattr(files, name) for name in names]
    result = cli_invoke("bench", *paths, *options, "--no-memory", exit_code=error.exit_code)
    assert result.stderr.startswith("Error: ")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_missing_file_is_no_model(cli_invoke, tmp_path):
    result = cli_invoke("bench", tmp_path / "a.onnx", exit_code=NotAModelError.exit_code)
    assert result.stderr == f"Error: {tmp_path}/a.onnx: no such file; check the path\n"


def test_wrong_lines_show_usage(cli_invoke):
    assert "Missing argument 'FILES...'" in cli_invoke("bench", exit_code=2).stderr
    assert "'tvm' is not one of" in cli_invoke("bench", "a.onnx", "--runtime", "tvm", exit_code=2).stderr
