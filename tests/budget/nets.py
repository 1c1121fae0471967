"""Small networks whose damage can be told by running them, seeded, in evaluation mode and double precision."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def classifier(*, inplace: bool = False, norms: bool = True, classes: int = 4, seed: int = 1) -> nn.Sequential:
    """Two convolutions and a head that is sure enough of its classes to be one of logits; "0" and "3" are watched."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8) if norms else nn.Identity(),
        nn.ReLU(inplace=inplace),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8) if norms else nn.Identity(),
        nn.ReLU(inplace=inplace),
        nn.Flatten(),
        nn.Linear(8 * 9, classes),
    )
    with torch.no_grad():
        model[7].weight *= 8
    return model.double().eval().requires_grad_(False)


def dense(*, inplace: bool = False, seed: int = 1) -> nn.Sequential:
    """A network whose output is a map and no row of logits."""
    return nn.Sequential(*classifier(inplace=inplace, seed=seed)[:6], nn.Conv2d(8, 2, 1).double()).requires_grad_(False)


def pictures(count: int = 24, seed: int = 2) -> Tensor:
    return torch.randn(count, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def change_of_output(
    model: nn.Module,
    layer: str,
    deviations: Tensor,
    images: Tensor,
    distance: Callable[[Tensor, Tensor], float],
    draws: int = 60,
) -> float:
    """The mean distance of the network's output where noise of these deviations `(N,)` is added to a layer's output."""
    generator = torch.Generator().manual_seed(7)

    def disturb(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        noise = torch.randn(output.shape, dtype=output.dtype, generator=generator)
        return output + deviations[:, None, None] * noise

    with torch.no_grad():
        clean = model(images)
        hook = model.get_submodule(layer).register_forward_hook(disturb)
        try:
            return sum(distance(clean, model(images)) for _ in range(draws)) / draws
        finally:
            hook.remove()


def divergence(clean: Tensor, disturbed: Tensor) -> float:
    """The mean Kullback-Leibler divergence of rows of logits, in nats."""
    old, new = clean.log_softmax(1), disturbed.log_softmax(1)
    return float((old.exp() * (old - new)).sum(1).mean())


def share_of_variance(clean: Tensor, disturbed: Tensor) -> float:
    """The squared difference as a share of the variance over images; half of it, as damage counts."""
    variance = (clean - clean.mean(0)).square().flatten(1).sum(1).mean()
    return 0.5 * float((disturbed - clean).square().flatten(1).sum(1).mean() / variance)
