"""The loop: it learns, goes on bit for bit where it stopped, and comes back from numbers that are not finite."""

import copy
import math
import os
import signal

import pytest
import torch

from tests.training.samples import Kept, job, network, same
from vfconvert.errors import TrainingError
from vfconvert.training import loop
from vfconvert.training.checkpoint import read_checkpoint
from vfconvert.training.loop import train
from vfconvert.training.signals import TrainingInterrupted

SETTINGS = (
    {"norms": "batch", "optimizer": "sgd"},
    {"optimizer": "adamw", "rate": 0.01, "ema": 0.8},
    {"optimizer": "sgd", "clip": 0.0, "rate": 0.001, "channels_last": True},
    {"feature_weight": 1.0, "precision": "bf16", "channels_last": False},
    {"norms": "batch", "precision": "bf16"},
)


@pytest.fixture(autouse=True)
def every_step(monkeypatch):
    monkeypatch.setattr(loop, "_COUNTED", 1)


def distance(given) -> float:
    """Mean of the first and of the last losses: how much nearer the student has come."""
    told = Kept()
    train(job(**given), told)
    values = list(told.losses.values())
    return sum(values[-4:]) / sum(values[:4])


@pytest.mark.parametrize("given", SETTINGS)
def test_the_student_comes_near_the_teacher(given):
    assert distance(given) < 0.5


def test_meta_without_steps_of_any_size_it_does_not():
    assert distance({"rate": 1e-9}) > 0.6


def test_the_best_weights_are_the_result_and_the_teacher_stays():
    given = job()
    before, random = copy.deepcopy(given.teacher), torch.get_rng_state()
    trained = train(given)
    assert same(given.teacher, before)
    assert torch.equal(torch.get_rng_state(), random)
    assert given.task.metrics == ("error",)  # logits as even as these are not taken for such
    metrics = [-record["error"] for record in trained.epochs]
    assert [record["epoch"] for record in trained.epochs] == list(range(7))
    assert metrics[trained.best_epoch] == max(metrics) > metrics[0]
    assert not trained.model.training
    assert not any(parameter.requires_grad for parameter in trained.model.parameters())


def untimed(trained):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in trained.epochs]


@pytest.mark.parametrize("given", SETTINGS)
@pytest.mark.parametrize("at", [1, 4, 7, 23])
def test_a_run_that_goes_on_ends_as_one_that_never_stopped(tmp_path, given, at):
    whole = train(job(**given))

    def stop():
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(job(tmp_path, **given), Kept(at, stop))
    state = read_checkpoint(tmp_path)
    assert 0 <= state.step < at  # what was not yet written is lost and done again
    again = train(job(tmp_path, student=network(9), **given), state=state)
    assert same(again.model, whole.model)
    assert again.best_epoch == whole.best_epoch
    assert untimed(again) == untimed(whole)
    assert all(("loss" in record) == (record["epoch"] > 0) for record in again.epochs)


def test_a_state_without_the_sum_of_its_epoch_leaves_that_loss_out(tmp_path):
    """One that an older version wrote: what is left of the epoch has another mean."""
    with pytest.raises(TrainingInterrupted, match="Stopped at step 7 of 24"):
        train(job(tmp_path), Kept(6, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    state = read_checkpoint(tmp_path)
    state.notes = {}
    records = untimed(train(job(tmp_path), state=state))
    wanted = untimed(train(job()))
    assert wanted[2].pop("loss") > 0
    assert records == wanted


def test_meta_another_seed_ends_elsewhere():
    given = job()
    first = train(given).model
    second = train(job(seed=4)).model
    assert not same(first, second)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_writes_a_checkpoint_and_says_how_to_go_on(tmp_path, number):
    whole = train(job())
    before = signal.getsignal(number)
    told = Kept(6, lambda: os.kill(os.getpid(), number))
    with pytest.raises(TrainingInterrupted, match=r"Stopped at step 7 of 24; give the same command with --resume"):
        train(job(tmp_path, minutes=1e3), told)
    assert signal.getsignal(number) is before
    assert read_checkpoint(tmp_path).step == 7
    again = train(job(tmp_path), state=read_checkpoint(tmp_path))
    assert same(again.model, whole.model)
    assert untimed(again) == untimed(whole)


class Poisoned:
    """A stream in which some batches are not finite: as often as `times` says of the batch at a step."""

    def __init__(self, stream, times):
        self._stream, self._times = stream, times

    def __len__(self):
        return len(self._stream)

    def epoch(self, number, start=0):
        for index, batch in enumerate(self._stream.epoch(number, start), number * len(self) + start):
            if self._times.get(index, 0):
                self._times[index] -= 1
                batch.images.fill_(math.inf)
            yield batch


def poisoned(times, **given):
    made = job(**given)
    return loop.Job(**{**vars(made), "training": Poisoned(made.training, times)})


def test_a_loss_that_is_not_finite_goes_back_and_on_more_slowly():
    told = Kept()
    trained = train(poisoned({9: 1}), told)
    assert told.notes == ["the loss is not finite at step 10 (layer 0): back to step 9, at a tenth of the rate"]
    assert trained.steps == 24
    assert all(torch.isfinite(tensor).all() for tensor in trained.model.state_dict().values())
    assert not same(trained.model, train(job()).model)
    assert sum(told.losses[step] for step in (9, 10, 11, 12)) / 4 == pytest.approx(trained.epochs[3]["loss"])


def test_the_second_time_it_is_an_error():
    with pytest.raises(TrainingError, match=r"not finite again at step 13 of 24 \(layer 0\).*--rate"):
        train(poisoned({9: 1, 12: 1}))


def test_it_ends_where_nothing_gets_better():
    given = job(rate=1e-12, patience=2, epochs=50)
    trained = train(given)
    values = [record[given.task.metrics[0]] for record in trained.epochs]
    assert len(values) < 10
    assert values[-1] >= min(values[:-2])  # lower is better
    assert min(values) >= values[trained.best_epoch]


def test_fp16_is_refused_on_a_processor():
    with pytest.raises(TrainingError, match="--train-precision fp16 trains on CUDA devices only, got cpu"):
        train(job(precision="fp16"))
