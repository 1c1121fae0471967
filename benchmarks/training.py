"""Fine-tuning of converted CIFAR ResNets by distillation: accuracy after so many epochs, from several starts.

    python -m benchmarks.training DATA --kinds spatial --starts fit --epochs 1
    python -m benchmarks.training DATA --kinds spatial,both --starts fit,random,matched --epochs 1,4
    python -m benchmarks.training DATA --kinds spatial --starts fit --epochs 10 --early   # accuracy at 1, 5 and 20 %
    python -m benchmarks.training DATA --kinds spatial --starts planned-params,planned-macs            # a plan as large
    python -m benchmarks.training DATA --kinds spatial --starts pruned-params,pruned-macs --epochs 1   # other method

DATA is the folder of `benchmarks.accuracy`. Every run is of its own length, since the rate falls to zero at its end.
`fit` is the fit with reconstruction, `random` is random primaries, `matched` spatial primaries are the old filters of
the outputs that keep the whole kernel; `pruned-params` and `pruned-macs` are networks without versatile layers, pruned
inside their blocks (see `benchmarks.alternatives`) to as many parameters or executed MACs as the kind's fit has, then
reconstructed alike; `planned-params` and `planned-macs` are versatile networks planned for as many. 4,000 training
images are held out: weights are chosen there (`--set` to try settings); the test set is looked at once, at the end,
with `--on test`.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
from pathlib import Path
from time import perf_counter
from typing import cast

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from benchmarks import networks
from benchmarks.accuracy import MEAN, STD, Cifar, accuracy, as_inputs
from benchmarks.device_batches import DeviceBatches
from benchmarks.methods import METHODS, student_of
from benchmarks.stages import WISHES, fitted, planned
from benchmarks.subjects import bench_of
from vfconvert.analysis.forward import evaluating
from vfconvert.budget.knapsack import choose, point_of
from vfconvert.data.batches import BatchStream
from vfconvert.data.preprocessing import Preprocessing
from vfconvert.data.transforms import TrainTransform
from vfconvert.nn import VersatileConv2d
from vfconvert.rewriting import rewrite
from vfconvert.tasks.task import task_of
from vfconvert.training import loop
from vfconvert.training.job import Job
from vfconvert.training.loop import train
from vfconvert.training_options import TrainingOptions


class Pixels:
    """CIFAR's decoded images as the examples of a stream."""

    root, classes = "cifar10", 10

    def __init__(self, pixels: np.ndarray, labels: torch.Tensor) -> None:
        self._pixels, self._labels = pixels, labels

    def __len__(self) -> int:
        return len(self._pixels)

    def name(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self._pixels[index]), int(self._labels[index])

    def labels(self) -> tuple[int, ...]:
        return tuple(self._labels.tolist())


def main() -> None:
    """Parse, convert, train, print a line for every validation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--network", default="resnet20", choices=["resnet20", "resnet56"])
    parser.add_argument("--kinds", default="spatial")
    parser.add_argument("--starts", default="fit")
    parser.add_argument("--epochs", default="1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--on", default="held-out", choices=["held-out", "test"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--on-device", action="store_true", help="keep and augment the images on the device")
    parser.add_argument("--early", action="store_true", help="judge after 1, 5 and 20 %% of the steps too")
    parser.add_argument("--most", type=int, default=0, help="train on so many images only (0: all)")
    parser.add_argument("--cache", type=Path, help="folder in which fitted networks are kept")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    arguments = parser.parse_args()
    teacher = getattr(networks, arguments.network)()
    teacher.load_state_dict(load_file(arguments.data / f"{arguments.network}.safetensors"))
    teacher.eval().requires_grad_(False)
    cifar = Cifar(arguments.data / "cifar10-jpeg.zip")
    device = torch.device(arguments.device)
    judging = cifar.judging(arguments.on)
    print(f"teacher, {arguments.on}: {percent_right(teacher, judging, device):.2f} %", flush=True)
    pool, held_out = cifar.pixels("pool"), cifar.pixels("held-out")
    changes = {key: json.loads(value) for key, _, value in (item.partition("=") for item in arguments.set)}
    for kind in arguments.kinds.split(","):
        for start in arguments.starts.split(","):
            begun = start_of(teacher, cifar, kind, start, arguments)
            print(f"{kind}, {start}: {percent_right(begun, judging, device):.2f} % before training", flush=True)
            for epochs in map(int, arguments.epochs.split(",")):
                student, seconds = trained(teacher, begun, pool, held_out, epochs, arguments, changes)
                right = percent_right(student, judging, device)
                print(
                    f"{kind}, {start}, {epochs} epochs, seed {arguments.seed}: {right:.2f} % {arguments.on}, "
                    f"{seconds:.0f} s",
                    flush=True,
                )


def percent_right(model: nn.Module, judging: tuple[torch.Tensor, torch.Tensor], device: torch.device) -> float:
    """Accuracy on images and labels, computed on the device; the model stays where it lies."""
    return accuracy(copy.deepcopy(model).to(device), *judging)


def trained(
    teacher: nn.Module,
    start: nn.Module,
    pool: tuple[np.ndarray, torch.Tensor],
    held_out: tuple[np.ndarray, torch.Tensor],
    epochs: int,
    arguments: argparse.Namespace,
    changes: dict[str, object],
) -> tuple[nn.Module, float]:
    """The student after so many epochs, and the seconds that they took."""
    options = TrainingOptions(**{"epochs": epochs, "padding": 4, "precision": "fp32", **changes})  # type: ignore[arg-type]
    device = torch.device(arguments.device)
    training, validation = _streams(pool, held_out, options, arguments)
    job = Job(
        teacher=copy.deepcopy(teacher).to(device),
        student=copy.deepcopy(start),
        task=task_of(None, teacher(torch.zeros(2, 3, 32, 32)), "classes"),
        training=training,
        validation=validation,
        example=as_inputs(torch.from_numpy(pool[0][:16])).to(device),
        options=dataclasses.replace(options, epochs=epochs),
        seed=arguments.seed,
        device=device,
        features=tuple(_versatile_layers(start)) if options.feature_weight else (),
    )
    steps = job.options.epochs * len(job.training)
    early = {max(1, round(share * steps)) for share in (0.01, 0.05, 0.2)} if arguments.early else set()
    loop._COUNTED = 1  # told of every step
    begun = perf_counter()
    found = train(job, Printed(job.student, early, Cifar(arguments.data / "cifar10-jpeg.zip").judging("held-out")))
    return found.model.cpu(), perf_counter() - begun


def _versatile_layers(model: nn.Module) -> list[str]:
    return [name for name, layer in model.named_modules() if isinstance(layer, VersatileConv2d)]


def _streams(
    pool: tuple[np.ndarray, torch.Tensor],
    held_out: tuple[np.ndarray, torch.Tensor],
    options: TrainingOptions,
    arguments: argparse.Namespace,
) -> tuple[BatchStream, BatchStream]:
    """Batches to train and to validate on: the product's own, or such as are made on the device."""
    count, batch, seed = min(arguments.most or len(pool[0]), len(pool[0])), options.batch, arguments.seed
    if arguments.on_device:
        device = torch.device(arguments.device)
        made = (
            DeviceBatches(pool[0][:count], pool[1][:count], device, batch=batch, seed=seed, padding=options.padding),
            DeviceBatches(*held_out, device, batch=500, seed=0, train=False),
        )
        return cast("tuple[BatchStream, BatchStream]", made)
    training, validation = Pixels(*pool), Pixels(*held_out)
    transform = TrainTransform(
        preprocessing=Preprocessing(mean=tuple(MEAN.tolist()), std=tuple(STD.tolist())), padding=options.padding
    )
    return (
        BatchStream(training, range(count), transform, batch=batch, seed=seed, workers=options.workers),
        BatchStream(validation, range(len(validation)), transform, batch=500, seed=0, shuffle=False, train=False),
    )


