"""Samples of untraced networks: the right tensors, from passes that end at the layer."""

import pytest
import torch
from torch import Tensor, nn

from vfconvert.fitting.passes import Passes
from vfconvert.fitting.samples import Sample, layer_moments
from vfconvert.fitting.untraced import WholePassSamples

IMAGES = torch.rand(5, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Stages(nn.Module):
    """Counts how often its last stage runs; `second` runs for bright images alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if float(x.mean()) > -100:
            x = self.second(x).relu_()
        self.seen += 1
        return self.last(x)


def stages() -> tuple[Stages, Stages]:
    torch.manual_seed(0)
    return Stages().eval(), Stages().eval()


@torch.no_grad()
def test_samples_are_the_students_input_and_the_teachers_output():
    teacher, student = stages()
    samples = list(WholePassSamples(Passes(teacher), Passes(student), IMAGES).of("second", 2))
    assert [len(sample.inputs) for sample in samples] == [2, 2, 1]
    torch.testing.assert_close(torch.cat([sample.inputs for sample in samples]), student.first(IMAGES))
    expected = teacher.second(teacher.first(IMAGES))
    torch.testing.assert_close(torch.cat([sample.targets for sample in samples]), expected)
    assert (expected < 0).any()  # the relu in place that follows has not run


@torch.no_grad()
def test_passes_end_at_the_layer_and_leave_no_hook():
    teacher, student = stages()
    list(WholePassSamples(Passes(teacher), Passes(student), IMAGES).of("second"))
    assert (teacher.seen, student.seen) == (0, 0)
    list(WholePassSamples(Passes(teacher), Passes(student), IMAGES).of("last"))
    assert (teacher.seen, student.seen) == (1, 1)
    teacher(IMAGES)
    assert teacher.seen == 2


@torch.no_grad()
def test_one_network_in_both_places_runs_once():
    teacher, _ = stages()
    (sample,) = WholePassSamples(*[Passes(teacher)] * 2, IMAGES).of("last")
    assert teacher.seen == 1
    torch.testing.assert_close(sample.targets, teacher.last(sample.inputs))


@torch.no_grad()
def test_batches_in_which_the_layer_is_not_called_give_no_sample():
    teacher, student = stages()
    student.first.bias.fill_(-1e6)
    assert list(WholePassSamples(Passes(teacher), Passes(student), IMAGES).of("second")) == []


def test_many_regions_of_an_image_give_as_many_samples_as_one_map(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(2, 3, 3, padding=1)
    regions = torch.rand(20_000, 2, 7, 7, generator=generator)
    with torch.no_grad():
        targets = layer(regions)
    (every,) = layer_moments(layer, iter([Sample(regions, targets)]), 10, generator)
    (some,) = layer_moments(layer, iter([Sample(regions, targets, images=10)]), 10, generator)
    assert every.count == 49 * 20_000
    assert some.count == 2 * 20_000  # 32,768 are wanted
    assert (some.covariance - every.covariance).abs().max() < 0.01
    assert (some.cross - every.cross).abs().max() < 0.01
    monkeypatch.setattr("vfconvert.fitting.samples._ROWS", 20_000)  # all are looked at in the same two places
    (alike,) = layer_moments(layer, iter([Sample(regions, targets, images=10)]), 10, generator)
    assert alike.count == some.count
    assert (alike.covariance - every.covariance).abs().max() > 0.015


def test_few_images_of_many_regions_are_many_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(16, 2, 3, padding=1)
    regions = torch.rand(2_000, 16, 7, 7, generator=generator)
    (found,) = layer_moments(layer, iter([Sample(regions, layer(regions).detach(), images=2)]), 2, generator)
    assert isinstance(found.covariance, Tensor)  # of all samples, and not 4,096 of them in its place
    assert found.count == 17 * 2_000
