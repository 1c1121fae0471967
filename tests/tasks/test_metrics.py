"""Metrics against values worked out by hand, and sums that add up over processes."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from vfconvert.errors import TrainingError
from vfconvert.tasks.classification import Classification
from vfconvert.tasks.distil import Distil
from vfconvert.tasks.meter import Meter
from vfconvert.tasks.restoration import Restoration, luminance
from vfconvert.tasks.segmentation import Segmentation
from vfconvert.tasks.task import Task

CPU = torch.device("cpu")


def measured(task: Task, outputs: Any, teacher: Any = None, targets: Tensor | None = None) -> dict[str, float]:
    meter = task.meter(CPU)
    meter.update(outputs, teacher, targets)
    return meter.compute()


def test_top1_and_top5_of_rows_ranked_by_hand() -> None:
    logits = torch.arange(7.0).repeat(4, 1)  # class 6 is first, 2 is fifth, 1 is sixth
    assert measured(Classification(classes=7), logits, targets=torch.tensor([6, 2, 1, 2])) == {"top1": 25, "top5": 75}
    assert measured(Classification(classes=7), {"logits": logits}, targets=torch.tensor([5, 1, 1, 0]))["top5"] == 25
    assert measured(Classification(classes=7), logits, targets=torch.tensor([5, 1, 1, 0]))["top1"] == 0


def test_top5_is_left_out_of_few_classes_and_rows_that_are_not_finite_are_wrong() -> None:
    logits = torch.tensor([[0.0, math.nan, 0], [0, 1, 0]])
    assert measured(Classification(classes=3), logits, targets=torch.tensor([1, 1])) == {"top1": 50}
    assert measured(Classification(classes=3), logits[:1], targets=torch.tensor([1])) == {"top1": 0}


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_that_is_no_class_is_named(label: int) -> None:
    task, labels = Classification(classes=3), torch.tensor([0, label])
    said = rf"^label {label} in the data, but the network has 3 classes: expected 0 to 2; correct"
    with pytest.raises(TrainingError, match=said):
        measured(task, torch.zeros(2, 3), targets=labels)
    with pytest.raises(TrainingError, match=said):
        task.supervised_loss(torch.zeros(2, 3), labels)


def test_cross_entropy_of_even_logits_is_the_logarithm_of_the_classes() -> None:
    logits, labels = torch.zeros(2, 4), torch.tensor([0, 3])
    assert float(Classification(classes=4).supervised_loss(logits, labels)) == pytest.approx(math.log(4))
    sure = 20 * torch.eye(4)[labels]
    assert float(Classification(classes=4).supervised_loss(sure, labels)) == pytest.approx(0, abs=1e-6)
    # a smoothed label leaves 3/4 of 0.4 to classes whose logits are 20 lower
    smoothed = Classification(classes=4, label_smoothing=0.4).supervised_loss(sure, labels)
    assert float(smoothed) == pytest.approx(0.3 * 20, rel=1e-4)
    with pytest.raises(TrainingError, match="label smoothing: got 1, expected 0 or more and less than 1"):
        Classification(classes=4, label_smoothing=1)


def test_luminance_of_black_white_and_red() -> None:
    pixels = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 0, 0]]).T.reshape(1, 3, 1, 3)
    assert luminance(pixels).flatten().mul(255).tolist() == pytest.approx([16, 235, 81.481], rel=1e-5)
    assert luminance(pixels.flip(1)).flatten()[2] * 255 == pytest.approx(40.966, rel=1e-5)  # blue: channels count


def test_psnr_of_a_known_difference() -> None:
    grey = torch.full((2, 1, 16, 16), 0.5)
    noisy = grey.clone()
    noisy[0] += 0.1  # 20 dB
    noisy[1] += 0.01  # 40 dB
    assert measured(Restoration(), noisy, targets=grey)["psnr"] == pytest.approx(30, abs=1e-3)
    noisy[1] += 0.09
    assert measured(Restoration(), noisy, targets=grey)["psnr"] == pytest.approx(20, abs=1e-3)


def test_psnr_of_colours_is_that_of_their_luminance() -> None:
    white, off = torch.ones(1, 3, 12, 12), torch.ones(1, 3, 12, 12)
    off[:, 0] = 0.0
    expected = -20 * math.log10(65.481 / 255)
    assert measured(Restoration(), off, targets=white)["psnr"] == pytest.approx(expected, abs=1e-4)
    assert expected != pytest.approx(-10 * math.log10(1 / 3), abs=1)  # over the three channels


def test_the_border_is_shaved_and_values_are_clamped() -> None:
    grey = torch.full((1, 1, 16, 16), 0.5)
    framed = grey + 0.1
    framed[..., 0, :] = framed[..., -1] = 0.0
    assert measured(Restoration(shave=1), framed, targets=grey)["psnr"] == pytest.approx(20, abs=1e-3)
    assert measured(Restoration(), framed, targets=grey)["psnr"] < 19
    white = torch.ones(1, 1, 16, 16)
    assert measured(Restoration(), white + 3, targets=white) == {"psnr": 100, "ssim": pytest.approx(1)}
    with pytest.raises(TrainingError, match="an image of 16x16 pixels has nothing left without 8 at each border"):
        measured(Restoration(shave=8), grey, targets=grey)


def test_psnr_is_in_pixels_whatever_the_normalisation() -> None:
    pixels = torch.rand(1, 3, 12, 12)
    mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
    per_channel = [torch.tensor(numbers)[:, None, None] for numbers in (mean, std)]
    noisy, clean = ((image - per_channel[0]) / per_channel[1] for image in (pixels * 0.9, pixels))
    expected = measured(Restoration(), pixels * 0.9, targets=pixels)["psnr"]
    got = measured(Restoration(mean=mean, std=std), noisy, targets=clean)["psnr"]
    assert got == pytest.approx(expected, abs=1e-3)
    assert measured(Restoration(), noisy, targets=clean)["psnr"] != pytest.approx(expected, abs=0.1)
    with pytest.raises(TrainingError, match="restoration mean: got 2 numbers, expected 3, one per channel"):
        measured(Restoration(mean=(0, 0)), noisy, targets=clean)


def test_ssim_of_constant_images_and_of_small_ones() -> None:
    # without variance only the luminance term is left: (2ab + c) / (a² + b² + c), c = 0.01²
    dark, light = torch.full((1, 1, 12, 12), 0.25), torch.full((1, 1, 12, 12), 0.75)
    expected = (2 * 0.1875 + 1e-4) / (0.0625 + 0.5625 + 1e-4)
    assert measured(Restoration(), dark, targets=light)["ssim"] == pytest.approx(expected, abs=1e-6)
    assert measured(Restoration(), light, targets=light)["ssim"] == pytest.approx(1)
    assert list(measured(Restoration(), dark[..., :10], targets=light[..., :10])) == ["psnr"]


def test_restoration_losses() -> None:
    clean = torch.zeros(1, 1, 2, 2)
    assert float(Restoration().supervised_loss(clean + 0.5, clean)) == 0.5
    assert float(Restoration(loss="mse").supervised_loss(clean + 0.5, clean)) == 0.25
    with pytest.raises(TrainingError, match="restoration loss: got 'l2', expected l1 or mse"):
        Restoration(loss="l2")
    with pytest.raises(TrainingError, match=r"restoration got outputs \(1, 1, 2, 2\) for targets \(1, 1, 4, 4\)"):
        Restoration().supervised_loss(clean, torch.zeros(1, 1, 4, 4))


def maps(classes: list[list[int]], count: int) -> Tensor:
    """Logits `(1, count, H, W)` whose largest is that of the class."""
    return torch.eye(count)[torch.tensor(classes)].movedim(-1, 0)[None]


def test_miou_by_hand() -> None:
    mask = torch.tensor([[[0, 0, 1], [1, 1, 255]]])
    # class 0: 1 of union 2, class 1: 3 of union 4; class 2 is nowhere, the last pixel has no label
    logits = maps([[0, 1, 1], [1, 1, 2]], 3)
    assert measured(Segmentation(classes=3), {"aux": mask, "out": logits}, targets=mask)["miou"] == pytest.approx(62.5)
    worse = maps([[0, 1, 1], [1, 2, 2]], 3)  # now class 2 has 0 of union 1, class 1 has 2 of 4
    assert measured(Segmentation(classes=3), worse, targets=mask)["miou"] == pytest.approx(100 * (0.5 + 0.5 + 0) / 3)


def test_logits_are_enlarged_to_the_mask() -> None:
    mask = torch.tensor([[[0, 0, 1, 1]] * 4])
    assert measured(Segmentation(classes=2), maps([[0, 1], [0, 1]], 2), targets=mask)["miou"] == 100
    assert measured(Segmentation(classes=2), maps([[1, 0], [1, 0]], 2), targets=mask)["miou"] == 0


def test_segmentation_loss_leaves_out_unlabelled_pixels() -> None:
    task, mask = Segmentation(classes=2), torch.tensor([[[0, 255]]])
    logits = torch.tensor([[[[0.0, 50.0]], [[0.0, -50.0]]]])
    assert float(task.supervised_loss(logits, mask)) == pytest.approx(math.log(2))
    assert float(task.supervised_loss(logits, torch.tensor([[[0, 1]]]))) > 10
    assert float(task.supervised_loss(logits, torch.full_like(mask, 255))) == 0
    with pytest.raises(
        TrainingError, match="label 7 in the data, but the network has 2 classes: expected 0 to 1, or 255"
    ):
        task.supervised_loss(logits, torch.tensor([[[0, 7]]]))


def test_agreement_and_relative_error() -> None:
    wanted = 9 * torch.eye(4)
    task = Distil.of(wanted)
    assert measured(task, wanted[[0, 1, 2, 2]], wanted) == {"agreement": 75}
    assert measured(task, wanted * 0.5, wanted) == {"agreement": 100}
    structure = {"a": torch.full((1, 2, 2), 3.0), "b": [torch.full((8,), 0.01), torch.ones(2, dtype=torch.int64)]}
    task = Distil.of(structure)
    got = {"a": structure["a"] * 1.2, "b": [structure["b"][0] * 1.4, structure["b"][1] + 1]}
    assert measured(task, got, structure) == {"error": pytest.approx(0.3)}  # small numbers count as much as large ones
    assert measured(task, structure, structure) == {"error": 0}
    with pytest.raises(TrainingError, match="distil has no teacher's outputs to compare with"):
        measured(task, structure)


def halves() -> list[tuple[Task, Any, Any, Tensor | None]]:
    torch.manual_seed(0)
    logits, images = torch.randn(9, 6), torch.rand(9, 3, 12, 12)
    masks = torch.randint(0, 6, (9, 12, 12))
    return [
        (Classification(classes=6), logits, None, torch.arange(9) % 6),
        (Restoration(shave=0), images, None, torch.rand(9, 3, 12, 12)),
        (Segmentation(classes=6), torch.randn(9, 6, 4, 4), None, masks),
        (Distil(logits=True), logits, logits.roll(1, 0), None),
        (Distil(logits=False), images, images.roll(1, 0), None),
    ]


@pytest.mark.parametrize("case", range(5))
def test_sums_of_processes_add_up(case: int) -> None:
    task, outputs, teacher, targets = halves()[case]
    whole, total, meters = task.meter(CPU), task.meter(CPU), [task.meter(CPU), task.meter(CPU)]
    whole.update(outputs, teacher, targets)
    for meter, part in zip(meters, (slice(0, 2), slice(2, 9)), strict=True):
        meter.update(outputs[part], *(None if given is None else given[part] for given in (teacher, targets)))
    total.merge(meters[0].state() + meters[1].state())  # what an all-reduce makes
    assert total.compute() == pytest.approx(whole.compute(), rel=1e-6)
    assert set(total.compute()) == set(task.metrics)
    assert meters[0].compute() != pytest.approx(whole.compute(), rel=1e-3)


def test_a_meter_without_examples_and_one_of_another_task_are_refused() -> None:
    meter: Meter = Classification(classes=3).meter(CPU)
    with pytest.raises(TrainingError, match="no example was measured"):
        meter.compute()
    with pytest.raises(TrainingError, match=r"sums of \(10,\) numbers cannot be merged into \(2,\)"):
        meter.merge(Segmentation(classes=3).meter(CPU).state())
    with pytest.raises(TrainingError, match="classification has no targets to compare with; give labelled data"):
        meter.update(torch.zeros(1, 3), None, None)
    meter.state().add_(1)  # a copy
    assert float(meter.state().sum()) == 0
