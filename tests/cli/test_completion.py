"""What a shell is offered: by click's own protocol, and in a real bash."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from vfconvert.cli.main import main

ROOT = Path(__file__).parent.parent.parent


def offered(*words: str) -> list[str]:
    """What may follow, the last word being incomplete; files as `<file>`."""
    *before, incomplete = words
    items = BashComplete(main, {}, "vfconvert", "_VFCONVERT_COMPLETE").get_completions(list(before), incomplete)
    return ["<file>" if item.type == "file" else item.value for item in items]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ins"], ["<file>", "inspect"]),
        (["mod"], ["<file>"]),
        (["--spa"], ["--spatial"]),
        (["--vers"], ["--version"]),
        (["model.pt", "--max-s"], ["--max-size"]),
        (["model.pt", "--crops", ""], ["squares", "lines"]),
        (["model.pt", "--config", "r"], ["<file>"]),
        (["--spatial", "model.pt", "--keep"], ["--keep-on-fail"]),
        (["bench", "--runtime", "o"], ["onnxruntime", "openvino"]),
        (["model.pt", "--no-spa"], ["--no-spatial"]),
        (["model.pt", "--no-rec"], ["--no-reconstruct"]),
    ],
    ids=" ".join,
)
def test_words_are_completed(words, expected):
    assert offered(*words) == expected


def test_opposites_of_flags_are_offered_only_where_asked_for():
    found = offered("model.pt", "--")
    assert {"--spatial", "--reconstruct", "--no-reconstruct", "--target"} <= set(found)
    assert "--no-spatial" not in found


def test_help_leaves_out_opposites_of_flags_and_keeps_those_of_choices(cli_invoke):
    shown = cli_invoke("--help", exit_code=0).stdout
    assert "--no-spatial" not in shown
    assert "--reconstruct / --no-reconstruct" in shown
    assert "--discard-on-fail" in shown


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_completion_in_bash(tmp_path):
    program = tmp_path / "vfconvert"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" "{tmp_path}/main.py" "$@"\n')
    program.chmod(0o755)
    (tmp_path / "main.py").write_text("from vfconvert.cli.main import main\nmain(prog_name='vfconvert')\n")
    script = (
        'eval "$(_VFCONVERT_COMPLETE=bash_source vfconvert)" || exit 9\n'
        "COMP_WORDS=(vfconvert model.pt --max-par) COMP_CWORD=2\n"
        '_vfconvert_completion vfconvert; echo "${COMPREPLY[*]}"\n'
    )
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    ran = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "--max-parity-error\n"), ran.stderr
