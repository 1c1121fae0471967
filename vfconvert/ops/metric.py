"""A covariance of inputs as the fit needs it: products with it and with its inverse, on some of the inputs or on all.

`Dense` holds `H` `(D, D)`. Where there are fewer samples than inputs, as for a layer that reads a whole feature map and
so sees one position of each image, `Factored` holds the samples in its place, `H = X^T X + d I`, and works in their
space: `H^-1 = (I - X^T (d I + X X^T)^-1 X) / d` (Woodbury), with a matrix of samples by samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vfconvert.ops.cholesky import cholesky

Solve = Callable[[Tensor], Tensor]
_NEGLIGIBLE = 1e-10  # of the largest eigenvalue of samples by samples


@dataclass(frozen=True, eq=False)
class Pencil:
    """Coordinates in which two metrics on `R` shared inputs are both diagonal: `eigenvalues` `(r,)`, and ones.

    `turn` `(r, R)` gives them. Where `r < R`, both metrics are `rest` times the unit matrix on what is orthogonal to
    the rows of `basis` `(r, R)`.
    """

    eigenvalues: Tensor
    turn: Tensor
    basis: Tensor | None = None
    rest: float = 0.0

    def beside(self, first: Tensor, second: Tensor) -> Tensor | float:
        """Products of the columns of two matrices `(R, N)`, `(R, M)` in what `turn` leaves out: `(N, M)`."""
        if self.basis is None:
            return 0.0
        return self.rest * (first.T @ second - (self.basis @ first).T @ (self.basis @ second))

    def length(self, vectors: Tensor) -> Tensor | float:
        """The squared lengths of columns `(R, N)` in what `turn` leaves out: `(N,)`."""
        if self.basis is None:
            return 0.0
        return self.rest * (vectors.square().sum(0) - (self.basis @ vectors).square().sum(0)).clamp_min(0)


@dataclass(frozen=True, eq=False)
class Dense:
    """`matrix` `(D, D)`."""

    matrix: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """That in which it computes."""
        return self.matrix.dtype

    def finite(self) -> bool:
        """Whether all is finite."""
        return bool(torch.isfinite(self.matrix).all())

    def times(self, rows: Tensor) -> Tensor:
        """`rows @ H`, `(N, D)`."""
        return rows @ self.matrix

    def on(self, at: Tensor) -> Dense:
        """Of the inputs `at` alone, in that order; a view where they lie side by side, as those of a window do."""
        begin, end = int(at[0]), int(at[-1]) + 1
        if end - begin == len(at) and bool((at.diff() == 1).all()):
            return Dense(self.matrix[begin:end, begin:end])
        return Dense(self.matrix[at][:, at])

    def solve(self, columns: Tensor) -> Tensor:
        """`H^-1 @ columns`, `(D, N)`."""
        return torch.cholesky_solve(columns, cholesky(self.matrix))

    def averaged(self, parts: Sequence[tuple[Tensor, Tensor]]) -> Solve:
        """Solves with the sum of `weight * H` on the inputs `at`, of all `(at, weight)`; nearly."""
        average = torch.zeros_like(self.matrix)
        used = torch.zeros(len(average), dtype=torch.bool)
        for at, weight in parts:
            average[at[:, None], at] += weight * self.on(at).matrix
            used[at] = True
        average.diagonal().add_(torch.where(used, 1e-6 * average.diagonal().mean(), average.diagonal().mean()))
        factor = cholesky(average)
        return lambda columns: torch.cholesky_solve(columns, factor)

    def pencil(self, first: Tensor, second: Tensor, shared: Tensor) -> Pencil:
        """Of the metrics on `shared` when the other inputs of `first`, or of `second`, are eliminated."""
        lower = cholesky(self._schur(second, shared))
        half = torch.linalg.solve_triangular(lower, self._schur(first, shared), upper=False)
        both = torch.linalg.solve_triangular(lower, half.T.contiguous(), upper=False)
        eigenvalues, vectors = torch.linalg.eigh((both + both.T) / 2)
        return Pencil(eigenvalues.clamp_min(1e-9), vectors.T @ lower.T)

    def _schur(self, support: Tensor, shared: Tensor) -> Tensor:
        at = _without(support, shared)
        metric = self.on(shared).matrix
        if len(at):
            factor = cholesky(self.on(at).matrix)
            half = torch.linalg.solve_triangular(factor, self.matrix[at][:, shared], upper=False)
            metric = metric - half.T @ half
        metric = (metric + metric.T) / 2
        metric.diagonal().add_(1e-7 * metric.diagonal().mean())
        return metric


@dataclass(frozen=True, eq=False)
class Factored:
    """`samples^T samples + diagonal I`, with `samples` `(n, D)` the centred ones over `sqrt(n)`."""

    samples: Tensor
    diagonal: float = 0.0

    @property
    def dtype(self) -> torch.dtype:
        """That in which it computes."""
        return self.samples.dtype

    @property
    def mean_diagonal(self) -> float:
        """Of `H`."""
        return float(self.samples.square().sum(0).double().mean()) + self.diagonal

    def raised(self, diagonal: float, dtype: torch.dtype | None = None) -> Factored:
        """With so much more on the diagonal."""
        return Factored(self.samples.to(dtype or self.dtype), self.diagonal + diagonal)

    def finite(self) -> bool:
        """Whether all is finite."""
        return bool(torch.isfinite(self.samples).all())

    def times(self, rows: Tensor) -> Tensor:
        """`rows @ H`, `(N, D)`."""
        return (rows @ self.samples.T) @ self.samples + self.diagonal * rows

    def on(self, at: Tensor) -> Factored:
        """Of the inputs `at` alone, in that order."""
        return replace(self, samples=self.samples[:, at])

    def solve(self, columns: Tensor) -> Tensor:
        """`H^-1 @ columns`, `(D, N)`; the diagonal has to be above zero."""
        return self._solver()(columns)

    def _solver(self) -> Solve:
        inner = self._kernel()
        inner.diagonal().add_(self.diagonal)
        factor = cholesky(inner)

        def solve(columns: Tensor) -> Tensor:
            seen = torch.cholesky_solve((self.samples @ columns).double(), factor)
            return (columns - self.samples.T @ seen.to(columns)) / self.diagonal

        return solve

    def averaged(self, parts: Sequence[tuple[Tensor, Tensor]]) -> Solve:
        """As `Dense.averaged`: `V + Y^T Y` with `V` diagonal and in `Y` the samples of each part, solved as `solve`."""
        size, count = self.samples.shape[1], len(self.samples)
        diagonal = torch.zeros(size, dtype=self.dtype)
        for at, weight in parts:
            diagonal[at] += weight * self.diagonal
        diagonal = torch.where(diagonal > 0, diagonal, 1)[:, None]
        seen = [(at, self.samples[:, at] * weight.sqrt()) for at, weight in parts]
        inner = torch.eye(count * len(parts), dtype=torch.float64)
        for i, (first, left) in enumerate(seen):
            for j, (second, right) in enumerate(seen[: i + 1]):
                held = torch.isin(first, second), torch.isin(second, first)  # supports are in ascending order
                found = (left[:, held[0]] / diagonal[first[held[0]], 0]) @ right[:, held[1]].T
                rows, columns = (slice(k * count, (k + 1) * count) for k in (i, j))
                inner[rows, columns] += found
                if i != j:
                    inner[columns, rows] = found.T.double()
        factor = cholesky(inner).to(self.dtype)

        def solve(columns: Tensor) -> Tensor:
            scaled = columns / diagonal
            along = torch.cholesky_solve(torch.cat([samples @ scaled[at] for at, samples in seen]), factor)
            for (at, samples), part in zip(seen, torch.split(along, count), strict=True):
                scaled[at] -= samples.T @ part / diagonal[at]
            return scaled

        return solve

    def pencil(self, first: Tensor, second: Tensor, shared: Tensor) -> Pencil:
        """As `Dense.pencil`.

        With `K` the samples by samples of what is eliminated, the metric on `shared` is `d I + X^T (I + K / d)^-1 X`:
        all but `d I` lies in the space of the samples.
        """
        seen = self.samples[:, shared]
        values, vectors = torch.linalg.eigh(self.on(shared)._kernel())
        real = values > _NEGLIGIBLE * values[-1].clamp_min(1e-300)
        values, vectors = values[real], vectors[:, real]
        basis = (vectors / values.sqrt()).T.to(seen) @ seen  # (r, R), orthonormal rows
        half = vectors * values.sqrt()  # (n, r): the samples in that basis
        metrics = [self._projected(half, _without(support, shared)) for support in (first, second)]
        lower = cholesky(metrics[1])
        both = torch.linalg.solve_triangular(lower, metrics[0], upper=False)
        both = torch.linalg.solve_triangular(lower, both.T.contiguous(), upper=False)
        eigenvalues, turned = torch.linalg.eigh((both + both.T) / 2)
        turn = (turned.T @ lower.T).to(seen) @ basis
        return Pencil(eigenvalues.clamp_min(1e-9).to(seen), turn, basis, self.diagonal)

    def _projected(self, half: Tensor, eliminated: Tensor) -> Tensor:
        inner = self.on(eliminated)._kernel() / self.diagonal
        inner.diagonal().add_(1)
        metric = half.T @ torch.cholesky_solve(half, cholesky(inner))
        metric = (metric + metric.T) / 2
        metric.diagonal().add_(self.diagonal)
        return metric

    def _kernel(self) -> Tensor:
        return (self.samples @ self.samples.T).double()


Metric = Dense | Factored


def metric_of(covariance: Tensor | Factored) -> Metric:
    """A matrix `(D, D)`, or what holds the samples in its place, to compute with."""
    return Dense(covariance) if isinstance(covariance, Tensor) else covariance


def raised(covariance: Tensor | Factored, diagonal: float, dtype: torch.dtype) -> Tensor | Factored:
    """A copy with so much more on its diagonal."""
    if isinstance(covariance, Factored):
        return covariance.raised(diagonal, dtype)
    covariance = covariance.clone()
    covariance.diagonal().add_(diagonal)
    return covariance.to(dtype)


def mean_diagonal(covariance: Tensor | Factored) -> float:
    """The mean variance of an input, above zero."""
    found = covariance.mean_diagonal if isinstance(covariance, Factored) else float(covariance.diagonal().mean())
    return max(found, 1e-12)


def _without(support: Tensor, shared: Tensor) -> Tensor:
    return support[~torch.isin(support, shared)]
