"""What a step lowers, and what is named where it is not finite."""

import pytest
import torch
from torch import nn

from tests.training.samples import network
from vfconvert.errors import TrainingError
from vfconvert.tasks.classification import Classification
from vfconvert.tasks.distil import Distil
from vfconvert.tasks.structure import distillation_loss
from vfconvert.training.objective import Objective, first_not_finite

IMAGES = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))
TARGETS = torch.arange(8) % 3


def objective(teacher, student, task=None, **given):
    settings = {"temperature": 2.0, "feature_weight": 0.0, "label_weight": 0.0, "features": ("1",), "precision": "fp32"}
    settings["example"] = IMAGES
    return Objective(teacher, student, task or Distil(logits=True), **(settings | given))


def loss(teacher, student, **given):
    with objective(teacher, student, **given).watching() as found:
        return found.loss(student.requires_grad_(True), IMAGES, TARGETS)


def test_it_is_the_distillation_of_the_outputs():
    teacher, student = network(1), network(2)
    wanted = distillation_loss(student(IMAGES), teacher(IMAGES), 2.0)
    torch.testing.assert_close(loss(teacher, student).detach(), wanted, rtol=1e-6, atol=0)
    assert float(loss(teacher, network(1)).detach()) == pytest.approx(0, abs=1e-6)


def test_features_and_labels_are_added_by_their_weights():
    teacher, student = network(1), network(2)
    plain = loss(teacher, student)
    with_features = loss(teacher, student, feature_weight=2.0)
    theirs, ours = teacher[:2](IMAGES), student[:2](IMAGES)
    variance = theirs.var((0, 2, 3), keepdim=True, correction=0)
    expected = 2 * ((ours - theirs).square() / variance).mean()
    torch.testing.assert_close(with_features - plain, expected, rtol=1e-4, atol=1e-6)
    labelled = loss(teacher, student, label_weight=0.5, task=Classification(classes=3))
    entropy = nn.functional.cross_entropy(student(IMAGES), TARGETS)
    torch.testing.assert_close(labelled - plain, 0.5 * entropy, rtol=1e-4, atol=1e-6)


class Detector(nn.Module):
    """As many boxes as images are bright: outputs that vary in size."""

    def __init__(self, seed):
        super().__init__()
        self.body = network(seed)[:2]

    def forward(self, x):
        found = self.body(x)
        boxes = [torch.ones(int(image.mean() > 0) + index % 2, 4) * image.mean() for index, image in enumerate(found)]
        return [{"boxes": each, "scores": each[:, 0]} for each in boxes]


def test_outputs_that_vary_in_size_are_replaced_by_features():
    teacher, student = Detector(1), Detector(2)
    found = loss(teacher, student, features=("body.1",), vary=True)
    assert float(found.detach()) > 0.01
    assert found.requires_grad
    with pytest.raises(TrainingError, match="no features to match"):
        loss(Detector(1), Detector(2), features=(), vary=True)


class Whole(nn.Module):
    def forward(self, x):
        return x.argmax(1)


def test_outputs_without_a_gradient_are_refused():
    with pytest.raises(TrainingError, match="no output of the network has a gradient"):
        loss(Whole(), Whole(), features=())


def test_the_layer_that_is_not_finite_is_named():
    model = network(1)
    assert first_not_finite(model, IMAGES) == "the output"
    model[5].weight.grad = torch.full_like(model[5].weight, torch.nan)
    assert first_not_finite(model, IMAGES) == "gradient of 5.weight"
    with torch.no_grad():
        model[1].running_mean[0] = torch.nan
    assert first_not_finite(model, IMAGES) == "layer 1"
    with torch.no_grad():
        model[1].bias[0] = torch.inf
    assert first_not_finite(model, IMAGES) == "parameter 1.bias"
