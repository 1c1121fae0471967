"""`--layer`: how its text is read, and what it makes of the layers that it names."""

import pytest
from torch import nn

from tests.test_eligibility import decision, plan_of
from vfconvert.errors import IllegalSpecError, SelectionError
from vfconvert.overrides import Override, read_override
from vfconvert.planning import Convert, Keep, Plan, Wish

NOTHING = Wish(spatial=False)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 8, 1)).eval()


def plan(*texts: str, wish: Wish = NOTHING, **selection: object) -> Plan:
    return plan_of(network(), wish, overrides=[read_override(text) for text in texts], **selection)


def kinds(made: Plan) -> list[str]:
    """What became of each layer: its spec in words, or the code of its reason."""
    return [str(d.spec) if isinstance(d, Convert) else d.code for d in made.decisions]


SQUARES, LINES, WINDOWS = "crops 3x3 1x1", "crops 3x3 1x1 1x3 3x1", "2 windows, stride 4"


@pytest.mark.parametrize(
    ("text", "override"),
    [
        ("a=keep", Override(glob="a", kind="keep")),
        ("layer[12].*=lines", Override(glob="layer[12].*", kind="lines")),
        ("*=both:windows=3,stride=1/4", Override(glob="*", kind="both", windows=3, stride=0.25)),
        ("*=channel:primaries=12,stride=8", Override(glob="*", kind="channel", stride=8, primaries=12)),
        ("*=spatial:primaries=0.75", Override(glob="*", kind="spatial", primaries=0.75)),
    ],
)
def test_text_is_read(text: str, override: Override) -> None:
    assert read_override(text) == override
    assert read_override(str(override)) == override


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("layer4", "expected GLOB=KIND like"),
        ("=keep", "expected GLOB=KIND like"),
        ("layer4:keep", "expected GLOB=KIND like"),
        ("a=kep", "kind: got 'kep', expected one of keep, spatial, lines, channel, both"),
        ("a=keep:windows=2", "field of keep: got 'windows', expected none"),
        ("a=spatial:windows=2", "field of spatial: got 'windows', expected one of primaries"),
        ("a=channel:", "field of channel: got '', expected one of windows, stride, primaries"),
        ("a=channel:windows=0.5", "windows: got '0.5', expected a count like 2"),
        ("a=channel:stride=1/0", "stride: got '1/0', expected a count like 16 or a share"),
        ("a=channel:stride=nan", "stride: got 'nan', expected a count"),
        ("a=channel:stride=1,stride=2", "stride: given twice, expected once"),
        ("a=spatial:primaries=" + "9" * 400, "primaries: got '999"),
    ],
)
def test_other_text_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("[", r"\[")):
        read_override(text)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1=spatial"], ["not-included", SQUARES, "not-included", "not-included"]),
        (["*=lines"], [LINES, LINES, LINES, "nothing-to-share"]),
        (["[12]=both", "2=keep"], ["not-included", f"{SQUARES}; {WINDOWS}", "excluded", "not-included"]),
        (["2=keep", "[12]=channel"], ["not-included", WINDOWS, WINDOWS, "not-included"]),
        (["1=channel:windows=4,stride=2"], ["not-included", "4 windows, stride 2", "not-included", "not-included"]),
        (["1=spatial:primaries=0.7"], ["not-included", f"{SQUARES}; 12 primaries", "not-included", "not-included"]),
        (["1=spatial:primaries=9"], ["not-included", f"{SQUARES}; 9 primaries", "not-included", "not-included"]),
        (["*=spatial:primaries=1.0", "2=spatial"], ["would-not-shrink"] * 2 + [SQUARES, "nothing-to-share"]),
    ],
    ids=str,
)
def test_named_layers_become_what_is_said(texts: list[str], expected: list[str]) -> None:
    assert kinds(plan(*texts)) == expected


def test_other_layers_follow_the_options_for_all() -> None:
    assert kinds(plan("2=channel", wish=Wish())) == ["first", SQUARES, WINDOWS, "nothing-to-share"]


def test_unsaid_numbers_are_those_for_all_layers() -> None:
    wish = Wish(spatial=False, channel=True, windows=4, channel_stride=3, crops="lines")
    assert kinds(plan("1=both", "2=spatial", wish=wish))[1:3] == [f"{LINES}; 4 windows, stride 3", SQUARES]


def test_reasons_name_the_flag() -> None:
    made = plan("1=spatial", "2=keep")
    kept = {keep.layer: keep.reason for keep in made.kept}
    assert kept == {
        "0": "no --layer matches (given: 1, 2)",
        "2": "--layer 2=keep",
        "3": "no --layer matches (given: 1, 2)",
    }


def test_selection_goes_on_selecting() -> None:
    assert kinds(plan("*=spatial", exclude=["1"]))[1:3] == ["excluded", SQUARES]
    assert kinds(plan("*=spatial", include=["1"]))[1:3] == [SQUARES, "not-included"]


def test_layer_that_a_rule_keeps_stays_with_its_reason() -> None:
    model = network()
    model[1].register_forward_hook(lambda module, inputs, output: output)
    kept = decision(plan_of(model, NOTHING, overrides=[read_override("*=spatial")]), "1")
    assert isinstance(kept, Keep)
    assert kept.code == "hooks"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1=channel:windows=1", r"--layer 1=channel:windows=1: --windows: got 1, expected at least 2"),
        ("1=channel:stride=0.75", r"--layer 1=channel:stride=0.75: --channel-stride: got 0.75 of the channels"),
        ("1=spatial:primaries=0", r"primaries: got 0, expected at least 1"),
        ("1=spatial:primaries=1.5", r"primaries: got 1.5 of the outputs, expected above 0 and at most 1"),
        ("1=spatial:primaries=7", r"--layer 1=spatial:primaries=7: layer 1: .*got 7, expected 8 to 16"),
        ("1=channel:stride=9", r"--layer 1=channel:stride=9: .* fits no layer: the widest filter has 16 channels"),
    ],
)
def test_numbers_that_no_layer_can_have_are_refused(text: str, said: str) -> None:
    with pytest.raises(IllegalSpecError, match=said):
        plan(text)


def test_glob_that_matches_nothing_is_refused() -> None:
    with pytest.raises(SelectionError, match="no Conv2d layer matches '7'"):
        plan("1=spatial", "7=keep")


def test_meta_another_kind_gives_another_plan() -> None:
    assert kinds(plan("1=spatial")) != kinds(plan("1=lines"))
