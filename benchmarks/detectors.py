"""Torchvision's detectors with random weights: small images inside, and scores that are worth sorting.

Freshly initialised heads score all places alike, so that what passes a threshold and what is among the best is decided
by rounding. Here their scores spread as those of a trained network do: few high, most low.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torchvision import models

_HEAD = re.compile(r".*(cls_logits|cls_score|bbox_ctrness|classification_head\.module_list\.\d+)")
_SIGMOID = re.compile(r"cls_logits|bbox_ctrness")  # of the others the softmax is taken
_SPREAD, _LOW = 2.0, -2.0  # standard deviation of the logits, and the mean of those that a sigmoid follows
_SIDE = 160  # pixels that images are resized to, in place of 800


def arguments_of(library: str, name: str) -> dict[str, object]:
    """What the factory gets: for detectors whose image size can be chosen a small one."""
    if library != "torchvision" or name not in models.list_models(module=models.detection) or name.startswith("ssd"):
        return {}
    return {"min_size": _SIDE, "max_size": 2 * _SIDE}


@torch.no_grad()
def spread_scores(model: nn.Module, images: Tensor) -> None:
    """Scale the last layers of heads that score, in place, by what they make of `images` `(N, C, H, W)`."""
    heads: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and (found := _HEAD.match(name)):
            heads[found[0]] = module  # of several layers of one head the last stays
    outputs: dict[nn.Module, list[Tensor]] = {module: [] for module in heads.values()}
    hooks = [
        module.register_forward_hook(lambda layer, _, output: outputs[layer].append(output.flatten()))
        for module in outputs
    ]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    for name, module in heads.items():
        seen = torch.cat(outputs[module]) if outputs[module] else torch.ones(1)
        spread = float(seen.std()) if len(seen) > 1 else 0.0
        if spread > 0:
            module.weight.mul_(_SPREAD / spread)
        if module.bias is not None:
            module.bias.fill_(_LOW if _SIGMOID.search(name) else 0.0)
