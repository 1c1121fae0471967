"""The closed-form fit of one group of one layer: primaries, assignment and scales.

Given the assignment, `F_p` solves `sum_o w_o alpha_o^2 (M_o H M_o) F = sum_o w_o alpha_o M_o X_o` over the outputs
cut from it, and `alpha_o = <F_o, X_o> / <F_o, H F_o>`; the two are alternated. All primaries are solved at once by
conjugate gradients, preconditioned by the layer's average matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from vfconvert.errors import FitError
from vfconvert.ops.cholesky import cholesky
from vfconvert.ops.matching import Assignment, assign
from vfconvert.ops.problem import Problem
from vfconvert.ops.sharing import Sharing

_TINY = 1e-30


@dataclass(frozen=True, eq=False)
class GroupFit:
    """Primaries `(P, D)`; `mask`, `primary`, `scale` `(N,)`; `unexplained`: the weighted share of variance left."""

    bank: Tensor
    mask: Tensor
    primary: Tensor
    scale: Tensor
    unexplained: float


def fit_group(problem: Problem, *, rounds: int = 4, alternations: int = 4, sharing: Sharing | None = None) -> GroupFit:
    """Fit one group. `rounds` re-assigns outputs by their residual, where primaries have more than two outputs.

    `sharing` is that of the problem, where it is at hand.
    """
    if not bool(torch.isfinite(problem.covariance).all() and torch.isfinite(problem.cross).all()):
        raise FitError("the network's activations are not finite on the calibration images: check --mean and --std")
    state = assign(problem, sharing)
    if problem.covariance.dtype == torch.float32:  # large: the first guess of the scales must nearly do
        rounds, alternations = 0, min(alternations, 2 if len(problem.slots) <= 2 else 1)
    bank = problem.cross.new_zeros(problem.primaries, len(problem.covariance))
    found: list[tuple[float, Tensor, Assignment]] = []
    reassignments = rounds if len(problem.slots) > 2 else 0
    for turn in range(reassignments + 1):
        for _ in range(alternations):
            bank = _solve(problem, state, bank)
            filters, state = _rescale(problem, state, bank)
        found.append((_loss(problem, filters), bank, state))
        if turn < reassignments:
            state = _reassign(problem, bank)
            _, state = _rescale(problem, state, bank)
    left, bank, state = min(found, key=lambda candidate: candidate[0])
    total = float((problem.weights * problem.variance).sum())
    return GroupFit(
        bank=bank, mask=state.mask, primary=state.primary, scale=state.scale, unexplained=left / max(total, _TINY)
    )


def _filters(problem: Problem, state: Assignment, bank: Tensor) -> Tensor:
    """`M_o ∘ F_p(o)`, `(N, D)`, not scaled."""
    return bank[state.primary] * problem.masks[state.mask]


def _rescale(problem: Problem, state: Assignment, bank: Tensor) -> tuple[Tensor, Assignment]:
    filters = _filters(problem, state, bank)
    energy = ((filters @ problem.covariance) * filters).sum(1)
    scale = (filters * problem.cross.T).sum(1) / energy.clamp_min(_TINY)
    return filters, Assignment(mask=state.mask, primary=state.primary, scale=scale)


def _loss(problem: Problem, filters: Tensor) -> float:
    energy = ((filters @ problem.covariance) * filters).sum(1).clamp_min(_TINY)
    explained = (filters * problem.cross.T).sum(1).square() / energy
    return float((problem.weights * (problem.variance - explained).clamp_min(0)).sum())


def _reassign(problem: Problem, bank: Tensor) -> Assignment:
    """Outputs to (slot, primary) by residual under the present bank, by the Hungarian method."""
    costs, choices = [], []
    for slot in problem.slots:
        losses = []
        for kind in slot:
            filters = bank * problem.masks[kind]  # (P, D)
            energy = ((filters @ problem.covariance) * filters).sum(1).clamp_min(_TINY)
            explained = (problem.cross.T @ filters.T).square() / energy  # (N, P)
            losses.append(problem.weights[:, None] * (problem.variance[:, None] - explained))
        cost, choice = torch.stack(losses).min(0)
        costs.append(cost)
        choices.append(torch.tensor(slot)[choice])
    column = torch.from_numpy(linear_sum_assignment(torch.cat(costs, 1).double().numpy())[1])
    masks = torch.cat(choices, 1)[torch.arange(problem.outputs), column]
    return Assignment(mask=masks, primary=column % problem.primaries, scale=torch.ones_like(problem.variance))


def _solve(problem: Problem, state: Assignment, start: Tensor) -> Tensor:
    """All primaries by preconditioned conjugate gradients, `(P, D)`."""
    curvature = problem.weights * state.scale.square()  # beta_o, (N,)
    curvature = curvature.clamp_min(1e-8 * float(curvature.mean()) + _TINY)
    masks = problem.masks[state.mask]
    groups = []  # outputs of one mask, its inputs, the covariance on them
    for t in sorted(set(state.mask.tolist())):
        at = problem.support(t)
        groups.append(((state.mask == t).nonzero().flatten(), at, problem.covariance[at][:, at]))
    right = torch.zeros_like(start)
    right.index_add_(0, state.primary, (problem.weights * state.scale)[:, None] * masks * problem.cross.T)
    share = torch.zeros_like(start[:, 0]).index_add_(0, state.primary, curvature).clamp_min(_TINY)

    def apply(bank: Tensor) -> Tensor:
        out = torch.zeros_like(bank)
        for outputs, at, covariance in groups:
            padded = torch.zeros(len(outputs), bank.shape[1], dtype=bank.dtype)
            padded[:, at] = curvature[outputs, None] * (bank[state.primary[outputs]][:, at] @ covariance)
            out.index_add_(0, state.primary[outputs], padded)
        return out

    average = torch.zeros_like(problem.covariance)
    for outputs, at, covariance in groups:
        average[at[:, None], at] += curvature[outputs].sum() * covariance
    average /= share.sum()
    used = torch.zeros(len(average), dtype=torch.bool).index_fill_(0, masks.any(0).nonzero().flatten(), True)
    average.diagonal().add_(torch.where(used, 1e-6 * average.diagonal().mean(), average.diagonal().mean()))
    factor = cholesky(average)

    def precondition(residual: Tensor) -> Tensor:
        return torch.cholesky_solve(residual.T, factor).T / share[:, None]

    bank = start.clone()
    residual = right - apply(bank)
    direction = step = precondition(residual)
    energy = (residual * step).sum(1)
    goal = (1e-9 if bank.dtype == torch.float64 else 1e-5) * (right * precondition(right)).sum(1) + _TINY
    # Each step costs a product with H: large layers take what a few steps give.
    for _ in range(60 if bank.dtype == torch.float64 else 15):
        if bool((energy <= goal).all()):
            break
        image = apply(direction)
        length = energy / (direction * image).sum(1).clamp_min(_TINY)
        bank += length[:, None] * direction
        residual = residual - length[:, None] * image
        step = precondition(residual)
        renewed = (residual * step).sum(1)
        direction = step + (renewed / energy.clamp_min(_TINY))[:, None] * direction
        energy = renewed
    return bank
