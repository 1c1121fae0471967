"""`--target` and `--max-drop` end to end: limits are kept by what is written, plans are the same every time."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

import vfconvert.budget.options
import vfconvert.pipeline
from tests.cli.conftest import write_images
from tests.cli.test_plans import deep, same
from vfconvert.errors import BudgetError, NoImagesError, UnwritableOutputError

FAST = ("--no-reconstruct", "--no-measure", "--seed", "4", "-q")


@dataclass(frozen=True)
class Run:
    """The files of one conversion."""

    model: Path
    output: Path
    report: Path
    plan: Path

    @property
    def reported(self) -> dict[str, Any]:
        return json.loads(self.report.read_text())


def convert(cli_invoke, model: Path, images: Path, name: str, *line: object, quick: bool = True) -> Run:
    files = [model.with_name(f"{name}.{end}") for end in ("onnx", "json", "plan.json")]
    out = ("-o", files[0], "--report", files[1], "--save-plan", files[2])
    cli_invoke(model, *line, "--data", images, *(FAST if quick else ()), *out, exit_code=0)
    return Run(model, *files)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("targets") / "model.pt"
    torch.save(deep(), path)
    return path


@pytest.fixture(scope="module")
def run(cli_invoke, model, images) -> Run:
    """The first conversion of the model: nothing is known of it yet."""
    assert [path.name for path in model.parent.iterdir()] == ["model.pt"]
    return convert(cli_invoke, model, images, "first", "--target", "params=70%")


def numbers_in(path: Path) -> int:
    """Numbers in the floating-point tensors of an ONNX file."""
    found = [onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer]
    return sum(one.size for one in found if one.dtype.kind == "f")


def test_parameters_are_within_the_target(run: Run) -> None:
    before = sum(p.numel() for p in deep().parameters())
    report = run.reported
    (target,) = report["budget"]["targets"]
    assert target["allowed"] == pytest.approx(0.7 * before)
    assert target["reached"] == report["after"]["parameters"] == target["predicted"] <= 0.7 * before
    assert target["reached"] > 0.5 * before  # no more harm than asked for
    assert 0.5 * before < numbers_in(run.output) <= 0.7 * before + 2 * (8 + 16 + 16)  # and the norms' statistics
    assert {row["name"]: row["code"] for row in report["layers"]}["0"] == "first"
    assert report["budget"]["damage"] > 0
    damages = {row["name"]: row["damage"] for row in report["layers"]}
    assert damages.pop("0") is None  # it had no choice
    assert sum(damages.values()) == pytest.approx(report["budget"]["damage"], rel=1e-9)


def test_damage_is_kept_beside_the_model(run: Run) -> None:
    assert sorted(path.name for path in run.model.parent.glob("model*")) == ["model.pt", "model.pt.damage.json"]


def test_second_run_takes_the_damage_and_gives_the_same_plan(cli_invoke, run, images, outputs, monkeypatch) -> None:
    monkeypatch.setattr(vfconvert.budget.options, "harms_of", _refuse)
    monkeypatch.setattr(vfconvert.budget.options, "sensitivity_of", _refuse)
    line = ("--target", "params=70%", "--data", images, *FAST, "--dry-run")
    cli_invoke(run.model, *line, "--save-plan", outputs / "p.json", exit_code=0)
    assert (outputs / "p.json").read_bytes() == run.plan.read_bytes()


def _refuse(*arguments: object, **keywords: object) -> None:
    raise AssertionError("measured again")


def test_run_without_the_damage_gives_the_same_plan(cli_invoke, run, images, outputs) -> None:
    line = ("--target", "params=70%", "--data", images, *FAST, "--dry-run", "--damage-cache", outputs / "d.json")
    cli_invoke(run.model, *line, "--save-plan", outputs / "p.json", exit_code=0)
    assert [path.name for path in outputs.iterdir()] == ["p.json"]  # nothing converted, no damage kept
    assert (outputs / "p.json").read_bytes() == run.plan.read_bytes()


def test_meta_another_target_or_seed_gives_another_plan(cli_invoke, run, images, outputs) -> None:
    line = ("--data", images, *FAST, "--dry-run", "--damage-cache", outputs / "d.json", "--save-plan")
    cli_invoke(run.model, "--target", "params=60%", *line, outputs / "p.json", exit_code=0)
    assert (outputs / "p.json").read_bytes() != run.plan.read_bytes()


def test_plan_is_replayed(cli_invoke, run, images) -> None:
    again = convert(cli_invoke, run.model, images, "replayed", "--plan", run.plan)
    assert again.reported["after"]["parameters"] == run.reported["after"]["parameters"]
    assert again.reported["budget"] is None
    assert same(again.output, run.output)


def test_several_targets_are_kept_at_once(cli_invoke, run, images) -> None:
    targets = ("--target", "macs=85%", "--target", "size=26KiB", "--target", "params=90%")
    report = convert(cli_invoke, run.model, images, "several", *targets).reported
    found = {row["target"].split("=")[0]: row for row in report["budget"]["targets"]}
    assert list(found) == ["macs", "size", "params"]
    assert all(row["reached"] <= row["allowed"] for row in found.values())
    assert found["macs"]["reached"] == report["after"]["macs_executed"] <= 0.85 * report["before"]["macs_executed"]
    assert found["size"]["reached"] == report["output"]["bytes"] <= 26 * 1024
    assert found["macs"]["reached"] == pytest.approx(found["macs"]["predicted"], rel=0.1)
    assert found["params"]["reached"] == found["params"]["predicted"]
    assert found["size"]["reached"] <= found["size"]["predicted"]


def test_kinds_that_are_given_are_those_used(cli_invoke, run, images, outputs) -> None:
    line = ("--spatial", "--target", "params=70%", "--data", images, "--dry-run", "-q")
    cli_invoke(run.model, *line, "--save-plan", outputs / "p.json", exit_code=0)
    entries = [e for e in json.loads((outputs / "p.json").read_text())["layers"] if e["decision"] == "convert"]
    assert {(entry["crops"], entry["windows"]) for entry in entries} == {("squares", 1)}


def test_layer_that_is_kept_by_name_stays(cli_invoke, run, images, outputs, monkeypatch) -> None:
    """With the damage of the others as it was kept."""
    monkeypatch.setattr(vfconvert.budget.options, "harms_of", _refuse)
    line = ("--layer", "6=keep", "--target", "params=90%", "--data", images, *FAST, "--dry-run")
    cli_invoke(run.model, *line, "--save-plan", outputs / "p.json", exit_code=0)
    entries = {entry["layer"]: entry for entry in json.loads((outputs / "p.json").read_text())["layers"]}
    assert (entries["6"]["decision"], entries["6"]["code"]) == ("keep", "excluded")
    assert entries["3"]["decision"] == "convert"


def test_target_that_cannot_be_reached_is_one_line(cli_invoke, run, images, outputs) -> None:
    line = ("--target", "params=10%", "--data", images, "-o", outputs / "a.onnx", "--report", outputs / "r.json")
    result = cli_invoke(run.model, *line, "--seed", "4", exit_code=BudgetError.exit_code)
    assert BudgetError.exit_code == 33
    assert result.stderr.startswith("Error: params: 380 (10.0% of the original) is wanted, and ")
    assert "is the least that can be reached; these filters allow no less here" in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(outputs.iterdir()) == []


def test_any_loss_allows_the_smallest_plan(cli_invoke, run, images, outputs) -> None:
    line = (
        "--max-drop",
        "100",
        "--data",
        images,
        *FAST[:-1],
        "-o",
        outputs / "a.onnx",
        "--save-plan",
        outputs / "p.json",
    )
    result = cli_invoke(run.model, *line, "-o", outputs / "a.onnx", exit_code=0)
    assert "1,211" in result.stdout  # parameters: the least, as the message above says
    assert "The smallest plan tried that loses at most 100 points." in result.stdout
    entries = json.loads((outputs / "p.json").read_text())["layers"]
    assert [entry["decision"] for entry in entries] == ["keep", "convert", "convert"]


def test_loss_that_no_plan_keeps_is_one_line(cli_invoke, run, images, outputs, monkeypatch) -> None:
    monkeypatch.setattr(vfconvert.run, "points_lost", lambda agreement: 12.5)
    line = ("--max-drop", "2", "--data", images, *FAST, "-o", outputs / "a.onnx")
    result = cli_invoke(run.model, *line, exit_code=BudgetError.exit_code)
    assert "--max-drop 2: no plan that was tried loses as little (the best lost 12.50 points)" in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(outputs.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "--target params=50% --windows 2",
            "--windows is chosen for every layer under --target and --max-drop; drop it",
        ),
        ("--max-drop 1 --channel --channel-stride 2", "--channel-stride is chosen for every layer under --target"),
        ("--target params=50% --layer 3=spatial", "--layer takes GLOB=keep only; drop one of the two"),
        ("--target params=50% --plan p.json", "so --target cannot be given beside it; drop it, or --plan"),
        ("--max-drop 1 --plan p.json", "so --max-drop cannot be given beside it; drop it, or --plan"),
        ("--spatial --damage-cache d.json", "--damage-cache says nothing without --target or --max-drop"),
        ("--target params", "expected one of params, macs, size, latency and a limit"),
        ("--target params=200%", "expected at most 100% of the original"),
        ("--max-drop -1", "is not in the range x>=0"),
    ],
)
def test_options_that_exclude_each_other(cli_invoke, line: str, said: str) -> None:
    stderr = cli_invoke("m.pt", *line.split(), exit_code=2).stderr
    assert said in stderr


def test_latency_is_predicted_and_reached(cli_invoke, run, images) -> None:
    line = ("--spatial", "--target", "latency=100%", "--target", "params=90%", "--measure", "--no-reconstruct", "-q")
    report = convert(cli_invoke, run.model, images, "timed", *line, quick=False).reported
    latency = report["budget"]["targets"][0]
    assert latency["target"] == "latency=100%"
    assert latency["predicted"] > 0
    assert latency["reached"] == report["latency"]["after"]
    assert latency["allowed"] > 0


def test_latency_of_another_machine(cli_invoke, run, images, outputs) -> None:
    """Its table answers for all that it holds, and nothing measured here is mixed in."""
    costs, plan = outputs / "costs.json", outputs / "p.json"
    cli_invoke("inspect", run.model, "--data", images, "--measure", "--costs", costs, "-q", exit_code=0)
    found = json.loads(costs.read_text())
    found["machine"] = "an ARM"
    found["layers"] = {
        key: {name: 2.0 if name == "plain" else 1.0 for name in row} for key, row in found["layers"].items()
    }
    found["networks"] = dict.fromkeys(found["networks"], 10.0)
    costs.write_text(json.dumps(found))
    line = ("--target", "latency=9.1s", "--data", images, "--costs", costs, "--dry-run", "-q", "--save-plan", plan)
    cli_invoke(run.model, *line, exit_code=0)
    decisions = [entry["decision"] for entry in json.loads(plan.read_text())["layers"]]
    assert decisions.count("convert") == 1  # each saves one second of ten
    assert json.loads(costs.read_text()) == found
    costs.write_text(json.dumps(found | {"networks": {}}))
    result = cli_invoke(run.model, *line, exit_code=BudgetError.exit_code)
    assert (
        "the network as a whole is not timed in the table of --costs, which is of another machine (an ARM)"
        in result.stderr
    )


@pytest.mark.parametrize("command", [("--target", "params=70%"), ("--target", "params=70%", "--dry-run")])
def test_damage_replaces_no_other_file(cli_invoke, model_path, images, command) -> None:
    before = model_path.read_bytes()
    line = (*command, "--data", images, "--damage-cache", model_path)
    result = cli_invoke(model_path, *line, exit_code=UnwritableOutputError.exit_code)
    assert "holds no measured damage and is left alone" in result.stderr
    assert model_path.read_bytes() == before


def test_inspection_replaces_no_other_file(cli_invoke, model_path, images) -> None:
    before = model_path.read_bytes()
    line = ("--data", images, "--damage-cache", model_path)
    cli_invoke("inspect", model_path, *line, exit_code=UnwritableOutputError.exit_code)
    assert model_path.read_bytes() == before


def test_max_drop_needs_images_to_choose_on(cli_invoke, model_path, tmp_path) -> None:
    write_images(tmp_path / "two", 2, 0)
    line = ("--max-drop", "50", "--data", tmp_path / "two", *FAST)
    result = cli_invoke(model_path, *line, exit_code=NoImagesError.exit_code)
    assert (
        "--max-drop chooses on half of the images held out and judges on the other: got 1 and 0 of them"
        in result.stderr
    )


def test_refining_takes_the_nearest_of_the_plans_that_were_fitted(cli_invoke, run, images, outputs) -> None:
    found = convert(cli_invoke, run.model, images, "refined", "--target", "params=70%", "--refine", 2)
    trials = found.reported["budget"]["trials"]
    assert 2 <= len(trials) <= 3
    assert [trial["chosen"] for trial in trials].count(True) == 1
    taken = next(trial for trial in trials if trial["chosen"])
    assert taken["loss"] == min(trial["loss"] for trial in trials)
    assert trials[0]["damage"] == min(trial["damage"] for trial in trials)
    assert found.reported["budget"]["damage"] == taken["damage"]
    assert found.reported["agreement"]["images"] < run.reported["agreement"]["images"]  # the others helped to choose


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("--spatial", "--refine", "2"), "add --target or drop it"),
        (("--target", "params=70%", "--refine", "2", "--dry-run"), "--dry-run fits none"),
        (("--target", "params=70%", "--refine", "2", "--max-drop", "1"), "--max-drop fits its own"),
    ],
)
def test_refining_beside_options_that_leave_nothing_to_compare(cli_invoke, model_path, line, said) -> None:
    assert said in cli_invoke(model_path, *line, exit_code=2).stderr
