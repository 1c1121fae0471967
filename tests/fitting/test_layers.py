"""The norm after a fitted layer, kept layers that are re-fitted, and where activations are kept."""

import copy
import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.fitting.nets import ResidualNet, images, settled
from tests.references import assert_close_enough
from vfconvert.fitting import boundary as boundary_module
from vfconvert.fitting.augment import Augmentation
from vfconvert.fitting.boundary import Boundary, Filling
from vfconvert.fitting.layers import refit_kept, set_norm, slope
from vfconvert.fitting.options import FitOptions
from vfconvert.fitting.reconstruct import Descent, output_loss, output_pass
from vfconvert.fitting.samples import Sample, layer_moments
from vfconvert.nn import VersatileConv2d
from vfconvert.ops.fit import fit_group
from vfconvert.ops.problem import Problem
from vfconvert.specs import ConvGeometry, Crop, VersatileSpec

GENERATOR = torch.Generator().manual_seed(0)


def test_norm_regresses_the_teachers_normalised_output() -> None:
    model = settled(ResidualNet())
    conv, old = model.get_submodule("conv1"), model.get_submodule("norm1")
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(old, nn.BatchNorm2d)
    layer = VersatileConv2d(ConvGeometry.of(conv))
    x = images(64, 8)
    with torch.no_grad():
        moments = layer_moments(conv, iter([Sample(inputs=x, targets=conv(x))]), 64, GENERATOR)
        norm = copy.deepcopy(old)
        set_norm(norm, old, layer, moments)
        got, wanted = norm(layer(x)), old(conv(x))
        # least squares: the residual has no mean and is uncorrelated with the output
        residual = (wanted - got).transpose(0, 1).flatten(1)
        output = got.transpose(0, 1).flatten(1)
        assert float(residual.mean(1).abs().max()) < 1e-3
        correlation = ((residual * (output - output.mean(1, keepdim=True))).mean(1) / output.var(1)).abs().max()
        assert float(correlation) < 1e-3
        nn.init.ones_(norm.weight)
        worse = (wanted - norm(layer(x))).transpose(0, 1).flatten(1)
        assert (worse.square().mean(1) >= residual.square().mean(1) - 1e-6).all()
    assert_close_enough(slope(old), old.weight.detach() / (old.running_var + old.eps).sqrt(), tolerance=1e-5)


@pytest.mark.parametrize("groups", [1, 4], ids=["dense", "grouped"])
def test_kept_layer_undoes_what_was_done_to_its_inputs(groups: int) -> None:
    conv = nn.Conv2d(8, 8, 3, groups=groups)
    x, changed = images(128, 8), 0.5 * images(128, 8) + 1
    layer = copy.deepcopy(conv)
    with torch.no_grad():
        moments = layer_moments(conv, iter([Sample(inputs=changed, targets=conv(x))]), 128, GENERATOR)
        before = float((conv(changed) - conv(x)).norm())
        refit_kept(layer, None, moments)
        assert float((layer(changed) - conv(x)).norm()) < 0.05 * before


def test_kept_layer_with_unchanged_inputs_stays() -> None:
    conv, x = nn.Conv2d(8, 8, 3, bias=False), images(128, 8)
    layer = copy.deepcopy(conv)
    with torch.no_grad():
        refit_kept(layer, None, layer_moments(conv, iter([Sample(inputs=x, targets=conv(x))]), 128, GENERATOR))
    assert_close_enough(layer.weight, conv.weight, tolerance=1e-3)


def test_boundary_holds_large_activations_in_half_and_larger_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(10, 3, 4)
    monkeypatch.setattr(boundary_module, "HALF_BYTES", 100)
    for disk_bytes in (10**9, 100):
        monkeypatch.setattr(boundary_module, "DISK_BYTES", disk_bytes)
        held = Boundary(10, torch.Size([3, 4]))
        held.append(values[:6])
        held.append(values[6:])
        assert held[0:10].dtype == torch.float32
        assert_close_enough(held[0:10], values, tolerance=1e-3)
        assert_close_enough(held[torch.tensor([7, 2])], values[[7, 2]], tolerance=1e-3)
    held[0:3].zero_()  # as an operation in place would
    assert_close_enough(held[0:10], values, tolerance=1e-3)


