"""Every code has an entry, and a flag that is named does include the layer."""

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

import vfconvert
from vfconvert.analysis.profile import profile
from vfconvert.budget.table import CHOSEN_TO_STAY
from vfconvert.ledger import FLAGS, flag_of
from vfconvert.planning import Keep, Plan, Wish, make_plan
from vfconvert.specs import ConvGeometry

PACKAGE = Path(vfconvert.__file__).parent


def codes(source: str) -> set[str]:
    """The codes that a file's rules give: first of a pair of texts in a function of reasons, or `Keep(code=...)`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant):
            found.add(node.value.value)
        if not (isinstance(node, ast.Tuple) and len(node.elts) == 2 and isinstance(node.ctx, ast.Load)):
            continue
        code, sentence = node.elts
        text = isinstance(sentence, ast.JoinedStr) or (
            isinstance(sentence, ast.Constant) and " " in str(sentence.value)
        )
        if isinstance(code, ast.Constant) and isinstance(code.value, str) and text:
            found.add(code.value)
    return found


def test_every_code_that_a_rule_gives_is_in_the_table_and_no_other():
    modules = ("eligibility", "planning", "linears", "plan_entries", "plan_file")
    sources = [*(PACKAGE / f"{name}.py" for name in modules), *(PACKAGE / "budget").glob("*.py")]
    given = {CHOSEN_TO_STAY}.union(*(codes(path.read_text(encoding="utf-8")) for path in sources))
    assert len(given) > 10
    assert given == set(FLAGS)


def test_meta_a_new_code_is_seen():
    assert codes('def f():\n    return "new", f"since {1}"') == {"new"}
    assert codes('x = "newer", "a sentence"') == {"newer"}
    assert codes('Keep(layer=name, code="newest")') == {"newest"}
    assert codes('names = ("one", "two")') == set()


def plan_of(model: nn.Module, wish: Wish, **selection: object) -> Plan:
    return make_plan(model, profile(model, torch.zeros(1, 3, 16, 16)), {}, wish, **selection)  # type: ignore[arg-type]


def network(middle: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 32, 3), middle, nn.Conv2d(32, 32, 3)).eval()


_SPATIAL = Wish()


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command that keeps a layer, and the same with the flag that the ledger names."""

    layer: str
    flag: str
    before: dict[str, object]
    after: dict[str, object]
    wish: Wish = _SPATIAL
    wish_after: Wish = _SPATIAL


CASES = {
    "first": Case(layer="0", flag="--include-first", before={}, after={"include_first": True}),
    "excluded": Case(layer="1", flag="drop --exclude", before={"exclude": ["1"]}, after={}),
    "not-included": Case(layer="1", flag="--include", before={"include": ["2"]}, after={"include": ["2", "1"]}),
    "nothing-to-share": Case(
        layer="1", flag="--channel", before={}, after={}, wish_after=Wish(spatial=False, channel=True)
    ),
}


@pytest.mark.parametrize("code", CASES)
def test_the_named_flag_includes_the_layer(code):
    case = CASES[code]
    model = network(nn.Conv2d(32, 32, 1 if code == "nothing-to-share" else 3))
    kept = next(keep for keep in plan_of(model, case.wish, **case.before).kept if keep.layer == case.layer)
    assert (kept.code, flag_of(kept)) == (code, case.flag)
    assert case.layer in [c.layer for c in plan_of(model, case.wish_after, **case.after).converted]


@pytest.mark.parametrize("code", CASES)
def test_meta_another_flag_does_not_include_the_layer(code):
    case = CASES[code]
    model = network(nn.Conv2d(32, 32, 1 if code == "nothing-to-share" else 3))
    other = {**case.before, "exclude": ["0" if case.layer != "0" else "2", *case.before.get("exclude", [])]}
    assert case.layer not in [c.layer for c in plan_of(model, case.wish, **other).converted]


@pytest.mark.parametrize("code", ["plan", "not-in-plan"])
def test_what_a_plan_file_keeps_is_included_by_editing_it(code):
    assert flag_of(_keep(code, "why")) == "edit --plan"


@pytest.mark.parametrize("code", sorted(set(FLAGS) - {*CASES, "linear", "budget", "plan", "not-in-plan"}))
def test_what_the_network_itself_forbids_no_flag_can_include(code):
    assert flag_of(_keep(code, "why")) is None


@pytest.mark.parametrize(
    ("code", "reason", "flag"),
    [
        ("budget", "the budget is met without it", "tighter --target"),
        ("excluded", "--layer a.*=keep", "drop --layer"),
        ("not-included", "no --layer matches (given: a.*)", "--layer"),
        ("nothing-to-share", "a 1x1 kernel of 8 channels allows no crop or window", "--windows, --channel-stride"),
    ],
)
def test_flag_follows_the_reason(code, reason, flag):
    assert flag_of(_keep(code, reason)) == flag


def test_one_channel_has_no_windows_to_share():
    assert flag_of(_keep("nothing-to-share", "--channel would include it", channels=1)) is None


def test_unknown_code_is_an_error():
    with pytest.raises(KeyError, match="unheard-of"):
        flag_of(_keep("unheard-of", "why"))


def _keep(code: str, reason: str, channels: int = 8) -> Keep:
    return Keep(layer="l", geometry=ConvGeometry.of(nn.Conv2d(channels, 8, 1)), code=code, reason=reason)
