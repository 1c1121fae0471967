"""Runs that are killed, and runs of several processes: what they end with."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from vfconvert.errors import TrainingError
from vfconvert.training.checkpoint import NAME, read_checkpoint
from vfconvert.training.ranks import Ranks

LONG = {"epochs": 120, "ema": 0.9}  # four hundred and eighty steps
KILLS = 10
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(folder, given):
    return [sys.executable, "-m", "tests.training.worker", str(folder), json.dumps(given)]


def finish(folder, given):
    subprocess.run(command(folder, given), check=True, env=ENVIRONMENT, timeout=300)
    return load_file(folder / "final.safetensors")


def test_ten_kills_at_random_moments_change_nothing(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    wanted = finish(whole, LONG)
    draw, steps = random.Random(0), []
    for _ in range(KILLS):
        before = steps[-1] if steps else -1
        process = subprocess.Popen(command(broken, LONG), env=ENVIRONMENT)
        while process.poll() is None and _step(broken) <= before:  # it has begun to train again
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.25))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        steps.append(_step(broken))
    assert steps == sorted(steps)
    assert 0 <= steps[0] < steps[-1]
    got = finish(broken, LONG)
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_of_a_run_sent_twice_ends_it_as_one_does(tmp_path, number):
    """As timeout(1), a terminal and torchrun send it; processes that decode get it too."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    wanted = finish(whole, {"epochs": 12})
    given = {"epochs": 12, "workers": 2}
    process = subprocess.Popen(
        command(broken, given), env=ENVIRONMENT, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and _step(broken) < 2:
        time.sleep(0.01)
    os.kill(process.pid, number)
    time.sleep(0.02)
    os.killpg(process.pid, number)
    told = process.communicate(timeout=120)[1]
    assert "TrainingInterrupted: Stopped at step" in told
    assert 2 <= _step(broken) < 48
    got = finish(broken, given)
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


def _step(folder):
    state = read_checkpoint(folder) if (folder / NAME).exists() else None
    return state.step if state is not None else -1


def test_meta_a_lost_step_is_seen(tmp_path):
    wanted = finish(tmp_path / "a", {"epochs": 2})
    got = finish(tmp_path / "b", {"epochs": 2, "rate": 0.0201})
    assert not all(torch.equal(got[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(("norms", "alike"), [("frozen", True), ("batch", False)])
def test_two_processes_have_the_losses_of_one(tmp_path, norms, alike):
    """With the statistics of norms as they are; else each process has its own half of the batch."""
    given = {"epochs": 3, "norms": norms, "rate": 0.002}
    finish(tmp_path / "one", given)
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*two, *command(tmp_path / "two", given)[1:]], check=True, env=ENVIRONMENT, timeout=300)
    first, second = (json.loads((tmp_path / name / "losses.json").read_text()) for name in ("one", "two"))
    assert first.keys() == second.keys()
    assert len(first) == 12
    apart = max(abs(first[step] - second[step]) / first[step] for step in first)
    assert (apart < 1e-4) == alike


def test_where_one_of_two_processes_dies_the_other_ends_too_and_the_run_can_go_on(tmp_path):
    given = {"epochs": 3, "norms": "frozen", "rate": 0.002}
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run([*two, *command(whole, given)[1:]], check=True, env=ENVIRONMENT, timeout=300)
    line = [*two, *command(broken, {**given, "dies": 5})[1:]]
    died = subprocess.run(line, env=ENVIRONMENT, timeout=120, capture_output=True, text=True)
    assert died.returncode != 0
    assert "exitcode  : 7" in died.stderr
    assert 0 < _step(broken) <= 6
    assert not (broken / "final.safetensors").exists()
    subprocess.run([*two, *command(broken, given)[1:]], check=True, env=ENVIRONMENT, timeout=300)
    got, wanted = (load_file(folder / "final.safetensors") for folder in (broken, whole))
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("names", [("RANK",), ("LOCAL_RANK",), ("RANK", "LOCAL_RANK")])
def test_a_half_set_environment_is_refused(monkeypatch, names):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "1")
    for name in names:
        monkeypatch.delenv(name)
    with pytest.raises(TrainingError, match="expected three numbers, as torchrun sets them"):
        Ranks.of_environment()


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert Ranks.of_environment() == Ranks(0, 1, 0)


@pytest.mark.parametrize(
    ("beside", "count", "most", "wanted"), [(2, 1, 8, 2), (4, 2, 6, 6), (1, 3, 8, 3), (2, 4, 2, 4)]
)
def test_one_process_works_in_the_threads_of_all(monkeypatch, beside, count, most, wanted):
    monkeypatch.setattr("vfconvert.training.ranks.processors", lambda: most)
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with Ranks(0, 8, 0, beside).with_all_threads():
            assert torch.get_num_threads() == wanted
        assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("said", "beside"), [("4", 4), ("", 1), ("many", 1), (None, 1)])
def test_how_many_processes_a_machine_has_may_be_left_unsaid(monkeypatch, said, beside):
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if said is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", said)
    assert Ranks.of_environment() == Ranks(5, 8, 1, beside)
