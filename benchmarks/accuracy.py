"""Accuracy of CIFAR ResNets converted without labels and without training, after each stage.

    python -m benchmarks.accuracy DATA --network resnet20 --kinds spatial,channel,both,lines --seeds 0,1,2 --on test

DATA is a folder with `cifar10-jpeg.zip` and the weights. Calibration images are drawn from the training images by
seed. `--on held-out` judges on 4,000 training images that no draw contains: choices are made there; `--on test` reads
the test set. `--set name=value` changes a field of FitOptions (for the table of what each addition brings).
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import zipfile
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks import networks
from benchmarks.stages import WISHES, Stage, parameters, stages
from vfconvert.analysis.counting import count_macs
from vfconvert.data.synthetic import synthesise
from vfconvert.fitting.augment import Augmentation
from vfconvert.fitting.options import FitOptions
from vfconvert.ops import matching

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
HELD_OUT = 4000


class Cifar:
    """The JPEG images, read from the archive as they are wanted."""

    def __init__(self, archive: Path) -> None:
        self._zip = zipfile.ZipFile(archive)
        names = sorted(name for name in self._zip.namelist() if name.endswith(".jpg"))
        self._names = {split: [n for n in names if f"/{split}/" in n] for split in ("train", "test")}
        self._classes = sorted({name.split("/")[2] for name in names})
        order = np.random.default_rng(12345).permutation(len(self._names["train"]))
        self._held_out, self._pool = order[:HELD_OUT], order[HELD_OUT:]

    def calibration(self, count: int, seed: int) -> Tensor:
        """`(count, 3, 32, 32)`, never one of those held out."""
        chosen = np.random.default_rng(seed).choice(self._pool, count, replace=False)
        return self._read([self._names["train"][i] for i in chosen])

    def judging(self, on: str) -> tuple[Tensor, Tensor]:
        """Images and labels of the test set or of the held-out training images."""
        names = self._names["test"] if on == "test" else [self._names["train"][i] for i in self._held_out]
        return self._read(names), torch.tensor([self._classes.index(name.split("/")[2]) for name in names])

    def pixels(self, which: str) -> tuple[np.ndarray, Tensor]:
        """`(N, 32, 32, 3)` uint8 and labels of the "pool" that draws are from, or of those "held-out"."""
        names = [self._names["train"][i] for i in (self._pool if which == "pool" else self._held_out)]
        return self._decoded(names), torch.tensor([self._classes.index(name.split("/")[2]) for name in names])

    def _decoded(self, names: list[str]) -> np.ndarray:
        return np.stack([np.asarray(Image.open(io.BytesIO(self._zip.read(n))).convert("RGB")) for n in names])

    def _read(self, names: list[str]) -> Tensor:
        return as_inputs(torch.from_numpy(self._decoded(names)))


def as_inputs(pixels: Tensor) -> Tensor:
    """Images `(N, H, W, 3)` uint8 as the networks are given them, `(N, 3, H, W)`, where they lie."""
    scaled = pixels.float() / 255
    return ((scaled - MEAN.to(pixels.device)) / STD.to(pixels.device)).permute(0, 3, 1, 2).contiguous()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Percent of images whose largest logit is their label's."""
    model.eval()
    device = next(model.parameters()).device
    right = [
        (model(x.to(device)).argmax(1).cpu() == y).sum()
        for x, y in zip(torch.split(images, 500), torch.split(labels, 500), strict=True)
    ]
    return 100 * float(torch.stack(right).sum()) / len(labels)


def main() -> None:
    """Parse, run, print a line per stage and a table of means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--network", default="resnet20", choices=["resnet20", "resnet56"])
    parser.add_argument("--kinds", default="spatial,channel,both")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--on", default="held-out", choices=["held-out", "test"])
    parser.add_argument("--synthetic", action="store_true", help="calibrate on synthetic images")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--fill-slots", action="store_true", help="assign by the Hungarian method, not exactly")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    arguments = parser.parse_args()
    teacher = getattr(networks, arguments.network)()
    teacher.load_state_dict(load_file(arguments.data / f"{arguments.network}.safetensors"))
    teacher.eval()
    cifar = Cifar(arguments.data / "cifar10-jpeg.zip")
    images, labels = cifar.judging(arguments.on)
    macs = count_macs(teacher, images[:1]).total
    teacher.to(arguments.device)
    changes = {key: json.loads(value) for key, _, value in (item.partition("=") for item in arguments.set)}
    print(f"{arguments.network} teacher, {arguments.on}: {accuracy(teacher, images, labels):.2f} %", flush=True)
    share = 0.5 if arguments.synthetic else 1.0  # as the command does
    if arguments.fill_slots:
        matching.pair_costs = lambda problem, sharing: sharing
        matching.match_pairs = lambda problem, sharing: (matching._fill_slots(problem, sharing), 0.0)
    found: dict[tuple[str, str], list[float]] = {}
    for kind in arguments.kinds.split(","):
        for seed in map(int, arguments.seeds.split(",")):

            def keep(stage: Stage, kind: str = kind, seed: int = seed) -> None:
                percent = accuracy(stage.model, images, labels)
                found.setdefault((kind, stage.name), []).append(percent)
                share = parameters(stage.model) / parameters(teacher)
                print(
                    f"{kind} seed {seed} {stage.name}: {percent:.2f} %, {share:.3f} of the parameters, "
                    f"{stage.seconds:.0f} s",
                    flush=True,
                )

            options = FitOptions.within_budget(
                macs=macs, reconstruct=True, augmentation=Augmentation(), seed=seed, share=share
            )
            options = dataclasses.replace(options, **changes)
            if arguments.synthetic:
                calibration = synthesise(teacher, (3, 32, 32), arguments.images, seed).images
            else:
                calibration = cifar.calibration(arguments.images, seed)
            stages(teacher, calibration, WISHES[kind], options, keep)
    for (kind, stage), values in found.items():
        print(f"mean of {len(values)}: {kind} {stage}: {mean(values):.2f} %")


if __name__ == "__main__":
    main()
