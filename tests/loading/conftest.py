from pathlib import Path

import pytest
import torch
from torch import nn

ARCHITECTURE = """
from torch import nn

def network(num_classes=3):
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), *head)
"""


@pytest.fixture
def network() -> nn.Sequential:
    """A small network with no two weights alike, statistics included."""
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    made = nn.Sequential(*layers)
    with torch.no_grad():
        for value in (*made.parameters(), *made.buffers()):
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.1)
    return made


@pytest.fixture
def architecture(tmp_path: Path) -> str:
    """What builds `network`, as --arch names it."""
    folder = tmp_path / "architecture"
    folder.mkdir()
    (folder / "small.py").write_text(ARCHITECTURE)
    return f"{folder / 'small.py'}:network"
