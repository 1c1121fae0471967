"""Files side by side from Python. Times are asked for, and nothing is said of how long they are."""

from pathlib import Path
from typing import Any

import pytest
import torch

import vfconvert
from tests.cli.conftest import network
from vfconvert.errors import IllegalSpecError, InputShapeError, NotAModelError

FAST = {"rounds": 2, "warm_up": 1, "memory": False}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("bench")
    images = torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    found = vfconvert.convert(network(), spatial=True, data=images, reconstruct=False, measure=False)
    for name in ("small.onnx", "small.ts"):
        found.export(folder / name)
    return folder / "small.onnx", folder / "small.ts"


def test_files_are_compared_in_their_order(files: tuple[Path, Path]) -> None:
    report = vfconvert.bench([str(files[0]), files[1]], input_shape=(3, 12, 12), **FAST)
    assert isinstance(report, vfconvert.BenchReport)
    assert [file.path for file in report.files] == [str(path) for path in files]
    assert [file.runtime for file in report.files] == ["onnxruntime", "torch"]
    assert [file.bytes for file in report.files] == [path.stat().st_size for path in files]
    assert report.files[0].ratio == 1
    assert [file.rounds for file in report.files] == [2, 2]
    assert (report.input_shape, report.warm_up) == ((1, 3, 12, 12), 1)


def test_one_file_needs_no_list_and_values_may_be_texts(files: tuple[Path, Path]) -> None:
    report = vfconvert.bench(files[1], input_shape="3,12,12", batch=2, **FAST)
    assert report.input_shape == (2, 3, 12, 12)
    assert [file.path for file in report.files] == [str(files[1])]


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"runtime": "tensorrt"}, ValueError, r"^bench\(\): runtime: got 'tensorrt', expected one of onnxruntime, "),
        ({"rounds": 1.5}, TypeError, r"^bench\(\): rounds: got 1\.5, expected a whole number$"),
        ({"rounds": 0}, IllegalSpecError, "rounds: got 0, expected at least 1"),
        ({"size": "large"}, ValueError, r"^bench\(\): size: got 'large', expected one side like 224"),
        ({"memory": "no"}, TypeError, r"^bench\(\): memory: got 'no', expected True or False$"),
        ({"seconds": None}, TypeError, r"^bench\(\): seconds: got None, expected a number$"),
        ({"input_shape": (4, 12, 12)}, InputShapeError, "takes any x 3 x 12 x 12, got 4 at dimension 1"),
    ],
)
def test_settings_of_another_kind_are_refused(
    files: tuple[Path, Path], settings: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        vfconvert.bench(files[0], **settings)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    wrong: Any = 3
    with pytest.raises(TypeError, match=r"^bench\(\): files: got 3, expected a path$"):
        vfconvert.bench(wrong)
    with pytest.raises(IllegalSpecError, match="no file to run; name at least one"):
        vfconvert.bench([])
    with pytest.raises(NotAModelError, match=r"none\.onnx: no such file"):
        vfconvert.bench(tmp_path / "none.onnx")
