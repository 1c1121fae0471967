"""Checkpoints hold numbers and JSON, are complete or absent, and belong to one run."""

import dataclasses
import json
import math

import pytest
import torch

from vfconvert.errors import TrainingError
from vfconvert.training.checkpoint import (
    NAME,
    State,
    check_identity,
    from_bytes,
    read_checkpoint,
    to_bytes,
    write_checkpoint,
)
from vfconvert.training.watching import LOG, Log

STATE = State(
    identity={"model": "abc", "epochs": 3},
    step=5,
    steps=9,
    epochs=[{"epoch": 0, "step": 0, "top1": 1 / 3}],
    losses=[(4, 0.1)],
    best=1 / 3,
    notes={"unexplained": {"a": 0.25}},
    tensors={"model.w": torch.randn(3, 2), "random": torch.arange(9, dtype=torch.uint8)},
)


def test_what_is_written_is_read(tmp_path):
    assert read_checkpoint(tmp_path / "none") is None
    write_checkpoint(STATE, tmp_path / "new" / "folder")
    found = read_checkpoint(tmp_path / "new" / "folder")
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == [NAME]
    plain = {name: value for name, value in vars(found).items() if name != "tensors"}
    assert plain == {name: value for name, value in vars(STATE).items() if name != "tensors"}
    assert found.tensors.keys() == STATE.tensors.keys()
    assert all(torch.equal(found.tensors[name], STATE.tensors[name]) for name in STATE.tensors)


def changed(**values):
    content = to_bytes(STATE)
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"]["training"] = json.dumps(json.loads(header["__metadata__"]["training"]) | values)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk",
        to_bytes(STATE)[:-3],
        b"\xff" * 64,
        changed(version=9),
        changed(step=10),
        changed(step="x"),
        changed(epochs=None),
        changed(losses=[1]),
        changed(precision="auto"),
        changed(precision=16),
        changed(channels_last="yes"),
        changed(code="import os"),
        changed(identity=["model"]),
        changed(notes=["unexplained"]),
        changed(notes={"unexplained": ["a"]}),
        changed(notes={"unexplained": 3.5, "seconds": None}),
        changed(notes={"seconds": {"fit": "long"}}),
        changed(epochs=[5]),
        changed(losses={"1": 2}),
        changed(best="0.5"),
        changed(best_epoch=None),
        changed(improved=1.5),
        changed(slower=[]),
        changed(seconds="x"),
        changed(step=True),
        changed(losses=[[math.inf, 1]]),
        changed(losses=[[4.0, 1]]),
        changed(losses=[[4, math.nan]]),
        changed(losses=[[4, 10**400]]),
        changed(losses=[[10, 0.1]]),
        changed(losses=[[-1, 0.1]]),
        changed(losses=[[4, "0.1"]]),
        changed(losses=["41"]),
        changed(slower=math.nan),
        changed(slower=0),
        changed(slower=1.5),
        changed(seconds=math.inf),
        changed(seconds=-1),
        changed(epochs=[{}]),
        changed(epochs=[{"epoch": 0, "top1": "x"}]),
        changed(epochs=[{"epoch": 0, "top1": True}]),
        changed(epochs=[{"epoch": 0.0, "top1": 1 / 3}]),
        changed(epochs=[{"epoch": 1, "top1": 1 / 3}]),
        changed(epochs=[{"epoch": 0, "top1": 1 / 3}, {"epoch": 0, "top1": 1 / 3}]),
        changed(epochs=[{"epoch": 0, "top1": 1 / 3}, {"epoch": 1}]),
        changed(epochs=[]),
        changed(best=math.nan),
        changed(best=math.nan, best_epoch=99),
        changed(best=0.5),
        changed(best_epoch=1),
        changed(best_epoch=-1),
        changed(improved=1),
        changed(improved=-4),
    ],
    ids=range(54),
)
def test_anything_else_is_refused(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(TrainingError, match=r"no checkpoint of a training .*; remove it to begin anew"):
        read_checkpoint(tmp_path)


def test_meta_what_is_not_changed_is_read():
    assert from_bytes(changed(), "here").step == 5
    assert from_bytes(changed(best=None, slower=1, seconds=3, notes={}), "here").best is None
    assert from_bytes(changed(epochs=[], best=None, losses=[[9, 1]]), "here").losses == [(9, 1.0)]


@pytest.mark.parametrize(
    "name",
    [
        "optimizer.x.exp_avg",
        "optimizer.0",
        "optimizer",
        "optimizer.-1.step",
        "optimizer.².step",
        f"optimizer.{10**9}.step",
    ],
)
def test_a_tensor_that_no_optimizer_has_is_refused(name):
    state = dataclasses.replace(STATE, tensors={**STATE.tensors, name: torch.zeros(2)})
    with pytest.raises(TrainingError, match=f"here: no checkpoint .*a tensor is called '{name}'"):
        from_bytes(to_bytes(state), "here")
    state = dataclasses.replace(STATE, tensors={**STATE.tensors, "optimizer.0.step": torch.zeros(2)})
    assert "optimizer.0.step" in from_bytes(to_bytes(state), "here").tensors


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1])
def test_a_metric_may_be_any_number(value):
    records = [{"epoch": 0, "step": 0, "top1": 0.25}, {"epoch": 1, "step": 3, "loss": 0.5, "top1": value}]
    found = from_bytes(changed(epochs=records, best=value, best_epoch=1, improved=1), "here")
    assert found.best == pytest.approx(value, nan_ok=True)
    assert len(found.epochs) == 2


def test_a_checkpoint_belongs_to_one_run(tmp_path):
    check_identity(STATE.identity, {"model": "abc", "epochs": 3}, tmp_path)
    said = (
        "of another run: epochs 3 there and 4 here, data None there and 'x' here; .* remove .*safetensors to train anew"
    )
    with pytest.raises(TrainingError, match=said):
        check_identity(STATE.identity, {"model": "abc", "epochs": 4, "data": "x"}, tmp_path)


def test_the_log_forgets_what_comes_after_the_checkpoint(tmp_path):
    log = Log(tmp_path, 0)
    for step in range(5):
        log.write({"step": step, "loss": 0.5})
    with (tmp_path / LOG).open("a") as file:
        file.write('{"step": 9, "lo')  # killed while it wrote
    Log(tmp_path, 3).write({"step": 4, "loss": 0.25})
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    assert lines[-1]["loss"] == 0.25
    assert Log(tmp_path, 0) is not None
    assert (tmp_path / LOG).read_text() == ""
