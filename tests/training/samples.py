"""A tiny teacher, a student of the same shape with other weights, and images in memory to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from vfconvert.data.batches import BatchStream
from vfconvert.data.transforms import TrainTransform
from vfconvert.tasks.task import task_of
from vfconvert.training.job import Job
from vfconvert.training.ranks import Ranks
from vfconvert.training_options import TrainingOptions

COUNT, SIDE = 72, 6


class Pictures:
    """Seeded noise with two classes."""

    root, classes = "pictures", 2

    def __init__(self) -> None:
        self._pixels = np.random.default_rng(5).integers(0, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return COUNT

    def name(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self._pixels[index]), index % 2

    def labels(self) -> tuple[int, ...]:
        return tuple(index % 2 for index in range(COUNT))


def network(seed: int) -> nn.Sequential:
    """A convolution with a norm, then logits that are far from uniform."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 3),
    )
    with torch.no_grad():
        model[5].weight.mul_(12)
    return model.eval().requires_grad_(False)


def job(
    folder: Path | None = None,
    *,
    student: nn.Module | None = None,
    ranks: Ranks | None = None,
    seed: int = 3,
    **given: Any,
) -> Job:
    """Twenty-four steps of sixteen images, in the numbers of any machine, unless said otherwise."""
    usual = {"epochs": 6, "batch": 16, "minutes": 0.0, "rate": 0.02, "optimizer": "sgd", "precision": "fp32"}
    options = TrainingOptions(**usual | given)
    ranks = ranks if ranks is not None else Ranks()
    teacher, examples, transform = network(1), Pictures(), TrainTransform(padding=1)
    example = torch.rand(16, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    common = {"rank": ranks.rank, "world": ranks.world, "workers": options.workers}
    return Job(
        teacher=teacher,
        student=student if student is not None else network(2),
        task=task_of(None, teacher(example), "none"),
        training=BatchStream(examples, range(64), transform, batch=options.batch, seed=seed, **common),
        validation=BatchStream(
            examples, range(64, COUNT), transform, batch=8, seed=3, shuffle=False, train=False, **common
        ),
        options=options,
        example=example,
        seed=seed,
        device=torch.device("cpu"),
        folder=folder,
        ranks=ranks,
        features=("1",),
        identity={"run": "a test"},
    )


class Kept:
    """A watcher that keeps what it is told, and does something after one step."""

    def __init__(self, at: int = 0, action: Any = None) -> None:
        self.losses: dict[int, float] = {}
        self.records: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self._at, self._action = at, action

    def step(self, step: int, steps: int, loss: float, rate: float, images_per_second: float) -> None:
        self.losses[step] = loss
        if self._action is not None and step == self._at:
            self._action()

    def epoch(self, record: dict[str, Any]) -> None:
        self.records.append(dict(record))

    def note(self, line: str) -> None:
        self.notes.append(line)


def same(first: nn.Module, second: nn.Module) -> bool:
    """Whether every number of two networks is the same, bit for bit."""
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
