"""A plan as a value of its own: looked at, changed by the names of layers, saved, and given to a conversion."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

from vfconvert.budget.frontier import Point
from vfconvert.eligibility import unmatched
from vfconvert.errors import IllegalSpecError, SelectionError
from vfconvert.keyword_values import read_value
from vfconvert.keywords import read_layers
from vfconvert.ledger import flag_of
from vfconvert.nn.flattened import CONVOLUTION
from vfconvert.overrides import Override
from vfconvert.plan_entries import UNSAID, shape_of
from vfconvert.plan_file import plan_text, write_plan
from vfconvert.planning import Convert, Decision, Keep, Plan, no_gain
from vfconvert.wishes import Wish, wish_of

_OF_A_SPEC = ("would-not-shrink", "nothing-to-share")  # reasons that another spec may not have


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class NetworkPlan:
    """What becomes of every convolution of one network; printed, it is a line for each.

    `source_sha256` is the digest of the network that it was made for, a note only: a plan fits every network of the
    same layers. `linear`: Linear layers on flattened maps count as convolutions. `predicted` is what the network then
    has and the damage, where the plan was chosen from measured options.
    """

    plan: Plan
    source_sha256: str
    linear: bool = False
    predicted: Point | None = None

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """A `Convert` or a `Keep` for every convolution, in the order of the network."""
        return self.plan.decisions

    def __repr__(self) -> str:
        return f"NetworkPlan({len(self.plan.converted)} of {len(self.decisions)} convolutions converted)"

    def __str__(self) -> str:
        rows = [(each.layer, shape_of(each.geometry), _told(each)) for each in self.decisions]
        widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
        return "\n".join(f"{name:{widths[0]}}  {shape:{widths[1]}}  {told}" for name, shape, told in rows)

    def to_json(self) -> str:
        """The text that `save` writes: the same plan is the same text."""
        return plan_text(self.plan, source_sha256=self.source_sha256, linear=self.linear)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file that `--plan` and `plan=` read. Raises `UnwritableOutputError`."""
        where: Path = read_value("save(): path", "Path", path)
        write_plan(self.plan, where, source_sha256=self.source_sha256, linear=self.linear)

    def changed(self, layers: Mapping[str, str] | Sequence[Override]) -> NetworkPlan:
        """The plan with other decisions for some layers, like `{"layer4.*": "keep"}`; of several that match, the last.

        A layer that cannot be converted stays as it is, with its reason. Raises `SelectionError` where a glob matches
        no layer, `IllegalSpecError` for numbers that a layer cannot have, `TypeError` and `ValueError` for what cannot
        be read.
        """
        overrides = read_layers(layers, "changed(): layers")
        names = [name for decision in self.decisions for name in self._called(decision)]
        for glob in unmatched([override.glob for override in overrides], names):
            near = get_close_matches(glob, names, n=1, cutoff=0.0)
            raise SelectionError(
                f"no Conv2d layer matches {glob!r}; the {len(names)} layers are named like {near[0]!r} "
                "(printed, the plan lists them all)"
            )
        decisions = []
        for decision in self.decisions:
            mine = [o for o in overrides if any(fnmatchcase(name, o.glob) for name in self._called(decision))]
            decisions.append(_decided(decision, mine[-1]) if mine else decision)
        return replace(self, plan=Plan(decisions=tuple(decisions)), predicted=None)

    def _called(self, decision: Decision) -> tuple[str, ...]:
        """The names by which globs may call a layer, as they may in a conversion."""
        name, suffix = decision.layer, f".{CONVOLUTION}"
        return (name, name.removesuffix(suffix)) if self.linear and name.endswith(suffix) else (name,)


def _told(decision: Decision) -> str:
    return str(decision.spec) if isinstance(decision, Convert) else f"keep ({decision.code}: {decision.reason})"


def _decided(decision: Decision, override: Override) -> Decision:
    """What an override makes of one layer."""
    name, geometry = decision.layer, decision.geometry
    wish = wish_of(override, Wish())
    if isinstance(decision, Keep) and flag_of(decision) is None and decision.code not in _OF_A_SPEC:
        return decision
    if wish is None:
        return Keep(layer=name, geometry=geometry, code=UNSAID[0], reason=UNSAID[1])
    spec = wish.spec_of(geometry)
    try:
        spec.check(geometry)
    except IllegalSpecError as error:
        raise IllegalSpecError(f"--layer {override}: layer {name}: {error}") from error
    # Whether a norm follows a kept layer is not noted; the conversion looks again.
    norm = decision.norm if isinstance(decision, Convert) else None
    has_norm = isinstance(decision, Keep) or norm is not None
    if (reason := no_gain(geometry, spec, channel=wish.channel, norm=has_norm)) is not None:
        return Keep(layer=name, geometry=geometry, code=reason[0], reason=reason[1])
    return Convert(layer=name, geometry=geometry, spec=spec, norm=norm)
