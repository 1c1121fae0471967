"""`vfconvert batch` as a user runs it."""

import json
from pathlib import Path

import onnx
import pytest

from tests.cli.conftest import network
from vfconvert.batch_summary import refuse_failures
from vfconvert.batching.pool import Ended
from vfconvert.cli.batch import batch
from vfconvert.errors import BatchError, GateError
from vfconvert.reporting.batch import Row

FAST = ("--spatial", "--no-reconstruct", "--no-measure", "--calibration-images", "16", "--size", "12")


def test_batch_converts_all_that_can_be_and_ends_with_a_code_of_its_own(cli_invoke, tmp_path):
    import torch

    torch.save(network(), tmp_path / "good.pt")
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04 and no more")
    out = tmp_path / "out"
    command = ["batch", tmp_path / "good.pt", tmp_path / "broken.pt", "-o", out]
    ran = cli_invoke(*command, "--jobs", "2", "--json", "--", *FAST, exit_code=BatchError.exit_code)
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert {line["name"]: line["state"] for line in lines} == {"good": "converted", "broken": "failed"}
    assert "Error: of 2 models 1 failed, for instance broken: " in ran.stderr
    assert "Traceback" not in ran.stderr
    onnx.checker.check_model(onnx.load(out / "good.onnx"))
    summary = json.loads((out / "summary.json").read_text())
    assert summary["counts"] == {"converted": 1, "gate failed": 0, "failed": 1, "pending": 0}
    assert summary["models"][0]["parameters_after"] < summary["models"][0]["parameters_before"]
    again = cli_invoke(*command[:2], "-o", out, "--", *FAST, exit_code=0)
    assert "1/1 good: done before" in again.stderr
    assert again.stdout.splitlines() == ["1 model: 1 converted", str(out / "summary.md")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.pt", "-o", "out", "--part", "4/3"], "expected a part like 3/12"),
        (["-o", "out"], "Missing argument"),
        (["a.pt"], "Missing option '-o'"),
        (["a.pt", "-o", "out", "--spatial"], "--spatial is an option of conversions, which stand after --: vfconvert"),
        (["a.pt", "-o", "out", "--no-measure"], "--no-measure is an option of conversions, which stand after --"),
        (["a.pt", "-o", "out", "--nonsense"], "No such option"),
    ],
)
def test_batch_refuses_a_wrong_command_line(cli_invoke, arguments, said):
    assert said in cli_invoke("batch", *arguments, exit_code=2).stderr


def test_batch_says_everything_wrong_with_a_manifest(cli_invoke, tmp_path):
    path: Path = tmp_path / "m.json"
    path.write_text('{"models": [{"name": "a"}]}')
    assert "field model: is missing" in cli_invoke("batch", path, "-o", tmp_path, exit_code=7).stderr


def test_help_says_how_to_give_options_of_conversions(cli_invoke):
    assert "[-- OPTIONS OF EVERY CONVERSION]" in " ".join(cli_invoke("batch", "--help", exit_code=0).stdout.split())
    assert batch.help


def test_an_interrupted_batch_leaves_a_summary(cli_invoke, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("vfconvert.batching.running.run_all", interrupted)
    cli_invoke("batch", "a.pt", "-o", tmp_path / "out", "--", "--spatial", exit_code=130)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["counts"]["pending"] == 1


@pytest.fixture
def conversions(monkeypatch):
    """Conversions that only write a report; a second argument to the function says after how many they are killed."""

    def use(text: str, killed_after: int | None = None, exit_code: int = 0) -> None:
        def run_all(jobs, *_, begun, **__):
            for job in jobs:
                if job.number == killed_after:
                    raise KeyboardInterrupt
                begun(job.number)
                report = Path(job.command[job.command.index("--report") + 1])
                report.write_text(json.dumps({"artefacts": [{"path": text, "bytes": 1}]}))
                job.errors.touch()
                yield Ended(number=job.number, exit_code=exit_code, seconds=1.0, peak_bytes=None)

        monkeypatch.setattr("vfconvert.batching.running.run_all", run_all)

    return use


def files_and_states(out):
    return [(row["state"], row["files"]) for row in json.loads((out / "summary.json").read_text())["models"]]


def test_a_killed_batch_shows_nothing_of_an_earlier_one(cli_invoke, tmp_path, conversions):
    out = tmp_path / "out"
    line = ("batch", "a.pt", "b.pt", "c.pt", "-o", out)
    conversions("old")
    cli_invoke(*line, "--", "--spatial", exit_code=0)
    assert files_and_states(out) == [("converted", ["old"])] * 3
    conversions("new", killed_after=1)
    cli_invoke(*line, "--", "--channel", exit_code=130)
    assert files_and_states(out) == [("converted", ["new"]), ("pending", []), ("pending", [])]
    assert ["old" in (out / f"{name}.report.json").read_text() for name in "abc"] == [False, True, True]


def test_a_part_of_a_batch_shows_what_others_did_with_the_same_options(cli_invoke, tmp_path, conversions):
    out = tmp_path / "out"
    line = ("batch", "a.pt", "b.pt", "-o", out, "--part")
    conversions("old")
    cli_invoke(*line, "1/2", "--", "--spatial", exit_code=0)
    assert files_and_states(out) == [("converted", ["old"]), ("pending", [])]
    conversions("new")
    cli_invoke(*line, "2/2", "--", "--spatial", exit_code=0)
    assert files_and_states(out) == [("converted", ["old"]), ("converted", ["new"])]
    cli_invoke(*line, "2/2", "--", "--channel", exit_code=0)
    assert files_and_states(out) == [("pending", []), ("converted", ["new"])]


def test_a_batch_appends_its_summary_to_that_of_a_step(cli_invoke, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    cli_invoke("batch", tmp_path / "none.pt", "-o", tmp_path / "out", "--", "--spatial", exit_code=BatchError.exit_code)
    assert (tmp_path / "step.md").read_text().startswith("# 1 model: 1 failed")


def rows_in(*states):
    return [Row(name=f"m{at}", model="m.pt", state=state, error=f"error {at}") for at, state in enumerate(states)]


@pytest.mark.parametrize(
    ("states", "error", "said"),
    [
        (
            ["converted", "gate failed"],
            GateError,
            "of 2 models 1 gate failed, for instance m1: error 1; s.md lists all",
        ),
        (["gate failed", "gate failed"], GateError, "of 2 models 2 gate failed, for instance m0: error 0"),
        (["gate failed", "failed"], BatchError, "of 2 models 1 gate failed, 1 failed, for instance m1: error 1"),
        (["failed"], BatchError, "of 1 model 1 failed, for instance m0: error 0"),
    ],
)
def test_failed_gates_alone_have_their_own_code(states, error, said):
    with pytest.raises(error, match=f"^{said}"):
        refuse_failures(rows_in(*states), Path("s.md"), resumable=False)


def test_a_batch_of_which_all_is_converted_has_no_failure():
    refuse_failures(rows_in("converted", "converted"), Path("s.md"), resumable=False)


def test_a_gate_that_fails_ends_a_batch_with_the_code_of_gates(cli_invoke, tmp_path, conversions):
    conversions("a.onnx", exit_code=GateError.exit_code)
    line = ("batch", "a.pt", "-o", tmp_path / "out", "--", "--spatial", "--max-size", "1KB")
    ran = cli_invoke(*line, exit_code=GateError.exit_code)
    assert ran.stdout.startswith("1 model: 1 gate failed\n")
    assert "of 1 model 1 gate failed, for instance a: " in ran.stderr
