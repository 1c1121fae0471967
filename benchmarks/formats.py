"""Bytes of each format, and bytes, latency and agreement of each precision, of torchvision's resnet18.

    python -m benchmarks.formats                 # --spatial --channel; --kind spatial, channel

Weights are random (see `benchmarks.converted`), so agreement is by relative error; eight bits are calibrated on noise.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
import torchvision

from benchmarks.converted import WISHES, converted
from vfconvert.analysis.profile import profile
from vfconvert.exporting.exported_program import export_program
from vfconvert.exporting.onnx import export_onnx
from vfconvert.exporting.recipe import write_safetensors
from vfconvert.exporting.torchscript import export_torchscript
from vfconvert.lowering.choice import fastest
from vfconvert.lowering.costs import CostTable
from vfconvert.quantizing import judge, quantize_int8, to_fp16


def main() -> None:
    """Write every file to a temporary folder and print what it takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", default="both", choices=list(WISHES))
    arguments = parser.parse_args()
    torch.manual_seed(0)
    teacher, example = torchvision.models.resnet18(weights=None).eval(), torch.randn(1, 3, 224, 224)
    student, network = converted(teacher, example, WISHES[arguments.kind])
    lowered = fastest(student, network, profile(student, example), CostTable())
    model, layers = lowered.model, lowered.whole_layers(student)
    statistics = sum(buffer.numel() for name, buffer in student.named_buffers() if "running" in name)
    numbers = sum(parameter.numel() for parameter in student.parameters()) + statistics
    print(
        f"resnet18 {arguments.kind}: {4 * numbers:,} bytes of parameters and norms, "
        f"{1.03 * 4 * numbers + 65536:,.0f} allowed",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_onnx(model, example, folder / "a.onnx", metadata={})
        export_torchscript(model, example, folder / "a.ts", metadata={})
        export_program(model, example, folder / "a.pt2", metadata={})
        write_safetensors(
            student,
            folder / "a.safetensors",
            architecture="torchvision:resnet18",
            architecture_arguments={},
            input_shape=(3, 224, 224),
            metadata={},
        )
        for suffix in ("onnx", "ts", "pt2", "safetensors"):
            size = (folder / f"a.{suffix}").stat().st_size
            print(f"  {suffix}: {size:,} bytes, {size / (4 * numbers):.4f}", flush=True)
        images = torch.randn(16, 3, 224, 224)
        export_onnx(teacher, example, folder / "original.onnx", metadata={})
        files = {"original": folder / "original.onnx", "converted": folder / "a.onnx"}
        for name, path in list(files.items()):
            to_fp16(path, folder / f"{name}.fp16.onnx", images)
            quantize_int8(path, folder / f"{name}.int8.onnx", images, layers if name == "converted" else ())
            files |= {f"{name} {kind}": folder / f"{name}.{kind}.onnx" for kind in ("fp16", "int8")}
        for reference in ("original", "converted"):
            mine = {name: path for name, path in files.items() if name.startswith(reference)}
            others = {name: path for name, path in files.items() if name not in mine}
            for one in judge({**mine, **others}, images, threads=1, rounds=15)[: len(mine)]:
                error = one.agreement.relative_error
                print(
                    f"  {one.name}: {one.bytes:,} bytes, {one.milliseconds:.1f} ms, relative error {error:.4f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
