"""The drawings show what the package computes: boxes are counted against crops, windows, masks, and plans."""

import re

import pytest

from docs.extensions.method import BOTH, BOTH_CONV, DRAWINGS, KERNELS, SHARED, SHARED_CONV, SLIDING, WINDOWED
from docs.extensions.plans import SHARE, WHOLE, table
from vfconvert.budget.knapsack import choose
from vfconvert.ops.blocks import cuts_of
from vfconvert.ops.crops import crops_and_levels, square_crops
from vfconvert.ops.expand import default_rows

FILLED = r'<rect class="(?:first|second|third)"'


def groups(name: str, markup: str | None = None) -> dict[str, list[str]]:
    """What stands in the groups of a drawing, by their names."""
    found: dict[str, list[str]] = {}
    for group, inside in re.findall(r'<g data-name="([^"]*)">(.*?)</g>', markup or DRAWINGS[name]().markup()):
        found.setdefault(group, []).append(inside)
    return found


def filled(group: str) -> int:
    return len(re.findall(FILLED, group))


def test_crops_are_drawn_tap_by_tap():
    found = groups("crops")
    assert set(found) == {f"{kh}x{kw} {crop}" for kh, kw in KERNELS for crop in square_crops((kh, kw))}
    for kh, kw in KERNELS:
        for crop in square_crops((kh, kw)):
            (drawn,) = found[f"{kh}x{kw} {crop}"]
            assert (filled(drawn), drawn.count("<rect")) == (crop.area, kh * kw)


def test_lines_are_those_of_each_level():
    crops, levels = crops_and_levels((3, 3), "lines")
    expected = {
        f"level {level} {crops[index]}": crops[index].area for level, some in enumerate(levels) for index in some
    }
    assert {name: filled(drawn) for name, (drawn,) in groups("lines").items()} == expected


def test_windows_and_segments_are_drawn_channel_by_channel():
    found, windows = groups("windows"), SLIDING.channel_windows(WINDOWED.group_inputs)
    for index, window in enumerate(windows):
        (drawn,) = found[f"window {index}"]
        boxes = re.findall(r'<rect class="(\w+)"', drawn)
        assert [kind != "out" for kind in boxes] == [
            window.start <= channel < window.stop for channel in range(WINDOWED.group_inputs)
        ]
    assert len(found["segment"]) == len(cuts_of(windows).segments)


def test_masks_of_crops_and_windows_have_the_copies_area():
    found = groups("both")
    windows = BOTH.channel_windows(BOTH_CONV.group_inputs)
    assert len(found) == BOTH.outputs_per_primary
    for crop in BOTH.crops:
        for index, window in enumerate(windows):
            assert filled(found[f"{crop} {index}"][0]) == crop.area * window.width


def test_primaries_are_as_many_as_are_stored():
    found = groups("primaries")
    assert (len(found["ordinary"]), len(found["primary"])) == (4, 2)
    assert filled("".join(found["primary"])) * 2 == filled("".join(found["ordinary"]))
    assert sum(filled(drawn) for name, some in found.items() if name.startswith("secondary") for drawn in some) == 20


def test_sums_add_up_to_the_windows_and_their_products():
    markup = DRAWINGS["sums"]().markup()
    windows = SHARED.channel_windows(SHARED_CONV.group_inputs)
    area, widths = SHARED.crops[0].area, [window.width for window in windows]
    assert f"{SHARED_CONV.weight_numbers} products" in markup
    assert f"each window by itself: {area * sum(widths)}" in markup
    assert f"with shared sums: {area * SHARED_CONV.group_inputs}" in markup
    sizes = {name: segment.width for name, segment in zip("abc", cuts_of(windows).segments, strict=True)}
    for index, width in enumerate(widths):
        (said,) = groups("sums")[f"sum {index}"]
        (terms,) = re.findall(r"= ([a-c +]+)<", said)
        assert sum(sizes[term] for term in terms.split(" + ")) == width
    assert len(default_rows(SHARED_CONV, SHARED)) == len(windows)


def test_plan_is_the_solvers_and_within_its_limit():
    options = table()
    chosen = choose(options, {"params": SHARE * WHOLE}).chosen
    drawn = groups("plan")
    picked = [layer.options[index] for layer, index in zip(options.layers, chosen, strict=True)]
    assert len(drawn["chosen"]) == len(options.layers)
    assert [re.findall(r">(\w+)<", group)[0] for group in drawn["chosen"]] == [option.kind for option in picked]
    saved = sum(
        layer.options[0].parameters - option.parameters for layer, option in zip(options.layers, picked, strict=True)
    )
    assert f"{WHOLE - saved:,} of {WHOLE:,} parameters" in DRAWINGS["plan"]().markup()
    assert WHOLE - saved <= SHARE * WHOLE


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawing_says_what_it_shows_and_stays_within_its_frame(name):
    markup = DRAWINGS[name]().markup()
    assert re.search(r'role="img" aria-label="[^"]{20,}\."', markup)
    width, height = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', markup)[0])
    for x, y, w, h in re.findall(r'x="([\d.-]+)" y="([\d.-]+)" width="([\d.]+)" height="([\d.]+)"', markup):
        assert 0 <= float(x) <= float(x) + float(w) <= width
        assert 0 <= float(y) <= float(y) + float(h) <= height


def test_meta_a_wrong_box_is_seen():
    markup = DRAWINGS["crops"]().markup().replace('class="first"', 'class="out"', 1)
    assert filled(groups("", markup)["7x7 7x7"][0]) == 48
