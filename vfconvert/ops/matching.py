"""Which output is cut from which primary, under which mask.

With two outputs a primary (spatial 3x3, or two windows) the layer's best grouping is a minimum-weight perfect matching
of the outputs, weighted by the exact pair costs of `vfconvert.ops.sharing`; a graph library finds it. With more, slots
are filled by the Hungarian method against the members already placed, and re-filled in turn until nothing moves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import rustworkx
import torch
from scipy.optimize import linear_sum_assignment, linprog
from scipy.sparse import csr_array
from torch import Tensor

from vfconvert.errors import FitError
from vfconvert.ops.problem import Problem
from vfconvert.ops.sharing import Sharing

_NEAREST = 24  # partners considered per output where a layer is too large for the complete graph
_COMPLETE = 160  # outputs up to which every pair is considered
_HUNGARIAN = 1024  # outputs up to which slots are filled by the Hungarian method alone
_UNIT = 10**9  # costs are scaled to integers of about this size: the matching is then exact and deterministic


@dataclass(frozen=True, eq=False)
class Assignment:
    """For every output `(N,)` its `mask`, its `primary` and a first guess of its `scale`."""

    mask: Tensor
    primary: Tensor
    scale: Tensor


def assign(problem: Problem, sharing: Sharing | None = None) -> Assignment:
    """The grouping of the outputs of one group of one layer. `sharing` is that of the problem, where it is at hand."""
    slots = len(problem.slots)
    if slots == 1:
        at = torch.arange(problem.outputs)
        mask, _ = _slot_loss(problem, 0)
        return Assignment(mask=mask, primary=at, scale=problem.variance.new_ones(problem.outputs))
    sharing = sharing if sharing is not None else Sharing(problem)
    return match_pairs(problem, pair_costs(problem, sharing))[0] if slots == 2 else _fill_slots(problem, sharing)


def _slot_loss(problem: Problem, slot: int) -> tuple[Tensor, Tensor]:
    """The best mask of every output in a slot when nothing is shared, and its loss, `(N,)` each."""
    allowed = torch.tensor(problem.slots[slot])
    loss, index = problem.unshared_loss[allowed].min(0)
    return allowed[index], loss


@dataclass(frozen=True, eq=False)
class PairCosts:
    """For output `a` in the first slot and `b` in the second, `(N, N)` each: the loss of both together at best.

    `ratio` is `alpha_b / alpha_a`; `first` and `second` are the masks that are best. `alone_mask` and `alone` `(N,)`:
    the best mask of the first slot for an output that shares its primary with none, and its loss.
    """

    cost: Tensor
    ratio: Tensor
    first: Tensor
    second: Tensor
    alone_mask: Tensor
    alone: Tensor


def pair_costs(problem: Problem, sharing: Sharing) -> PairCosts:
    """The costs of all pairs of a problem with two slots."""
    count = problem.outputs
    best = torch.full((count, count), float("inf"), dtype=problem.cross.dtype)
    ratios = torch.ones_like(best)
    first, second = torch.zeros(count, count, dtype=torch.int64), torch.zeros(count, count, dtype=torch.int64)
    for t in problem.slots[0]:
        for u in problem.slots[1]:
            shared, ratio = sharing.cost(t, u)
            cost = shared + problem.unshared_loss[t][:, None] + problem.unshared_loss[u][None]
            better = cost < best
            best, ratios = torch.where(better, cost, best), torch.where(better, ratio, ratios)
            first, second = first.masked_fill(better, t), second.masked_fill(better, u)
    return PairCosts(best, ratios, first, second, *_slot_loss(problem, 0))


def match_pairs(problem: Problem, costs: PairCosts) -> tuple[Assignment, float]:
    """The best grouping into `problem.primaries` pairs and singles, and the loss that it should leave."""
    count, best, loss = problem.outputs, costs.cost, 0.0
    mask, primary = costs.alone_mask.clone(), torch.zeros(count, dtype=torch.int64)
    scale = problem.variance.new_ones(count)
    singles = 2 * problem.primaries - count
    pairs = _perfect_matching(best.double().numpy(), costs.alone.double().numpy(), singles)
    for index, (a, b) in enumerate(pairs):
        primary[a] = index
        if b < 0:
            loss += float(costs.alone[a])
            continue
        primary[b] = index
        if best[b, a] < best[a, b]:
            a, b = b, a
        loss += float(best[a, b])
        mask[a], mask[b], scale[b] = costs.first[a, b], costs.second[a, b], costs.ratio[a, b]
    return Assignment(mask=mask, primary=primary, scale=scale), loss


def _perfect_matching(cost: np.ndarray, alone: np.ndarray, singles: int) -> list[tuple[int, int]]:
    """Pairs of outputs of least total cost; `singles` outputs are paired with -1 at the cost `alone`.

    `cost[a, b]` is that of `a` in the first slot and `b` in the second; the better of both orders counts. Where there
    are many outputs, all but an odd one are paired first, and the pairs that cost the most are parted.
    """
    count = len(cost)
    own = singles if count + singles <= _COMPLETE else count % 2
    symmetric = np.minimum(cost, cost.T)
    if own:
        symmetric = np.pad(symmetric, ((0, own), (0, own)), constant_values=np.inf)
        symmetric[count:, :count], symmetric[:count, count:] = alone, alone[:, None]
    size = len(symmetric)
    np.fill_diagonal(symmetric, np.inf)
    if size <= _COMPLETE:
        edges = {(a, b) for a in range(min(size, count)) for b in range(a + 1, size)}
    else:
        near = np.argsort(symmetric, axis=1, kind="stable")[:, :_NEAREST]
        edges = {(min(a, int(b)), max(a, int(b))) for a in range(size) for b in near[a]}
        edges |= set(_hungarian_pairs(symmetric))  # a perfect matching exists among the edges
    top = float(symmetric[np.isfinite(symmetric)].max())
    graph: rustworkx.PyGraph[int, int] = rustworkx.PyGraph(multigraph=False)
    graph.add_nodes_from(range(size))
    graph.add_edges_from(
        [(a, b, _UNIT - int(symmetric[a, b] / max(top, 1e-300) * (_UNIT // 2))) for a, b in sorted(edges)]
    )
    found = rustworkx.max_weight_matching(graph, max_cardinality=True, weight_fn=int)
    pairs = sorted((min(pair), max(pair)) for pair in found)
    paired = [(a, -1 if b >= count else b) for a, b in pairs]
    return _parted(paired, symmetric, alone, (singles - own) // 2)


def _parted(pairs: list[tuple[int, int]], cost: np.ndarray, alone: np.ndarray, parted: int) -> list[tuple[int, int]]:
    """As many pairs taken apart as are `parted`, those that this relieves the most."""
    if not parted:
        return pairs
    relief = [(alone[a] + alone[b] - cost[a, b] if b >= 0 else np.inf, a) for a, b in pairs]
    split = {a for _, a in sorted(relief)[:parted]}
    return sorted(part for a, b in pairs for part in (((a, -1), (b, -1)) if a in split else ((a, b),)))


def _hungarian_pairs(cost: np.ndarray) -> list[tuple[int, int]]:
    """Some perfect matching of low cost: the better half of the outputs against the other, by the Hungarian method."""
    size = len(cost)
    order = np.argsort(np.min(cost, axis=1), kind="stable")
    left, right = order[: size // 2], order[size // 2 :]
    rows, columns = linear_sum_assignment(cost[np.ix_(left, right)])
    return [
        (min(int(left[r]), int(right[c])), max(int(left[r]), int(right[c]))) for r, c in zip(rows, columns, strict=True)
    ]


def _fill_slots(problem: Problem, sharing: Sharing, sweeps: int = 3) -> Assignment:
    count, slots, size = problem.outputs, len(problem.slots), problem.primaries
    choices = [_slot_loss(problem, slot) for slot in range(slots)]
    slot = _into_slots(torch.stack([loss for _, loss in choices], 1).double().numpy(), size)
    mask = torch.stack([choice for choice, _ in choices])[slot, torch.arange(count)]
    members = [(slot == s).nonzero().flatten() for s in range(slots)]
    between = _PairTable(mask)
    anchor = max(range(slots), key=lambda s: len(members[s]))
    primary = torch.full((count,), -1)
    primary[members[anchor]] = torch.arange(len(members[anchor]))
    others = [s for s in range(slots) if s != anchor]
    for _ in range(sweeps):
        before = primary.clone()
        for s in others:
            primary[members[s]] = -1
            cost = problem.cross.new_zeros(len(members[s]), size)
            placed = (primary >= 0).nonzero().flatten()
            pair = between.cost(sharing, members[s], placed)  # (members, placed)
            cost.index_add_(1, primary[placed], pair.to(cost))
            rows, columns = linear_sum_assignment(cost.double().numpy())
            primary[members[s][torch.from_numpy(rows)]] = torch.from_numpy(columns)
        if torch.equal(before, primary):
            break
    scale = problem.variance.new_ones(count)
    leader = torch.full((size,), -1)
    leader[primary[members[anchor]]] = members[anchor]
    for s in others:
        of = leader[primary[members[s]]]
        known = of >= 0
        scale[members[s][known]] = between.ratio(sharing, of[known], members[s][known]).to(scale)
    return Assignment(mask=mask, primary=primary, scale=scale)


def _into_slots(losses: np.ndarray, size: int) -> Tensor:
    """The slot `(N,)` of every output, at most `size` in each, of least total `losses` `(N, slots)`.

    Of many outputs as a transport problem, whose basic solutions are whole numbers: there the Hungarian method on
    `size` equal columns of each slot takes minutes.
    """
    count, slots = losses.shape
    if count <= _HUNGARIAN:
        return torch.from_numpy(linear_sum_assignment(losses.repeat(size, 1))[1]) // size
    entry = np.arange(count * slots)
    each = csr_array((np.ones(len(entry)), (entry // slots, entry)))
    room = csr_array((np.ones(len(entry)), (entry % slots, entry)))
    scaled = losses.ravel() / max(float(np.abs(losses).max()), 1e-300)
    solved = linprog(
        scaled, A_eq=each, b_eq=np.ones(count), A_ub=room, b_ub=np.full(slots, size), bounds=(0, 1), method="highs-ds"
    )
    if solved.x is None:
        raise FitError(f"the outputs of a layer could not be assigned ({solved.message}); report it")
    return torch.from_numpy(solved.x.reshape(count, slots).argmax(1))


class _PairTable:
    """Looks pair costs up for outputs whose masks are settled."""

    def __init__(self, mask: Tensor) -> None:
        self._mask = mask
        self._place = torch.zeros_like(mask)  # of every output among those of its mask
        for kind in _distinct(mask):
            self._place[mask == kind] = torch.arange(int((mask == kind).sum()))
        self._tables: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def _table(self, sharing: Sharing, t: int, u: int) -> tuple[Tensor, Tensor]:
        if (t, u) not in self._tables:
            if (u, t) in self._tables:
                cost, ratio = self._tables[u, t]
                self._tables[t, u] = cost.T, 1 / ratio.T
            else:
                own = [(self._mask == kind).nonzero().flatten() for kind in (t, u)]
                self._tables[t, u] = sharing.cost(t, u, *own)
        return self._tables[t, u]

    def _gather(self, sharing: Sharing, rows: Tensor, columns: Tensor, which: int) -> Tensor:
        out = torch.zeros(len(rows), len(columns), dtype=torch.float64)
        for t in _distinct(self._mask[rows]):
            for u in _distinct(self._mask[columns]):
                at, to = (self._mask[rows] == t).nonzero(), (self._mask[columns] == u).nonzero().flatten()
                table = self._table(sharing, t, u)[which]
                out[at, to] = table[self._place[rows[at]], self._place[columns[to]]].double()
        return out

    def cost(self, sharing: Sharing, rows: Tensor, columns: Tensor) -> Tensor:
        """Pair costs `(rows, columns)`."""
        return self._gather(sharing, rows, columns, 0)

    def ratio(self, sharing: Sharing, first: Tensor, second: Tensor) -> Tensor:
        """`alpha_second / alpha_first` of every pair, `(n,)`."""
        return self._gather(sharing, first, second, 1).diagonal()


def _distinct(values: Tensor) -> list[int]:
    return sorted(set(values.tolist()))
