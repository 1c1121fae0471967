"""`--save-plan`, `--plan` and `--layer` end to end: a plan replayed is the same network, a wrong one leaves nothing."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from vfconvert.errors import IllegalSpecError, PlanFileError, SelectionError, UnwritableOutputError

FAST = ("--no-reconstruct", "--no-measure", "--seed", "4", "-q")


def deep() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3)),
    )


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    torch.save(deep(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


@pytest.fixture
def plan_path(cli_invoke, model_path, images) -> Path:
    """The plan of `--spatial` but for layer "6", saved by a dry run."""
    path = model_path.with_name("plan.json")
    line = ("--spatial", "--layer", "6=channel:stride=1/8,primaries=0.75", "--data", images, "--dry-run")
    cli_invoke(model_path, *line, "--save-plan", path, exit_code=0)
    return path


def nodes_and_numbers(path: Path) -> tuple[list[str], list[np.ndarray]]:
    graph = onnx.load(path).graph
    return [node.op_type for node in graph.node], [onnx.numpy_helper.to_array(one) for one in graph.initializer]


def same(first: Path, second: Path) -> bool:
    (nodes, numbers), (other_nodes, other_numbers) = nodes_and_numbers(first), nodes_and_numbers(second)
    return nodes == other_nodes and all(map(np.array_equal, numbers, other_numbers))


def test_replayed_plan_gives_the_same_network(cli_invoke, model_path, images, outputs):
    first, again, other = (outputs / f"{name}.onnx" for name in ("first", "again", "other"))
    plan, second = outputs / "p.json", outputs / "q.json"
    data = ("--data", images, *FAST)
    stated = ("--spatial", "--layer", "6=channel:primaries=0.75")
    cli_invoke(model_path, *stated, *data, "-o", first, "--save-plan", plan, exit_code=0)
    cli_invoke(model_path, "--plan", plan, *data, "-o", again, "--save-plan", second, exit_code=0)
    cli_invoke(model_path, "--spatial", *data, "-o", other, exit_code=0)
    assert same(first, again)
    assert not same(first, other)
    assert plan.read_bytes() == second.read_bytes()


def test_dry_run_writes_the_plan_and_nothing_else(plan_path, tmp_path):
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt", "plan.json"]
    entries = {entry["layer"]: entry for entry in json.loads(plan_path.read_text())["layers"]}
    assert {name: entry.get("kind", entry.get("code")) for name, entry in entries.items()} == {
        "0": "first",
        "3": "spatial",
        "6": "channel",
    }
    assert (entries["6"]["channel_stride"], entries["6"]["primaries"]) == (2, 12)


def test_plan_holds_no_path_of_this_machine(plan_path, tmp_path):
    assert str(tmp_path) not in plan_path.read_text()


def test_plan_by_hand_is_reported(cli_invoke, model_path, images, outputs):
    plan, report = outputs / "p.json", outputs / "r.json"
    layers = [{"layer": "3", "decision": "convert", "crops": "squares"}, {"layer": "6", "decision": "keep"}]
    plan.write_text(json.dumps({"schema_version": 1, "layers": layers}))
    line = ("--plan", plan, "--data", images, "--no-reconstruct", "--no-measure", "-v")
    shown = cli_invoke(model_path, *line, "-o", outputs / "a.onnx", "--report", report, exit_code=0).stdout
    assert "not-in-plan" in shown
    codes = {row["name"]: row["code"] for row in json.loads(report.read_text())["layers"] if row["decision"] == "keep"}
    assert codes == {"0": "not-in-plan", "6": "plan"}


def test_plan_is_edited_by_hand(cli_invoke, model_path, images, plan_path, outputs):
    plan_path.write_text(plan_path.read_text().replace('"primaries": 12', '"primaries": 10'))
    report = outputs / "r.json"
    line = ("--plan", plan_path, "--data", images, *FAST, "-o", outputs / "a.onnx", "--report", report)
    cli_invoke(model_path, *line, exit_code=0)
    rows = {row["name"]: row for row in json.loads(report.read_text())["layers"]}
    assert (rows["6"]["weights_before"], rows["6"]["weights_after"]) == (16 * 144, 10 * 144)


@pytest.mark.parametrize("extra", [(), ("--dry-run", "--save-plan", "{outputs}/p.json")], ids=["run", "dry run"])
def test_wrong_plan_is_one_line_and_leaves_nothing(cli_invoke, model_path, images, plan_path, outputs, extra):
    wrong = plan_path.read_text().replace('"windows": 2', '"windows": 0').replace('"crops": "squares"', '"crops": 1')
    plan_path.write_text(wrong)
    line = [part.format(outputs=outputs) for part in extra]
    result = cli_invoke(
        model_path,
        *("--plan", plan_path, "--data", images, "-o", outputs / "a.onnx", *line),
        exit_code=PlanFileError.exit_code,
    )
    assert result.stderr.startswith(f"Error: {plan_path}: 2 errors in the plan: ")
    assert result.stderr.count("\n") == 1
    assert 'layer "3", field crops: got 1' in result.stderr
    assert 'layer "6", field windows: got 0' in result.stderr
    assert list(outputs.iterdir()) == []


@pytest.mark.parametrize(
    "stated",
    [
        ("--spatial",),
        ("--channel",),
        ("--windows", "2"),
        ("--channel-stride", "2"),
        ("--crops", "lines"),
        ("--include", "*"),
        ("--exclude", "3"),
        ("--include-first",),
        ("--layer", "3=keep"),
    ],
    ids=lambda stated: stated[0],
)
def test_plan_and_options_that_it_states_exclude_each_other(cli_invoke, stated):
    result = cli_invoke("m.pt", "--plan", "p.json", *stated, exit_code=2)
    assert f"so {stated[0]} cannot be given beside it; drop it, or --plan" in result.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("--layer", "3=kep"), "kind: got 'kep', expected one of keep"),
        (("--layer", "3=lines", "--windows", "4"), "--windows says nothing without --channel"),
        (("--layer", "3=channel", "--crops", "lines"), "--crops says nothing without --spatial"),
        ((), "add --spatial, --channel or both, or --target, --layer or --plan"),
    ],
)
def test_wrong_command_line_is_refused(cli_invoke, line, said):
    assert said in cli_invoke("m.pt", *line, exit_code=2).stderr


@pytest.mark.parametrize(
    ("line", "error", "said"),
    [
        ("--layer 3=spatial --save-plan {model}", UnwritableOutputError, "is the input model"),
        ("--layer 3=spatial --save-plan {outputs}/a.onnx", UnwritableOutputError, "is also what"),
        ("--layer 3=spatial --save-plan {outputs}/no/p.json", UnwritableOutputError, "does not exist"),
        ("--layer 3=spatial --save-plan {outputs}/no/p.json --dry-run", UnwritableOutputError, "does not exist"),
        ("--plan {plan} --save-plan {plan}", UnwritableOutputError, "is the plan that --plan reads"),
        ("--plan {plan} --report {plan}", UnwritableOutputError, "is the plan that --plan reads"),
        ("--plan {outputs}/none.json", PlanFileError, "cannot be read"),
        ("--plan {model}", PlanFileError, "is no JSON"),
        ("--layer 9=spatial --save-plan {outputs}/p.json", SelectionError, "no Conv2d layer matches '9'"),
        ("--layer 3=both:windows=1", IllegalSpecError, "--layer 3=both:windows=1: "),
    ],
)
def test_refused_before_anything_is_written(cli_invoke, model_path, images, plan_path, outputs, line, error, said):
    before = (plan_path.read_bytes(), model_path.read_bytes())
    arguments = line.format(model=model_path, outputs=outputs, plan=plan_path).split()
    line = ("--data", images, "-o", outputs / "a.onnx", *arguments)
    result = cli_invoke(model_path, *line, exit_code=error.exit_code)
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(outputs.iterdir()) == []
    assert (plan_path.read_bytes(), model_path.read_bytes()) == before


def test_options_of_all_layers_go_with_those_that_a_layer_wants(cli_invoke, model_path, images, outputs):
    line = ("--layer", "3=both", "--windows", "4", "--channel-stride", "2", "--crops", "lines")
    plan = outputs / "p.json"
    cli_invoke(model_path, *line, "--data", images, "--dry-run", "--save-plan", plan, exit_code=0)
    entry = json.loads(plan.read_text())["layers"][1]
    assert (entry["crops"], entry["windows"], entry["channel_stride"]) == ("lines", 4, 2)


def test_meta_files_of_other_numbers_differ(cli_invoke, model_path, images, outputs):
    for seed in ("1", "2"):
        line = ("--spatial", "--no-reconstruct", "--no-measure", "-q", "--seed", seed, "--data", images)
        cli_invoke(model_path, *line, "--calibration-images", "10", "-o", outputs / f"{seed}.onnx", exit_code=0)
    assert not same(outputs / "1.onnx", outputs / "2.onnx")
