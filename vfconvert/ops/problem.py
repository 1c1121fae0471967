"""The least-squares problem of one group of one layer, and the best filters when nothing is shared.

For output `o` with weight `w_o` (importance), covariance `H`, cross moments `X` and target variance `v`:

    loss_o(f) = w_o (v_o - 2 <f, X_o> + <f, H f>)

`W*_{o,t} = (M_t H M_t)^-1 M_t X_o` is the best filter of output `o` under mask `t`; whatever shares a primary can only
do worse, by `w_o |f - W*|^2` in the metric `M_t H M_t`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from vfconvert.ops.metric import Factored, Metric, mean_diagonal, metric_of, raised
from vfconvert.ops.moments import Moments
from vfconvert.specs import ConvGeometry, VersatileSpec

RIDGE = 1e-4  # of the mean diagonal of H
SCARCE = 10  # samples for each unfolded input, below which the old weights are trusted besides
_TRUST = 0.02  # how far: white inputs of this share of H's mean diagonal, for as many samples as inputs
_SILENT = 1e-9  # of the mean variance of an input: below that it is a channel that nothing has lit
# Multiply-adds of one product of all filters with H from which float32 does (the moments are no more exact than that).
_LARGE = 1e8
_LARGE_SIDE = 1500  # inputs of a filter, whatever its outputs are


@dataclass(frozen=True, eq=False)
class Problem:
    """Moments of one group with what the spec allows.

    `covariance` `(D, D)`, or the samples in its place, has its ridge; `cross` `(D, N)`, `variance` `(N,)`,
    `weights` `(N,)`; `masks` `(T, D)` bool, mask `t = crop * choices + window`; `slots`: for each of the `s n`
    outputs of a primary the masks it may have.
    """

    covariance: Tensor | Factored
    cross: Tensor
    variance: Tensor
    weights: Tensor
    masks: Tensor
    slots: tuple[tuple[int, ...], ...]
    primaries: int

    @classmethod
    def of(
        cls,
        moments: Moments,
        geometry: ConvGeometry,
        spec: VersatileSpec,
        importance: Tensor,
        old_weight: Tensor | None = None,
    ) -> Problem:
        """Build the problem; `importance` `(N,)` counts the squared error of every output.

        Where samples are scarce, white inputs that the old weight `(N, D)` answers are mixed in: the fit then holds
        to that weight in all directions that the samples do not show. Of inputs that never vary it holds to it anyway.
        """
        size, outputs = moments.cross.shape
        work = size * size * outputs
        large = work >= _LARGE or size >= _LARGE_SIDE  # a factorisation takes D^3, whatever N is
        dtype = torch.float32 if large else torch.float64
        typical = mean_diagonal(moments.covariance)
        white = 0.0
        cross, variance = moments.cross, moments.target_variance
        scarcity = max(0.0, size / moments.worth - 1 / SCARCE)
        if old_weight is not None and scarcity > 0:
            white = _TRUST * scarcity * typical
            cross = cross + white * old_weight.T.to(cross)
            variance = variance + white * old_weight.to(variance).square().sum(1)
        elif old_weight is not None and isinstance(moments.covariance, Tensor):
            silent = moments.covariance.diagonal() <= _SILENT * typical
            known = RIDGE * typical * old_weight.to(cross) * silent  # what the ridge answers there
            cross, variance = cross + known.T, variance + (known * old_weight.to(cross)).sum(1).to(variance)
        # A constant or dead output still needs some weight, or its primary would be undetermined.
        energy = importance.to(variance) * variance
        floor = 1e-6 * energy.mean().clamp_min(1e-12)
        weights = energy.clamp_min(float(floor)) / variance.clamp_min(1e-12 + 1e-9 * float(variance.mean()))
        return cls(
            covariance=raised(moments.covariance, RIDGE * typical + white, dtype),
            cross=cross.to(dtype),
            variance=variance.to(dtype),
            weights=(weights / weights.mean()).to(dtype),
            masks=masks(geometry, spec),
            slots=_slots(spec),
            primaries=spec.primaries_per_group(geometry),
        )

    def with_primaries(self, primaries: int) -> Problem:
        """The same problem with another number of primary filters; what is known of it stays known."""
        other = replace(self, primaries=primaries)
        vars(other).update({name: vars(self)[name] for name in ("unshared", "unshared_loss") if name in vars(self)})
        return other

    @cached_property
    def metric(self) -> Metric:
        """The covariance to compute with."""
        return metric_of(self.covariance)

    @property
    def outputs(self) -> int:
        """Outputs of the group."""
        return len(self.variance)

    def support(self, mask: int) -> Tensor:
        """Indices `(d,)` of the inputs that a mask keeps."""
        return self.masks[mask].nonzero().flatten()

    @cached_property
    def unshared(self) -> tuple[Tensor, ...]:
        """`W*` under every mask: a tensor `(d_t, N)` each, on the mask's support."""
        found = []
        for mask in range(len(self.masks)):
            at = self.support(mask)
            found.append(self.metric.on(at).solve(self.cross[at]))
        return tuple(found)

    @cached_property
    def unshared_loss(self) -> Tensor:
        """`(T, N)`: the weighted loss of every output under every mask, alone."""
        explained = torch.stack(
            [(best * self.cross[self.support(mask)]).sum(0) for mask, best in enumerate(self.unshared)]
        )
        return self.weights * (self.variance - explained).clamp_min(0)


def _slots(spec: VersatileSpec) -> tuple[tuple[int, ...], ...]:
    """Level after level and window after window; the whole filter is a choice of the first window's slots."""
    choices = spec.window_choices
    return tuple(
        tuple(
            crop * choices + choice
            for crop in level
            for choice in ((window, spec.windows) if spec.whole_window and window == 0 else (window,))
        )
        for level in spec.levels
        for window in range(spec.windows)
    )


def masks(geometry: ConvGeometry, spec: VersatileSpec) -> Tensor:
    """`(T, C kh kw)` bool, in the order of rows: crops outside, windows inside."""
    kept = torch.zeros(
        len(spec.crops), spec.window_choices, geometry.group_inputs, *geometry.kernel_size, dtype=torch.bool
    )
    for i, crop in enumerate(spec.crops):
        for j, window in enumerate(spec.channel_windows(geometry.group_inputs)):
            kept[i, j, window.start : window.stop, crop.top : crop.bottom, crop.left : crop.right] = True
    return kept.flatten(2).flatten(0, 1)
