"""Other ways to make a convolution smaller, each at its data-aware best: low rank, Tucker, groups, fewer channels.

All are closed-form fits to a layer's moments (`vfconvert.ops.moments`), outputs weighted alike; a BatchNorm follows
every layer, so that no bias is needed. Each has `unexplained`, the variance of every output that it leaves, `(N,)`.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from vfconvert.ops.cholesky import cholesky
from vfconvert.ops.moments import Moments
from vfconvert.specs import ConvGeometry

_RIDGE = 1e-6  # of the mean diagonal


class Factors(nn.Module):
    """Convolutions one after the other, without activations between: `(1x1,) kxk, 1x1`."""

    def __init__(self, like: nn.Conv2d, middle: Tensor, last: Tensor, first: Tensor | None = None) -> None:
        """`first` `(R1, C)`, `middle` `(R2, R1 or C, kh, kw)`, `last` `(N, R2)`."""
        super().__init__()
        self.geometry = ConvGeometry.of(like)
        self.first = nn.Parameter(first.float()) if first is not None else None
        self.middle = nn.Parameter(middle.float())
        self.last = nn.Parameter(last.float())
        self._where = {"stride": like.stride, "padding": like.padding}

    def forward(self, x: Tensor) -> Tensor:
        if self.first is not None:
            x = F.conv2d(x, self.first[:, :, None, None])
        return F.conv2d(F.conv2d(x, self.middle, **self._where), self.last[:, :, None, None])

    def expanded_weight(self) -> Tensor:
        """`(N, C, kh, kw)`."""
        weight = torch.einsum("nr,rckl->nckl", self.last, self.middle)
        return weight if self.first is None else torch.einsum("nrkl,rc->nckl", weight, self.first)


class Grouped(nn.Module):
    """A plain group convolution; each output is in the group that explains most of it, the groups of equal size."""

    def __init__(self, like: nn.Conv2d, weight: Tensor, places: Tensor, groups: int) -> None:
        """`weight` `(N, C/groups, kh, kw)` in the order of the groups; output `o` is found at `places[o]`."""
        super().__init__()
        self.geometry = ConvGeometry.of(like)
        self.weight = nn.Parameter(weight.float())
        self.register_buffer("places", places)
        self.groups = groups
        self._where = {"stride": like.stride, "padding": like.padding}

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, groups=self.groups, **self._where)[:, self.places]

    def expanded_weight(self) -> Tensor:
        """`(N, C, kh, kw)`, zero outside an output's group."""
        blocks = self.weight.chunk(self.groups)
        parts = [
            F.pad(b, (0, 0, 0, 0, g * b.shape[1], (self.groups - 1 - g) * b.shape[1])) for g, b in enumerate(blocks)
        ]
        return torch.cat(parts)[self.places]


def low_rank(like: nn.Conv2d, moments: Moments, importance: Tensor, rank: int) -> Factors:
    """Reduced-rank regression: of all weights of this rank, those that leave the least of the outputs."""
    middle, last = _reduced(_least_squares(moments), moments.covariance, importance, rank)
    return Factors(like, middle.view(rank, like.in_channels, *like.kernel_size), last)


def tucker(like: nn.Conv2d, moments: Moments, importance: Tensor, ranks: tuple[int, int]) -> Factors:
    """Tucker-2 (Kim et al. 2016): input channels by principal directions of what the layer reads, then as above."""
    inputs, taps = like.in_channels, like.kernel_size[0] * like.kernel_size[1]
    channels = moments.covariance.view(inputs, taps, inputs, taps).diagonal(dim1=1, dim2=3).mean(-1)
    values, vectors = torch.linalg.eigh(channels)
    root = vectors * values.clamp_min(1e-9 * float(values.max())).sqrt()  # whitened inputs are root^-1 x
    weight = _least_squares(moments).view(-1, inputs, taps) * importance.sqrt()[:, None, None]
    read = torch.einsum("nct,cd->ndt", weight, root)
    directions = torch.linalg.eigh(torch.einsum("ndt,net->de", read, read)).eigenvectors[:, -ranks[0] :]
    first = directions.T @ torch.linalg.inv(root)  # (R1, C)
    first = first / first.norm(dim=1, keepdim=True)
    spread = torch.kron(first, torch.eye(taps, dtype=first.dtype))  # (R1 k, C k)
    narrow = _projected(moments, spread)
    middle, last = _reduced(_least_squares(narrow), narrow.covariance, importance, ranks[1])
    return Factors(like, middle.view(ranks[1], ranks[0], *like.kernel_size), last, first)


def grouped(like: nn.Conv2d, moments: Moments, importance: Tensor, groups: int) -> Grouped:
    """Least squares within each group of input channels, outputs assigned to groups by the Hungarian method."""
    size, outputs = like.in_channels // groups, like.out_channels
    taps = like.kernel_size[0] * like.kernel_size[1]
    weights, left = [], []
    for group in range(groups):
        at = torch.arange(group * size * taps, (group + 1) * size * taps)
        weights.append(_least_squares(restricted(moments, at)))
        left.append(unexplained(restricted(moments, at), weights[-1]))
    cost = (torch.stack(left) * importance).repeat_interleave(outputs // groups, 0)  # a row for each place
    _, chosen = linear_sum_assignment(cost.numpy())
    chosen = torch.from_numpy(chosen)
    weight = torch.stack(
        [weights[place // (outputs // groups)][output] for place, output in enumerate(chosen.tolist())]
    )
    return Grouped(like, weight.view(outputs, size, *like.kernel_size), torch.argsort(chosen), groups)


def restricted(moments: Moments, at: Tensor) -> Moments:
    """The moments where only the unfolded inputs `at` are seen."""
    return Moments(
        covariance=moments.covariance[at][:, at],
        cross=moments.cross[at],
        input_mean=moments.input_mean[at],
        target_mean=moments.target_mean,
        target_variance=moments.target_variance,
        count=moments.count,
    )


def refitted(moments: Moments, at: Tensor) -> Tensor:
    """What least squares on the unfolded inputs `at` leave of every output, `(N,)`."""
    seen = restricted(moments, at)
    return unexplained(seen, _least_squares(seen))


def unexplained(moments: Moments, weight: Tensor) -> Tensor:
    """The variance of every output that `weight` `(N, C, kh, kw)` or `(N, D)` leaves, with the best mean, `(N,)`."""
    rows = weight.detach().flatten(1).double()
    left = moments.target_variance - 2 * (rows * moments.cross.T).sum(1) + ((rows @ moments.covariance) * rows).sum(1)
    return left.clamp_min(0)


def _least_squares(moments: Moments) -> Tensor:
    system = moments.covariance.clone()
    system.diagonal().add_(_RIDGE * system.diagonal().mean().clamp_min(1e-12))
    return torch.cholesky_solve(moments.cross, cholesky(system)).T


def _reduced(weight: Tensor, covariance: Tensor, importance: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    size = importance.clamp_min(1e-6 * float(importance.max())).sqrt()[:, None]
    scaled = size * weight
    directions = torch.linalg.eigh(scaled @ covariance @ scaled.T).eigenvectors[:, -rank:]
    return directions.T @ scaled, directions / size


def _projected(moments: Moments, spread: Tensor) -> Moments:
    return Moments(
        covariance=spread @ moments.covariance @ spread.T,
        cross=spread @ moments.cross,
        input_mean=spread @ moments.input_mean,
        target_mean=moments.target_mean,
        target_variance=moments.target_variance,
        count=moments.count,
    )
