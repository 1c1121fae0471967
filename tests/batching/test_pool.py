"""Processes run side by side, as many as there is memory for, and none outlives the batch."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from vfconvert.batching.pool import Ended, Job, free_bytes, run_all


def job(folder: Path, number: int, code: str, need: int = 0) -> Job:
    return Job(
        number=number,
        command=(sys.executable, "-S", "-c", code),
        output=folder / f"{number}.out",
        errors=folder / f"{number}.err",
        need=need,
    )


def test_run_all_tells_how_each_ended(tmp_path):
    codes = ["print('said')", "import sys; sys.exit(3)", "import os; os.kill(os.getpid(), 9)"]
    found = {ended.number: ended for ended in run_all([job(tmp_path, i, c) for i, c in enumerate(codes)], 2, threads=1)}
    assert {number: ended.exit_code for number, ended in found.items()} == {0: 0, 1: 3, 2: -9}
    assert (tmp_path / "0.out").read_text() == "said\n"
    assert all(ended.seconds > 0 for ended in found.values())


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="this system does not tell")
def test_run_all_tells_the_peak_of_memory(tmp_path):
    size = psutil.Process().memory_info().rss + 200_000_000  # a process begins with the peak of this one
    codes = ["pass", f"held = bytearray({size}); held[::4096] = b'x' * len(held[::4096])"]
    found = {ended.number: ended for ended in run_all([job(tmp_path, i, c) for i, c in enumerate(codes)], 1, threads=1)}
    small, large = found[0].peak_bytes, found[1].peak_bytes
    assert small is not None
    assert large is not None
    assert small < size <= large < size + 50_000_000


def most_at_once(jobs: list[Job], most: int, **settings: object) -> int:
    """Of the processes that began and did not end yet."""
    counts, running = [0], 0

    def begun(number: int) -> None:
        nonlocal running
        running += 1
        counts.append(running)

    for ended in run_all(jobs, most, threads=1, begun=begun, **settings):  # type: ignore[arg-type]
        assert isinstance(ended, Ended)
        running -= 1
    assert running == 0
    return max(counts)


def test_processes_keep_the_environment_but_for_what_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("LEFT", "here")
    said = "import os; print(os.environ['OMP_NUM_THREADS'], 'LEFT' in os.environ)"
    for without, wanted in (((), "7 True"), (("LEFT",), "7 False")):
        list(run_all([job(tmp_path, 0, said)], 1, threads=3, without=without))
        assert (tmp_path / "0.out").read_text().strip() == wanted
    monkeypatch.delenv("OMP_NUM_THREADS")
    list(run_all([job(tmp_path, 0, said)], 1, threads=3))
    assert (tmp_path / "0.out").read_text().strip() == "3 True"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing runs in a fork")
def test_a_signal_that_comes_while_a_process_starts_is_not_lost(tmp_path):
    armed = [True]

    def fork() -> None:
        if armed:
            armed.clear()
            os.kill(os.getpid(), signal.SIGTERM)

    def end(*_: object) -> None:
        raise InterruptedError("ended by a signal")

    os.register_at_fork(after_in_parent=fork)
    others = psutil.Process().children()
    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(InterruptedError, match="ended by a signal"):
            list(run_all([job(tmp_path, 0, "import time; time.sleep(60)")], 1, threads=1))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not [child for child in psutil.Process().children() if child not in others]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing runs in a fork")
def test_processes_take_signals(tmp_path):
    list(run_all([job(tmp_path, 0, "import _signal; print(_signal.pthread_sigmask(0, []))")], 1, threads=1))
    assert (tmp_path / "0.out").read_text() == "set()\n"


SLEEP = "import time; time.sleep(0.3)"


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_run_at_once_than_allowed(tmp_path, most):
    assert most_at_once([job(tmp_path, number, SLEEP) for number in range(4)], most) == most


def test_no_more_run_at_once_than_memory_allows(tmp_path):
    jobs = [job(tmp_path, number, SLEEP, need=60 << 30) for number in range(3)]
    assert most_at_once(jobs, 3, free=lambda: 100 << 30) == 1
    assert most_at_once(jobs, 3, free=lambda: 1000 << 30) == 3


def test_one_runs_even_where_memory_is_short(tmp_path):
    assert most_at_once([job(tmp_path, number, SLEEP, need=1 << 50) for number in range(2)], 2) == 1


def test_free_bytes_is_within_the_machine():
    assert 0 < free_bytes() <= psutil.virtual_memory().total


def test_what_runs_is_ended_when_the_batch_is_left(tmp_path):
    endless = "import time, os; open('pid', 'w').write(str(os.getpid())); time.sleep(600)"
    first = job(tmp_path, 0, f"import os; os.chdir({str(tmp_path)!r}); {endless}")
    running = run_all([first, job(tmp_path, 1, "pass")], 2, threads=1)
    assert next(running).number == 1
    pid = wait_for(tmp_path / "pid")
    running.close()
    assert not psutil.pid_exists(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="by a feature of Linux")
def test_what_runs_is_ended_when_the_batch_is_killed(tmp_path):
    inner = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    outer = (
        "import sys; from pathlib import Path; from vfconvert.batching.pool import Job, run_all\n"
        f"job = Job(number=0, command=(sys.executable, '-S', '-c', {inner!r}), output=Path({str(tmp_path / 'o')!r}), "
        f"errors=Path({str(tmp_path / 'e')!r}), need=0)\nlist(run_all([job], 1, threads=1))"
    )
    batch = subprocess.Popen([sys.executable, "-c", outer], cwd=Path(__file__).parents[2])
    pid = wait_for(tmp_path / "pid")
    batch.send_signal(signal.SIGKILL)
    batch.wait()
    deadline = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it outlived the batch"
        time.sleep(0.05)


def wait_for(path: Path) -> int:
    deadline = time.monotonic() + 60
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline, f"{path} never appeared"
        time.sleep(0.05)
    return int(path.read_text())
