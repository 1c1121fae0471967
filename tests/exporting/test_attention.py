"""Attention of other than four dimensions gets into files, and computes there what it computed."""

import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vfconvert.exporting.attention import FourDimensionalAttention
from vfconvert.exporting.onnx import export_onnx

IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SHAPES = {3: (16, 8), 4: (2, 8, 8), 5: (2, 2, 4, 8)}  # of one image; the last two are tokens and channels


class Attending(nn.Module):
    """128 numbers of each image attend to one another in so many dimensions; `mask` is the dtype of one, or None."""

    def __init__(self, dimensions: int, mask: torch.dtype | None, *, found: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.shape, self.found = SHAPES[dimensions], found
        self.embed, self.head = nn.Conv2d(3, 24, 2, 2), nn.Linear(128, 5)
        tokens = self.shape[-2]
        leading = self.shape[:1] if dimensions > 3 else ()
        weights = torch.randn(*leading, *(1,) * (dimensions > 4), tokens, tokens)
        self.mask = None if mask is None else weights > -0.5 if mask == torch.bool else weights

    def forward(self, images: Tensor) -> Tensor | list[dict[str, Tensor]]:
        rows = self.embed(images).flatten(1).unflatten(1, (3, *self.shape))
        query, key, value = rows[:, 0], 2 * rows[:, 1], rows[:, 2]
        attended = F.scaled_dot_product_attention(query, key, value, self.mask, scale=0.7)
        answer = self.head(attended.flatten(1))
        return [{"scores": each[each > each.mean()]} for each in answer] if self.found else answer


def run(path, images: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"input": images.numpy()})[0])


@pytest.mark.parametrize("opset", [18, 23])
@pytest.mark.parametrize("mask", [None, torch.float32, torch.bool], ids=["no mask", "float mask", "bool mask"])
@pytest.mark.parametrize("dimensions", SHAPES)
def test_the_file_attends_as_the_network(tmp_path, dimensions, mask, opset):
    model = Attending(dimensions, mask).eval()
    result = export_onnx(model, IMAGES[:1], tmp_path / "a.onnx", metadata={}, opset=opset)
    assert result.dynamic_batch
    with torch.no_grad():
        expected = model(IMAGES)
        model.mask = None
        unmasked = model(IMAGES)
    torch.testing.assert_close(run(tmp_path / "a.onnx", IMAGES), expected, rtol=1e-4, atol=1e-5)
    if mask is not None:  # else nothing here would tell a file that has lost its mask
        assert (unmasked - expected).abs().max() > 1e-3


WEIGHTS = 3 * torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(2))
MASKS = {
    "a row for all": (4, WEIGHTS[:, :1]),
    "a row for all, of truths": (4, WEIGHTS[:1, :1] > 0),
    "a row for all, in five dimensions": (5, WEIGHTS[:, None, :1, :4]),
    "keys alone": (5, WEIGHTS[0, 0, :4]),
    "more dimensions than there are": (3, WEIGHTS.new_ones(1, 1, 16, 16).tril()),
}


@pytest.mark.parametrize("opset", [18, 23])
@pytest.mark.parametrize("case", MASKS)
def test_masks_that_are_less_than_whole_get_into_files(tmp_path, case, opset):
    dimensions, mask = MASKS[case]
    model = Attending(dimensions, None).eval()
    with torch.no_grad():
        unmasked = model(IMAGES)
        model.mask = mask
        expected = model(IMAGES)
    export_onnx(model, IMAGES[:1], tmp_path / "a.onnx", metadata={}, opset=opset)
    torch.testing.assert_close(run(tmp_path / "a.onnx", IMAGES), expected, rtol=1e-4, atol=1e-5)
    assert (unmasked - expected).abs().max() > 1e-3


@pytest.mark.parametrize("mask", [None, torch.float32, torch.bool], ids=["no mask", "float mask", "bool mask"])
@pytest.mark.parametrize("dimensions", SHAPES)
def test_the_file_of_a_detector_attends_as_the_network(tmp_path, dimensions, mask):
    model = Attending(dimensions, mask, found=True).eval()
    export_onnx(model, IMAGES[:1], tmp_path / "a.onnx", metadata={}, varying=True)
    for image in IMAGES.split(1):
        with torch.no_grad():
            expected = model(image)[0]["scores"]
        torch.testing.assert_close(run(tmp_path / "a.onnx", image), expected, rtol=1e-4, atol=1e-5)


def test_the_exporter_still_knows_four_dimensions_alone(tmp_path):
    program = torch.export.export(Attending(5, None).eval(), (IMAGES,), strict=False)
    with pytest.raises(torch.onnx.OnnxExporterError, match="only 4D"):
        torch.onnx.export(program, dynamo=True, verbose=False, optimize=False)


CASES = {
    "causal": ((2, 5, 4), (2, 5, 4), (2, 5, 6), {"is_causal": True}),
    "two dimensions": ((5, 4), (7, 4), (7, 6), {}),
    "one key for all": ((3, 2, 2, 5, 4), (2, 7, 4), (1, 2, 7, 6), {}),
    "shared heads": ((2, 1, 3, 6, 5, 4), (2, 1, 3, 2, 7, 4), (2, 1, 3, 2, 7, 6), {"enable_gqa": True}),
    "a mask of one row": ((2, 3, 2, 5, 4), (2, 3, 2, 7, 4), (2, 3, 2, 7, 6), {"attn_mask": torch.randn(3, 1, 1, 7)}),
}


def attentions(call, given, options) -> tuple[list[torch.fx.Node], int]:
    """Calls of attention as a tracer sees them, and the number of all calls."""
    make_fx = torch.fx.experimental.proxy_tensor.make_fx
    graph = make_fx(lambda *each: call(*each, **options), pre_dispatch=True)(*given).graph
    calls = [node for node in graph.nodes if node.op == "call_function"]
    return [node for node in calls if "scaled_dot_product" in str(node.target)], len(calls)


@pytest.mark.parametrize("call", [F.scaled_dot_product_attention, torch.ops.aten.scaled_dot_product_attention.default])
@pytest.mark.parametrize("case", CASES)
def test_within_it_attention_is_the_same_and_has_four_dimensions(case, call):
    *shapes, options = CASES[case]
    generator = torch.Generator().manual_seed(1)
    given = [torch.randn(shape, generator=generator) for shape in shapes]
    expected = call(*given, **options)
    (before,), _ = attentions(call, given, options)
    assert before.args[0].meta["val"].dim() == len(shapes[0]) != 4
    with FourDimensionalAttention():
        torch.testing.assert_close(call(*given, **options), expected)
        (after,), _ = attentions(call, given, options)
    assert [each.meta["val"].dim() for each in after.args[:3]] == [4, 4, 4]


def test_within_it_four_dimensions_stay_as_they_are():
    given = [torch.randn(2, 3, 5, 4) for _ in range(3)]
    with FourDimensionalAttention():
        (found,), calls = attentions(F.scaled_dot_product_attention, given, {"attn_mask": torch.zeros(5, 5)})
    assert found.args[0].op == "placeholder"
    assert calls == 1
