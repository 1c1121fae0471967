"""The file is valid, small, says how it was made, and computes what the network computes for every batch size."""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import checker, numpy_helper
from torch import Tensor, nn

from vfconvert.errors import ExportError, UnwritableOutputError
from vfconvert.exporting import ExportedOnnx, export_onnx
from vfconvert.nn import VersatileConv2d
from vfconvert.options import OPSETS
from vfconvert.verification import verify_onnx
from vfconvert.version import __version__

IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
METADATA = {"producer": "vfconvert", "seed": "3"}
LAYERS = 7


@dataclass(frozen=True)
class Export:
    path: Path
    result: ExportedOnnx
    state_before: dict[str, Tensor]
    modes_before: list[bool]
    modes_after: list[bool]


@pytest.fixture(scope="module")
def export(versatile_network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The one export that most tests look at, of a network that is in part in train mode."""
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    versatile_network.get_submodule("blocks.1").train()
    state_before = {name: tensor.clone() for name, tensor in versatile_network.state_dict().items()}
    modes_before = [module.training for module in versatile_network.modules()]
    result = export_onnx(versatile_network, IMAGES[:1], path, metadata=METADATA)
    modes_after = [module.training for module in versatile_network.modules()]
    versatile_network.eval()
    return Export(path, result, state_before, modes_before, modes_after)


def _session(path: Path, optimised: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(path: Path, images: Tensor) -> list[Tensor]:
    return [torch.from_numpy(array) for array in _session(path).run(None, {"input": images.numpy()})]


def _floats(model: nn.Module) -> int:
    """Parameters and BatchNorm statistics."""
    statistics = (buffer.numel() for buffer in model.buffers() if buffer.is_floating_point())
    return sum(parameter.numel() for parameter in model.parameters()) + sum(statistics)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_file_computes_what_the_network_computes(export: Export, versatile_network: nn.Module, batch: int) -> None:
    with torch.no_grad():
        expected = versatile_network(IMAGES[:batch])
    (got,) = _run(export.path, IMAGES[:batch])
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_file_has_names_opset_and_metadata(export: Export) -> None:
    model = onnx.load(export.path)
    checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["input"]
    assert [value.name for value in model.graph.output] == ["output"]
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    assert dimensions[0].dim_param == "batch"
    assert [dimension.dim_value for dimension in dimensions[1:]] == [3, 16, 16]
    assert {entry.key: entry.value for entry in model.metadata_props} == METADATA
    assert (model.producer_name, model.producer_version) == ("vfconvert", __version__)
    assert export.result == ExportedOnnx(dynamic_batch=True, opset=18, bytes=export.path.stat().st_size)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert list(export.path.parent.iterdir()) == [export.path]


def test_file_size_grows_with_the_parameters_alone(export: Export, versatile_network: nn.Module) -> None:
    # A network of 55 such layers has 64 KiB for its nodes and rows; these get their share of it.
    assert export.result.bytes <= 1.03 * 4 * _floats(versatile_network) + 64 * 1024 * LAYERS / 55


def test_file_holds_every_bank_once_and_no_expanded_weight(export: Export, versatile_network: nn.Module) -> None:
    stored = [numpy_helper.to_array(tensor) for tensor in onnx.load(export.path).graph.initializer]
    floats = [array for array in stored if array.dtype == np.float32]
    assert sum(array.size for array in floats) <= _floats(versatile_network)
    for layer in versatile_network.modules():
        if isinstance(layer, VersatileConv2d):
            bank, weight = layer.weight.detach().numpy(), layer.expanded_weight().detach().numpy()
            assert sum(np.array_equal(array, bank) for array in floats) == 1
            assert not any(np.array_equal(array, weight) for array in floats)


def test_runtime_folds_weights_and_norms_into_plain_convolutions(export: Export, tmp_path: Path) -> None:
    _session(export.path, tmp_path / "optimised.onnx")
    graph = onnx.load(tmp_path / "optimised.onnx").graph
    kinds = {node.op_type for node in graph.node}
    assert kinds <= {"Conv", "FusedConv", "Add", "Relu", "ReduceMean", "Gemm"}
    constants = {tensor.name for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type.endswith("Conv")]
    assert len(convolutions) == LAYERS
    assert all(node.input[1] in constants for node in convolutions)


def test_export_leaves_the_network_as_it_was(export: Export, versatile_network: nn.Module) -> None:
    assert export.modes_before == export.modes_after
    assert {True, False} == set(export.modes_after)
    state = versatile_network.state_dict()
    assert list(state) == list(export.state_before)
    assert all(torch.equal(state[name], tensor) for name, tensor in export.state_before.items())
    assert not any("expanded_weight" in vars(module) for module in versatile_network.modules())
    assert all(parameter.requires_grad for parameter in versatile_network.parameters())


class Branches(nn.Module):
    """A mapping, a sequence, an auxiliary output that is None, the same tensor twice, the input itself."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv, self.unused = conv, VersatileConv2d(conv.geometry)
        self.w0 = nn.Parameter(torch.rand(16, 1, 1))

    def forward(self, x: Tensor) -> dict[str, object]:
        y = self.conv(x) * self.w0 + torch.ones(16, 16, 16)  # a constant that is better made than stored
        return {"out": y, "aux": None, "w0": [y, self.conv(y[:, :3]).mean((2, 3))], "v0": x}


def test_outputs_of_every_structure_are_named_and_right(
    make_versatile: Callable[[int, int, int], VersatileConv2d],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    model, path = Branches(make_versatile(3, 16, 1)).train(), tmp_path / "model.onnx"
    random_state, filters = torch.get_rng_state(), list(warnings.filters)
    result = export_onnx(model, IMAGES[:2], path, metadata={})
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert list(warnings.filters) == filters
    assert logging.root.manager.disable == 0
    assert capfd.readouterr() == ("", "")
    # torch keeps this logger to itself: it never propagates, but pytest listens to it.
    assert [record for record in caplog.records if record.name != "torch.__trace"] == []

    graph = onnx.load(path).graph
    assert [value.name for value in graph.output] == ["out", "w0_0", "w0_1", "v0"]
    assert [tensor.name for tensor in graph.initializer if "weight" in tensor.name] == ["conv.weight"]
    assert result.bytes < 4 * _floats(model) + 4096
    for batch in (1, 3):
        images = IMAGES[:batch]
        with torch.no_grad():
            reference = model.eval()(images)
        expected = [reference["out"], *reference["w0"], images]
        for got, wanted in zip(_run(path, images), expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


class PairsOfImages(nn.Module):
    """Computes with the very number of images, which it takes to be two."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).view(2, -1)


def test_network_that_fixes_the_batch_is_written_for_that_batch(
    make_versatile: Callable[[int, int, int], VersatileConv2d], tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    model = PairsOfImages(make_versatile(3, 16, 1))
    assert not export_onnx(model, IMAGES[:2], path, metadata={}).dynamic_batch
    with torch.no_grad():
        torch.testing.assert_close(_run(path, IMAGES[:2])[0], model(IMAGES[:2]), rtol=1e-5, atol=1e-5)
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2


class Untraceable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_export_refuses_untraceable_network_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExportError, match=r"^ONNX export failed: GuardOnDataDependent[^\n]*rewritten there$"):
        export_onnx(Untraceable(), IMAGES[:1], tmp_path / "model.onnx", metadata={})
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_export_refuses_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    model[0].bias.data = model[0].bias.data.to(dtype)
    with pytest.raises(ExportError, match=f"0.bias is {name}, and ONNX files are written in float32"):
        export_onnx(model, IMAGES[:1], tmp_path / "model.onnx", metadata={})
    with pytest.raises(ExportError, match=f"the example input is {name}"):
        export_onnx(model.float(), IMAGES[:1].to(dtype), tmp_path / "model.onnx", metadata={})
    assert list(tmp_path.iterdir()) == []


def test_export_refuses_an_opset_outside_the_range(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"^--opset: got 17, expected 18 to 23$"):
        export_onnx(nn.Identity(), IMAGES[:1], tmp_path / "model.onnx", metadata={}, opset=17)
    with pytest.raises(ExportError, match=r"^--opset: got 24, expected 18 to 23$"):
        export_onnx(nn.Identity(), IMAGES[:1], tmp_path / "model.onnx", metadata={}, opset=24)


@pytest.mark.parametrize("opset", [20, OPSETS[1]])
def test_newer_opsets_are_written(tmp_path: Path, opset: int) -> None:
    model = nn.Sequential(nn.Conv2d(IMAGES.shape[1], 4, 3)).eval()
    assert export_onnx(model, IMAGES[:1], tmp_path / "model.onnx", metadata={}, opset=opset).opset == opset
    assert verify_onnx(tmp_path / "model.onnx", model, IMAGES).runtime == "onnxruntime"


def test_export_refuses_an_opset_that_the_exporter_does_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vfconvert.exporting.onnx.OPSETS", (18, 99))
    model = nn.Sequential(nn.Conv2d(IMAGES.shape[1], 4, 3)).eval()
    with pytest.raises(ExportError, match=r"--opset: got 99, and the torch and onnx that are .* can only write 18; "):
        export_onnx(model, IMAGES[:1], tmp_path / "model.onnx", metadata={}, opset=99)
    assert list(tmp_path.iterdir()) == []


def test_export_refuses_more_than_one_file_holds(tmp_path: Path) -> None:
    huge = nn.Linear(2**15, 2**14, device="meta")
    with pytest.raises(ExportError, match="2147549184 bytes of weights, and one ONNX file holds at most"):
        export_onnx(huge, IMAGES[:1], tmp_path / "model.onnx", metadata={})


def test_export_refuses_unwritable_path_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UnwritableOutputError, match="does not exist"):
        export_onnx(Untraceable(), IMAGES[:1], tmp_path / "no" / "model.onnx", metadata={})
