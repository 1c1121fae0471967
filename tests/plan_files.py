"""A network of all sorts of convolutions, its plans, and the file of one, to be read and edited."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vfconvert.analysis.profile import profile
from vfconvert.plan_file import read_plan, write_plan
from vfconvert.planning import Plan, Wish, make_plan

NORMS = {"1": "2"}
SHA = "0" * 64


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(8, 16, 3, stride=2),
        nn.BatchNorm2d(16),
        nn.Conv2d(16, 16, 1),
        nn.Conv2d(16, 8, 3, groups=8),
    ).eval()


def read(path: Path, model: nn.Module | None = None) -> Plan:
    model = model or network()
    return read_plan(path, model, profile(model, torch.zeros(1, 3, 16, 16)), NORMS)


def planned(wish: Wish | None = None) -> Plan:
    model = network()
    return make_plan(model, profile(model, torch.zeros(1, 3, 16, 16)), NORMS, wish or Wish(channel=True))


def saved(folder: Path) -> Path:
    """The file of a plan that converts "1" and "3" and keeps "0" and "4"."""
    write_plan(planned(), folder / "plan.json", source_sha256=SHA)
    return folder / "plan.json"


Layers = dict[str, Any]


def edited(path: Path, how: Callable[[Layers], object]) -> Path:
    """Change what the file holds: `edited(path, lambda layers: layers["1"].update(windows=3))`; "top" is all of it."""
    value = json.loads(path.read_text())
    how({entry["layer"]: entry for entry in value["layers"]} | {"top": value})
    path.write_text(json.dumps(value))
    return path
