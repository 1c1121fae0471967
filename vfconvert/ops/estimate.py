"""What a layer would lose as a versatile one, for several numbers of primary filters, without all of the fit.

With two slots the matching's own costs are the loss, exact for nested masks, and one table of them serves every number
of primaries. With more slots the outputs are assigned and the primaries solved once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from vfconvert.ops.fit import fit_group
from vfconvert.ops.matching import match_pairs, pair_costs
from vfconvert.ops.problem import Problem
from vfconvert.ops.sharing import Sharing


@dataclass(frozen=True, eq=False)
class Estimate:
    """`unexplained`: the weighted share of the variance that is left; `mask` and `primary` `(N,)` of every output."""

    unexplained: float
    mask: Tensor
    primary: Tensor


def estimates(problem: Problem, primaries: Sequence[int]) -> list[Estimate]:
    """One estimate for each number of primary filters of the group."""
    total = max(float((problem.weights * problem.variance).sum()), 1e-30)
    sharing = Sharing(problem)
    if len(problem.slots) != 2:
        fits = [
            fit_group(problem.with_primaries(count), rounds=0, alternations=1, sharing=sharing) for count in primaries
        ]
        return [Estimate(fit.unexplained, fit.mask, fit.primary) for fit in fits]
    costs = pair_costs(problem, sharing)
    found = []
    for count in primaries:
        assignment, loss = match_pairs(problem.with_primaries(count), costs)
        found.append(Estimate(loss / total, assignment.mask, assignment.primary))
    return found
