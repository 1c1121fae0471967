"""Files of networks whose outputs vary in number: small, named, and of as many rows as the network finds."""

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from tests.detectors import Places
from vfconvert.errors import ExportError, ParityError, UnwritableOutputError
from vfconvert.exporting.naming import FileNames
from vfconvert.exporting.onnx import export_onnx
from vfconvert.nn import VersatileConv2d
from vfconvert.rewriting import replace_module
from vfconvert.specs import ConvGeometry
from vfconvert.verification import verify_detections
from vfconvert.version import __version__

IMAGES = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def versatile(model: nn.Module, *names: str) -> nn.Module:
    torch.manual_seed(1)
    for name in names:
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Conv2d)
        new = VersatileConv2d(ConvGeometry.of(layer), scale=True)
        with torch.no_grad():
            new.weight.mul_(float(layer.weight.std() / new.weight.std()))
        replace_module(model, name, new)
    return model.eval()


def written(model: nn.Module, path: Path, **options: object) -> onnx.ModelProto:
    export_onnx(model, IMAGES[:1], path, metadata={"seed": "3"}, varying=True, **options)  # type: ignore[arg-type]
    return onnx.load(path)


def outputs(path: Path, image: Tensor) -> dict[str, Tensor]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, map(torch.from_numpy, session.run(None, {"input": image.numpy()})), strict=True))


@pytest.mark.parametrize("names", [("body.3", "scores"), ()], ids=["versatile", "ordinary"])
def test_the_file_finds_what_the_network_finds(tmp_path, names):
    model = versatile(Places(), *names)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    written(model, tmp_path / "a.onnx")
    counts = set()
    for image in torch.split(IMAGES, 1):
        got, (expected,) = outputs(tmp_path / "a.onnx", image), model(image)
        assert list(got) == ["boxes", "scores", "labels", "masks"]
        torch.testing.assert_close(got, expected)
        counts.add(len(got["boxes"]))
    assert len(counts) > 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_banks_are_stored_and_not_the_weights_made_of_them(tmp_path):
    model = versatile(Places(), "body.3", "scores")
    proto = written(model, tmp_path / "a.onnx")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for name in ("body.3", "scores"):
        layer = model.get_submodule(name)
        assert stored[f"{name}.weight"].shape == tuple(layer.weight.shape)
        assert stored[f"{name}.weight"].shape[0] < layer.geometry.out_channels
    assert stored["body.0.weight"].shape == (16, 3, 3, 3)
    numbers = sum(array.size for array in stored.values())
    parameters = sum(tensor.numel() for tensor in model.state_dict().values())
    assert numbers < parameters + 20


def test_a_layer_that_is_called_several_times_is_stored_once(tmp_path):
    class Levels(Places):
        def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
            found = super().forward(images)
            coarse = self.boxes(self.body(images).relu()[:, :, ::2, ::2]).flatten(1)[:, :4]
            return [{**each, "boxes": each["boxes"] + more} for each, more in zip(found, coarse, strict=True)]

    model = versatile(Levels(), "boxes")
    proto = written(model, tmp_path / "a.onnx")
    assert [tensor.name for tensor in proto.graph.initializer].count("boxes.weight") == 1
    assert sum("boxes.rows" in node.input for node in proto.graph.node) == 1
    torch.testing.assert_close(outputs(tmp_path / "a.onnx", IMAGES[1:2]), model(IMAGES[1:2])[0])


def test_the_file_says_what_it_is(tmp_path):
    proto = written(versatile(Places(), "scores"), tmp_path / "a.onnx", opset=19)
    shape = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    assert [value.name for value in proto.graph.input] == ["input"]
    assert shape == [1, 3, 6, 6]
    lengths = [value.type.tensor_type.shape.dim[0].dim_param for value in proto.graph.output]
    assert lengths == ["detections"] * 4
    assert (proto.producer_name, proto.producer_version) == ("vfconvert", __version__)
    assert {entry.key: entry.value for entry in proto.metadata_props} == {"seed": "3"}
    assert proto.opset_import[0].version == 19
    assert not any(node.doc_string or node.name for node in proto.graph.node)


def test_inputs_and_outputs_get_the_names_that_are_given(tmp_path):
    names = FileNames(("labels",), ("input", "w0", "boxes", "v0"))
    model = versatile(Places(), "scores")
    export_onnx(model, IMAGES[:1], tmp_path / "a.onnx", metadata={}, varying=True, names=names)
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    found = session.run(list(names.outputs), {"labels": IMAGES[1:2].numpy()})
    wanted = model(IMAGES[1:2])[0].values()
    torch.testing.assert_close(list(map(torch.from_numpy, found)), list(wanted))
    assert verify_detections(tmp_path / "a.onnx", model, IMAGES, names=names).relative_error < 1e-5
    with pytest.raises(ParityError, match="got outputs input, w0, boxes, v0, expected "):
        verify_detections(tmp_path / "a.onnx", model, IMAGES)


def test_the_result_says_that_the_batch_is_fixed(tmp_path):
    result = export_onnx(Places().eval(), IMAGES[:1], tmp_path / "a.onnx", metadata={}, varying=True)
    assert not result.dynamic_batch
    assert result.opset == 18
    assert result.bytes == (tmp_path / "a.onnx").stat().st_size


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param({"opset": 21}, "--opset: got 21, .* written in 18 to 20; choose one of these", id="opset"),
        pytest.param({"dynamic_size": True}, "its file takes one size; no --dynamic-size", id="any size"),
    ],
)
def test_what_it_cannot_have_is_refused(tmp_path, options, said):
    with pytest.raises(ExportError, match=said):
        written(Places().eval(), tmp_path / "a.onnx", **options)
    assert not list(tmp_path.iterdir())


def test_where_torch_has_no_such_exporter_another_format_is_named(tmp_path, monkeypatch):
    def export(*_: object, **__: object) -> None:
        raise TypeError("export() got an unexpected keyword argument 'dynamo'")

    monkeypatch.setattr(torch.onnx, "export", export)
    with pytest.raises(
        ExportError, match=r"unexpected keyword .* vary in number.*cannot write it: write --format safe"
    ):
        written(Places().eval(), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_what_has_no_onnx_operator_is_refused(tmp_path):
    class Ranked(Places):
        def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
            (found,) = super().forward(images)
            return [{**found, "scores": torch.special.bessel_j0(found["scores"])}]

    with pytest.raises(ExportError, match=r"ONNX export failed: .*write --format safetensors"):
        written(Ranked().eval(), tmp_path / "a.onnx")


def test_a_full_disk_is_no_fault_of_the_network(tmp_path):
    with pytest.raises(UnwritableOutputError, match="missing"):
        written(Places().eval(), tmp_path / "missing" / "a.onnx")
