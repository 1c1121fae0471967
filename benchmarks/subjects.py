"""What benchmarks of plans start from: a CIFAR network, its calibration and judging images, its table of options."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks import networks
from benchmarks.accuracy import Cifar, accuracy
from vfconvert.analysis.counting import count_macs
from vfconvert.analysis.graph import Network, trace
from vfconvert.analysis.profile import Profile, profile
from vfconvert.analysis.totals import totals_of
from vfconvert.budget.options import Subject, measure_options
from vfconvert.budget.table import OptionTable
from vfconvert.fitting.augment import Augmentation
from vfconvert.fitting.options import FitOptions
from vfconvert.fitting.sweep import compress
from vfconvert.lowering.costs import choose, executed
from vfconvert.planning import Plan, Wish, make_plan


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """A converted network: percent right, shares of the original's parameters and executed MACs."""

    accuracy: float
    parameters: float
    macs: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """One network with one draw of calibration images; `judging` are images and labels that no draw contains."""

    teacher: nn.Module
    network: Network
    layers: Profile
    images: Tensor
    judging: tuple[Tensor, Tensor]
    table: OptionTable
    seed: int
    effort: float = 1.0  # share of the usual steps of reconstruction

    def options(self, *, reconstruct: bool = True) -> FitOptions:
        """Those of the product, with so many of its steps."""
        return FitOptions.within_budget(
            macs=self.table.macs,
            reconstruct=reconstruct,
            augmentation=Augmentation(),
            seed=self.seed,
            share=self.effort,
        )

    def convert(self, plan: Plan, *, reconstruct: bool = False) -> nn.Module:
        """The student of a plan: fit alone, or all that the command does."""
        options = self.options(reconstruct=reconstruct)
        return compress(self.teacher, self.network, plan, self.images, options).model

    def measure(self, student: nn.Module) -> Measured:
        """Accuracy on the judging images, and sizes as the written file would have them."""
        layers = profile(student, self.images[:1])
        forms = choose(student, layers, self.network.following_norm, None)
        spared = sum(
            layer.output_positions * layer.geometry.weight_numbers for layer in layers.layers if layer.versatile
        ) - sum(executed(student, layers, forms).values())
        numbers = sum(parameter.numel() for parameter in student.parameters())
        return Measured(
            accuracy=accuracy(student, *self.judging),
            parameters=numbers / self.table.parameters,
            macs=1 - spared / self.table.macs,
        )


def bench_of(data: Path, name: str, seed: int, on: str, images: int = 1024, cache: Path | None = None) -> Bench:
    """Load the network and measure its options (kept in the folder `cache`, if given)."""
    teacher = getattr(networks, name)()
    weights = data / f"{name}.safetensors"
    teacher.load_state_dict(load_file(weights))
    teacher.eval().requires_grad_(False)
    cifar = Cifar(data / "cifar10-jpeg.zip")
    drawn = cifar.calibration(images, seed)
    network = trace(teacher, drawn[:2])
    if network is None:
        raise SystemExit("the network cannot be traced")
    layers = profile(teacher, drawn[:1])
    subject = Subject(
        teacher=teacher,
        network=network,
        layers=layers,
        plan=make_plan(teacher, layers, network.following_norm, Wish(channel=True)),
        before=totals_of(teacher, layers, count_macs(teacher, torch.zeros(1, 3, 32, 32))),
        sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
    )
    kept = cache / f"{name}-{seed}-{images}.damage.json" if cache is not None else None
    table = measure_options(subject, drawn, seed=seed, cache=kept)
    return Bench(
        teacher=teacher,
        network=network,
        layers=layers,
        images=drawn,
        judging=cifar.judging(on),
        table=table,
        seed=seed,
    )
