"""Limits of containers, read from files as Linux shows them."""

import os

import pytest

from vfconvert import container


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A folder that stands for /sys/fs/cgroup; the process is in a/b of it."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "own").write_text("12:cpuset:/elsewhere\n3:cpu:/job\n2:memory:/job\n0::/a/b\n")
    monkeypatch.setattr(container, "_GROUPS", tmp_path)
    monkeypatch.setattr(container, "_OWN", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(64)), raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, 64),
        ({"a/b/cpu.max": "max 100000"}, 64),
        ({"a/b/cpu.max": "200000 100000"}, 2),
        ({"a/b/cpu.max": "150000 100000"}, 2),
        ({"a/b/cpu.max": "10000 100000"}, 1),
        ({"a/b/cpu.max": "800000 100000", "a/cpu.max": "300000 100000"}, 3),
        ({"cpu.max": "400000 100000"}, 4),
        ({"cpu/cpu.cfs_quota_us": "500000", "cpu/cpu.cfs_period_us": "100000"}, 5),
        ({"cpu/job/cpu.cfs_quota_us": "200000", "cpu/job/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "5", "cpu/cpu.cfs_period_us": "0"}, 64),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ({"a/b/cpu.max": "20000000 100000"}, 64),
    ],
)
def test_processors_are_those_that_the_container_is_given(groups, given, wanted):
    _write(groups, given)
    assert container.processors() == wanted


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, None),
        ({"a/b/memory.max": "max", "a/b/memory.current": "7"}, None),
        ({"a/b/memory.max": "100", "a/b/memory.current": "30"}, 70),
        ({"memory/job/memory.limit_in_bytes": "50", "memory/job/memory.usage_in_bytes": "30"}, 20),
        ({"a/b/memory.max": "100", "a/b/memory.current": "30", "a/memory.max": "90", "a/memory.current": "50"}, 40),
    ],
)
def test_memory_is_what_the_container_has_left(groups, given, wanted):
    _write(groups, given)
    assert container.memory_left() == wanted


def test_a_machine_without_groups_has_its_own_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(container, "_GROUPS", tmp_path / "none")
    monkeypatch.setattr(container, "_OWN", tmp_path / "none either")
    assert container.processors() >= 1
    assert container.memory_left() is None


def _write(folder, given):
    for name, text in given.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n")
