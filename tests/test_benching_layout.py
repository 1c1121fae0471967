"""Files that take channels last run beside files that take them first, on the same images."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.benching_samples import QUICK, export_onnx
from vfconvert.benching import bench
from vfconvert.benching.layout import channels_first
from vfconvert.benching.runners import Lengths
from vfconvert.measuring.timing import Timing


class ChannelsLast(nn.Module):
    """What a network computes, of `(B, H, W, C)`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.permute(0, 3, 1, 2))


def test_both_are_given_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, outputs = nn.Conv2d(3, 4, 3), {}
    first = export_onnx(tmp_path / "first.onnx", network, (1, 3, 6, 8))
    last = export_onnx(tmp_path / "last.onnx", ChannelsLast(network), (1, 6, 8, 3))

    def timed(calls, **_):
        outputs.update({name: call()[0] for name, call in calls.items()})
        return {name: Timing((1.0,)) for name in calls}

    monkeypatch.setattr("vfconvert.benching.comparing.in_turns", timed)
    for paths in ([first, last], [last, first]):
        report = bench(paths, rounds=1)
        assert report.input_shape == (1, 3, 6, 8)
        assert report.warnings == (f"{last} takes channels last, and is given the same images so",)
        assert all(file.peak_memory_bytes is not None for file in report.files)
        np.testing.assert_allclose(outputs["0"], outputs["1"], atol=1e-5)
        assert np.abs(outputs["0"] - outputs["1"][..., ::-1]).max() > 0.1


def test_such_a_file_alone_stays_as_it_is(tmp_path: Path) -> None:
    last = export_onnx(tmp_path / "last.onnx", ChannelsLast(nn.Conv2d(3, 4, 3)), (1, 6, 8, 3))
    report = bench([last, last], **QUICK)
    assert report.input_shape == (1, 6, 8, 3)
    assert report.warnings == ()


@pytest.mark.parametrize(
    ("own", "first", "last"),
    [
        ((None, 8, 8, 3), (None, 3, 8, 8), True),
        ((None, None, None, 3), (1, 3, 8, 8), True),
        ((None, 3, 8, 8), (None, 8, 8, 3), False),
        ((None, 1, 8, 8), (None, 8, 8, 1), False),
        ((None, 8, 9, 3), (None, 3, 8, 8), False),
        ((None, 8, 8, 4), (None, 3, 8, 8), False),
        ((None, 8, 8), (None, 3, 8, 8), False),
        (None, (None, 3, 8, 8), False),
    ],
)
def test_channels_are_last_where_all_else_agrees(own: Lengths | None, first: Lengths, last: bool) -> None:
    runners = [SimpleNamespace(shapes=(own,)), SimpleNamespace(shapes=(first,))]
    turned: list[int] = []

    def noted(runner: SimpleNamespace, places: tuple[bool, ...]) -> SimpleNamespace:
        turned.extend([runners.index(runner)] if any(places) else [])
        return runner

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vfconvert.benching.layout._turned", noted)
        channels_first(runners)  # type: ignore[arg-type]
    assert (0 in turned) is last
