"""The closed-form fit of one group of one layer: primaries, assignment and scales.

Given the assignment, `F_p` solves `sum_o w_o alpha_o^2 (M_o H M_o) F = sum_o w_o alpha_o M_o X_o` over the outputs
cut from it, and `alpha_o = <F_o, X_o> / <F_o, H F_o>`; the two are alternated. All primaries are solved at once by
conjugate gradients, preconditioned by the layer's average matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from vfconvert.errors import FitError
from vfconvert.ops.matching import Assignment, assign
from vfconvert.ops.metric import Factored, Metric
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
    if not (problem.metric.finite() and bool(torch.isfinite(problem.cross).all())):
        raise FitError("the network's activations are not finite on these images: check them, --mean and --std")
    state = assign(problem, sharing)
    if problem.cross.dtype == torch.float32:  # large: the first guess of the scales must nearly do
        rounds, alternations = 0, min(alternations, 2 if len(problem.slots) <= 2 else 1)
    bank = problem.cross.new_zeros(problem.primaries, len(problem.cross))
    found: list[tuple[float, Tensor, Assignment]] = []
    left = float("inf")
    reassignments = rounds if len(problem.slots) > 2 else 0
    for turn in range(reassignments + 1):
        for _ in range(alternations):
            bank = _solve(problem, state, bank)
            state, left = _rescale(problem, state, bank)
        found.append((left, bank, state))
        if turn < reassignments:
            state = _reassign(problem, bank)
            state, _ = _rescale(problem, state, bank)
    left, bank, state = min(found, key=lambda candidate: candidate[0])
    total = float((problem.weights * problem.variance).sum())
    return GroupFit(
        bank=bank, mask=state.mask, primary=state.primary, scale=state.scale, unexplained=left / max(total, _TINY)
    )


@dataclass(frozen=True, eq=False)
class _Cut:
    """The outputs of one mask, the inputs that it keeps, and the covariance of these."""

    outputs: Tensor
    at: Tensor
    metric: Metric


def _cuts(problem: Problem, state: Assignment) -> Iterator[_Cut]:
    for mask in sorted(set(state.mask.tolist())):
        at = problem.support(mask)
        yield _Cut((state.mask == mask).nonzero().flatten(), at, problem.metric.on(at))


def _rescale(problem: Problem, state: Assignment, bank: Tensor) -> tuple[Assignment, float]:
    """The best scale of every output, and the loss that it leaves."""
    energy, along = torch.zeros_like(problem.variance), torch.zeros_like(problem.variance)
    for cut in _cuts(problem, state):
        filters = bank[state.primary[cut.outputs]][:, cut.at]
        energy[cut.outputs] = (cut.metric.times(filters) * filters).sum(1)
        along[cut.outputs] = (filters * problem.cross[cut.at][:, cut.outputs].T).sum(1)
    energy = energy.clamp_min(_TINY)
    left = problem.weights * (problem.variance - along.square() / energy).clamp_min(0)
    return Assignment(mask=state.mask, primary=state.primary, scale=along / energy), float(left.sum())


def _reassign(problem: Problem, bank: Tensor) -> Assignment:
    """Outputs to (slot, primary) by residual under the present bank, by the Hungarian method."""
    costs, choices = [], []
    for slot in problem.slots:
        losses = []
        for kind in slot:
            at = problem.support(kind)
            filters = bank[:, at]
            energy = (problem.metric.on(at).times(filters) * filters).sum(1).clamp_min(_TINY)
            explained = (problem.cross[at].T @ filters.T).square() / energy  # (N, P)
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
    cuts = list(_cuts(problem, state))
    right = torch.zeros_like(start)
    for cut in cuts:
        wanted = torch.zeros(len(cut.outputs), start.shape[1], dtype=start.dtype)
        factor = (problem.weights * state.scale)[cut.outputs]
        wanted[:, cut.at] = factor[:, None] * problem.cross[cut.at][:, cut.outputs].T
        right.index_add_(0, state.primary[cut.outputs], wanted)
    share = torch.zeros_like(start[:, 0]).index_add_(0, state.primary, curvature).clamp_min(_TINY)

    def apply(bank: Tensor) -> Tensor:
        out = torch.zeros_like(bank)
        for cut in cuts:
            padded = torch.zeros(len(cut.outputs), bank.shape[1], dtype=bank.dtype)
            filters = bank[state.primary[cut.outputs]][:, cut.at]
            padded[:, cut.at] = curvature[cut.outputs, None] * cut.metric.times(filters)
            out.index_add_(0, state.primary[cut.outputs], padded)
        return out

    nearly = problem.metric.averaged([(cut.at, curvature[cut.outputs].sum() / share.sum()) for cut in cuts])

    def precondition(residual: Tensor) -> Tensor:
        return nearly(residual.T).T / share[:, None]

    bank, residual = start.clone(), right
    step = along = precondition(right)
    if bool(start.any()):
        residual = right - apply(bank)
        step = precondition(residual)
    direction = step
    energy = (residual * step).sum(1)
    goal = (1e-9 if bank.dtype == torch.float64 else 1e-5) * (right * along).sum(1) + _TINY
    # Each step costs a product with H: large layers take what a few steps give, and of samples the average is exact.
    for _ in range(60 if bank.dtype == torch.float64 else 6 if isinstance(problem.metric, Factored) else 15):
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
