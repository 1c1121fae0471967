"""Every architecture of torchvision and timm that has a Conv2d: converted, lowered, exported, compared in ONNX Runtime.

    python -m benchmarks.coverage LOG.jsonl --library torchvision
    python -m benchmarks.coverage LOG.jsonl --library timm          # the smallest network of each family; --all: all
    python -m benchmarks.coverage LOG.jsonl --library timm --dry-run    # only what would be converted, in minutes
    python -m benchmarks.coverage LOG.jsonl --table                 # what the log holds

Random weights and the smallest input that the network takes. A network counts as converted only if at least half of its
eligible weights were replaced. Each runs in a process of its own, within limits of time and memory; results are
appended to the log, and what stands there is not run again (`--again`: but for what did not succeed).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import nn

Line = dict[str, Any]


def main() -> None:
    """Run what the log does not hold yet, one line each, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument("--library", choices=("torchvision", "timm"))
    parser.add_argument("--all", action="store_true", help="every architecture of timm, not the smallest of a family")
    parser.add_argument("--only", default="*", metavar="GLOB")
    parser.add_argument("--again", action="store_true", help="run again what did not succeed")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--dry-run", action="store_true", help="decide about the layers, fit and write nothing")
    parser.add_argument("--device", default="cpu", help="where fits are computed")
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--gigabytes", type=float, default=12)
    arguments = parser.parse_args()
    known = read(arguments.log)
    if not arguments.table:
        names = torchvision_names() if arguments.library == "torchvision" else timm_names(arguments.log, arguments.all)
        wanted = [name for name in names if fnmatchcase(name, arguments.only)]
        for number, name in enumerate(wanted, 1):
            before = known.get((arguments.library, name))
            if before is not None and not (arguments.again and not _succeeded(before)):
                continue
            settings = ["--device", arguments.device, *["--dry-run"] * arguments.dry_run]
            line = run(arguments.library, name, arguments.minutes * 60, arguments.gigabytes * 2**30, settings)
            known[arguments.library, name] = line
            with arguments.log.open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
            print(f"[{number}/{len(wanted)}] {described(line)}", flush=True)
    for library in sorted({library for library, _ in known}):
        print(table(library, [line for (of, _), line in known.items() if of == library]))


def read(log: Path) -> dict[tuple[str, str], Line]:
    """The last line of each architecture."""
    lines = [json.loads(text) for text in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    return {(line["library"], line["name"]): line for line in lines}


def run(library: str, name: str, seconds: float, memory: float, settings: Sequence[str] = ()) -> Line:
    """One architecture in a process of its own."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (int(memory), int(memory)))

    begun = time.perf_counter()
    base: Line = {"library": library, "name": name, "status": "failed", "kept": [], "flags": "", "share": 0.0}
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "benchmarks.coverage_one", library, name, *settings],
            capture_output=True,
            text=True,
            timeout=seconds,
            preexec_fn=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return base | {"reason": f"took more than {seconds / 60:g} minutes", "seconds": round(seconds)}
    lines = ran.stdout.strip().splitlines()
    if ran.returncode == 0 and lines:
        return json.loads(lines[-1])  # type: ignore[no-any-return]
    said = (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[-1]
    return base | {"reason": said, "trace": ran.stderr[-3000:], "seconds": round(time.perf_counter() - begun, 1)}


def torchvision_names() -> list[str]:
    """All that torchvision lists, small ones first."""
    from torchvision import models

    sizes = {name: models.get_model_weights(name).DEFAULT.meta["num_params"] for name in models.list_models()}
    return sorted(sizes, key=lambda name: sizes[name])


def timm_names(log: Path, every: bool) -> list[str]:
    """All that timm lists, or of each family (a module of timm.models) the one with the fewest parameters."""
    import timm

    if every:
        return timm.list_models()
    beside = log.with_suffix(".families.json")
    if not beside.exists():
        beside.write_text(json.dumps(_smallest_of_families()), encoding="utf-8")
    return list(json.loads(beside.read_text(encoding="utf-8")).values())


def _smallest_of_families() -> dict[str, str]:
    import timm

    found: dict[str, str] = {}
    for family in timm.list_modules():
        sizes = {name: size for name in timm.list_models(module=family) if (size := _size(name)) is not None}
        if sizes:
            found[family] = min(sizes, key=lambda name: sizes[name])
    return found


def _size(name: str) -> int | None:
    """Parameters of a network that has a Conv2d, without memory for them; None where it has none."""
    import timm

    try:
        with torch.device("meta"):
            model = timm.create_model(name)
    except Exception:  # what cannot be built without memory
        model = timm.create_model(name)
    if not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return None
    return sum(parameter.numel() for parameter in model.parameters())


def _succeeded(line: Line) -> bool:
    return line["status"] in ("converted", "planned", "no Conv2d")


def described(line: Line) -> str:
    """One line for people."""
    text = f"{line['name']}: {line['status']} {line['flags']}".rstrip()
    if line["status"] in ("converted", "planned", "too little"):
        text += f", {line['share']:.0%} of eligible, {line['form']}, {line['input']}"
        text += f", parity {line['parity']:.1e}" if line["parity"] is not None else ""
    if line["kept"]:
        text += f"; kept: {', '.join(line['kept'])}"
    return f"{text} {line.get('reason', '')} ({line['seconds']} s)"


def table(library: str, lines: list[Line]) -> str:
    """N of M, and what failed for which reason."""
    having = [line for line in lines if line["status"] != "no Conv2d"]
    right = [line for line in having if line["status"] == "converted"]
    planned = sum(line["status"] == "planned" for line in having)
    first = sum(bool(line["flags"]) for line in right)
    text = f"\n{library}: {len(right)} of {len(having)} converted and verified in ONNX Runtime"
    text += f" ({first} of them with --include-first, since they have no other convolution)" if first else ""
    text += f"; {planned} planned" if planned else ""
    forms = Counter(line["form"] for line in right)
    text += f"; {', '.join(f'{count} {form}' for form, count in forms.items())}"
    for line in having:
        if not _succeeded(line):
            text += f"\n  {described(line)}"
    return text


if __name__ == "__main__":
    main()
