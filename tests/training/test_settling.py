"""What a job leaves open and the network and the device decide: the numbers and the memory format of a run."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.samples import Kept, job, network, same
from vfconvert.analysis import computing
from vfconvert.nn import VersatileConv2d
from vfconvert.specs import ConvGeometry
from vfconvert.training import loop
from vfconvert.training.checkpoint import State, read_checkpoint
from vfconvert.training.learner import set_forms
from vfconvert.training.loop import train
from vfconvert.training.ranks import Ranks
from vfconvert.training.signals import TrainingInterrupted


@pytest.fixture(params=[True, False])
def units(request: Any, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the processor is taken to have units for bfloat16."""
    monkeypatch.setattr(computing, "_has_amx", lambda: request.param)
    return bool(request.param)


def test_bfloat16_is_taken_where_the_processor_is_quick_in_it(units: bool) -> None:
    options = job(precision="auto").settled().options
    assert (options.precision, options.channels_last) == (("bf16", True) if units else ("fp32", False))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"precision": "fp32"}, ("fp32", False)),
        ({"precision": "bf16"}, ("bf16", True)),
        ({"precision": "bf16", "channels_last": False}, ("bf16", False)),
        ({"precision": "fp32", "channels_last": True}, ("fp32", True)),
    ],
)
def test_what_is_said_is_done(given: dict[str, Any], wanted: tuple[str, bool], units: bool) -> None:
    options = job(**given).settled().options
    assert (options.precision, options.channels_last) == wanted


class Views(nn.Sequential):
    """Takes activations with channels first only."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
            x = x.view(len(x), -1).view(x.shape)
        return x


class Cancels(nn.Sequential):
    """Small differences of large numbers, which sixteen bits do not hold."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = (layer(x) + 1000) - 1000
        return x


def test_a_student_that_cannot_compute_so_is_trained_as_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing, "_has_amx", lambda: True)
    viewing = job(student=Views(*network(2)), precision="auto").settled().options
    assert (viewing.precision, viewing.channels_last) == ("bf16", False)
    assert job(student=Cancels(*network(2)), precision="auto").settled().options.precision == "fp32"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_come_back_with_channels_first(precision: str) -> None:
    trained = train(job(epochs=1, precision=precision, channels_last=True))
    assert all(parameter.is_contiguous() for parameter in trained.model.parameters())
    assert all(parameter.dtype == torch.float32 for parameter in trained.model.parameters())
    assert trained.options.precision == precision


def test_epochs_are_judged_in_float32_whatever_they_train_in() -> None:
    begun = [train(job(epochs=1, precision=precision, channels_last=False)) for precision in ("fp32", "bf16")]
    first, second = (trained.epochs[0]["error"] for trained in begun)
    assert first == second
    assert begun[0].losses != begun[1].losses


@pytest.mark.parametrize(("precision", "wide"), [("fp32", "masks"), ("bf16", "weight")])
def test_wide_layers_are_one_convolution_in_sixteen_bits(
    precision: str, wide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[int, str | None] = {}
    monkeypatch.setattr(
        VersatileConv2d, "compute_by", lambda self, form: told.update({self.geometry.in_channels: form})
    )
    layers = (VersatileConv2d(ConvGeometry.of(nn.Conv2d(channels, channels, 3))) for channels in (16, 32))
    set_forms(nn.Sequential(*layers), torch.device("cpu"), precision)
    assert told == {16: "weight", 32: wide}


@pytest.mark.parametrize("begun", [True, False])
def test_a_run_goes_on_in_what_it_began_in_wherever_it_goes_on(
    begun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_COUNTED", 1)
    monkeypatch.setattr(computing, "_has_amx", lambda: begun)
    whole = train(job(precision="auto"))
    with pytest.raises(TrainingInterrupted, match="Stopped at step 7 of 24"):
        train(job(tmp_path, precision="auto"), Kept(6, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    monkeypatch.setattr(computing, "_has_amx", lambda: not begun)
    state = read_checkpoint(tmp_path)
    assert state is not None
    assert (state.precision, state.channels_last) == (("bf16", True) if begun else ("fp32", False))
    again = train(job(tmp_path, student=network(9), precision="auto"), state=state)
    assert whole.options == again.options
    assert same(whole.model, again.model)
    refused = job(student=Cancels(*network(9)), precision="auto").settled(state).options
    assert refused.precision == state.precision


@pytest.mark.parametrize(("said", "wanted"), [("fp32", "fp32"), ("bf16", "bf16"), ("auto", None), ("int4", None)])
def test_a_state_of_an_older_version_goes_on_in_what_its_run_was_told(
    said: str, wanted: str | None, units: bool
) -> None:
    state = State(identity={"precision": said}, step=3, steps=24)
    options = job(precision="auto").settled(state).options
    assert options.precision == (wanted or ("bf16" if units else "fp32"))
    assert options.channels_last is False


def test_outputs_that_vary_and_depthwise_convolutions_stay_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing, "_has_amx", lambda: True)
    assert dataclasses.replace(job(precision="auto"), vary=True).settled().options.precision == "fp32"
    teacher = network(1)
    teacher[0] = nn.Sequential(nn.Conv2d(3, 3, 1, groups=3), teacher[0])
    assert dataclasses.replace(job(precision="auto"), teacher=teacher).settled().options.precision == "fp32"


@dataclasses.dataclass(frozen=True, slots=True)
class Beside(Ranks):
    """As if another process could not."""

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor + 1


def test_all_processes_compute_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing, "_has_amx", lambda: True)
    options = job(ranks=Beside(), precision="auto").settled().options
    assert (options.precision, options.channels_last) == ("fp32", False)
    assert not job(ranks=Beside(), precision="bf16").settled().options.channels_last
