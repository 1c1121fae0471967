"""Rates, groups of parameters, averages, norms, and the options' own checks."""

import pytest
import torch
from torch import nn

from tests.training.samples import network
from vfconvert.errors import TrainingError
from vfconvert.nn import VersatileConv2d
from vfconvert.specs import ConvGeometry
from vfconvert.training.norms import estimate_norms, set_norms
from vfconvert.training.optimizing import Average, optimizer_of, parameter_groups, rate_factor
from vfconvert.training_options import TrainingOptions


def test_the_rate_rises_then_falls_to_zero():
    factors = [rate_factor(step, 100, 0.1) for step in range(101)]
    assert factors[:10] == sorted(factors[:10])
    assert 0 < factors[0] < 0.1
    assert factors[10] == 1
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0)


def test_decay_spares_norms_scales_and_biases():
    geometry = ConvGeometry.of(nn.Conv2d(4, 4, 3))
    layer = VersatileConv2d(geometry, scale=True)
    model = nn.Sequential(layer, nn.BatchNorm2d(4), nn.Linear(4, 2))
    decayed, free = parameter_groups(model)
    assert {id(p) for p in decayed} == {id(layer.weight), id(model[2].weight)}
    assert {id(p) for p in free} == {id(p) for p in (layer.scale, layer.bias, *model[1].parameters(), model[2].bias)}
    groups = optimizer_of(model, TrainingOptions(weight_decay=0.1)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]


def test_averages_are_the_weighted_mean():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    average = Average(model, decay=0.5)
    nn.init.constant_(model.weight, 3.0)
    average.update(model, step=1000)
    assert float(average.values["weight"]) == pytest.approx(2.0)
    young = Average(model, decay=0.999)
    nn.init.constant_(model.weight, 0.0)
    young.update(model, step=0)
    assert float(young.values["weight"]) == pytest.approx(0.3)  # 1/10 of the old


@pytest.mark.parametrize("frozen", [True, False])
def test_norms_follow_the_batch_or_not(frozen):
    model = nn.Sequential(network(1), nn.Dropout(0.5))
    before = model[0][1].running_mean.clone()
    set_norms(model, frozen=frozen)
    model(torch.randn(8, 3, 6, 6))
    assert torch.equal(model[0][1].running_mean, before) == frozen
    assert not model[1].training


def test_norms_are_the_mean_over_batches():
    model, batches = network(1), [torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    estimate_norms(model, iter(batches))
    means = [model[0](batch).mean((0, 2, 3)) for batch in batches]
    torch.testing.assert_close(model[1].running_mean, torch.stack(means).mean(0), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(model[1].running_mean, means[0], rtol=1e-5, atol=1e-6)
    assert model[1].momentum == 0.1
    kept = model[1].running_mean.clone()
    estimate_norms(model, iter([torch.randn(1, 3, 6, 6)]))  # one image has no variance
    assert torch.equal(model[1].running_mean, kept)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epochs": -1}, "--epochs: got -1, expected 0 to 1e"),
        ({"batch": 0}, "--batch: got 0, expected 1 to"),
        ({"rate": 0.0}, "--rate: got 0, expected a number above 0"),
        ({"rate": float("nan")}, "--rate: got nan, expected a number above 0"),
        ({"temperature": -1.0}, "--temperature: got -1, expected a number above 0"),
        ({"warm_up": 1.5}, "--warm-up: got 1.5, expected 0 to 0.9"),
        ({"optimizer": "lion"}, "--optimizer: got 'lion', expected one of sgd, adamw"),
        ({"precision": "int8"}, "--train-precision: got 'int8', expected one of auto, fp32, bf16, fp16"),
        ({"minutes": -1.0}, "--checkpoint-minutes: got -1, expected 0 to"),
        ({"epochs": 10**400}, "--epochs: got 10000.*, expected 0 to 1e"),
        ({"workers": -2}, "--workers: got -2, expected 0 to"),
        ({"most_unreadable": 1.0}, "--most-unreadable: got 1, expected a share from 0 to below 1"),
        ({"most_unreadable": float("nan")}, "--most-unreadable: got nan, expected a share from 0 to below 1"),
        ({"padding": -3}, "--padding: got -3, expected 0 to"),
        ({"scale": 0}, "--scale: got 0, expected 1 to"),
        ({"patch": 0}, "--patch: got 0, expected 1 to"),
        ({"patch": 50, "scale": 4}, "--patch: got 50, expected a multiple of --scale 4"),
        ({"crop_scale": (0.5,)}, "--crop-scale: got 0.5, expected the least and the most share of an image"),
        ({"crop_scale": (0.5, 0.6, 7.0)}, "--crop-scale: got 0.5,0.6,7, expected the least and the most"),
        ({"crop_scale": (0.6, 0.5)}, "--crop-scale: got 0.6,0.5, expected .* like 0.5,1"),
        ({"crop_scale": (0.5, float("nan"))}, "--crop-scale: got 0.5,nan, expected"),
    ],
)
def test_options_that_no_run_can_have(given, said):
    with pytest.raises(TrainingError, match=said):
        TrainingOptions(**given)


def test_the_rate_is_in_proportion_to_the_batch():
    assert TrainingOptions(batch=256).highest_rate == 2 * TrainingOptions(batch=128).highest_rate
    assert TrainingOptions(batch=256, rate=0.3).highest_rate == 0.3


def test_the_rate_ends_to_grow_where_norms_follow_the_batch():
    rates = [TrainingOptions(batch=batch, norms="batch").highest_rate for batch in (32, 64, 128, 512)]
    assert rates == [0.00025, 0.0005, 0.001, 0.001]
    assert TrainingOptions(batch=64, norms="batch", optimizer="sgd").highest_rate == 0.01


@pytest.mark.parametrize(
    ("has_norms", "batch", "steps", "wanted"),
    [(True, 32, 300, "batch"), (False, 32, 300, "frozen"), (True, 31, 300, "frozen"), (True, 32, 299, "frozen")],
)
def test_norms_follow_the_batch_in_long_runs_of_large_batches(has_norms, batch, steps, wanted):
    options = TrainingOptions(batch=batch)
    assert options.norms == "auto"
    assert options.settled(has_norms=has_norms, steps=steps).norms == wanted
    for chosen in ("batch", "frozen"):
        assert TrainingOptions(batch=batch, norms=chosen).settled(has_norms=has_norms, steps=steps).norms == chosen


@pytest.mark.parametrize(
    ("given", "has_norms", "steps", "wanted"),
    [
        ({}, True, 299, 3e-4),
        ({"batch": 64}, True, 299, 1.5e-4),
        ({}, True, 300, 1e-3),
        ({}, False, 299, 1e-3),
        ({"norms": "frozen"}, True, 300, 1e-3),
        ({"norms": "batch"}, True, 299, 1e-3),
        ({"optimizer": "sgd"}, True, 299, 0.02),
        ({"rate": 0.5}, True, 299, 0.5),
    ],
)
def test_short_runs_take_smaller_steps(given, has_norms, steps, wanted):
    settled = TrainingOptions(**given).settled(has_norms=has_norms, steps=steps)
    assert settled.highest_rate == pytest.approx(wanted)
    assert settled.settled(has_norms=has_norms, steps=steps) == settled
