"""Files of smaller precisions from Python: each is judged beside the original, and is in the report and its gates."""

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor

import vfconvert
from tests.cli.test_plans import deep
from vfconvert.delivery import Delivery
from vfconvert.errors import ExportError, GateError, UnwritableOutputError
from vfconvert.lowering.network import Lowered, lower
from vfconvert.ops.blocks import CANCELLING, PLAIN
from vfconvert.quantizing import to_fp16
from vfconvert.reporting.latency import PrecisionReport
from vfconvert.reporting.report import ArtefactReport

ROWS = ("original", "original fp16", "converted", "converted fp16")


@pytest.fixture
def images() -> Tensor:
    return torch.randn(40, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def found(images: Tensor) -> vfconvert.Conversion:
    return vfconvert.convert(deep(), spatial=True, channel=True, data=images, reconstruct=False, measure=False)


def types_in(path: Path) -> set[int]:
    return {tensor.data_type for tensor in onnx.load(path).graph.initializer if len(tensor.dims) == 4}


@pytest.mark.parametrize(
    ("precision", "kind"),
    [("fp16", onnx.TensorProto.FLOAT16), ("int8", onnx.TensorProto.INT8)],
    ids=["fp16", "int8"],
)
def test_a_file_of_another_precision_is_written_alone_and_judged(
    found: vfconvert.Conversion, tmp_path: Path, precision: Any, kind: int
) -> None:
    written = found.export(tmp_path / "small.onnx", precision=precision)
    assert isinstance(written, PrecisionReport)
    assert os.listdir(tmp_path) == ["small.onnx"]
    assert kind in types_in(tmp_path / "small.onnx")
    assert written.name == f"converted {precision}"
    assert (written.path, written.bytes) == (str(tmp_path / "small.onnx"), os.path.getsize(tmp_path / "small.onnx"))
    rows = {row.name: row for row in found.report.precisions}
    assert tuple(rows) == tuple(name.replace("fp16", precision) for name in ROWS)
    assert rows[written.name] == written
    assert [row.path for row in rows.values()] == [None, None, None, written.path]
    assert rows["original"].relative_error == 0
    assert rows["converted"].relative_error > 0
    assert abs(written.relative_error - rows["converted"].relative_error) < 0.1
    assert found.report.artefacts == ()


def test_float32_has_none_of_the_types_of_other_precisions(found: vfconvert.Conversion, tmp_path: Path) -> None:
    written = found.export(tmp_path / "small.onnx", precision="fp32")
    assert isinstance(written, ArtefactReport)
    assert types_in(tmp_path / "small.onnx") == {onnx.TensorProto.FLOAT}


def test_a_report_has_the_files_of_all_precisions(found: vfconvert.Conversion, tmp_path: Path) -> None:
    found.export(tmp_path / "small.onnx")
    half = found.export(tmp_path / "half.onnx", precision="fp16")
    eight = found.export(tmp_path / "eight.onnx", precision="int8")
    assert [file.path for file in found.report.artefacts] == [str(tmp_path / "small.onnx")]
    assert [row.path for row in found.report.precisions if row.path] == [half.path, eight.path]
    assert len({row.name for row in found.report.precisions}) == len(found.report.precisions) == 6
    found.save_report(tmp_path / "r.json")
    saved = json.loads((tmp_path / "r.json").read_text())
    assert [row["name"] for row in saved["precisions"]] == [row.name for row in found.report.precisions]


def test_a_file_in_another_precision_takes_the_place_of_the_one_it_replaces(
    found: vfconvert.Conversion, tmp_path: Path
) -> None:
    found.export(tmp_path / "small.onnx")
    found.export(tmp_path / "small.onnx", precision="int8")
    assert found.report.artefacts == ()
    found.export(tmp_path / "small.onnx")
    assert found.report.precisions == ()


def test_gates_judge_the_size_of_all_precisions(found: vfconvert.Conversion, tmp_path: Path) -> None:
    half = found.export(tmp_path / "half.onnx", precision="fp16")
    full = found.export(tmp_path / "small.onnx")
    assert found.check(max_size="1MB").gates[0].got == max(half.bytes, full.bytes)
    assert found.check(files=[half], max_size="1MB").gates[0].got == half.bytes
    large = dataclasses.replace(half, bytes=10**7)
    with pytest.raises(GateError, match="--max-size: the largest file 10,000,000 bytes, at most 1,000,000 bytes"):
        found.check(files=[large], max_size="1MB")
    with pytest.raises(GateError, match=r"--max-parity-error: .* not measured"):
        found.check(files=[half], max_parity_error=1e-4)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("small.ts", {"precision": "int8"}, r"got int8 as torchscript, expected onnx, the one format that has it$"),
        ("small.onnx", {"precision": "fp16", "format": "pt2"}, "got fp16 as pt2, expected onnx"),
        ("small.onnx", {"precision": "fp16", "opset": 3}, r"^export\(\): opset: got 3, expected 18 to 23$"),
        ("small.safetensors", {"opset": 20}, r"got opset=20 for safetensors, which has none; leave it out$"),
    ],
)
def test_what_no_format_has_is_refused(
    found: vfconvert.Conversion, tmp_path: Path, name: str, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ExportError, match=said):
        found.export(tmp_path / name, **settings)
    assert os.listdir(tmp_path) == []
    assert found.report.precisions == ()


