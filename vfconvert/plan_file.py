"""A plan as a file: JSON with one line for each layer, to be compared, edited by hand and replayed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from vfconvert.analysis.profile import Profile, module_names
from vfconvert.eligibility import Facts, facts_of, reason_to_keep
from vfconvert.errors import PlanFileError
from vfconvert.files import atomic_path, read_small
from vfconvert.json_fields import Checked, JsonObject, is_line, listed, near, parse, shown
from vfconvert.plan_entries import decision_of, entry_of
from vfconvert.planning import Decision, Keep, Plan, check_convolutions, check_something_converted
from vfconvert.version import __version__

SCHEMA_VERSION = 1
MOST_BYTES = 16 * 2**20
_FIELDS = ("schema_version", "tool", "source_sha256", "linear", "layers")


def write_plan(plan: Plan, path: Path, *, source_sha256: str, linear: bool = False) -> None:
    """Write the text of a plan. Raises `UnwritableOutputError`; then whatever stood at `path` stays."""
    text = plan_text(plan, source_sha256=source_sha256, linear=linear)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="ascii", newline="\n")


def plan_text(plan: Plan, *, source_sha256: str, linear: bool = False) -> str:
    """A plan as its file has it: the same plan is the same text. `source_sha256` is a note on the model file.

    `linear`: it is one of the network in which Linear layers on flattened maps are convolutions.
    """
    head = {"schema_version": SCHEMA_VERSION, "tool": f"vfconvert {__version__}", "source_sha256": source_sha256}
    head |= {"linear": True} if linear else {}
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    entries = ",\n".join(f"    {json.dumps(entry_of(decision))}" for decision in plan.decisions)
    return "\n".join(["{", *lines, '  "layers": [', entries, "  ]", "}", ""])


def speaks_of_linears(path: Path, content: bytes | None = None) -> bool:
    """Whether the plan in a file is one of the network in which Linear layers on flattened maps are convolutions.

    `content` is what the file holds, if that is known. Raises `PlanFileError` where the file is no plan.
    """
    return _value_of(path, content).get("linear") is True


def read_plan(
    path: Path, model: nn.Module, profile: Profile, norms: Mapping[str, str], content: bytes | None = None
) -> Plan:
    """The plan in a file for this network; layers that it does not name are kept.

    `norms`: layer -> the BatchNorm that alone reads its output; `content`: what the file holds, if that is known.
    Raises `PlanFileError` with everything that is wrong at once, `NothingEligibleError` where the plan keeps every
    layer, `NoConvolutionError` where there is none.
    """
    # A plan names its layers, so no rule about their selection applies.
    every = facts_of(model, profile, module_names(model), include_first=True)
    check_convolutions(model, every)
    value, errors = _value_of(path, content), list[str]()
    top = Checked("", value, errors)
    top.only(_FIELDS)
    # The note may differ: a plan fits every network of the same layers, whatever its weights.
    top.read("tool", "", is_line, "a printable text")
    top.read("source_sha256", "", is_line, "a printable text")
    top.read("linear", False, lambda value: isinstance(value, bool), "true or false")
    entries = top.read("layers", [], lambda layers: isinstance(layers, list), "a list of layers")
    if "layers" not in value:
        top.wrong("layers", "got none, expected a list of layers")
    plan = _plan_of(entries, errors, {facts.name: facts for facts in every}, norms)
    if errors:
        count = f"{len(errors)} error{'s' if len(errors) > 1 else ''}"
        raise PlanFileError(f"{path}: {count} in the plan: {listed(errors)}")
    check_something_converted(plan)
    return plan


def _value_of(path: Path, content: bytes | None) -> JsonObject:
    """The object in the file, of a schema that is known."""
    if content is None:
        content = read_small(path, MOST_BYTES, "plan", "--save-plan", PlanFileError)
    try:
        value = parse(content)
    except ValueError as error:
        raise PlanFileError(f"{path}: the plan is no JSON: {error}; correct it, or save it again") from error
    if not isinstance(value, JsonObject):
        raise PlanFileError(f"{path}: got {shown(value)}, expected a plan: an object with {', '.join(_FIELDS)}")
    schema = value.get("schema_version")
    if type(schema) is not int or schema != SCHEMA_VERSION:
        got = shown(schema) if "schema_version" in value else "none"
        raise PlanFileError(
            f"{path}: field schema_version: got {got}, expected {SCHEMA_VERSION}; save the plan with this version "
            f"of vfconvert ({__version__})"
        )
    return value


def _plan_of(entries: list[Any], errors: list[str], every: Mapping[str, Facts], norms: Mapping[str, str]) -> Plan:
    """The decisions of those entries that have no error; every error is appended to `errors`."""
    names = list(every)
    decisions: dict[str, Decision | None] = {}
    for number, given in enumerate(entries, start=1):
        if not isinstance(given, JsonObject):
            errors.append(f"entry {number}: got {shown(given)}, expected an object")
            continue
        name = given.get("layer")
        if not isinstance(name, str):
            got = shown(name) if "layer" in given else "none"
            errors.append(f"entry {number}, field layer: got {got}, expected the name of a Conv2d layer")
            continue
        entry = Checked(f"layer {shown(name)}, ", given, errors)
        if name in decisions:
            entry.wrong("layer", "got it twice, expected one entry for each layer")
        elif name not in every:
            hint = near(name, names, errors)
            entry.wrong("layer", f"got a name that no Conv2d layer has, expected one of {len(names)}{hint}")
        else:
            facts, norm = every[name], norms.get(name)
            refused = reason_to_keep(facts)
            reason = refused[1] if refused is not None else None
            decisions[name] = decision_of(entry, facts.geometry, norm, reason)
    return Plan(
        decisions=tuple(
            decisions.get(name)
            or Keep(
                layer=name,
                geometry=facts.geometry,
                code="not-in-plan",
                reason="the plan does not name it",
            )
            for name, facts in every.items()
        )
    )
