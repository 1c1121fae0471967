"""Files of any size are compared at sizes of every kind that the network takes."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vfconvert.delivery import _other_sizes
from vfconvert.errors import ParityError
from vfconvert.exporting.onnx import export_onnx
from vfconvert.verification import verify_onnx
from vfconvert.verification.parity import Cases, OpenFile, verify

IMAGES = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class Means(nn.Module):
    """The means of a convolution; with `padded` of images padded to multiples of 32, as its Python decides."""

    def __init__(self, padded: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.padded = nn.Conv2d(3, 4, 3), padded

    def forward(self, x: Tensor) -> Tensor:
        if self.padded and (x.shape[2] % 32 or x.shape[3] % 32):
            x = F.pad(x, (0, -x.shape[3] % 32, 0, -x.shape[2] % 32))
        return self.conv(x).mean((2, 3))


class Multiples(Means):
    """Takes multiples of 32 alone."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(len(x), 3, x.shape[2] // 32, 32, x.shape[3]).flatten(2, 3))


def test_sizes_are_larger_smaller_wide_tall_and_no_multiples() -> None:
    sizes, further = _other_sizes(Means(), IMAGES[:1])
    assert sizes == ((96, 96), (64, 96))
    assert further == ((96, 64), (81, 67), (32, 32))
    assert _other_sizes(Multiples(), IMAGES[:1])[1] == ((96, 64), (32, 32))
    assert _other_sizes(Means(), IMAGES[:1, :, :8, :8])[1] == ((12, 8), (10, 11), (6, 6))


@pytest.mark.parametrize("padded", [False, True])
def test_a_file_that_forgets_what_an_odd_size_needs_is_found_out(padded, tmp_path) -> None:
    model = Means(padded).eval()
    export_onnx(model, IMAGES[:1], tmp_path / "a.onnx", metadata={}, dynamic_size=True)
    sizes, further = _other_sizes(model, IMAGES[:1])
    assert verify_onnx(tmp_path / "a.onnx", model, IMAGES, sizes=sizes).relative_error < 1e-5
    if not padded:
        assert verify_onnx(tmp_path / "a.onnx", model, IMAGES, sizes=sizes, further=further).relative_error < 1e-5
        return
    with pytest.raises(ParityError, match=r"at batch 1 and size 81x67: .* do not use the file"):
        verify_onnx(tmp_path / "a.onnx", model, IMAGES, sizes=sizes, further=further)


def test_a_file_may_refuse_a_further_size_and_no_other() -> None:
    model = Means()

    def run(images: Tensor) -> list[tuple[str, Tensor]]:
        if images.shape[2] == 81:
            raise ValueError("no multiple of 32")
        with torch.no_grad():
            return [("output", model(images))]

    file = OpenFile(runtime="a runtime", version="1", fixed_batch=None, run=run)
    found = verify(lambda: file, "a runtime", model, Cases(IMAGES, (1,), ((96, 96),), 1e-4, ((81, 67), (32, 32))))
    assert [one.size for one in found.comparisons] == [None, (96, 96), (32, 32)]
    with pytest.raises(ParityError, match="cannot run the file at batch 1 and size 81x67"):
        verify(lambda: file, "a runtime", model, Cases(IMAGES, (1,), ((81, 67),), 1e-4))
