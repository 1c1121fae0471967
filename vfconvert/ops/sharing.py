r"""What it costs two outputs to share one primary filter: exact, for all pairs at once.

Outputs `a` under mask `t` and `b` under mask `u` share only the inputs `R = t ∩ u`; the rest of each filter is free.
With the free parts eliminated, a common core `c` costs

    w_a |alpha_a c - c_a|^2_{S_t} + w_b |alpha_b c - c_b|^2_{S_u},

`c_a`, `c_b` the cores of the unshared best filters and `S_t = H_RR - H_RE H_EE^-1 H_ER` (`E = t \ R`) the Schur
complement. One generalised eigenproblem `(S_t, S_u)` makes both metrics diagonal (`Lambda` and `I`), and with the ratio
`rho = alpha_b sqrt(w_b) / (alpha_a sqrt(w_a))` the best `c` leaves

    cost(rho) = sum_i lambda_i (B_i - rho A_i)^2 / (lambda_i + rho^2),

a function of one number, evaluated for every pair on a grid of `rho` by matrix products. For the nested crops of the
paper this is the pair's exact optimum up to the grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vfconvert.ops.metric import Pencil
from vfconvert.ops.problem import Problem

_RATIOS = 2.0 ** torch.arange(-7, 7.01, 0.5)  # of the typical ratio
_FARTHEST = 2.0**20  # that the typical ratio may be from 1


class Sharing:
    """Pair costs of one problem; the eigenproblem of each pair of masks is solved once."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._pencils: dict[tuple[int, int], tuple[Pencil, Tensor]] = {}

    def cost(
        self, first: int, second: int, rows: Tensor | None = None, columns: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cost and best signed ratio, `(N, N)` each: row `a` under mask `first`, column `b` under mask `second`.

        The ratio is `alpha_b / alpha_a`. Zero cost where the masks share nothing. `rows` and `columns` are the outputs
        that are asked for, all where None.
        """
        problem = self._problem
        every = torch.arange(problem.outputs)
        rows, columns = every if rows is None else rows, every if columns is None else columns
        if not (problem.masks[first] & problem.masks[second]).any():
            zero = problem.cross.new_zeros(len(rows), len(columns))
            return zero, torch.ones_like(zero)
        pencil, shared = self._pencil(first, second)
        cores = self._core(first, shared, rows), self._core(second, shared, columns)
        eigenvalues, (a, b) = pencil.eigenvalues, (pencil.turn @ core for core in cores)
        beside, own, other = pencil.beside(*cores), pencil.length(cores[0]), pencil.length(cores[1])
        sizes = (a.square().sum(0) + own).sqrt().median(), (b.square().sum(0) + other).sqrt().median()
        lengths = float(sizes[1] / sizes[0].clamp_min(1e-20))
        lengths = min(
            max(lengths, 1 / _FARTHEST), _FARTHEST
        )  # of filters on inputs that are always 0 there is no ratio
        best = torch.full((a.shape[1], b.shape[1]), float("inf"), dtype=a.dtype)
        ratio = torch.ones_like(best)
        step = 1 if a.dtype == torch.float64 else 2  # large layers: half as many, the cost is flat around its least
        for rho in (_RATIOS[::step].double() * lengths).tolist():
            weight, unit = (eigenvalues / (eigenvalues + rho * rho))[:, None], 1 / (1 + rho * rho)  # (R, 1)
            mixed = (a * weight).T @ b + unit * beside  # (N, N)
            left = rho * rho * ((a.square() * weight).sum(0) + unit * own)[:, None]
            left = left + ((b.square() * weight).sum(0) + unit * other)[None]
            cost = left - 2 * rho * mixed.abs()
            better = cost < best
            best = torch.where(better, cost, best)
            ratio = torch.where(better, rho * torch.where(mixed < 0, -1.0, 1.0), ratio)
        scale = problem.weights.sqrt()
        return best.clamp_min(0), ratio * scale[rows, None] / scale[columns]

    def _pencil(self, first: int, second: int) -> tuple[Pencil, Tensor]:
        """The two metrics on the shared inputs, both diagonal, and these inputs `(R,)`."""
        key = (first, second)
        if key not in self._pencils:
            problem = self._problem
            shared = (problem.masks[first] & problem.masks[second]).nonzero().flatten()
            found = problem.metric.pencil(problem.support(first), problem.support(second), shared)
            self._pencils[key] = found, shared
        return self._pencils[key]

    def _core(self, mask: int, shared: Tensor, outputs: Tensor) -> Tensor:
        """The shared part of the unshared best filters of some outputs, by the root of their weight: `(R, n)`."""
        problem = self._problem
        position = torch.full((problem.masks.shape[1],), -1)
        support = problem.support(mask)
        position[support] = torch.arange(len(support))
        best = problem.unshared[mask] if len(outputs) == problem.outputs else problem.unshared[mask][:, outputs]
        return best[position[shared]] * problem.weights.sqrt()[outputs]