def test_boundary_holds_activations_in_the_order_that_they_come_in(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(6, 3, 4, 5)
    for half_bytes, disk_bytes in ((10**9, 10**9), (1, 10**9), (1, 1)):
        monkeypatch.setattr(boundary_module, "HALF_BYTES", half_bytes)
        monkeypatch.setattr(boundary_module, "DISK_BYTES", disk_bytes)
        for order in (torch.contiguous_format, torch.channels_last):
            filling = Filling(6)
            for part in torch.split(values.contiguous(memory_format=order), 4):
                filling.add(part)
            held = filling.result()
            assert held[1:4].is_contiguous(memory_format=order)
            assert_close_enough(held[0:6], values, tolerance=1e-3)
            assert_close_enough(held[torch.tensor([5, 2])], values[[5, 2]], tolerance=1e-3)


def test_activations_on_disk_leave_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(boundary_module, "HALF_BYTES", 1)
    monkeypatch.setattr(boundary_module, "DISK_BYTES", 1)
    monkeypatch.setattr(boundary_module.tempfile, "tempdir", str(tmp_path))
    held = Boundary(2, torch.Size([3]))
    held.append(torch.ones(2, 3))
    assert float(held[0:2].sum()) == 6
    assert list(tmp_path.iterdir()) == []


def test_boundary_clamps_what_half_precision_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boundary_module, "HALF_BYTES", 1)
    held = Boundary(1, torch.Size([2]))
    held.append(torch.tensor([[1e6, -1e6]]))
    assert held[0:1].tolist() == [[65504.0, -65504.0]]


def test_augmentation_moves_images_and_keeps_their_pixels() -> None:
    x = torch.arange(2 * 1 * 8 * 8).float().view(2, 1, 8, 8)
    mirrored = Augmentation(mirror=True, shift=0.0)(x, torch.Generator().manual_seed(1))
    for got, given in zip(mirrored, x, strict=True):
        assert torch.equal(got, given) or torch.equal(got, given.flip(2))
    shifted = Augmentation(mirror=False, shift=0.25)(x, torch.Generator().manual_seed(1))
    assert shifted.shape == x.shape
    assert not torch.equal(shifted, x)
    assert set(shifted[0].flatten().tolist()) <= set(x[0].flatten().tolist())
    assert torch.equal(Augmentation.none()(x, GENERATOR), x)


def test_augmentation_stays_on_the_device_of_the_images() -> None:
    x = torch.zeros(4, 3, 8, 8, device="meta")
    assert Augmentation()(x, torch.Generator().manual_seed(1)).device == x.device


def test_an_output_pass_that_does_harm_is_undone() -> None:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 8, 3)
    teacher = nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    data = torch.randn(32, 3, 8, 8)
    worse = copy.deepcopy(teacher)
    with torch.no_grad():
        next(worse.parameters()).mul_(0.8)

    def passed(rate: float) -> nn.Module:
        student, generator = copy.deepcopy(worse), torch.Generator().manual_seed(0)
        descent = Descent(steps=60, rate=rate, batch=8, generator=generator, tick=lambda: None)
        output_pass(student, teacher, data, Augmentation(), descent)
        return student

    assert all(torch.equal(a, b) for a, b in zip(worse.parameters(), passed(100.0).parameters(), strict=True))
    better = passed(2e-3)
    with torch.no_grad():
        before, after = (float(output_loss(network(data), teacher(data))) for network in (worse, better))
    assert after < 0.8 * before


def test_output_loss_is_zero_only_for_the_same_outputs() -> None:
    logits, image = torch.randn(4, 5), torch.randn(4, 1, 3, 3)
    for wanted in (logits, image, {"out": image, "aux": logits}, (logits, None, image)):
        assert float(output_loss(wanted, wanted)) == pytest.approx(0, abs=1e-6)
    assert float(output_loss(logits * 2, logits)) > 0.01
    assert float(output_loss({"out": image + 1, "aux": logits}, {"out": image, "aux": logits})) > 0.1


