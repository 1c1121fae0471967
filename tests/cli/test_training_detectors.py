"""Networks whose outputs vary in number are trained by what their layers make of whole images."""

import json

import pytest
import torch

from tests.cli.conftest import write_images
from vfconvert.options import ConversionOptions
from vfconvert.pipeline import convert
from vfconvert.training_options import TrainingOptions


class Regions(torch.nn.Module):
    """Finds boxes in number as images are bright, and looks at each region again: a detector, as outputs go."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.BatchNorm2d(16), torch.nn.Conv2d(16, 16, 3, padding=1)
        )
        self.head = torch.nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x):
        found = self.body(x)
        counts = [1 + int(image.mean() * 1e4) % 3 for image in x]
        regions = self.head(torch.cat([each.expand(n, -1, -1, -1) for each, n in zip(found, counts, strict=True)]))
        parts = regions.mean((2, 3)).split(counts)
        return [{"boxes": part[:, :4], "scores": part[:, 4]} for part in parts]


def test_detectors_are_trained_by_their_features(tmp_path, monkeypatch):
    """By those of whole images; up to the export, since here `int(…)` decides, which no file follows."""

    class ExportedError(Exception):
        pass

    def stop(*_: object) -> None:
        raise ExportedError("as far as this")

    monkeypatch.setattr("vfconvert.pipeline._export", stop)
    torch.save(Regions(), tmp_path / "m.pt")
    write_images(tmp_path / "images", 40, 1)
    options = ConversionOptions(
        model=tmp_path / "m.pt",
        spatial=True,
        data=tmp_path / "images",
        trust_pickle=True,
        reconstruct=False,
        measure=False,
        output=tmp_path / "m.onnx",
        training=TrainingOptions(epochs=2, batch=8),
    )
    with pytest.raises(ExportedError, match="as far as this"):
        convert(options)
    lines = [json.loads(each) for each in (tmp_path / "m.training" / "log.jsonl").read_text().splitlines()]
    errors = [each["error"] for each in lines if "error" in each]
    assert len(errors) == 3
    assert errors[-1] < errors[0]
