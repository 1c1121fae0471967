"""Everything that users get wrong, end to end: an exit code of its own, one line, nothing left behind."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.cli.conftest import network, write_images
from vfconvert import errors

ARCHITECTURE = """
from torch import nn

def other():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
"""


class Foreign(nn.Module):
    """A class that no allow-list knows."""


def saved(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def depthwise() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 3, 3, groups=3), nn.Flatten())


WHOLE = saved(network())
WEIGHTS = saved(network().state_dict())
IMAGES = "--data {images}"

# name -> error, bytes of the model file (None: there is no file), arguments after "MODEL -o OUTPUT"
CASES: dict[str, tuple[type[errors.VfconvertError], bytes | None, str]] = {
    "no file": (errors.NotAModelError, None, ""),
    "a text": (errors.NotAModelError, b"weights to follow\n" * 9, ""),
    "truncated": (errors.TruncatedModelError, WHOLE[: len(WHOLE) // 2], ""),
    "empty": (errors.EmptyModelError, b"", ""),
    "foreign class": (errors.UntrustedModelError, saved(Foreign()), ""),
    "weights without --arch": (errors.ArchitectureNeededError, WEIGHTS, IMAGES),
    "--arch names nothing": (errors.ArchitectureError, WEIGHTS, "--arch torchvision:resnot50"),
    "keys that do not match": (errors.StateDictMismatchError, WEIGHTS, "--arch {architecture}:other"),
    "no convolution": (errors.NoConvolutionError, saved(nn.Sequential(nn.Flatten(), nn.Linear(432, 2))), IMAGES),
    "nothing eligible": (errors.NothingEligibleError, saved(depthwise()), f"{IMAGES} --include-first"),
    "everything excluded": (errors.NothingEligibleError, WHOLE, f"{IMAGES} --exclude *"),
    "output in no folder": (errors.UnwritableOutputError, WHOLE, f"{IMAGES} -o {{outputs}}/none/a.onnx"),
    "output is a folder": (errors.UnwritableOutputError, WHOLE, f"{IMAGES} -o {{outputs}}"),
    "report in no folder": (errors.UnwritableOutputError, WHOLE, f"{IMAGES} --report {{outputs}}/none/r.json"),
    "output is the model": (errors.UnwritableOutputError, WHOLE, f"{IMAGES} -o {{model}}"),
    "input of other channels": (errors.InputShapeError, WHOLE, "--input-shape 4,12,12"),
    "no folder of images": (errors.NoImagesError, WHOLE, "--data {outputs}/none"),
    "folder without images": (errors.NoImagesError, WHOLE, "--data {outputs}"),
    "one image": (errors.NoImagesError, WHOLE, "--data {one}"),
    "unreadable image": (errors.UnreadableImageError, WHOLE, "--data {damaged}"),
    "no window": (errors.IllegalSpecError, WHOLE, f"{IMAGES} --windows 0"),
    "stride of nothing": (errors.IllegalSpecError, WHOLE, f"{IMAGES} --channel-stride 0"),
    "stride that is too wide": (errors.IllegalSpecError, WHOLE, f"{IMAGES} --channel-stride 99"),
    "share that is too wide": (errors.IllegalSpecError, WHOLE, f"{IMAGES} --channel-stride 0.75"),
    "share that is no number": (errors.IllegalSpecError, WHOLE, f"{IMAGES} --channel-stride nan"),
    "eight bits without ONNX": (errors.ExportError, WHOLE, f"{IMAGES} --format pt2 --int8 --no-reconstruct"),
    "no such device": (errors.DeviceError, WHOLE, f"{IMAGES} --device abacus"),
    "device without memory": (errors.DeviceError, WHOLE, f"{IMAGES} --device meta"),
    "mean of two channels": (errors.PreprocessingError, WHOLE, f"{IMAGES} --mean 0.5,0.5"),
    "no such preset": (errors.PreprocessingError, WHOLE, f"{IMAGES} --preset Nothing_Weights.V1"),
}


@pytest.fixture
def places(tmp_path: Path, images: Path, outputs: Path) -> dict[str, Path]:
    """What the arguments of a case may name."""
    (tmp_path / "architecture.py").write_text(ARCHITECTURE, encoding="utf-8")
    write_images(tmp_path / "one", 1, 0)
    write_images(tmp_path / "damaged", 4, 0)
    (tmp_path / "damaged" / "2.png").write_bytes((tmp_path / "damaged" / "1.png").read_bytes()[:60])
    named = {name: tmp_path / name for name in ("one", "damaged")}
    return named | {
        "images": images,
        "outputs": outputs,
        "architecture": tmp_path / "architecture.py",
        "model": tmp_path / "model.pt",
    }


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, but for what Python compiles."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_in_one_line(case: str, cli_invoke: Callable, places: dict[str, Path], tmp_path: Path):
    error, model, arguments = CASES[case]
    if model is not None:
        places["model"].write_bytes(model)
    before = contents(tmp_path)
    line = arguments.format(**places).split()
    output = [] if "-o" in line else ["-o", places["outputs"] / "a.onnx"]
    report = [] if "--report" in line else ["--report", places["outputs"] / "r.json"]
    result = cli_invoke(places["model"], "--spatial", "--channel", *output, *report, *line, exit_code=error.exit_code)
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    assert contents(tmp_path) == before


def test_every_case_of_the_issue_has_its_own_code():
    named = {error for error, _, _ in CASES.values()}
    assert len({error.exit_code for error in named}) == len(named)
    assert len(named) == 17


def test_meta_a_hidden_file_would_be_seen(tmp_path):
    before = contents(tmp_path)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / ".vfconvert-0123.onnx").write_bytes(b"half")
    assert contents(tmp_path) != before
