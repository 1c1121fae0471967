"""Time and memory of converting torchvision's resnet50 (random weights) on the command line.

    python -m benchmarks.resnet50                     # no images
    python -m benchmarks.resnet50 --data FOLDER       # 256 of the folder's images, scaled to 224x224

Prints wall seconds, the peak memory of the whole process and the report's figures.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torchvision.models import resnet50


def main() -> None:
    """Save the network, convert it in a process of its own, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--kind", default="--spatial --channel")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, output, report = (Path(folder) / name for name in ("model.pt", "model.onnx", "report.json"))
        torch.manual_seed(0)
        torch.save(resnet50(weights=None), model)
        command = [sys.executable, "-m", "vfconvert", str(model), *arguments.kind.split(), "-q"]
        command += ["-o", str(output), "--report", str(report)]
        if arguments.data is not None:
            command += ["--data", str(arguments.data), "--size", "224", "--calibration-images", "256"]
        begun = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        found = json.loads(report.read_text())
        numbers = found["after"]["parameters"] + sum(
            b.numel() for n, b in resnet50(weights=None).named_buffers() if "running" in n
        )
        allowed = 1.03 * 4 * numbers + 64 * 1024
        print(f"resnet50 {arguments.kind}, {'no images' if arguments.data is None else '256 images'}:")
        print(f"  {seconds:.0f} s, peak memory {peak / 2**30:.2f} GiB")
        print(f"  {found['after']['parameters']:,} of {found['before']['parameters']:,} parameters")
        print(f"  {output.stat().st_size:,} bytes, allowed {allowed:,.0f}")
        print(f"  parity {found['parity']['relative_error']:.1e}")
        print("  " + ", ".join(f"{stage} {value:.0f} s" for stage, value in found["seconds"].items()))


if __name__ == "__main__":
    main()
