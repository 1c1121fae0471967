"""Weights in eight bits stored as their bank: what the runtime makes of it is the weight, within half a step."""

import copy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tests.recipes.helpers import Small, converted
from vfconvert.exporting import export_onnx
from vfconvert.nn import VersatileConv2d
from vfconvert.planning import Wish
from vfconvert.quantizing import quantize_int8
from vfconvert.quantizing.sessions import open_session
from vfconvert.verification import agreement

WISHES = {
    "squares": Wish(),
    "lines": Wish(crops="lines"),
    "windows": Wish(spatial=False, channel=True),
    "both": Wish(channel=True, crops="lines", windows=3),
}


@pytest.fixture
def images() -> Tensor:
    return torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=WISHES.values(), ids=WISHES)
def student(request: pytest.FixtureRequest) -> nn.Module:
    """Versatile layers with random rows, orders and scales, and norms of either sign behind some of them."""
    torch.manual_seed(0)
    made = converted(Small().eval(), request.param, 16)
    made.block[1].weight.data[::3] *= -1
    return made


def layers_of(model: nn.Module) -> list[VersatileConv2d]:
    return [module for module in model.modules() if isinstance(module, VersatileConv2d)]


def quantized(model: nn.Module, images: Tensor, folder: Path, layers: list[VersatileConv2d]) -> Path:
    source, target = folder / "float.onnx", folder / f"{len(list(folder.iterdir()))}.onnx"
    export_onnx(model, images[:2], source, metadata={})
    quantize_int8(source, target, images, layers)
    return target


