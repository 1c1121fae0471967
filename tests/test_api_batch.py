"""Batches from Python: rows as values, the same files as the command writes, nothing printed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import vfconvert
from tests.cli.conftest import network
from vfconvert.batching.pool import Ended
from vfconvert.errors import BatchError, GateError

ROOT = Path(__file__).parent.parent
OPTIONS = {
    "spatial": True,
    "reconstruct": False,
    "measure": False,
    "calibration_images": 16,
    "size": (12, 12),
}
WORDS = ("--spatial", "--no-reconstruct", "--no-measure", "--calibration-images", "16", "--size", "12x12")

SCRIPT = f"""
import multiprocessing, sys, vfconvert

def work():
    told = []
    summary = vfconvert.batch(["good.pt", "broken.pt"], "out", options={OPTIONS!r}, told=told.append, jobs=2)
    assert sorted(row.name for row in told) == ["broken", "good"], told
    assert [row.name for row in summary.rows] == ["good", "broken"], summary.rows
    sys.stderr.write(repr(summary))
"""
RUN = {
    "plain": "work()",
    **dict.fromkeys(
        ("fork", "spawn"),
        """
if __name__ == "__main__":
    process = multiprocessing.get_context(sys.argv[1]).Process(target=work)
    process.start()
    process.join()
    sys.exit(process.exitcode)
