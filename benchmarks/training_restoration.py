"""Fine-tuning of a converted VDSR by distillation: PSNR on Set5 over time.

    python -m benchmarks.training_restoration DATA --kinds spatial --minutes 50 --on test
    python -m benchmarks.training_restoration DATA --early     # held out, after 1, 5 and 20 % of the steps too
    torchrun --nproc-per-node 2 -m benchmarks.training_restoration DATA --kinds lines   # in two processes

DATA and judging are those of `benchmarks.restoration`. Training: random 48x48 patches of the first 80 images of
BSD100, each image at scales 2, 3 and 4, luminance in 8 bits, degraded as the product does it. `--on held-out` judges on
ten of the other 20 images: settings are chosen there. The last ten choose the epoch, by patches. The number of epochs
is that which fills the minutes, from the first steps of a run of one epoch.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import io
import json
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.networks import vdsr
from benchmarks.restoration import PATCH, SCALES, luminance, patches, psnr
from benchmarks.stages import WISHES, fitted, parameters
from vfconvert.analysis.forward import evaluating
from vfconvert.data.batches import BatchStream
from vfconvert.data.examples import Label
from vfconvert.data.preprocessing import Preprocessing
from vfconvert.data.restoration import RestorationTransform
from vfconvert.tasks.task import task_of
from vfconvert.training import loop
from vfconvert.training.job import Job
from vfconvert.training.loop import train
from vfconvert.training.ranks import Ranks
from vfconvert.training_options import TrainingOptions

VIEWS = 16  # of each image at each scale in an epoch


class Luminances:
    """Every image at every scale: the label of an example is its scale."""

    root, classes = "bsd100", len(SCALES)

    def __init__(self, paths: list[Path]) -> None:
        self._images = [Image.fromarray(np.asarray(luminance(path)).round().astype(np.uint8)) for path in paths]

    def __len__(self) -> int:
        return len(self._images) * len(SCALES)

    def name(self, index: int) -> str:
        return f"{index // len(SCALES)} x{SCALES[index % len(SCALES)]}"

    def read(self, index: int) -> tuple[Image.Image, int]:
        return self._images[index // len(SCALES)], index % len(SCALES)

    def labels(self) -> tuple[int, ...]:
        return tuple(index % len(SCALES) for index in range(len(self)))


class EachAtItsScale:
    """The product's transform, of the scale that the example names."""

    def __init__(self) -> None:
        grey = Preprocessing(channels=1)
        self._each = [RestorationTransform(scale=scale, patch=PATCH, preprocessing=grey) for scale in SCALES]

    def __call__(self, image: Image.Image | Tensor, label: Label, seed: int, train: bool) -> tuple[Tensor, Tensor]:
        if not isinstance(label, int):
            raise ValueError("the label is the scale")
        # Patches in validation too: whole images of three scales would take as long as the training.
        return self._each[label](image, None, seed, True)

    def describe(self) -> str:
        return "luminance, all scales"


