"""Peak memory and time of loading a large checkpoint, in a fresh process for each format.

`python -m benchmarks.loading --gigabytes 1`; makes its files in a temporary folder, and removes them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnx
import safetensors.torch
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

CHANNELS = 1024
FACTORY = """
from torch import nn

def network(depth, channels):
    return nn.Sequential(*(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(depth)))
"""


def network(depth: int) -> nn.Sequential:
    """The network of `FACTORY`."""
    return nn.Sequential(*(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(depth)))


def make(folder: Path, kind: str, depth: int) -> Path:
    """A file of a format, with random weights."""
    torch.manual_seed(0)
    made, path = network(depth), folder / f"model.{kind}"
    if kind == "safetensors":
        safetensors.torch.save_file(made.state_dict(), path)
    elif kind == "pt2":
        torch.export.save(torch.export.export(made.eval(), (torch.zeros(1, CHANNELS, 4, 4),)), path)
    elif kind.startswith("onnx"):
        _save_onnx(made, path, outside=kind == "onnx-outside")
    else:
        value = made if kind == "module" else made.state_dict()
        torch.save(value, path, _use_new_zipfile_serialization=kind != "legacy")
    return path


def _save_onnx(made: nn.Sequential, path: Path, *, outside: bool) -> None:
    nodes, weights = [], []
    for number, layer in enumerate(made):
        names = [f"{number}.weight", f"{number}.bias"]
        nodes.append(helper.make_node("Conv", [f"x{number}", *names], [f"x{number + 1}"], pads=[1, 1, 1, 1]))
        for name, value in zip(names, (layer.weight, layer.bias), strict=True):
            weights.append(numpy_helper.from_array(value.detach().numpy(), name))
    ends = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, CHANNELS, 4, 4]) for name in ("x0", f"x{len(made)}")
    )
    graph = helper.make_graph(nodes, "graph", *([end] for end in ends), weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, path, save_as_external_data=outside, location="weights.bin")


def load(path: Path, depth: int, wanted: bool) -> None:
    """In a process of its own: what it prints is its peak less that before, and the seconds."""
    from vfconvert.loading import load_model

    architecture = f"{path.parent / 'factory.py'}:network" if wanted else None
    arguments = {"depth": depth, "channels": CHANNELS} if wanted else {}
    _load_a_small_one(path, load_model)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before, begun = _peak(), time.perf_counter()
    loaded = load_model(path, architecture=architecture, architecture_arguments=arguments)
    seconds = time.perf_counter() - begun
    numbers = sum(parameter.numel() for parameter in loaded.model.parameters())
    print(json.dumps({"bytes": _peak() - before, "seconds": seconds, "numbers": numbers}))


def _load_a_small_one(path: Path, load_model: object) -> None:
    """What loading imports is no part of the file's memory."""
    small = path.parent / "small" / path.name
    arguments = {"depth": 1, "channels": CHANNELS} if "weights" in path.suffix else {}
    if small.exists() and callable(load_model):
        load_model(small, architecture_arguments=arguments)


def _peak() -> int:
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0


KINDS = ("safetensors", "weights", "legacy", "module", "pt2", "onnx", "onnx-outside")


def main() -> None:
    """Print a line for each format."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--depth", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.load is not None:
        load(given.load, given.depth, given.load.suffix[1:] in ("safetensors", "weights", "legacy"))
        return
    depth = max(1, round(given.gigabytes * 2**30 / (CHANNELS * CHANNELS * 9 * 4)))
    print(f"{'format':14} {'GiB':>6} {'peak, of it':>12} {'seconds':>8}")
    for kind in given.kinds.split(","):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "factory.py").write_text(FACTORY)
            (Path(folder) / "small").mkdir()
            if kind in ("module", "pt2", "onnx", "onnx-outside"):
                make(Path(folder) / "small", kind, 1)
            path = make(Path(folder), kind, depth)
            size = sum(os.path.getsize(one) for one in Path(folder).glob("*") if one.is_file())
            command = [sys.executable, "-m", "benchmarks.loading", "--load", str(path), "--depth", str(depth)]
            ran = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            print(f"{kind:14} {size / 2**30:6.2f} {ran['bytes'] / size:12.2f} {ran['seconds']:8.2f}", flush=True)


if __name__ == "__main__":
    main()
