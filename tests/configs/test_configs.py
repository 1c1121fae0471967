"""Every file of configs/ is read, planned and run, on networks and images small enough for a test."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.cli.conftest import invoke, network, write_images
from vfconvert.cli.main import main
from vfconvert.cli.recipe import keys_of
from vfconvert.config.document import read_document

CONFIGS = Path(__file__).parent.parent.parent / "configs"
QUICK = "--no-reconstruct --calibration-images 8"
# What makes a recipe small: the network is tiny, random, and known to no package. Everything else is the recipe's own.
SMALLER = {
    "classification": f"{QUICK} --no-measure --arch {{architecture}}:make --fail-over-drop 100",
    "cifar": f"{QUICK} --no-measure --epochs 1 --batch 8 --fail-under-saving params=20%",
    "super-resolution": f"{QUICK} --no-measure --epochs 1 --batch 8 --views 1 --patch 8 --fail-under-saving params=20%",
    "cpu-speed": f"{QUICK} --target params=90% --max-latency-ratio 1000",
    "gpu-size": f"{QUICK} --target params=90% --fail-under-saving params=1%",
    "mobile-size": f"{QUICK} --no-measure --target params=70% --fail-under-saving size=1%",
    "ci-smoke": "",
}
ARCHITECTURE = """
from tests.cli.conftest import network

def make():
    return network()
"""


def restoring() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 3, 1))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder with a classifier, its weights, a restoring network and images."""
    folder = tmp_path_factory.mktemp("configs")
    torch.save(network(), folder / "model.pt")
    torch.save(network().state_dict(), folder / "weights.pt")
    torch.save(restoring(), folder / "restoring.pt")
    (folder / "net.py").write_text(ARCHITECTURE)
    for index, name in enumerate("abc"):
        write_images(folder / "images" / name, 10, index)
    return folder


def arguments(folder: Path, name: str) -> list[object]:
    model = {"classification": "weights.pt", "super-resolution": "restoring.pt"}.get(name, "model.pt")
    smaller = SMALLER[name].format(architecture=folder / "net.py").split()
    return [folder / model, "--config", CONFIGS / f"{name}.yaml", "--data", folder / "images", *smaller]


def test_every_recipe_is_tested():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(SMALLER)


@pytest.mark.parametrize("name", SMALLER)
def test_recipe_says_how_it_is_called_and_nothing_that_is_unknown(name):
    path = CONFIGS / f"{name}.yaml"
    read = read_document(path)
    assert read.errors == []
    assert {entry.key for entry in read.entries} <= set(keys_of(main.commands["convert"]))
    assert f"vfconvert --config configs/{name}.yaml " in path.read_text()


@pytest.mark.parametrize("name", SMALLER)
def test_recipe_is_planned_and_run(small, name, tmp_path):
    report, plan, output = tmp_path / "r.json", tmp_path / "p.json", tmp_path / "a.onnx"
    line = [*arguments(small, name), "-o", output, "--report", report, "--save-plan", plan, "-q"]
    invoke(*line, exit_code=0)
    said = json.loads(report.read_text())
    assert output.stat().st_size == said["output"]["bytes"]
    assert [row["layer"] for row in json.loads(plan.read_text())["layers"]] == [row["name"] for row in said["layers"]]
    assert any(row["decision"] == "convert" for row in said["layers"])
    gates = {entry.key for entry in read_document(CONFIGS / f"{name}.yaml").entries} & {
        *("fail-under-saving", "fail-over-drop", "max-latency-ratio", "max-parity-error", "max-size"),
    }
    assert {gate["name"].split()[0] for gate in said["gates"]} == gates
    assert all(gate["passed"] for gate in said["gates"])
    assert (said["training"] is not None) == ("epochs" in SMALLER[name])
