"""Where a network cannot be traced, its largest activation limits how many images are computed at once to plan."""

import pytest
import torch
from torch import nn

from tests.fitting.nets import images
from vfconvert.analysis.counting import count_macs
from vfconvert.analysis.profile import profile
from vfconvert.analysis.totals import totals_of
from vfconvert.budget.options import Subject, measure_options
from vfconvert.fitting import samples
from vfconvert.planning import Wish, make_plan

DATA = images(24)
SEEN: list[int] = []


class Decides(nn.Module):
    """Notes on how many images it and its copies are run."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x):
        SEEN.append(len(x))
        return self.last(self.first(x if float(x.detach().sum()) > -1e9 else -x)).mean((2, 3))


@pytest.mark.parametrize("most", [4, 1])
def test_large_activations_are_computed_few_at_a_time(monkeypatch, most):
    torch.manual_seed(0)
    model = Decides().eval().requires_grad_(False)
    layers = profile(model, DATA[:1])
    plan = make_plan(model, layers, {}, Wish(), include=["first", "last"])
    before = totals_of(model, layers, count_macs(model, DATA[:1]))
    subject = Subject(teacher=model, network=None, layers=layers, plan=plan, before=before, sha256="")
    monkeypatch.setattr(samples, "_ACTIVATION_NUMBERS", most * 16 * DATA[0, 0].numel())
    SEEN.clear()
    table = measure_options(subject, DATA, seed=0)
    assert {layer.layer for layer in table.layers} == {"first", "last"}
    assert max(SEEN) == most