""",
    ),
}


@pytest.mark.parametrize("method", ["plain", "fork", "spawn"])
def test_a_script_converts_many_models(tmp_path: Path, method: str) -> None:
    """Conversions are commands of their own, so that a script needs no guard, and may itself be of any process."""
    torch.save(network(), tmp_path / "good.pt")
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "script.py").write_text(SCRIPT + RUN[method])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "script.py", method]
    ran = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "BatchSummary(2 models: 1 converted, 1 failed)")
    assert (tmp_path / "out" / "good.onnx").exists()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [model["state"] for model in summary["models"]] == ["converted", "failed"]
    assert summary["models"][0]["parameters_after"] < summary["models"][0]["parameters_before"]


Conversions = Callable[..., list[list[str]]]


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> Conversions:
    """Conversions that only write a report; the function returns the arguments that each has got."""

    def use(exit_codes: dict[int, int] | None = None) -> list[list[str]]:
        commands: list[list[str]] = []

        def run_all(jobs: Any, most: int, *, begun: Any, **_: Any) -> Any:
            for job in jobs:
                begun(job.number)
                words = list(job.command)
                commands.append(words[words.index("convert") + 1 : words.index("--output")])
                report = Path(words[words.index("--report") + 1])
                written = report.with_suffix(".onnx")
                written.write_bytes(b"x")
                report.write_text(json.dumps({"artefacts": [{"path": str(written), "bytes": 1}]}))
                job.errors.write_text("Error: it failed\n")
                code = (exit_codes or {}).get(job.number, 0)
                yield Ended(number=job.number, exit_code=code, seconds=float(most), peak_bytes=None)

        monkeypatch.setattr("vfconvert.batching.running.run_all", run_all)
        return commands

    return use


def test_models_are_paths_manifests_and_mappings(tmp_path: Path, conversions: Conversions) -> None:
    (tmp_path / "m.json").write_text('["third.onnx"]')
    commands = conversions()
    models = [
        "first.pt",
        Path("second.pt"),
        tmp_path / "m.json",
        {"model": Path("a/net.pt"), "name": "fourth", "arguments": ("--seed", 3), "options": {"channel": True}},
    ]
    summary = vfconvert.batch(models, tmp_path / "out", options=OPTIONS, arguments=["--seed", "2"])
    assert [row.name for row in summary.rows] == ["first", "second", "third", "fourth"]
    assert [row.model for row in summary.rows] == ["first.pt", "second.pt", str(tmp_path / "third.onnx"), "a/net.pt"]
    assert commands[0] == commands[1] == [*WORDS, "--seed", "2"]
    assert commands[3] == [*WORDS, "--seed", "2", "--channel", "--seed", "3"]
    assert summary.folder == tmp_path / "out"
    assert summary.counts == {"converted": 4, "gate failed": 0, "failed": 0, "pending": 0}
    summary.check()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"spatial": True, "channel": False, "int8": False}, ["--spatial", "--no-channel", "--no-int8"]),
        ({"spatial": True, "target": None, "data": Path("images")}, ["--spatial", "--data", "images"]),
        ({"target": {"params": 0.5, "size": "5MB"}}, ["--target", "params=50%", "--target", "size=5MB"]),
        ({"targets": {"params": "50%"}}, ["--target", "params=50%"]),
        ({"layers": {"layer4.*": "keep"}, "spatial": True}, ["--layer", "layer4.*=keep", "--spatial"]),
        ({"spatial": True, "exclude": ["a", "b"]}, ["--spatial", "--exclude", "a", "--exclude", "b"]),
        ({"spatial": True, "mean": (0.5, 0.25, 0.5)}, ["--spatial", "--mean", "0.5,0.25,0.5"]),
        ({"spatial": True, "fail-under-saving": {"params": 0.4}}, ["--spatial", "--fail-under-saving", "params=40%"]),
        ({"channel": True, "channel_stride": "1/8"}, ["--channel", "--channel-stride", "1/8"]),
        ({"spatial": True, "epochs": 2, "data": "i"}, ["--spatial", "--epochs", "2", "--data", "i"]),
        ({"spatial": True, "arch_args": {"num_classes": 3, "affine": True}}, None),
    ],
)
def test_options_are_words_of_the_command_line(
    tmp_path: Path, conversions: Conversions, options: dict[str, Any], words: list[str] | None
) -> None:
    commands = conversions()
    vfconvert.batch("net.pt", tmp_path, options=options)
    assert commands == [words or ["--spatial", "--arch-arg", "num_classes=3", "--arch-arg", "affine=true"]]


def test_what_is_done_is_told_and_not_done_again(tmp_path: Path, conversions: Conversions) -> None:
    models = ["a.pt", "b.pt", "c.pt"]
    commands = conversions({1: 1})
    first = vfconvert.batch(models, tmp_path, options=OPTIONS, jobs=3)
    assert [(row.name, row.state, row.error) for row in first.rows] == [
        ("a", "converted", ""),
        ("b", "failed", "it failed"),
        ("c", "converted", ""),
    ]
    assert first.rows[0].seconds == 3.0  # as many at a time
    told: list[str] = []
    commands = conversions()
    second = vfconvert.batch(models, tmp_path, options=OPTIONS, told=lambda row: told.append(row.name))
    assert len(commands) == 1
    assert told == ["a", "c", "b"]
    assert [row.state for row in second.rows] == ["converted"] * 3
    commands = conversions()
    vfconvert.batch(models, tmp_path, options=OPTIONS, again=True)
    assert len(commands) == 3


def test_a_part_is_done_and_the_files_tell_of_all(tmp_path: Path, conversions: Conversions) -> None:
    for part in ((2, 2), "2/2"):
        conversions()
        summary = vfconvert.batch(["a.pt", "b.pt", "c.pt"], tmp_path, options=OPTIONS, part=part)
        assert [row.name for row in summary.rows] == ["b"]
        states = [model["state"] for model in json.loads((tmp_path / "summary.json").read_text())["models"]]
        assert states == ["pending", "converted", "pending"]


@pytest.mark.parametrize(
    ("codes", "error", "said"),
    [
        ({0: 3}, GateError, "of 2 models 1 gate failed, for instance a: it failed; .*summary.md lists all"),
        ({0: 3, 1: 10}, BatchError, "of 2 models 1 gate failed, 1 failed, for instance b: it failed"),
    ],
)
def test_failures_are_rows_and_raised_where_that_is_asked_for(
    tmp_path: Path, conversions: Conversions, codes: dict[int, int], error: type[Exception], said: str
) -> None:
    conversions(codes)
    summary = vfconvert.batch(["a.pt", "b.pt"], tmp_path, options=OPTIONS)
    assert [row.exit_code for row in summary.rows] == [codes.get(0, 0), codes.get(1, 0)]
    with pytest.raises(error, match=said):
        summary.check()


def test_an_interruption_leaves_a_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("vfconvert.batching.running.run_all", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        vfconvert.batch("a.pt", tmp_path / "out", options=OPTIONS)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["counts"]["pending"] == 1