def test_output_loss_sees_the_common_shift_of_coordinates_and_takes_one_number() -> None:
    boxes = 0.01 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert float(output_loss(boxes + 0.05, boxes)) > 1
    logits = 3 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert float(output_loss(logits + 0.05, logits)) == pytest.approx(0, abs=1e-5)
    one = torch.tensor([[2.0]])
    assert float(output_loss(one * 1.1, one)) == pytest.approx(0.01, rel=1e-4)


class Chooser(nn.Module):
    """A segmenter that answers with class numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).argmax(1)


def test_an_output_pass_without_numbers_to_train_on_changes_nothing() -> None:
    teacher, student = Chooser(), Chooser()
    wanted = copy.deepcopy(student.state_dict())
    descent = Descent(steps=3, rate=1.0, batch=4, generator=GENERATOR, tick=lambda: None)
    output_pass(student, teacher, torch.randn(8, 3, 6, 6), Augmentation.none(), descent)
    assert all(torch.equal(value, wanted[name]) for name, value in student.state_dict().items())


class Breaking(nn.Linear):
    """Answers with NaN once its weight has moved."""

    first: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        moved = self.first is not None and not torch.equal(self.weight, self.first)
        return super().forward(x.flatten(1)) * (float("nan") if moved else 1.0)


def test_an_output_pass_that_ends_in_nan_is_undone() -> None:
    teacher, student = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), Breaking(12, 4)
    student.first = student.weight.detach().clone()
    descent = Descent(steps=1, rate=0.1, batch=4, generator=GENERATOR, tick=lambda: None)
    output_pass(student, teacher, torch.randn(16, 3, 2, 2), Augmentation.none(), descent)
    assert torch.equal(student.weight, student.first)


def test_the_rate_rises_and_then_falls() -> None:
    descent = Descent(steps=20, rate=1.0, batch=1, generator=GENERATOR, tick=lambda: None, warm_up=0.1)
    factors = [descent._factor(step) for step in range(20)]
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert all(a > b for a, b in itertools.pairwise(factors[2:]))
    assert replace(descent, warm_up=0.0)._factor(0) == 1


@pytest.mark.parametrize(
    ("macs", "share", "block", "output", "left_out"),
    [
        (40_000_000, 1.0, 600, 1000, ""),
        (4_100_000_000, 1.0, 30, 0, "the pass on the output"),
        (4_100_000_000, 0.5, 0, 0, "the reconstruction of blocks and the pass on the output"),
    ],
    ids=["small", "resnet50", "resnet50 without images"],
)
def test_a_budget_allows_steps_by_a_networks_products(macs, share, block, output, left_out) -> None:
    found = FitOptions.within_budget(macs=macs, reconstruct=True, augmentation=Augmentation(), seed=0, share=share)
    assert (found.block_steps, found.output_steps, found.left_out) == (block, output, left_out)


def fitted_error(images: int, worth: float | None) -> float:
    """On other images, of a fit of noisy targets on large maps of so few images, which count as `worth` samples."""
    torch.manual_seed(3)
    smooth = nn.AvgPool2d(9, stride=1, padding=4)  # neighbours are alike
    conv = nn.Conv2d(8, 12, 3, padding=1, bias=False).requires_grad_(False)
    x, other = smooth(torch.randn(images, 8, 48, 48)), torch.randn(64, 8, 8, 8)
    sample = Sample(inputs=x, targets=conv(x) + 0.3 * smooth(torch.randn(images, 12, 48, 48)))
    (moments,) = layer_moments(conv, iter([sample]), images, torch.Generator().manual_seed(0))
    if worth is not None:
        moments = replace(moments, independent=worth)
    spec = VersatileSpec(crops=(Crop(0, 3, 0, 3),), levels=((0,),))
    problem = Problem.of(moments, ConvGeometry.of(conv), spec, torch.ones(12), conv.weight.flatten(1))
    found = fit_group(problem)
    new = (found.bank[found.primary] * found.scale[:, None]).float().view_as(conv.weight)
    wanted = conv(other)
    return float((nn.functional.conv2d(other, new, padding=1) - wanted).norm() / wanted.norm())


def test_positions_of_few_images_do_not_count_as_so_many_samples() -> None:
    assert fitted_error(2, None) < 0.7 * fitted_error(2, math.inf)
    assert fitted_error(64, None) == fitted_error(64, math.inf)
