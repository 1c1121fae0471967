"""One layer: from moments to a fitted versatile convolution, its norm, or a re-fitted kept layer.

DESIGN: the BatchNorm after a fitted layer regresses the teacher's normalised output on the new one,
`gamma' = a alpha sqrt(var z + eps)`, `beta' = beta + a (E y - mu_running)`, with `a = gamma / sqrt(var_running + eps)`
the teacher's slope and `alpha = cov(y, z) / var z`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from vfconvert.nn import VersatileConv2d
from vfconvert.ops.fit import GroupFit, fit_group
from vfconvert.ops.metric import Dense, mean_diagonal, metric_of, raised
from vfconvert.ops.moments import Moments
from vfconvert.ops.problem import Problem
from vfconvert.planning import Convert

KEPT_RIDGE = 1e-2  # of the mean diagonal: how strongly a kept layer holds to its old weights


def slope(norm: nn.BatchNorm2d) -> Tensor:
    """`gamma / sqrt(running_var + eps)`, `(N,)` float64: how the norm scales each output."""
    variance, gamma = norm.running_var, norm.weight
    if variance is None:
        raise ValueError("slope of a BatchNorm that tracks no statistics")
    return (gamma.detach().double() / (variance.double() + norm.eps).sqrt()).cpu()


def fit_versatile(
    decision: Convert,
    moments: Sequence[Moments],
    importance: Tensor,
    like: nn.Conv2d,
    order: Sequence[int] | None = None,
) -> tuple[VersatileConv2d, float]:
    """Fit every group: the new layer, and the share of its weighted output variance left unexplained.

    Where a norm follows, the layer has no scales: `set_norm` finds them again. `order` is the input channel that each
    channel of the new bank reads, so that its windows lie in that order.
    """
    geometry, spec = decision.new_geometry, decision.spec
    outputs = geometry.group_outputs
    fits: list[GroupFit] = []
    for group, found in enumerate(moments):
        mine = slice(group * outputs, (group + 1) * outputs)
        old = like.weight.detach()[mine].cpu().flatten(1)
        if order is not None:
            found, old = _reordered(found, old, order)
        fits.append(fit_group(Problem.of(found, geometry, spec, importance[mine], old)))
    total, per_group = spec.primaries(geometry), spec.primaries_per_group(geometry)
    bank = torch.cat([fit.bank for fit in fits])
    scale = torch.cat([fit.scale for fit in fits])
    rows = torch.cat([fit.mask * total + group * per_group + fit.primary for group, fit in enumerate(fits)])
    primary = rows % total
    # Every primary gets the size of the old weights, so that one learning rate suits all of them.
    size = like.weight.detach().double().square().mean().sqrt().to(bank).cpu()
    factor = size.clamp_min(1e-12) / bank.square().mean(1).sqrt().clamp_min(1e-30)
    factor = torch.where(bank.abs().amax(1) > 0, factor, torch.ones_like(factor))
    bank, scale = bank * factor[:, None], scale / factor[primary]
    layer = VersatileConv2d(
        geometry, spec, scale=decision.norm is None, device=like.weight.device, dtype=like.weight.dtype
    )
    with torch.no_grad():
        layer.weight.copy_(bank.view_as(layer.weight))
        layer.rows.copy_(rows)
        if order is not None:
            layer.order = torch.tensor(order, device=layer.rows.device)
        if layer.scale is not None:
            layer.scale.copy_(scale)
    layer.requires_grad_(like.weight.requires_grad)
    share = sum(
        float(fit.unexplained) * _energy(found, importance, group, outputs)
        for group, (fit, found) in enumerate(zip(fits, moments, strict=True))
    )
    whole = sum(_energy(found, importance, group, outputs) for group, found in enumerate(moments))
    return layer, share / max(whole, 1e-30)


def _reordered(moments: Moments, old: Tensor, order: Sequence[int]) -> tuple[Moments, Tensor]:
    """Moments and old filters `(N, D)` with the input channels in another order."""
    taps = old.shape[1] // len(order)
    at = (torch.tensor(order)[:, None] * taps + torch.arange(taps)).flatten()
    covariance = metric_of(moments.covariance).on(at)
    moved = replace(
        moments,
        covariance=covariance.matrix if isinstance(covariance, Dense) else covariance,
        cross=moments.cross[at],
        input_mean=moments.input_mean[at],
    )
    return moved, old[:, at]


def _energy(moments: Moments, importance: Tensor, group: int, outputs: int) -> float:
    return float((importance[group * outputs : (group + 1) * outputs] * moments.target_variance).sum())


def _energy_of(filters: Tensor, moments: Moments) -> Tensor:
    """The variance `(N,)` of what filters `(N, D)` put out."""
    metric = metric_of(moments.covariance)
    rows = filters.to(metric.dtype)
    return (metric.times(rows) * rows).sum(1).double()


def set_bias(layer: VersatileConv2d, moments: Sequence[Moments]) -> None:
    """`E t - W E x`, where no norm follows."""
    if layer.bias is None:
        return
    filters = layer.expanded_weight().detach().cpu().flatten(1).double().chunk(layer.geometry.groups)
    means = [m.target_mean - w @ m.input_mean for w, m in zip(filters, moments, strict=True)]
    with torch.no_grad():
        layer.bias.copy_(torch.cat(means))


def set_norm(norm: nn.BatchNorm2d, teacher: nn.BatchNorm2d, layer: VersatileConv2d, moments: Sequence[Moments]) -> None:
    """Make the student's norm regress the teacher's normalised output on the new layer's output."""
    filters = layer.expanded_weight().detach().cpu().flatten(1).double().chunk(layer.geometry.groups)
    mean = torch.cat([w @ m.input_mean for w, m in zip(filters, moments, strict=True)])
    variance = torch.cat([_energy_of(w, m) for w, m in zip(filters, moments, strict=True)])
    covariance = torch.cat([(w * m.cross.T).sum(1) for w, m in zip(filters, moments, strict=True)])
    target_mean = torch.cat([m.target_mean for m in moments])
    variance = variance.clamp_min(1e-12)
    a = slope(teacher)
    running_mean = teacher.running_mean
    if norm.running_mean is None or norm.running_var is None or running_mean is None:
        raise ValueError("a BatchNorm that tracks no statistics cannot follow a fitted layer")
    with torch.no_grad():
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_(a * covariance / variance * (variance + norm.eps).sqrt())
        norm.bias.copy_(teacher.bias.cpu().double() + a * (target_mean - running_mean.cpu().double()))


def refit_kept(layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm2d | None, moments: Sequence[Moments]) -> None:
    """Least squares on the student's inputs with a ridge towards the old weights; the mean goes to bias or norm.

    The layer is changed in place: it belongs to the student.
    """
    old = layer.weight.detach().cpu().flatten(1).double().chunk(len(moments))
    new = []
    for weight, m in zip(old, moments, strict=True):
        ridge = KEPT_RIDGE * mean_diagonal(m.covariance)
        system = metric_of(raised(m.covariance, ridge, m.cross.dtype))
        new.append(system.solve(m.cross + ridge * weight.T.to(m.cross)).T.double())
    mean = torch.cat([m.target_mean - w @ m.input_mean for w, m in zip(new, moments, strict=True)])
    with torch.no_grad():
        layer.weight.copy_(torch.cat(new).view_as(layer.weight))
        if layer.bias is not None:
            layer.bias.copy_(mean)
        elif norm is not None:
            norm.bias.add_((slope(norm) * mean).to(norm.bias))