def main() -> None:
    """Parse, convert, train, print a line for every validation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--kinds", default="spatial")
    parser.add_argument("--minutes", type=float, default=50)
    parser.add_argument("--epochs", type=int, default=0, help="so many, whatever the minutes (0: as many as fill them)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--on", default="held-out", choices=["held-out", "test"])
    parser.add_argument("--early", action="store_true")
    parser.add_argument("--reconstruct", type=float, default=1.0, help="share of the usual steps of the fit")
    parser.add_argument("--cache", type=Path, help="folder in which fitted networks are kept")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    arguments = parser.parse_args()
    ranks = Ranks.of_environment()
    with ranks.together(torch.device(arguments.device)):
        run(arguments, ranks)


def run(arguments: argparse.Namespace, ranks: Ranks) -> None:
    """Convert in the first process, train in all of them; the first prints."""
    loop._COUNTED = 1  # told of every step
    teacher = vdsr()
    teacher.load_state_dict(load_file(arguments.data / "vdsr.safetensors"))
    teacher.eval().requires_grad_(False)
    known = sorted((arguments.data / "bsd100").glob("*.png"))
    judged = sorted((arguments.data / "set5").glob("*.bmp")) if arguments.on == "test" else known[80:90]
    changes = {key: json.loads(value) for key, _, value in (item.partition("=") for item in arguments.set)}
    if ranks.first:
        print(f"VDSR teacher, {arguments.on}: {_decibels(teacher, judged)}", flush=True)
    for kind in arguments.kinds.split(","):
        begun = perf_counter()
        student = _of_first(_fitted(teacher, known[:80], kind, arguments, ranks) if ranks.first else None, ranks)
        if ranks.first:
            print(
                f"{kind}: {_decibels(student, judged)} after the fit, {parameters(student) / parameters(teacher):.3f} "
                f"of the parameters, {perf_counter() - begun:.0f} s",
                flush=True,
            )
        job = _job(teacher, student, known, arguments, changes, ranks)
        epochs = _of_first(arguments.epochs or _epochs(job, arguments.minutes), ranks)
        job = dataclasses.replace(job, options=dataclasses.replace(job.options, epochs=epochs))
        trained = train(job, _Printed(job, judged, early=arguments.early) if ranks.first else None).model
        if not ranks.first:
            continue
        print(
            f"{kind}, {job.options.epochs} epochs, seed {arguments.seed}: {_decibels(trained, judged)} {arguments.on}, "
            f"{perf_counter() - begun:.0f} s with the fit",
            flush=True,
        )


def _fitted(teacher: nn.Module, paths: list[Path], kind: str, arguments: argparse.Namespace, ranks: Ranks) -> nn.Module:
    cache = arguments.cache
    kept = cache / f"vdsr-{kind}-{arguments.reconstruct}-{arguments.seed}.pt" if cache is not None else None
    if kept is not None and kept.exists():
        found: nn.Module = torch.load(kept, weights_only=False)  # our own
        return found
    device = torch.device(arguments.device)
    teacher, images = copy.deepcopy(teacher).to(device), patches(paths, 384, arguments.seed).to(device)
    with ranks.with_all_threads():
        made = fitted(teacher, images, WISHES[kind], arguments.seed, arguments.reconstruct)
    if kept is not None:
        torch.save(made, kept)
    return made


def _of_first(value: Any, ranks: Ranks) -> Any:
    """What the first process has, for all."""
    held = io.BytesIO()
    torch.save(value, held)
    return torch.load(io.BytesIO(ranks.from_first(held.getvalue(), torch.device("cpu"))), weights_only=False)


def _job(
    teacher: nn.Module,
    student: nn.Module,
    known: list[Path],
    arguments: argparse.Namespace,
    changes: dict[str, object],
    ranks: Ranks,
) -> Job:
    options = TrainingOptions(**{"epochs": 1, "batch": 16, "views": VIEWS, "precision": "fp32", **changes})  # type: ignore[arg-type]
    device, transform = torch.device(arguments.device), EachAtItsScale()
    training, validation = Luminances(known[:80]), Luminances(known[90:])
    example = torch.stack([transform(*training.read(index), index, True)[0] for index in range(16)])
    return Job(
        teacher=copy.deepcopy(teacher).to(device),
        student=student,
        task=task_of("restoration", teacher(example[:2]), "images", 4),
        training=BatchStream(
            training,
            range(len(training)),
            transform,
            batch=options.batch,
            seed=arguments.seed,
            views=options.views,
            workers=options.workers,
            rank=ranks.rank,
            world=ranks.world,
        ),
        validation=BatchStream(
            validation,
            range(len(validation)),
            transform,
            batch=30,
            seed=0,
            shuffle=False,
            train=False,
            rank=ranks.rank,
            world=ranks.world,
        ),
        example=example.to(device),
        options=options,
        seed=arguments.seed,
        device=device,
        ranks=ranks,
    )


def _epochs(job: Job, minutes: float) -> int:
    """How many epochs fill the minutes: a few steps of the job are timed on a copy."""
    timed = dataclasses.replace(job, student=copy.deepcopy(job.student))
    seconds = list[float]()

    class Clock:
        def step(self, *_: object) -> None:
            seconds.append(perf_counter())
            if len(seconds) == 8:
                raise TimeoutError

        def epoch(self, record: object) -> None: ...

        def note(self, line: str) -> None: ...

    with contextlib.suppress(TimeoutError):
        train(timed, Clock())
    each = (seconds[-1] - seconds[2]) / (len(seconds) - 3)
    return max(1, int(60 * minutes / (each * len(job.training))))


def _decibels(model: nn.Module, paths: list[Path]) -> str:
    return " ".join(f"x{scale} {psnr(model, paths, scale):.2f}" for scale in SCALES) + " dB"


class _Printed:
    """PSNR on the judging images after every epoch, and with `early` after 1, 5 and 20 % of the steps."""

    def __init__(self, job: Job, judged: list[Path], *, early: bool) -> None:
        self._student, self._judged, self._begun = job.student, judged, perf_counter()
        steps = job.options.epochs * len(job.training)
        self._early = {max(1, round(share * steps)) for share in (0.01, 0.05, 0.2)} if early else set()

    def step(self, step: int, steps: int, loss: float, rate: float, images_per_second: float) -> None:
        if step % 20 == 0:
            print(f"    {step}/{steps}: loss {loss:.6f}, rate {rate:.6f}, {images_per_second:.1f} images/s", flush=True)
        if step in self._early:
            self._line(f"{step / steps:.1%} of the run")

    def epoch(self, record: dict[str, float]) -> None:
        self._line("  " + ", ".join(f"{key} {value:.3f}" for key, value in record.items()))

    def note(self, line: str) -> None:
        print(f"  {line}", flush=True)

    def _line(self, what: str) -> None:
        minutes = (perf_counter() - self._begun) / 60
        with evaluating(self._student):
            print(f"  {minutes:.1f} min, {what}: {_decibels(self._student, self._judged)}", flush=True)


if __name__ == "__main__":
    main()
