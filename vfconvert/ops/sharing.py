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

from vfconvert.ops.cholesky import cholesky
from vfconvert.ops.problem import Problem

_RATIOS = 2.0 ** torch.arange(-7, 7.01, 0.5)  # of the typical ratio


class Sharing:
    """Pair costs of one problem; the eigenproblem of each pair of masks is solved once."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._coordinates: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}

    def cost(self, first: int, second: int) -> tuple[Tensor, Tensor]:
        """Cost and best signed ratio, `(N, N)` each: row `a` under mask `first`, column `b` under mask `second`.

        The ratio is `alpha_b / alpha_a`. Zero cost where the masks share nothing.
        """
        problem = self._problem
        if not (problem.masks[first] & problem.masks[second]).any():
            zero = problem.cross.new_zeros(problem.outputs, problem.outputs)
            return zero, torch.ones_like(zero)
        eigenvalues, a, b = self._diagonal(first, second)
        lengths = b.norm(dim=0).median() / a.norm(dim=0).median().clamp_min(1e-20)
        best = torch.full((a.shape[1], b.shape[1]), float("inf"), dtype=a.dtype)
        ratio = torch.ones_like(best)
        step = 1 if a.dtype == torch.float64 else 2  # large layers: half as many, the cost is flat around its least
        for rho in (_RATIOS[::step].to(a) * lengths).tolist():
            weight = (eigenvalues / (eigenvalues + rho * rho))[:, None]  # (R, 1)
            mixed = (a * weight).T @ b  # (N, N)
            left = rho * rho * (a.square() * weight).sum(0)[:, None] + (b.square() * weight).sum(0)[None]
            cost = left - 2 * rho * mixed.abs()
            better = cost < best
            best = torch.where(better, cost, best)
            ratio = torch.where(better, rho * mixed.sign(), ratio)
        scale = problem.weights.sqrt()
        return best.clamp_min(0), ratio * scale[:, None] / scale[None]

    def _diagonal(self, first: int, second: int) -> tuple[Tensor, Tensor, Tensor]:
        """Eigenvalues `(R,)` and the weighted cores of all outputs, `(R, N)`, in diagonal coordinates."""
        key = (first, second)
        if key not in self._coordinates:
            problem = self._problem
            shared = (problem.masks[first] & problem.masks[second]).nonzero().flatten()
            lower = cholesky(self._metric(second, shared))
            half = torch.linalg.solve_triangular(lower, self._metric(first, shared), upper=False)
            both = torch.linalg.solve_triangular(lower, half.T.contiguous(), upper=False)
            eigenvalues, vectors = torch.linalg.eigh((both + both.T) / 2)
            turn = vectors.T @ lower.T  # (R, R)
            cores = [turn @ self._core(mask, shared) * problem.weights.sqrt() for mask in key]
            self._coordinates[key] = eigenvalues.clamp_min(1e-9), cores[0], cores[1]
        return self._coordinates[key]

    def _metric(self, mask: int, shared: Tensor) -> Tensor:
        """`S`: the covariance on the shared inputs with the mask's other inputs eliminated, `(R, R)`."""
        problem = self._problem
        own = problem.masks[mask].clone()
        own[shared] = False
        at = own.nonzero().flatten()
        metric = problem.covariance[shared][:, shared]
        if len(at):
            across = problem.covariance[at][:, shared]
            factor = cholesky(problem.covariance[at][:, at])
            half = torch.linalg.solve_triangular(factor, across, upper=False)
            metric = metric - half.T @ half
        metric = (metric + metric.T) / 2
        metric.diagonal().add_(1e-7 * metric.diagonal().mean())
        return metric

    def _core(self, mask: int, shared: Tensor) -> Tensor:
        """The shared part of every output's unshared best filter, `(R, N)`."""
        position = torch.full((self._problem.masks.shape[1],), -1)
        support = self._problem.support(mask)
        position[support] = torch.arange(len(support))
        return self._problem.unshared[mask][position[shared]]
