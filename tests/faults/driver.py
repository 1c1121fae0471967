"""Conversions in processes of their own that are killed, starved or set against each other.

A program, `python -m tests.faults.driver`: whatever takes long to import is imported once, and every process is a
fork. Prints one JSON object: for each scenario the exit code, what it said, and what it left.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

import vfconvert.pipeline as pipeline
import vfconvert.run as stages
from tests.cli.conftest import network, write_images
from vfconvert import delivery
from vfconvert.cli.main import main
from vfconvert.fitting import sweep

NOBODY = 65534
OUTPUTS = ("m.onnx", "m.ts", "m.safetensors", "m.json", "r.json")
WITH_ONNX = ("export",)  # elsewhere TorchScript stands for it, which is written in a tenth of the time
STAGES = ("images", "fit", "lower", "export", "verify", "report", "rename")


class Scene:
    """A model and images that everybody may read, and what the processes on them came to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found: dict[str, dict[str, Any]] = {}
        torch.save(network(), root / "model.pt")
        write_images(root / "images", 24, 0)

    def line(self, out: Path, *more: str, first: str = "torchscript") -> list[str]:
        formats = ("--format", first, "--format", "safetensors", "-o", str(out / "m"), "--report", str(out / "r.json"))
        given = ("--spatial", "--data", str(self.root / "images"), "--no-reconstruct", "--no-measure", "-q")
        return [str(self.root / "model.pt"), *given, *formats, *more]

    def start(self, work: Callable[[], object]) -> tuple[int, Path]:
        """A process that does the work, and the file of what it says."""
        said = Path(tempfile.mkstemp(dir=self.root, suffix=".said")[1])
        pid = os.fork()
        if pid:
            return pid, said
        code = 99
        try:
            descriptor = os.open(said, os.O_WRONLY)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            work()
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def run(self, name: str, work: Callable[[], object], out: Path | None = None) -> None:
        """The same, waited for and noted."""
        pid, said = self.start(work)
        self.note(name, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said, out)

    def note(self, name: str, code: int, said: Path, out: Path | None) -> None:
        paths = sorted(out.rglob("*")) if out is not None else []
        whole = {path.name: path.read_bytes() for path in paths if path.parent == out and path.is_file()}
        self.found[name] = {
            "code": code,
            "said": said.read_text(),
            "files": [str(path.relative_to(out or path)) for path in paths],
            "texts": {each: content.decode() for each, content in whole.items() if each.endswith(".json")},
            "sha256": {each: hashlib.sha256(content).hexdigest() for each, content in whole.items()},
        }
        said.unlink()


def killed_at(stage: str) -> None:
    """Have this process end, as by `kill -9`, in the middle of a stage."""

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def half(path: Path, data: Any) -> int:
        with open(path, "wb") as file:
            file.write(bytes(data)[: len(data) // 2])
        die()
        return 0

    def second(source: Any, target: Any) -> None:
        os.rename(source, target)
        die()

    places: dict[str, tuple[object, str, Callable[..., Any]]] = {
        "images": (stages, "images_of", die),
        "fit": (sweep, "fit_versatile", die),
        "lower": (stages, "fastest", die),
        "export": (Path, "write_bytes", half),
        "verify": (delivery, "verify_torchscript", die),
        "report": (pipeline, "write_report", die),
        "rename": (os, "replace", second),
    }
    owner, name, instead = places[stage]
    if stage == "rename":  # the files are whole by then, and only the renaming of them all begins
        take = pipeline.Turn.take

        def taken(turn: Any, folders: Any) -> None:
            take(turn, folders)
            setattr(owner, name, instead)

        pipeline.Turn.take = taken  # type: ignore[method-assign]
        return
    setattr(owner, name, instead)


def kills(scene: Scene) -> None:
    """At one stage after the other, on one folder; then a run that nobody kills."""
    out = scene.root / "killed"
    out.mkdir()
    for name in OUTPUTS:
        (out / name).write_text("old")
    for stage in STAGES:

        def work(stage: str = stage) -> None:
            killed_at(stage)
            main(scene.line(out, first="onnx" if stage in WITH_ONNX else "torchscript"))

        scene.run(f"killed {stage}", work, out)
    scene.run("killed not", lambda: main(scene.line(out, "--format", "onnx")), out)


def two(scene: Scene) -> None:
    """Two processes on the same files, several times."""
    out = scene.root / "two"
    out.mkdir()
    both = [scene.start(lambda seed=seed: main(scene.line(out, "--seed", str(seed)))) for seed in (1, 2)]
    for number, (pid, said) in enumerate(both):
        scene.note(f"two {number}", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said, out)


def poor(scene: Scene) -> None:
    """No permission, and no open files left."""
    out = scene.root / "owned"
    out.mkdir(mode=0o755)

    def forbidden() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        main(scene.line(out))

    if os.geteuid() == 0:
        scene.run("no permission", forbidden, out)

    def no_files() -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        most = max(map(int, os.listdir("/proc/self/fd")))
        held = [os.open(os.devnull, os.O_RDONLY) for _ in range(most)]  # all below the highest are taken
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1, hard))
        main(scene.line(out))

    if Path("/proc/self/fd").is_dir():
        scene.run("no open files", no_files, out)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[bool]:
    """A file system of that size at the folder; False where this user may mount none."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=1777", "none", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def disks(scene: Scene) -> None:
    """A disk that is full, one that is read only, and a full one for temporary files."""
    out = scene.root / "disk"
    with small_disk(out, "12k") as mounted:
        if not mounted:
            return
        scene.run("full disk", lambda: main(scene.line(out)), out)
        (out / "ballast").write_bytes(bytes(4096))
        with contextlib.suppress(OSError), open(out / "ballast", "ab", buffering=0) as ballast:
            while True:
                ballast.write(bytes(1024))

        def fault() -> None:
            def fails(*_: object) -> None:
                raise ValueError("something of ours")

            pipeline.prepare = fails  # type: ignore[assignment]
            tempfile.tempdir = str(out)
            main(scene.line(scene.root))

        scene.run("full temporary disk", fault, out)
        subprocess.run(["mount", "-o", "remount,ro", str(out)], check=True)
        scene.run("read-only disk", lambda: main(scene.line(out)), out)


def memory(scene: Scene) -> None:
    """A fit with all the room it wants, and in the least of some rooms in which it comes to an end.

    How much the libraries take for themselves differs between processors, so no one room is right for all.
    """
    from tests.faults.starving import fit, fit_in

    fit(side=8, width=8)
    scene.run("enough memory", lambda: fit_in(2**33))
    for room in range(64, 257, 16):
        scene.run("little memory", partial(fit_in, room * 2**20))
        if scene.found["little memory"]["code"] == 0:
            return


def run(root: Path) -> dict[str, dict[str, Any]]:
    root.chmod(0o755)
    scene = Scene(root)
    for scenario in (kills, two, poor, disks, memory):
        scenario(scene)
    return scene.found


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:  # of a path that others may read too
        sys.stdout.write(json.dumps(run(Path(made))))