def weights(path: Path, images: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """The weight of every convolution as the runtime makes it, and its scale."""
    proto = onnx.load(path)
    names = [node.input[1] for node in proto.graph.node if node.op_type == "Conv"]
    scales = {node.output[0]: node.input[1] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for name in names:
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0].name
    return [
        (found, held[scales[name]].reshape(-1, 1, 1, 1))
        for name, found in zip(names, session.run(names, {given: images[:1].numpy()}), strict=True)
    ]


def stored(path: Path) -> int:
    """Whole numbers of convolutions' weights in the file."""
    tensors = onnx.load(path).graph.initializer
    return sum(
        int(np.prod(one.dims)) for one in tensors if one.data_type == onnx.TensorProto.INT8 and len(one.dims) == 4
    )


def test_weights_are_made_of_the_bank(student: nn.Module, images: Tensor, tmp_path: Path) -> None:
    layers = layers_of(student)
    assert len(layers) == 2
    assert any(layer.order is not None for layer in layers) == any(layer.spec.windows > 1 for layer in layers)
    shared, whole = (quantized(student, images, tmp_path, some) for some in (layers, []))
    banks, filters = (
        sum(int(w.numel()) for w in of)
        for of in ([layer.weight for layer in layers], [layer.as_conv2d().weight for layer in layers])
    )
    assert stored(whole) - stored(shared) == filters - banks
    for (ours, step), (theirs, other) in zip(weights(shared, images), weights(whole, images), strict=True):
        assert (np.abs(ours - theirs) <= 0.5001 * (step + other)).all()
        assert (np.abs(1.05 * ours - theirs) > 0.5001 * (step + other)).any()


def errors(model: nn.Module, images: Tensor, folder: Path) -> list[float]:
    """The relative error of the network's output in eight bits: with banks, and with whole weights."""
    files = [quantized(model, images, folder, some) for some in (layers_of(model), [])]
    with torch.no_grad():
        right = model(images)
    outputs = [open_session(path, threads=1).run_all(images)["output"] for path in files]
    return [agreement(right, output).relative_error for output in outputs]


def test_banks_lose_little_more_than_whole_weights(student: nn.Module, images: Tensor, tmp_path: Path) -> None:
    ours, whole = errors(student, images, tmp_path)
    assert ours < 1.5 * whole + 1e-3


@pytest.mark.parametrize("least", [0.02, 0.002])
def test_a_mask_that_leaves_little_has_steps_of_its_own(
    images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: float
) -> None:
    """Centres far below the ring around them, which the norm makes as large: the ring's steps would be too coarse."""
    torch.manual_seed(0)
    made = converted(Small().eval(), Wish(), 16)
    first, norm = layers_of(made)[0], made.block[1]
    crops = torch.div(first.rows, len(first.weight), rounding_mode="floor")
    assert len(set(crops.tolist())) == 2
    with torch.no_grad():
        first.weight[:, :, 1:2, 1:2] *= least
        inner = next(index for index, crop in enumerate(first.spec.crops) if (crop.top, crop.bottom) == (1, 2))
        norm.weight[crops == inner] /= least
    shared, whole = (quantized(made, images, tmp_path, some) for some in (layers_of(made), []))
    assert stored(shared) < stored(whole)
    monkeypatch.setattr("vfconvert.quantizing.shared_weights._COARSER", float("inf"))
    coarse = quantized(made, images, tmp_path, layers_of(made))
    right = weights(whole, images)[1][0][crops == inner]
    lost = [
        np.square(weights(path, images)[1][0][crops == inner] - right).sum() / np.square(right).sum()
        for path in (shared, coarse)
    ]
    assert lost[0] < 4e-4
    assert lost[1] > 0.05


def test_outputs_without_a_weight_have_one_filter_of_zeros(images: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = converted(Small().eval(), Wish(), 16)
    made.block[1].weight.data[4:7] = 0
    shared, whole = (quantized(made, images, tmp_path, some) for some in (layers_of(made), []))
    (ours, theirs) = (weights(path, images)[1] for path in (shared, whole))
    assert not ours[0][4:7].any()
    assert ours[0][[3, 7]].any(axis=(1, 2, 3)).all()
    assert (np.abs(ours[0] - theirs[0]) <= 0.5001 * (ours[1] + theirs[1])).all()
    saved = sum(layer.as_conv2d().weight.numel() - layer.weight.numel() for layer in layers_of(made))
    assert stored(whole) - stored(shared) == saved - 16 * 9
    outputs = [open_session(path, threads=1).run_all(images)["output"] for path in (shared, whole)]
    assert agreement(*outputs).relative_error < 0.1


def test_an_output_whose_bias_has_no_room_keeps_its_weight(images: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = converted(Small().eval(), Wish(channel=True), 16)
    made.block[1].weight.data[0] = 1e-12
    made.block[1].bias.data[0] = 5
    shared, whole = (quantized(made, images, tmp_path, some) for some in (layers_of(made), []))
    saved = sum(layer.as_conv2d().weight.numel() - layer.weight.numel() for layer in layers_of(made))
    assert stored(whole) - stored(shared) == saved - 16 * 9
    outputs = [open_session(path, threads=1).run_all(images)["output"] for path in (shared, whole)]
    assert agreement(*outputs).relative_error < 0.1


def test_a_layer_called_before_two_norms_has_two_weights_of_one_bank(images: Tensor, tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.layer = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1, bias=False)
            self.norms = nn.ModuleList(nn.BatchNorm2d(32) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            for norm in self.norms:
                x = norm(self.layer(x)).relu()
            return x.mean((2, 3))

    torch.manual_seed(0)
    made = converted(Twice().eval(), Wish(), 16)
    for norm in made.norms:
        norm.weight.data.uniform_(0.5, 2)
    (layer,) = layers_of(made)
    ours, whole = errors(made, images, tmp_path)
    assert ours < 1.5 * whole + 1e-3
    files = (quantized(made, images, tmp_path, some) for some in ([layer], []))
    less = layer.as_conv2d().weight.numel() - layer.weight.numel()
    assert -stored(next(files)) + stored(next(files)) == 2 * less


def test_layers_of_other_numbers_are_stored_whole(student: nn.Module, images: Tensor, tmp_path: Path) -> None:
    others = [copy.deepcopy(layer) for layer in layers_of(student)]
    with torch.no_grad():
        for layer in others:
            layer.weight[0] *= 1.01 + 0.01 * torch.rand_like(layer.weight[0])
    near, whole = (quantized(student, images, tmp_path, some) for some in (others, []))
    assert near.read_bytes() == whole.read_bytes()
