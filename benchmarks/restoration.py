"""PSNR of VDSR converted without training, after each stage, on Set5.

    python -m benchmarks.restoration DATA --kinds spatial --seeds 0,1,2 --on test

DATA is a folder with `vdsr.safetensors`, `bsd100/` and `set5/`. The low resolution is made by Pillow's bicubic filter
(the figures of papers use MATLAB's, and are higher); luminance of ITU-R 601; a border as wide as the scale is cut.
Calibration: 48x48 patches of BSD100 at scales 2, 3 and 4, drawn by seed from the first 80 images; `--on held-out`
judges on the other 20, `--on test` on Set5.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.networks import vdsr
from benchmarks.stages import WISHES, Stage, parameters, stages
from vfconvert.analysis.counting import count_macs
from vfconvert.fitting.augment import Augmentation
from vfconvert.fitting.options import FitOptions

PATCH = 48
SCALES = (2, 3, 4)


def luminance(path: Path) -> Image.Image:
    """Y of ITU-R 601 in its studio range (16 to 235), as the papers measure it."""
    rgb = np.asarray(Image.open(path).convert("RGB")).astype(np.float64) / 255
    y = 16 + rgb @ np.array([65.481, 128.553, 24.966])
    return Image.fromarray(y.astype(np.float32), mode="F")


def pair(image: Image.Image, scale: int) -> tuple[Tensor, Tensor]:
    """The degraded and enlarged image and the original, `(1, H, W)` in 0 to 1, cut to a multiple of the scale."""
    width, height = (side - side % scale for side in image.size)
    sharp = image.crop((0, 0, width, height))
    small = sharp.resize((width // scale, height // scale), Image.Resampling.BICUBIC)
    blurred = small.resize((width, height), Image.Resampling.BICUBIC)
    return tuple(torch.from_numpy(np.array(i)).unsqueeze(0) / 255 for i in (blurred, sharp))  # type: ignore[return-value]


def patches(paths: list[Path], count: int, seed: int) -> Tensor:
    """`(count, 1, 48, 48)` degraded patches."""
    random = np.random.default_rng(seed)
    sources = [pair(luminance(path), scale)[0] for path in paths for scale in SCALES]
    chosen = []
    for index in random.integers(len(sources), size=count):
        source = sources[index]
        top = random.integers(source.shape[1] - PATCH + 1)
        left = random.integers(source.shape[2] - PATCH + 1)
        chosen.append(source[:, top : top + PATCH, left : left + PATCH])
    return torch.stack(chosen)


@torch.no_grad()
def psnr(model: nn.Module, paths: list[Path], scale: int) -> float:
    """Mean PSNR in dB over the images; the peak is 1."""
    found = []
    device = next(model.parameters()).device
    for path in paths:
        blurred, sharp = pair(luminance(path), scale)
        restored = model(blurred.unsqueeze(0).to(device))[0].cpu().clamp(16 / 255, 235 / 255)
        inside = (slice(None), slice(scale, -scale), slice(scale, -scale))
        found.append(-10 * float((restored - sharp)[inside].square().mean().log10()))
    return mean(found)


def main() -> None:
    """Parse, run, print a line per stage and a table of means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--kinds", default="spatial")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--patches", type=int, default=384)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--on", default="held-out", choices=["held-out", "test"])
    arguments = parser.parse_args()
    teacher = vdsr()
    teacher.load_state_dict(load_file(arguments.data / "vdsr.safetensors"))
    teacher.eval()
    known = sorted((arguments.data / "bsd100").glob("*.png"))
    judged = sorted((arguments.data / "set5").glob("*.bmp")) if arguments.on == "test" else known[80:]

    def line(model: nn.Module) -> list[float]:
        return [psnr(model, judged, scale) for scale in SCALES]

    def text(values: list[float]) -> str:
        return " ".join(f"x{scale} {value:.2f}" for scale, value in zip(SCALES, values, strict=True))

    print(f"VDSR teacher, {arguments.on}: {text(line(teacher))} dB", flush=True)
    macs = count_macs(teacher, torch.zeros(1, 1, PATCH, PATCH)).total
    teacher.to(arguments.device)
    found: dict[tuple[str, str], list[list[float]]] = {}
    for kind in arguments.kinds.split(","):
        for seed in map(int, arguments.seeds.split(",")):

            def keep(stage: Stage, kind: str = kind, seed: int = seed) -> None:
                values = line(stage.model)
                found.setdefault((kind, stage.name), []).append(values)
                share = parameters(stage.model) / parameters(teacher)
                print(
                    f"{kind} seed {seed} {stage.name}: {text(values)} dB, {share:.3f} of the parameters, "
                    f"{stage.seconds:.0f} s",
                    flush=True,
                )

            options = FitOptions.within_budget(macs=macs, reconstruct=True, augmentation=Augmentation(), seed=seed)
            stages(teacher, patches(known[:80], arguments.patches, seed), WISHES[kind], options, keep)
    for (kind, stage_name), rows in found.items():
        print(f"mean of {len(rows)}: {kind} {stage_name}: {text([mean(column) for column in zip(*rows, strict=True)])}")


if __name__ == "__main__":
    main()
