"""First and second moments of a layer's unfolded inputs and its targets, streamed over batches.

For a convolution `y = W x` with `x` the unfolded patch, `(D,)`, `D = C kh kw`, a least-squares fit needs no more than
`H = cov(x)`, `X = cov(x, t)`, `var(t)` and the means. Products of a block are taken in float32 and summed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vfconvert.ops.metric import Factored
from vfconvert.specs import ConvGeometry

_BLOCK = 8192  # rows multiplied in float32 before they are added up in float64
_FEWEST = 2048  # rows that are worth adding up, which takes as long as some hundred rows
_STRIPS = 4  # of the columns of a large square, each multiplied with itself and what follows: 10 of 16 parts
_NARROW = 256  # inputs of a strip at least


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of one group: inputs `(D,)`, targets `(N,)`, all float64.

    `covariance` `(D, D)`, or the samples in its place, these and `cross` then in float32; `cross` `(D, N)`,
    `input_mean` `(D,)`, `target_mean` `(N,)`, `target_variance` `(N,)`, taken over `count` samples, of which
    `independent` say something that the others do not.
    """

    covariance: Tensor | Factored
    cross: Tensor
    input_mean: Tensor
    target_mean: Tensor
    target_variance: Tensor
    count: int
    independent: float = math.inf

    @property
    def worth(self) -> float:
        """The number of samples to reckon with."""
        return min(self.count, self.independent)


class MomentSum:
    """Accumulates raw sums on a device; `result()` gives the centred moments, on the CPU, once."""

    def __init__(self, inputs: int, targets: int, device: torch.device | None = None) -> None:
        self._square = torch.zeros(inputs, inputs, dtype=torch.float64, device=device)
        width = max(-(-inputs // _STRIPS), _NARROW)
        self._strips = [slice(start, min(start + width, inputs)) for start in range(0, inputs, width)]
        self._cross = torch.zeros(inputs, targets, dtype=torch.float64, device=device)
        self._inputs = torch.zeros(inputs, dtype=torch.float64, device=device)
        self._targets = torch.zeros(targets, dtype=torch.float64, device=device)
        self._target_square = torch.zeros(targets, dtype=torch.float64, device=device)
        self._shift: tuple[Tensor, Tensor] | None = None
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._count = 0
        self._taken = False

    def add(self, inputs: Tensor, targets: Tensor) -> None:
        """Add samples: `inputs` `(S, D)`, `targets` `(S, N)`; they wait until they are enough, and may not change."""
        self._waiting.append((inputs.float(), targets.float()))
        if sum(len(given) for given, _ in self._waiting) >= _FEWEST:
            self._add_waiting()

    def _add_waiting(self) -> None:
        if not self._waiting:
            return
        inputs, targets = map(_joined, zip(*self._waiting, strict=True))
        self._waiting.clear()
        if self._shift is None:  # subtract a first guess of the means, so that float32 products do not cancel
            self._shift = inputs.mean(0), targets.mean(0)
        inputs, targets = inputs - self._shift[0], targets - self._shift[1]
        for start in range(0, len(inputs), _BLOCK):
            x, t = inputs[start : start + _BLOCK], targets[start : start + _BLOCK]
            for at in self._strips:  # the square is symmetric: what is left of its diagonal is filled in at the end
                self._square[at, at.start :] += (x[:, at].T @ x[:, at.start :]).to(self._square)
            self._cross += (x.T @ t).to(self._square)
            self._inputs += x.sum(0).to(self._square)
            self._targets += t.sum(0).to(self._square)
            self._target_square += t.square().sum(0).to(self._square)
            self._count += len(x)

    def result(self) -> Moments:
        """The moments of all that was added (at least one sample); asked for once, since the sums become the result."""
        self._add_waiting()
        if self._shift is None or self._taken:
            raise ValueError("moments of no samples, or taken twice: add() first, and call result() once")
        self._taken = True
        n = self._count
        for at in self._strips:
            self._square[at.stop :, at] = self._square[at, at.stop :].T
        x_mean, t_mean = self._inputs / n, self._targets / n
        return Moments(
            covariance=self._square.div_(n).sub_(torch.outer(x_mean, x_mean)).cpu(),
            cross=(self._cross / n - torch.outer(x_mean, t_mean)).cpu(),
            input_mean=(x_mean + self._shift[0].to(x_mean)).cpu(),
            target_mean=(t_mean + self._shift[1].to(t_mean)).cpu(),
            target_variance=(self._target_square / n - t_mean.square()).clamp_min(0).cpu(),
            count=n,
        )


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


class SampleSum:
    """As `MomentSum` where there are fewer samples than inputs: keeps the first `most` samples, whose size it takes."""

    def __init__(self, most: int) -> None:
        self._most, self._count = most, 0
        self._kept: list[tuple[Tensor, Tensor]] = []

    def add(self, inputs: Tensor, targets: Tensor) -> None:
        """Add samples: `inputs` `(S, D)`, `targets` `(S, N)`."""
        taken = min(len(inputs), self._most - self._count)
        if taken:
            self._kept.append((inputs[:taken].float().cpu(), targets[:taken].float().cpu()))
            self._count += taken

    def result(self) -> Moments:
        """The moments of all that was added (at least one sample); asked for once."""
        if not self._kept:
            raise ValueError("moments of no samples, or taken twice: add() first, and call result() once")
        x, t = (torch.cat(parts) for parts in zip(*self._kept, strict=True))
        self._kept.clear()
        x_mean, t_mean = x.double().mean(0), t.double().mean(0)
        x.sub_(x_mean.float()).div_(len(x) ** 0.5)
        t.sub_(t_mean.float()).div_(len(t) ** 0.5)
        return Moments(
            covariance=Factored(x),
            cross=x.T @ t,
            input_mean=x_mean,
            target_mean=t_mean,
            target_variance=t.double().square().sum(0),
            count=len(x),
        )


def pad_input(x: Tensor, geometry: ConvGeometry) -> Tensor:
    """The input with the convolution's own padding written out, `(B, C, H + …, W + …)`."""
    mode = "constant" if geometry.padding_mode == "zeros" else geometry.padding_mode
    return F.pad(x, geometry.padding_before, mode=mode)


def patches(x: Tensor, geometry: ConvGeometry, rows: Tensor, columns: Tensor) -> Tensor:
    """Unfolded inputs at some output positions: `(B, C, H, W) -> (B, n, C, kh, kw)`.

    `rows` and `columns`, `(n,)` integers, are the positions in the output map; only these are copied.
    """
    (kh, kw), (dh, dw), (sh, sw) = geometry.kernel_size, geometry.dilation, geometry.stride
    padded = pad_input(x, geometry)
    views = padded.unfold(2, dh * (kh - 1) + 1, sh).unfold(3, dw * (kw - 1) + 1, sw)[..., ::dh, ::dw]
    return views[:, :, rows, columns].permute(0, 2, 1, 3, 4)
