"""Opens every hostile file in one process, and prints what became of each as a line of JSON.

`python -m tests.loading.hostile.run FOLDER [--waste]`
"""

import json
import re
import resource
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from tests.loading.conftest import ARCHITECTURE
from tests.loading.hostile.files import Hostile, fuzzed, good_files, written
from tests.loading.hostile.pickles import archive_files, bomb_files, gadget_files
from tests.loading.hostile.structured import exported_files, onnx_files, safetensors_files
from vfconvert.cli.main import main
from vfconvert.errors import VfconvertError
from vfconvert.loading import load_model, onnx_inside
from vfconvert.loading.onnx_inside import LARGE

FUZZED = 24  # of each format
ADDRESSES = 6 * 2**30  # bytes beyond those of the start: what is more than that fails at once
SMALLEST = 64  # bytes of an ONNX weight that is left in the file, for every second one
EVERY = 8  # file goes through the command line too


def hostile_files(folder: Path, good: Mapping[str, Hostile]) -> Iterator[Hostile]:
    canary, script = folder / "canary", folder / "script.py"
    script.write_text(f"open({str(canary)!r}, 'w')")
    yield from gadget_files(canary, script)
    yield from archive_files()
    yield from bomb_files()
    yield from safetensors_files()
    yield from exported_files(good["exported"].content)
    yield from onnx_files()
    yield from fuzzed(good, FUZZED)


def peak() -> int:
    """Bytes that were in memory at most since `forget_the_peak`."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0


def forget_the_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def opened(file: Hostile, path: Path, architecture: str) -> dict[str, Any]:
    before, begun = peak(), time.perf_counter()
    try:
        load_model(path, architecture=architecture if file.architecture else None)
        code, said = 0, "opened"
    except VfconvertError as error:
        code, said = error.exit_code, str(error)
    except BaseException as error:
        code, said = 1, f"{type(error).__name__}: {error}"
    return {
        "name": file.name,
        "codes": file.codes,
        "code": code,
        "said": said.replace(str(path), "FILE"),
        "bytes": peak() - before,
        "seconds": time.perf_counter() - begun,
    }


def at_the_door(path: Path, architecture: str | None) -> dict[str, Any]:
    """Exit code and stderr of the command line."""
    more = ["--arch", architecture] if architecture else []
    result = CliRunner().invoke(main, [str(path), "--spatial", "--dry-run", "--input-shape", "3,8,8", "-q", *more])
    return {"door": result.exit_code, "stderr": result.stderr}


def _say(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def run(folder: Path, mode: str) -> None:
    warnings.simplefilter("ignore")
    (folder / "small.py").write_text(ARCHITECTURE)
    architecture = f"{folder / 'small.py'}:network"
    wasteful = mode == "--waste"
    good = {} if wasteful else good_files()
    files = [Hostile("waste", b"", (12,))] if wasteful else list(hostile_files(folder, good))
    for kind, file in good.items():  # what is imported on the way is no file's
        path = written(file, folder)
        load_model(path, architecture=architecture if file.architecture else None)
        _say({"good": kind, **at_the_door(path, architecture if file.architecture else None)})
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESSES, resource.RLIM_INFINITY))
    forget_the_peak()
    begun = peak()
    for number, file in enumerate(files):
        path = written(file, folder)
        onnx_inside.LARGE = SMALLEST if number % 2 else LARGE
        result = opened(file, path, architecture)
        if wasteful:
            bytearray(b"\1") * (2 * 256 * 2**20)
        elif number % EVERY == 0:
            result |= at_the_door(path, architecture if file.architecture else None)
        _say(result | {"growth": peak() - begun})


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
