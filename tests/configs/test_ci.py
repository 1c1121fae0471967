"""The files for continuous integration, run as such a system runs them: exit codes, and what is there afterwards."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
import yaml

from tests.cli.conftest import network, write_images
from vfconvert.cli.convert import convert
from vfconvert.errors import GateError, NotAModelError
from vfconvert.gates import Saving

ROOT = Path(__file__).parent.parent.parent
CI = ROOT / "configs" / "ci"
FAST = "--spatial --no-reconstruct --no-measure --data images --max-parity-error 1e-4"
PASSES, FAILS = f"{FAST} --fail-under-saving params=10%", f"{FAST} --fail-under-saving params=99%"


@pytest.fixture(scope="module")
def workflow():
    return yaml.safe_load((CI / "github-workflow.yml").read_text())


@pytest.fixture
def job(tmp_path):
    """A folder with a model and images, and an environment in which this package is what `vfconvert` calls."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, line in {
        "vfconvert": f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m vfconvert "$@"',
        "pip": 'echo "$@" >> pip.log',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    folder = tmp_path / "job"
    write_images(folder / "images" / "a", 10, 0)
    write_images(folder / "images" / "b", 10, 1)
    torch.save(network(), folder / "model.pt")
    return folder, {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}


def run(line: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def steps(workflow: dict, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The commands of the job one after another, by the shell that GitHub gives them, up to one that fails."""
    for step in workflow["jobs"]["convert"]["steps"]:
        if "run" in step:
            ran = run(["bash", "-e", "-c", step["run"]], folder, environment)
            if ran.returncode:
                break
    return ran


def afterwards(folder: Path) -> set[str]:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith("images/")} - {"model.pt", "pip.log"}


@pytest.mark.parametrize(
    ("options", "code", "files", "said"),
    [
        (PASSES, 0, {"report.json", "gates.xml", "converted/model.onnx"}, "every gate passed"),
        (FAILS, GateError.exit_code, {"report.json", "gates.xml"}, "::error::A gate failed"),
    ],
    ids=["passes", "fails"],
)
def test_workflow_ends_as_the_gates_say(workflow, job, options, code, files, said):
    folder, environment = job
    ran = steps(workflow, folder, {**environment, **workflow["env"], "OPTIONS": options})
    assert ran.returncode == code, ran.stderr
    assert afterwards(folder) == files
    assert said in ran.stdout
    assert (folder / "pip.log").read_text() == "install ./vfconvert\n"
    failures = ElementTree.parse(folder / "gates.xml").getroot().get("failures")
    assert failures == str(int(code != 0))
    assert all(gate["passed"] for gate in json.loads((folder / "report.json").read_text())["gates"]) == (code == 0)


def test_workflow_keeps_reports_always_and_the_network_only_on_success(workflow):
    uploads = {step["name"]: step for step in workflow["jobs"]["convert"]["steps"] if "upload" in step.get("uses", "")}
    assert uploads["Keep the reports"]["if"] == "always()"
    assert uploads["Keep the reports"]["with"]["path"].split() == ["report.json", "gates.xml"]
    assert "if" not in uploads["Keep the converted network"]
    assert uploads["Keep the converted network"]["with"]["path"] == "converted/"


@pytest.mark.parametrize("source", ["workflow", "script"])
def test_options_of_the_files_themselves_are_read(workflow, source):
    options = workflow["env"]["OPTIONS"]
    if source == "script":
        (options,) = re.findall(r'"\$\{OPTIONS:=(.*)\}"', (CI / "convert.sh").read_text())
    with convert.make_context("vfconvert", ["model.pt", *options.split()]) as context:
        assert context.params["spatial"]
        assert context.params["fail_under_saving"] == (Saving(cost="params", share=0.1),)


def test_script_ends_as_the_gates_say(job):
    folder, environment = job
    shutil.copy(CI / "convert.sh", folder.parent)
    (folder / "converted").mkdir()
    (folder / "converted" / "model.onnx").write_bytes(b"of yesterday")
    ran = run(["sh", "../convert.sh"], folder, {**environment, "OPTIONS": FAILS})
    assert ran.returncode == GateError.exit_code, ran.stderr
    assert "A gate failed" in ran.stderr
    assert afterwards(folder) == {"report.json", "gates.xml"}
    ran = run(["sh", "../convert.sh"], folder, {**environment, "OPTIONS": PASSES, "MODEL": "none.pt"})
    assert ran.returncode == NotAModelError.exit_code
    assert f"ended in an error (exit code {NotAModelError.exit_code})" in ran.stderr
    assert afterwards(folder) == {"gates.xml"}
    assert ElementTree.parse(folder / "gates.xml").find(".//error").get("type") == "NotAModelError"


def test_healthy_files_pass_the_gate_on_their_parity():
    files = [ROOT / "docs" / "ci.md", *(path for path in (ROOT / "configs").rglob("*") if path.is_file())]
    found = [limit for path in files for limit in re.findall(r"max-parity-error:? ([0-9.e-]+)", path.read_text())]
    assert len(found) == 4
    # Files of common networks differ by up to 9.6e-5: docs/networks.md.
    assert {float(limit) for limit in found} == {1e-4}
