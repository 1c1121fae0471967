"""Parity passes for equal networks and fails for every kind of difference."""

import math
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from vfconvert.errors import ParityError
from vfconvert.verification import OutputParity, predict, verify_onnx

IMAGES = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))


class Classifier(nn.Module):
    """`(B, 3, 2, 2)` to logits `(B, 6)` and their largest's index."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(12), nn.Linear(12, 6)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits = self.linear(self.norm(x.flatten(1)))
        return {"out": logits, "index": logits.argmax(1)}


@pytest.fixture
def model() -> Classifier:
    torch.manual_seed(3)
    return Classifier().eval()


@pytest.fixture
def path(model: Classifier, tmp_path: Path) -> Path:
    """An ONNX file of the same computation, written node by node."""
    norm = model.norm
    tensors = {
        "weight": model.linear.weight,
        "bias": model.linear.bias,
        **{"slope": norm.weight, "shift": norm.bias, "mean": norm.running_mean, "var": norm.running_var},
    }
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("BatchNormalization", ["flat", "slope", "shift", "mean", "var"], ["normed"]),
        helper.make_node("Gemm", ["normed", "weight", "bias"], ["out"], transB=1),
        helper.make_node("ArgMax", ["out"], ["index"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 2, 2])],
        [
            helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 6]),
            helper.make_tensor_value_info("index", TensorProto.INT64, ["batch"]),
        ],
        [numpy_helper.from_array(tensor.detach().numpy(), name) for name, tensor in tensors.items()],
    )
    file = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)
    return file


class Changed(nn.Module):
    """The network with something done to its outputs."""

    def __init__(self, model: nn.Module, change: Callable[[dict[str, Tensor]], object]) -> None:
        super().__init__()
        self.model, self.change = model, change

    def forward(self, x: Tensor) -> object:
        return self.change(self.model(x))


def _changed_logits(change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], object]:
    return lambda outputs: {**outputs, "out": change(outputs["out"])}


def test_verify_onnx_passes_and_names_its_figures(path: Path, model: Classifier) -> None:
    model.train()
    model.linear.eval()
    parity = verify_onnx(path, model, IMAGES)
    assert [(c.output, c.batch) for c in parity.comparisons] == [
        (output, batch) for batch in (1, 2, 5) for output in ("out", "index")
    ]
    with torch.no_grad():
        expected = float(model.eval()(IMAGES[:2])["out"].abs().max())
    assert parity.comparisons[2].reference_magnitude == pytest.approx(expected, rel=1e-6)
    assert parity.batch_sizes == (1, 2, 5)
    assert parity.relative_error <= 1e-6
    assert parity.maximum_error == max(c.maximum_error for c in parity.comparisons)
    assert (parity.tolerance, parity.runtime) == (1e-4, "onnxruntime")
    assert parity.runtime_version == onnxruntime.__version__


def test_verify_onnx_restores_mixed_modes_and_statistics(path: Path, model: Classifier) -> None:
    model.train()
    model.linear.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    verify_onnx(path, model, IMAGES, batch_sizes=[2])
    assert [module.training for module in model.modules()] == [True, True, False]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


CHANGES = {
    "scaled": lambda y: y * 1.001,
    "shifted": lambda y: y + 1e-3,
    "permuted channels": lambda y: y.roll(1, dims=1),
    "one number": lambda y: y + 1e-3 * (torch.arange(y.numel()) == 4).view_as(y),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_verify_onnx_fails_for_changed_output(path: Path, model: Classifier, change: Callable) -> None:
    expected = r"output 'out' at batch 2: max\|Δ\| is .* at max\|y\| .*, relative error .*, allowed 0.0001"
    with pytest.raises(ParityError, match=expected):
        verify_onnx(path, Changed(model, _changed_logits(change)), IMAGES, batch_sizes=[2])


def test_verify_onnx_fails_for_perturbed_weights(path: Path, model: Classifier) -> None:
    with torch.no_grad():
        model.linear.weight[0, 0] += 0.01
    with pytest.raises(ParityError, match=r"output 'out' at batch 1: .*allowed 0.0001"):
        verify_onnx(path, model, IMAGES)


def test_verify_onnx_fails_for_images_in_another_order(path: Path, model: Classifier) -> None:
    reverse = Changed(model, lambda outputs: {name: tensor.flip(0) for name, tensor in outputs.items()})
    verify_onnx(path, reverse, IMAGES, batch_sizes=[1])
    with pytest.raises(ParityError, match="output 'out' at batch 2"):
        verify_onnx(path, reverse, IMAGES, batch_sizes=[1, 2])


def test_verify_onnx_fails_for_a_difference_just_beyond_tolerance(path: Path, model: Classifier) -> None:
    near = Changed(model, _changed_logits(lambda y: y * (1 + 0.9e-4)))
    assert verify_onnx(path, near, IMAGES).relative_error == pytest.approx(0.9e-4, rel=0.05)
    far = Changed(model, _changed_logits(lambda y: y * (1 + 1.1e-4)))
    with pytest.raises(ParityError, match=r"allowed 0.0001; do not use the file"):
        verify_onnx(path, far, IMAGES)
    verify_onnx(path, far, IMAGES, tolerance=2e-4)


def test_verify_onnx_fails_for_a_wrong_index(path: Path, model: Classifier) -> None:
    other = Changed(model, lambda outputs: {**outputs, "index": (outputs["index"] + 1) % 6})
    with pytest.raises(ParityError, match=r"output 'index' at batch 1: .*relative error 1, allowed"):
        verify_onnx(path, other, IMAGES)


def test_verify_onnx_refuses_other_shape(path: Path, model: Classifier) -> None:
    with pytest.raises(ParityError, match=r"'out' at batch 1: got shape \(1, 6\), expected \(1, 6, 1\)"):
        verify_onnx(path, Changed(model, _changed_logits(lambda y: y[..., None])), IMAGES)


@pytest.mark.parametrize(
    "change",
    [lambda outputs: outputs["out"], lambda outputs: {"index": outputs["index"], "out": outputs["out"]}],
    ids=["fewer", "other order"],
)
def test_verify_onnx_refuses_other_outputs(path: Path, model: Classifier, change: Callable) -> None:
    with pytest.raises(ParityError, match=r"outputs at batch 1: got out, index, expected (output|index, out)"):
        verify_onnx(path, Changed(model, change), IMAGES)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_verify_onnx_refuses_numbers_that_are_not_finite(path: Path, model: Classifier, value: float) -> None:
    broken = Changed(model, _changed_logits(lambda y: torch.full_like(y, value)))
    with pytest.raises(ParityError, match="the converted network gives numbers that are not finite"):
        verify_onnx(path, broken, IMAGES)
    file = onnx.load(path)
    file.graph.initializer[1].CopyFrom(numpy_helper.from_array(torch.full((6,), value).numpy(), "bias"))
    onnx.save(file, path)
    with pytest.raises(ParityError, match="the file gives numbers that are not finite"):
        verify_onnx(path, model, IMAGES)


def test_verify_onnx_compares_a_fixed_batch_at_its_size(path: Path, model: Classifier) -> None:
    file = onnx.load(path)
    for value in (*file.graph.input, *file.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(file, path)
    assert verify_onnx(path, model, IMAGES).batch_sizes == (3,)


def test_verify_onnx_refuses_a_file_that_does_not_open(path: Path, model: Classifier) -> None:
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ParityError, match=r"^ONNX Runtime cannot open the file: [^\n]+$"):
        verify_onnx(path, model, IMAGES)


def test_verify_onnx_refuses_a_file_that_does_not_run(path: Path, model: Classifier) -> None:
    with pytest.raises(ParityError, match=r"^ONNX Runtime cannot run the file at batch 1: [^\n]+$"):
        verify_onnx(path, model, IMAGES.view(4, 12, 1, 1))


def test_verify_onnx_refuses_to_compare_nothing(path: Path, model: Classifier) -> None:
    with pytest.raises(ParityError, match="got 0 images and 3 batch sizes"):
        verify_onnx(path, model, IMAGES[:0])
    with pytest.raises(ParityError, match="got 4 images and 0 batch sizes"):
        verify_onnx(path, model, IMAGES, batch_sizes=[])


def test_outputs_that_are_zero_have_no_relative_error(path: Path, model: Classifier) -> None:
    with torch.no_grad():
        model.linear.weight.zero_()
        model.linear.bias.zero_()
    with pytest.raises(ParityError, match="relative error inf"):
        verify_onnx(path, model, IMAGES)
    file = onnx.load(path)
    for tensor, shape in zip(file.graph.initializer[:2], [(6, 12), (6,)], strict=True):
        tensor.CopyFrom(numpy_helper.from_array(torch.zeros(shape).numpy(), tensor.name))
    onnx.save(file, path)
    parity = verify_onnx(path, model, IMAGES, batch_sizes=[1])
    zero = OutputParity(output="out", batch=1, maximum_error=0, reference_magnitude=0, relative_error=0)
    assert parity.comparisons[0] == zero


@pytest.mark.parametrize("dimensions", [("h", "w"), (2, 2)], ids=["any size", "fixed size"])
def test_verify_onnx_compares_further_sizes(tmp_path: Path, dimensions: tuple) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, *dimensions]) for name in ("x", "output")]
    half = numpy_helper.from_array(torch.tensor(0.5).numpy(), "half")
    node = helper.make_node("Mul", ["x", "half"], ["output"])
    graph = helper.make_graph([node], "half", values[:1], values[1:], [half])
    file, model = tmp_path / "model.onnx", Changed(nn.Identity(), lambda x: x / 2)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)
    if dimensions == (2, 2):
        with pytest.raises(ParityError, match="ONNX Runtime cannot run the file at batch 1 and size 3x5: "):
            verify_onnx(file, model, IMAGES, sizes=[(3, 5)])
        return
    parity = verify_onnx(file, model, IMAGES, batch_sizes=[1, 3], sizes=[(3, 5)])
    assert [(c.batch, c.size) for c in parity.comparisons] == [(1, None), (3, None), (1, (3, 5)), (3, (3, 5))]
    with pytest.raises(ParityError, match=r"output 'output' at batch 1 and size 3x5: .*relative error 0.5, allowed"):
        verify_onnx(file, Changed(model, lambda x: x * 2 / x.shape[2]), IMAGES, sizes=[(2, 2), (3, 5)])


def test_predict_gives_the_main_output_in_eval_mode_and_restores_modes(model: Classifier) -> None:
    with torch.no_grad():
        expected = model(IMAGES)["out"]
    model.train()
    model.linear.eval()
    got = predict(model, IMAGES, batch_size=3)
    torch.testing.assert_close(got, expected)
    assert not got.requires_grad
    assert [module.training for module in model.modules()] == [True, True, False]
    assert not torch.allclose(predict(model, IMAGES.flip(0), batch_size=3), expected)
