"""Arguments of another kind: every public function says in one line which, what it got and what it takes."""

from pathlib import Path
from typing import Any

import pytest
import torch

import vfconvert
from tests.cli.conftest import network
from vfconvert.keyword_values import read_one_of, read_value


@pytest.fixture(scope="module")
def found() -> vfconvert.Conversion:
    images = torch.randn(40, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    return vfconvert.convert(network(), spatial=True, data=images, reconstruct=False, measure=False)


def one_line(error: BaseException) -> bool:
    return "\n" not in str(error)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"path": 3}, TypeError, r"path: got 3, expected a path$"),
        ({"path": b"a.onnx"}, TypeError, r"path: got b'a\.onnx', expected a path$"),
        ({"opset": "newest"}, ValueError, r"opset: got 'newest', expected a whole number$"),
        ({"opset": 18.5}, TypeError, r"opset: got 18\.5, expected a whole number$"),
        ({"opset": None}, TypeError, r"opset: got None, expected a whole number$"),
        ({"dynamic_size": "yes"}, TypeError, r"dynamic_size: got 'yes', expected True or False$"),
        ({"format": 3}, TypeError, r"format: got 3, expected a text or None$"),
        ({"precision": "int4"}, ValueError, r"precision: got 'int4', expected one of fp32, fp16, int8$"),
        ({"precision": 8}, TypeError, r"precision: got 8, expected one of fp32, fp16, int8$"),
    ],
)
def test_export_refuses(
    found: vfconvert.Conversion, tmp_path: Path, arguments: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=rf"^export\(\): {said}") as raised:
        found.export(**{"path": tmp_path / "small.onnx", **arguments})
    assert type(raised.value) is error
    assert one_line(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_an_opset_may_be_a_text_as_on_the_command_line(found: vfconvert.Conversion, tmp_path: Path) -> None:
    first, second = (found.export(tmp_path / f"{opset}.onnx", opset=opset) for opset in (18, "18"))  # type: ignore[arg-type]
    assert first.sha256 == second.sha256


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"max_size": [3]}, r"max_size: got \[3\], expected bytes, a size like '5MB' or None$"),
        ({"max_size": 3.5}, r"max_size: got 3\.5, expected bytes, a size like '5MB' or None$"),
        ({"max_size": True}, r"max_size: got True, expected bytes"),
        ({"fail_under_saving": 0.5}, r"fail_under_saving: got 0\.5, expected a mapping like"),
        ({"fail_under_saving": []}, r"fail_under_saving: got \[\], expected a mapping like"),
        ({"max_size": 5, "files": "small.onnx"}, r"files: got 'small\.onnx', expected what export\(\) returned"),
        ({"max_size": 5, "files": ["small.onnx"]}, r"files: got 'small\.onnx', expected what export\(\) returned"),
        ({"max_size": 5, "files": 3}, r"files: got 3, expected what export\(\) returned"),
    ],
)
def test_check_refuses(found: vfconvert.Conversion, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=rf"^check\(\): {said}") as raised:
        found.check(**arguments)
    assert one_line(raised.value)


def test_check_takes_one_file_without_a_list(found: vfconvert.Conversion, tmp_path: Path) -> None:
    written: Any = found.export(tmp_path / "small.onnx")
    assert found.check(files=written, max_size="1MB").gates[0].got == written.bytes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": 3}, r"path: got 3, expected a path$"),
        ({"path": "a.safetensors", "like": 3}, r"like: got 3, expected the network that was converted or None$"),
        ({"path": "a.safetensors", "lowered": 1}, r"lowered: got 1, expected True or False$"),
        ({"path": "a.safetensors", "plain": 1}, r"plain: got 1, expected True or False$"),
        ({"path": "a.safetensors", "example": [1]}, r"example: got \[1\], expected a tensor of images \(B, C, H, W\)"),
    ],
)
def test_load_refuses(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=rf"^load\(\): {said}") as raised:
        vfconvert.load(**arguments)
    assert one_line(raised.value)


def test_load_gives_one_form() -> None:
    with pytest.raises(ValueError, match=r"^load\(\): lowered and plain are two forms of one network; drop one"):
        vfconvert.load("a.safetensors", lowered=True, plain=True)
    with pytest.raises(ValueError, match=r"^load\(\): example says nothing without lowered; add that or drop it$"):
        vfconvert.load("a.safetensors", plain=True, example=torch.zeros(1, 3, 8, 8))


def test_convert_and_save_report_refuse(found: vfconvert.Conversion) -> None:
    with pytest.raises(TypeError, match=r"^convert\(\): model: got None, expected a network or the path of a file$"):
        vfconvert.convert(None, spatial=True)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^convert\(\): progress: got 3, expected a function like progress\("):
        vfconvert.convert(network(), spatial=True, progress=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^save_report\(\): path: got 3, expected a path$"):
        found.save_report(3)  # type: ignore[arg-type]


def test_convert_tells_how_far_it_is() -> None:
    told: list[tuple[str, int, int]] = []
    images = torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    vfconvert.convert(
        network(),
        spatial=True,
        data=images,
        reconstruct=False,
        measure=False,
        progress=lambda *step: told.append(step),
    )
    assert told
    assert all(isinstance(stage, str) and 0 <= done <= total for stage, done, total in told)


def test_values_are_bounded_and_of_known_words() -> None:
    assert read_value("f(): x", "int", "4", least=4) == 4
    with pytest.raises(ValueError, match=r"^f\(\): x: got 3, expected at least 4$"):
        read_value("f(): x", "int", 3, least=4)
    assert read_one_of("f(): x", ("a", "b"), "b") == "b"
    with pytest.raises(ValueError, match=r"^f\(\): x: got 'c', expected one of a, b$"):
        read_one_of("f(): x", ("a", "b"), "c")


def test_what_there_is_can_be_listed() -> None:
    assert set(vfconvert.__all__) <= set(dir(vfconvert))
    assert all(hasattr(vfconvert, name) for name in vfconvert.__all__)
    with pytest.raises(AttributeError, match="module 'vfconvert' has no attribute 'converted'"):
        vfconvert.converted  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("call", [vfconvert.convert, vfconvert.inspect])
def test_within_inference_mode_nothing_is_fitted(call: Any) -> None:
    with torch.inference_mode(), pytest.raises(ValueError, match=rf"{call.__name__}\(\): .*; call it outside$"):
        call(network(), spatial=True)
