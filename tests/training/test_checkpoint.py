"""Checkpoints hold numbers and JSON, are complete or absent, and belong to one run."""

import json

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
    ],
    ids=range(23),
)
def test_anything_else_is_refused(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(TrainingError, match=r"no checkpoint of a training .*; remove it to begin anew"):
        read_checkpoint(tmp_path)


def test_meta_what_is_not_changed_is_read():
    assert from_bytes(changed(), "here").step == 5
    assert from_bytes(changed(best=None, slower=1, seconds=3, notes={}), "here").best is None


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
