"""The optimizer, what it decays, and the rate of each step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vfconvert.training_options import TrainingOptions

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def optimizer_of(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """SGD with Nesterov's momentum or AdamW over all floating-point parameters, asked for gradients by this."""
    decayed, free = parameter_groups(model)
    for parameter in (*decayed, *free):
        parameter.requires_grad_(True)
    groups = [
        {"params": decayed, "weight_decay": options.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if options.optimizer == "adamw":
        return torch.optim.AdamW(groups, options.highest_rate)
    nesterov = options.momentum > 0
    return torch.optim.SGD(groups, options.highest_rate, momentum=options.momentum, nesterov=nesterov)


def parameter_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """What weight decay applies to, and what not: norms, scales, biases and whatever else has one axis."""
    free: dict[nn.Parameter, None] = {}
    decayed: dict[nn.Parameter, None] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.is_floating_point():
                continue
            spared = isinstance(module, _NORMS) or parameter.dim() < 2 or name in ("bias", "scale")
            (free if spared else decayed)[parameter] = None
    return [parameter for parameter in decayed if parameter not in free], list(free)


def rate_factor(step: int, steps: int, warm_up: float) -> float:
    """The rate of a step from 0, over the highest: rising along a line, then falling to zero along a cosine."""
    rising = int(warm_up * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1)))


class Average:
    """Exponentially averaged weights and statistics; young averages follow faster."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after a step."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, tensor in model.state_dict().items():
            held: Tensor = self.values[name]
            if held.is_floating_point():
                held.lerp_(tensor.detach().to(held), 1 - decay)
            else:
                held.copy_(tensor)
