"""One conversion measured after each stage: fit alone, reconstructed, passed over the output."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vfconvert.analysis.counting import count_macs
from vfconvert.analysis.graph import Network, trace
from vfconvert.analysis.profile import profile
from vfconvert.fitting.augment import Augmentation
from vfconvert.fitting.options import FitOptions
from vfconvert.fitting.reconstruct import Descent, output_pass
from vfconvert.fitting.sweep import compress
from vfconvert.planning import Plan, Wish, make_plan

WISHES = {
    "spatial": Wish(),
    "channel": Wish(spatial=False, channel=True),
    "both": Wish(channel=True),
    "lines": Wish(crops="lines"),
}


@dataclass(frozen=True)
class Stage:
    """A student after a stage, the seconds since the start of its conversion."""

    name: str
    model: nn.Module
    seconds: float


def stages(teacher: nn.Module, images: Tensor, wish: Wish, options: FitOptions, keep: Callable[[Stage], None]) -> None:
    """Run the fit alone, then everything, and hand the student to `keep` after each stage."""
    device = next(teacher.parameters()).device
    network = trace(teacher, images[:2].to(device))
    plan = make_plan(
        teacher, profile(teacher, images[:1].to(device)), network.following_norm if network is not None else {}, wish
    )
    begun = time.perf_counter()
    alone = dataclasses.replace(options, block_steps=0, output_steps=0)
    keep(Stage("fit", compress(teacher, network, plan, images, alone).model, time.perf_counter() - begun))
    if not options.block_steps:
        return
    begun = time.perf_counter()
    blocks = dataclasses.replace(options, output_steps=0)
    student = compress(teacher, network, plan, images, blocks).model
    taken = time.perf_counter() - begun
    keep(Stage("reconstruct", student, taken))
    if not options.output_steps:
        return
    begun = time.perf_counter()
    descent = Descent(
        steps=options.output_steps,
        rate=options.output_rate,
        batch=options.batch,
        generator=torch.Generator().manual_seed(options.seed),
        tick=lambda: None,
    )
    output_pass(student, teacher, images, options.augmentation, descent)
    keep(Stage("output pass", student, taken + time.perf_counter() - begun))


def planned(teacher: nn.Module, images: Tensor, wish: Wish) -> tuple[Network, Plan]:
    """The graph of a network on the device of `images` `(N, C, H, W)`, and the plan by which all its layers convert."""
    network = trace(teacher, images[:2])
    if network is None:
        raise SystemExit("the network cannot be traced")
    return network, make_plan(teacher, profile(teacher, images[:1]), network.following_norm, wish)


def fitted(teacher: nn.Module, images: Tensor, wish: Wish, seed: int, share: float = 1.0) -> nn.Module:
    """The fit with reconstruction as a conversion makes it, with that share of its steps; on the CPU."""
    network, plan = planned(teacher, images, wish)
    macs = count_macs(teacher, images[:1]).total
    options = FitOptions.within_budget(macs=macs, reconstruct=True, augmentation=Augmentation(), seed=seed, share=share)
    return compress(teacher, network, plan, images, options).model.cpu()


def parameters(model: nn.Module) -> int:
    """Numbers in all parameters."""
    return sum(p.numel() for p in model.parameters())
