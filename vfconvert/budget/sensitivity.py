"""How strongly a network's output reacts to a change of each layer's output: its Fisher information by channel.

For a classifier with labels drawn from its own softmax, `G_o = E[sum over positions (d log p / d y_o)^2]`: a change of
`delta` of the output of a layer moves the distribution over classes by about `1/2 sum_o G_o E[delta_o^2]` nats
(Kullback-Leibler), the products of different channels and positions left out. (A distillation loss has no gradient at
the teacher itself, and so tells nothing there.) For other outputs the same with a random projection of the output in
place of the logarithm, in units of the output's variance: the Gauss-Newton matrix. Several outputs add up, and so do
the calls of a layer that is called several times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.errors import BudgetError, FitError
from vfconvert.exporting.outputs import named_outputs
from vfconvert.fitting.reconstruct import looks_like_logits
from vfconvert.progress import Progress, no_progress

BACKWARD_BATCH = 32  # images of a backward pass
_TELLING = 64  # images that tell logits


@dataclass(frozen=True, kw_only=True, eq=False)
class Sensitivity:
    """`by_layer`: `(N,)` float64 for each layer that the outputs depend on by gradients.

    `measure` is what damage is counted in: "nats", or "variance" where any output is none of logits.
    """

    by_layer: Mapping[str, Tensor]
    measure: str


def sensitivity_of(
    model: nn.Module,
    layers: Sequence[str],
    images: Tensor,
    *,
    seed: int,
    batch: int = BACKWARD_BATCH,
    draws: int = 1,
    progress: Progress = no_progress,
) -> Sensitivity:
    """The sensitivity of every layer's output on `images` `(N, C, H, W)`, from `draws` backward passes each.

    The network, in evaluation mode, is left as it was.
    """
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    sums: dict[str, Tensor] = {}
    kinds = _kinds(model, torch.split(images, batch), device)
    hooks = [model.get_submodule(name).register_forward_hook(partial(_watch, sums, name)) for name in layers]
    parts = torch.split(images, batch)
    try:
        for turn in range(draws):
            for number, part in enumerate(parts):
                with torch.enable_grad():
                    given = part.clone().to(device).requires_grad_(True)
                    outputs = outputs_of(model(given * 1))  # a copy, since the first layer may write into it
                    value = sum(_loss(o, kind, generator) for o, kind in zip(outputs, kinds, strict=True))
                    if isinstance(value, Tensor) and value.requires_grad:
                        value.backward(inputs=[given])  # type: ignore[no-untyped-call]
                progress("sensitivity", turn * len(parts) + number + 1, draws * len(parts))
    finally:
        for hook in hooks:
            hook.remove()
    for name, total in sums.items():
        if not bool(torch.isfinite(total).all()):
            raise FitError(
                f"{name}: the network's gradients are not finite there, so no damage can be told; --exclude it"
            )
    if layers and not any(bool(total.any()) for total in sums.values()):
        raise BudgetError(
            "no output reacts to any layer by a gradient (whole numbers, or a forward without gradients), so no damage "
            "can be told; give the network that computes with gradients, or convert without --target"
        )
    scale = 1 / (draws * len(images))
    return Sensitivity(
        by_layer={name: scale * total.cpu() for name, total in sums.items()},
        measure="nats" if all(kind is None for kind in kinds) else "variance",
    )


def outputs_of(value: Any) -> list[Tensor]:
    """The outputs that are floating point, in order."""
    return [tensor for _, tensor in named_outputs(value) if tensor.is_floating_point()]


@torch.no_grad()
def _kinds(model: nn.Module, batches: Sequence[Tensor], device: torch.device) -> list[float | None]:
    """For each output None where it is logits, else the spread that its changes are counted in."""
    few = max(1, _TELLING // len(batches[0]))
    made = [outputs_of(model(batch.clone().to(device))) for batch in batches[:few]]
    if all(looks_like_logits(_joined(parts)) for parts in zip(*made, strict=True)):
        return [None] * len(made[0])
    made += [outputs_of(model(batch.clone().to(device))) for batch in batches[few:]]
    kinds: list[float | None] = []
    for output in (_joined(parts) for parts in zip(*made, strict=True)):
        moved = output - output.mean(0) if len(output) > 1 else output  # one image has no variance
        squares = moved.square()
        variance = float((squares.flatten(1).sum(1) if squares.dim() > 1 else squares).mean())
        kinds.append(None if looks_like_logits(output) else max(variance, 1e-12) ** 0.5)
    return kinds


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """One output of all batches."""
    return torch.cat([part.reshape(1) if part.dim() == 0 else part for part in parts])


def _loss(output: Tensor, spread: float | None, generator: torch.Generator) -> Tensor:
    """One number whose gradient is that of every image's own, since in evaluation images do not mix."""
    if spread is not None:
        return (output * torch.randn(output.shape, generator=generator).to(output)).sum() / spread
    logarithms = output.log_softmax(1)
    drawn = torch.multinomial(logarithms.detach().exp().cpu(), 1, generator=generator).to(output.device)
    return logarithms.gather(1, drawn).sum()


def _watch(sums: dict[str, Tensor], name: str, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    """Have the square of the output's gradient added up; a copy goes on, since what follows may write into it."""

    def add(gradient: Tensor) -> None:
        squares = gradient.double().square().sum((0, 2, 3))
        sums[name] = sums[name] + squares if name in sums else squares

    if output.requires_grad:
        output.register_hook(add)  # type: ignore[no-untyped-call]
    return output.clone()
