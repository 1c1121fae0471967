"""The tutorial, walked as a reader does: its commands in order in an empty folder, and what it says they print."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.extensions.plans import LAYERS, WHOLE
from tests.docs.pages import DOCS, ROOT, Block, blocks_of, read

PAGE = DOCS / "tutorial.md"
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?: (?:KiB|MiB|k|M|ms|us)\b)?")


def masked(line: str) -> str:
    """A line of output without its numbers, which differ between machines, and without its layout."""
    return " ".join(NUMBER.sub("#", line).split())


def missing(shown: str, printed: str) -> list[str]:
    """Lines that a page shows and that were not printed in this order, numbers apart."""
    lines = iter([masked(line) for line in printed.splitlines()])
    return [line for line in shown.splitlines() if masked(line) not in lines]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment in which this package is what `vfconvert` calls, and this Python what `python` does."""
    programs = tmp_path_factory.mktemp("programs")
    for name, line in {
        "vfconvert": f'exec "{sys.executable}" -m vfconvert "$@"',
        "python": f'exec "{sys.executable}" "$@"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "80"}


def walk(blocks: list[Block], folder: Path, environment: dict[str, str]) -> int:
    """Do what the marked blocks say; the number of commands that were run."""
    printed, count = "", 0
    for block in blocks:
        kind, _, name = block.mark.partition(" ")
        if kind == "file":
            (folder / name).write_text(block.text)
        elif kind == "run":
            line = ["bash", "-e", "-c", block.text]
            ran = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            assert ran.returncode == 0, f"line {block.line}: {block.text}\n{ran.stderr}"
            printed, count = ran.stdout, count + 1
        elif kind == "shown":
            assert missing(block.text, printed) == [], f"line {block.line}: not in what was printed:\n{printed}"
    return count


def test_tutorial_works_as_it_stands(environment, tmp_path):
    assert walk(blocks_of(read(PAGE)), tmp_path, environment) >= 7
    files = {path.name for path in tmp_path.iterdir()}
    named = set(re.findall(r"`(\w+\.(?:onnx|safetensors|json|html|py))`", read(PAGE)))
    assert {"small.safetensors", "plan.json", "report.html"} <= named
    assert named <= files
    check_the_drawn_plan(tmp_path, environment)


def check_the_drawn_plan(folder: Path, environment: dict[str, str]) -> None:
    """The drawing on the page of the method says of this network what `inspect` says, apart from rounding errors."""
    images = ["--data", "vfconvert-demo/train", "--mean", "0.305", "--std", "0.376"]
    line = ["vfconvert", "inspect", "vfconvert-demo/model.pt", *images, "--json"]
    ran = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    told = json.loads(ran.stdout)
    assert told["parameters"] == WHOLE
    assert [layer["name"] for layer in told["layers"]] == list(LAYERS)
    for layer in told["layers"]:
        numbers, drawn = LAYERS[layer["name"]]
        for kind, (saved, damage) in drawn.items():
            same = [
                option
                for option in layer["options"]
                if (option["kind"], option["parameters"]) == (kind, numbers - saved)
            ]
            least = min(option["damage"] for option in same)
            assert damage / 3 < least < 3 * damage, (layer["name"], kind)  # another processor trains another network


def test_every_block_of_the_tutorial_has_its_mark():
    unmarked = [block.line for block in blocks_of(read(PAGE)) if not block.mark]
    assert len(unmarked) == 1  # installing, which the first command of the README does


def test_meta_a_command_that_fails_is_seen(environment, tmp_path):
    with pytest.raises(AssertionError, match="No such option"):
        walk(blocks_of("<!-- run -->\n```sh\nvfconvert bench --spacial\n```\n"), tmp_path, environment)


def test_meta_output_that_is_not_printed_is_seen(environment, tmp_path):
    page = "<!-- run -->\n```sh\necho 'a  12.5 %'\necho b\n```\n\n<!-- shown -->\n```text\n{}\n```\n"
    assert walk(blocks_of(page.format("a 3.0 %\nb")), tmp_path, environment) == 1
    for wrong in ("a 3.0", "b\na 3.0 %", "c"):
        with pytest.raises(AssertionError, match="not in what was printed"):
            walk(blocks_of(page.format(wrong)), tmp_path, environment)