def test_a_place_that_takes_no_file_is_found_before_the_work(
    found: vfconvert.Conversion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vfconvert.delivery._one", lambda *_: pytest.fail("it has begun"))
    with pytest.raises(UnwritableOutputError, match="no-folder"):
        found.export(tmp_path / "no-folder" / "small.onnx", precision="int8")


def in_form(delivery: Delivery, form: str) -> Delivery:
    """As if every layer had been found to be fastest in this form."""
    assert delivery.network is not None
    lowered = lower(delivery.student, delivery.network, dict.fromkeys(delivery.inference.variants, form))
    return dataclasses.replace(delivery, inference=lowered)


def test_no_form_that_cancels_goes_into_half_precision(found: vfconvert.Conversion, images: Tensor) -> None:
    cancelling = in_form(found._delivery, CANCELLING)
    assert CANCELLING in cancelling.inference.variants.values()
    half = cancelling.for_half
    assert CANCELLING not in half.inference.variants.values()
    assert list(half.inference.variants) == list(cancelling.inference.variants)
    with torch.no_grad():
        torch.testing.assert_close(half.inference.model(images), found.model(images), rtol=1e-4, atol=1e-5)
    others = in_form(found._delivery, "separate")
    assert others.for_half is others


def test_half_precision_is_written_without_the_form_that_cancels(
    found: vfconvert.Conversion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found._delivery = in_form(found._delivery, CANCELLING)
    written: list[Lowered] = []
    one = vfconvert.delivery._one

    def seen(delivery: Delivery, *rest: Any) -> ArtefactReport:
        written.append(delivery.inference)
        return one(delivery, *rest)

    monkeypatch.setattr("vfconvert.delivery._one", seen)
    found.export(tmp_path / "eight.onnx", precision="int8")
    found.export(tmp_path / "half.onnx", precision="fp16")
    assert [CANCELLING in lowered.variants.values() for lowered in written] == [True, False]


def weights_in_eight_bits(path: Path) -> int:
    return sum(
        math.prod(tensor.dims)
        for tensor in onnx.load(path).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4
    )


def test_eight_bits_store_the_bank_of_a_layer_that_is_computed_whole(
    found: vfconvert.Conversion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found._delivery = in_form(found._delivery, PLAIN)
    shared = found.export(tmp_path / "small.onnx", precision="int8")
    monkeypatch.setattr(Lowered, "whole_layers", lambda self, student: ())
    whole = found.export(tmp_path / "whole.onnx", precision="int8")
    first, second, third = 9 * 3 * 8, 9 * 8 * 16, 9 * 16 * 16
    assert weights_in_eight_bits(tmp_path / "whole.onnx") == first + second + third
    # of the second layer the bank would take more bytes, with what cuts filters out of it
    assert 0 <= weights_in_eight_bits(tmp_path / "small.onnx") - (first + second + third // 4) <= third // 4
    assert shared.bytes < whole.bytes
    assert shared.relative_error == pytest.approx(whole.relative_error, abs=0.02)


def test_a_wrong_file_would_be_judged_as_one(
    found: vfconvert.Conversion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agreement is that of the file that was written: of one with other weights it falls."""
    right = found.export(tmp_path / "right.onnx", precision="fp16").relative_error

    def wrong(source: Path, made: Path, images: Tensor) -> None:
        proto = onnx.load(source)
        for tensor in proto.graph.initializer:
            if len(tensor.dims) == 4:
                values = onnx.numpy_helper.to_array(tensor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(-values, tensor.name))
        onnx.save(proto, source)
        to_fp16(source, made, images)

    monkeypatch.setattr("vfconvert.delivery.to_fp16", wrong)
    assert found.export(tmp_path / "wrong.onnx", precision="fp16").relative_error > right + 0.1
