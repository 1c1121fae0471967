"""Peak memory of a model file, each measured in a fresh process.

On Linux a process begins with the peak of the one that started it. So a small process stands between this one, which
may be large, and the one that is measured, which runs `run_job`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vfconvert.benching.runners import import_runtime, open_model

RUNS = 2
_MEASURE = f"import sys; from {__name__} import run_job; print(chr(10), run_job(sys.argv[1]))"
_LAUNCH = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"


class UnknownPeakError(Exception):
    """The process ended without an answer, or this system does not tell."""


def peak_bytes(
    runtime: str, path: Path | None = None, *, threads: int = 1, shapes: Sequence[Sequence[int]] = ()
) -> int:
    """Bytes at the peak of a process that imports `runtime` and, given `path`, opens the file and runs it twice.

    Raises `UnknownPeakError`.
    """
    job = {
        "runtime": runtime,
        "path": path and os.fspath(path),
        "threads": threads,
        "shapes": [list(shape) for shape in shapes],
    }
    command = [sys.executable, "-c", _MEASURE, json.dumps(job)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}
    ran = subprocess.run(
        [sys.executable, "-S", "-c", _LAUNCH, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    answer = ran.stdout.split()
    if ran.returncode or not answer:
        raise UnknownPeakError(f"its process ended with code {ran.returncode}")
    return int(answer[-1])


def run_job(text: str) -> int:
    """What the measured process does; the bytes of its own peak."""
    import resource

    import numpy as np

    job = json.loads(text)
    import_runtime(job["runtime"])
    if job["path"] is not None:
        arrays = [np.zeros(shape, np.float32) for shape in job["shapes"]]
        run = open_model(Path(job["path"]), job["runtime"], job["threads"]).prepare(arrays)
        for _ in range(RUNS):
            run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