class Printed:
    """A line for each validation, one now and then between, and the accuracy after some steps."""

    def __init__(self, student: nn.Module, early: set[int], judging: tuple[torch.Tensor, torch.Tensor]) -> None:
        self._student, self._early, self._judging = student, early, judging

    def step(self, step: int, steps: int, loss: float, rate: float, images_per_second: float) -> None:
        if step % 100 == 0:
            print(f"    {step}/{steps}: loss {loss:.4f}, rate {rate:.4f}, {images_per_second:.0f} images/s", flush=True)

        if step in self._early:
            with evaluating(self._student):
                print(f"    {step / steps:.1%} of the run: {accuracy(self._student, *self._judging):.2f} %", flush=True)

    def epoch(self, record: dict[str, float]) -> None:
        print("  " + ", ".join(f"{k} {v:.2f}" for k, v in record.items()), flush=True)

    def note(self, line: str) -> None:
        print(f"  {line}", flush=True)


def start_of(teacher: nn.Module, cifar: Cifar, kind: str, start: str, arguments: argparse.Namespace) -> nn.Module:
    """The network that training starts from."""
    cache, seed = arguments.cache, arguments.seed
    kept = cache / f"{len(list(teacher.modules()))}-{kind}-{start}-{seed}.pt" if cache is not None else None
    if kept is not None and kept.exists():
        found: nn.Module = torch.load(kept, weights_only=False)  # our own
        return found
    method, _, cost = start.partition("-")
    if cost:
        made = _as_large(start_of(teacher, cifar, kind, "fit", arguments), method, cost, arguments)
    else:
        made = _start(teacher, cifar, kind, start, seed, torch.device(arguments.device))
    if kept is not None:
        torch.save(made, kept)
    return made


def _start(teacher: nn.Module, cifar: Cifar, kind: str, start: str, seed: int, device: torch.device) -> nn.Module:
    teacher, images = copy.deepcopy(teacher).to(device), cifar.calibration(1024, seed).to(device)
    if start == "fit":
        return fitted(teacher, images, WISHES[kind], seed)
    _, plan = planned(teacher, images, WISHES[kind])
    torch.manual_seed(seed)
    student = rewrite(teacher, plan)
    if start == "matched":
        with torch.no_grad():
            for name, layer in student.named_modules():
                if isinstance(layer, VersatileConv2d):
                    layer.weight.copy_(teacher.get_submodule(name).weight[: len(layer.weight)])
    return student.cpu().eval()


def _as_large(versatile: nn.Module, method: str, cost: str, arguments: argparse.Namespace) -> nn.Module:
    """A network that costs as much as the versatile one does: planned, or pruned inside its blocks."""
    bench = bench_of(arguments.data, arguments.network, arguments.seed, "held-out", cache=arguments.cache)
    pruning = METHODS["prune"](bench) if method == "pruned" else None
    table = pruning.table if pruning is not None else bench.table
    found = bench.measure(versatile)
    limits = {"params": found.parameters * bench.table.parameters, "macs": found.macs * bench.table.macs}
    chosen = choose(table, {cost: limits[cost]}).chosen
    point = point_of(table, chosen)
    print(f"{method}: {point.parameters_share:.3f} of the parameters, {point.macs_share:.3f} of the MACs", flush=True)
    if pruning is not None:
        return student_of(bench, pruning, chosen)
    return bench.convert(table.plan(chosen), reconstruct=True)


if __name__ == "__main__":
    main()
