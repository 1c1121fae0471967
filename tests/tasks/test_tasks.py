"""Which task fits a network and its data."""

import pickle
from typing import Any

import pytest
import torch

from vfconvert.errors import TrainingError
from vfconvert.tasks.restoration import Restoration
from vfconvert.tasks.structure import VaryingOutputError
from vfconvert.tasks.task import NAMES, task_of

LOGITS = 9 * torch.eye(10)[:4]
MAPS = torch.rand(2, 21, 8, 8)
IMAGES = torch.rand(2, 3, 16, 16)


@pytest.mark.parametrize(
    ("output", "kind", "name", "metrics"),
    [
        (LOGITS, "classes", "classification", ("top1", "top5")),
        (LOGITS[:, :5], "classes", "classification", ("top1",)),
        ({"logits": LOGITS}, "classes", "classification", ("top1", "top5")),
        (IMAGES, "images", "restoration", ("psnr", "ssim")),
        (MAPS, "masks", "segmentation", ("miou",)),
        ({"aux": IMAGES, "out": MAPS}, "masks", "segmentation", ("miou",)),
        (LOGITS, "none", "distil", ("agreement",)),
        (IMAGES, "none", "distil", ("error",)),
        (MAPS, "classes", "distil", ("error",)),
        ({"boxes": IMAGES[:, 0], "counts": 3}, "classes", "distil", ("error",)),
    ],
)
def test_a_task_is_chosen_by_outputs_and_targets(output: Any, kind: Any, name: str, metrics: tuple[str, ...]) -> None:
    for asked in (None, name):
        task = task_of(asked, output, kind)
        assert (task.name, task.metrics) == (name, metrics)
        assert task.higher_is_better == (metrics != ("error",))
        assert task.pixelwise == (name == "segmentation")
        assert pickle.loads(pickle.dumps(task)) == task
    assert task_of("distil", output, kind).supervised_loss(output, torch.zeros(2)) is None


@pytest.mark.parametrize(
    ("name", "output", "kind", "said"),
    [
        (
            "segmentation",
            LOGITS,
            "classes",
            r"^the task segmentation does not fit outputs \(4, 10\) and data with classes: it needs outputs of 4 axes, "
            r"and masks; choose classification or distil$",
        ),
        ("classification", LOGITS, "none", r"data with no labels: .* choose distil$"),
        (
            "restoration",
            MAPS,
            "masks",
            r"outputs \(2, 21, 8, 8\) and data with masks: .* choose segmentation or distil$",
        ),
        ("classification", [3], "classes", r"does not fit no floating-point tensor and data"),
        ("detection", LOGITS, "none", r"^there is no task 'detection'; choose one of classification, restoration, "),
    ],
)
def test_a_name_that_does_not_fit_is_refused(name: str, output: Any, kind: Any, said: str) -> None:
    with pytest.raises(TrainingError, match=said) as raised:
        task_of(name, output, kind)
    assert "\n" not in str(raised.value)


def test_outputs_with_nothing_to_match_are_refused() -> None:
    with pytest.raises(TrainingError, match="the network returns no floating-point tensor, expected at least one"):
        task_of(None, [LOGITS.argmax(1), None], "none")
    found = [{"boxes": torch.rand(n, 4), "scores": torch.rand(n)} for n in (1, 2)]
    with pytest.raises(VaryingOutputError, match="match the features of the converted blocks"):
        task_of(None, found, "none")
    assert task_of(None, {"layer1": MAPS, "layer2": IMAGES}, "none").metrics == ("error",)  # the features


@pytest.mark.parametrize(("scale", "shave"), [(None, 0), (1, 0), (2, 2), (4, 4)])
def test_restoration_leaves_out_a_border_of_the_scale(scale: int | None, shave: int) -> None:
    task = task_of(None, IMAGES, "images", scale, mean=(0.5,), std=(0.25,))
    assert task == Restoration(shave=shave, mean=(0.5,), std=(0.25,))


def test_names_are_those_of_the_tasks() -> None:
    examples = [(LOGITS, "classes"), (IMAGES, "images"), (MAPS, "masks"), (LOGITS, "none")]
    assert tuple(task_of(None, output, kind).name for output, kind in examples) == NAMES  # type: ignore[arg-type]
