"""A fit that is given little memory."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vfconvert.analysis.graph import trace
from vfconvert.analysis.profile import profile
from vfconvert.fitting.options import FitOptions
from vfconvert.fitting.sweep import Fitted, compress
from vfconvert.planning import Wish, make_plan

SIDE, IMAGES, WIDTH = 64, 32, 64
OPTIONS = FitOptions(block_steps=1, output_steps=1, batch=16)


class Wide(nn.Module):
    """Little at the boundaries of its block, 64 channels within: 1 MiB an image."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 1)
        self.wide = nn.Conv2d(3, width, 3, padding=1)
        self.narrow = nn.Conv2d(width, 3, 3, padding=1)
        self.classifier = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.narrow(F.relu(self.wide(x))) + x
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))


def fit(side: int = SIDE, width: int = WIDTH, options: FitOptions = OPTIONS) -> Fitted:
    torch.manual_seed(3)
    model, images = Wide(width).eval(), torch.randn(IMAGES, 3, side, side)
    network = trace(model, images[:2])
    assert network is not None
    plan = make_plan(model, profile(model, images[:2]), network.following_norm, Wish())
    return compress(model, network, plan, images, options)


def fit_in(room: int) -> None:
    """Print what came of a fit that may allocate so many bytes more than the process has now, as JSON."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room, hard))
    fitted = fit()
    sys.stdout.write(json.dumps({"notes": fitted.notes, "unexplained": fitted.unexplained}))
