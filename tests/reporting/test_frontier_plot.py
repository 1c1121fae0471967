"""The picture of the frontiers: what it says, that it is a picture, and that it is the same every time."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

from tests.reporting.inspect_samples import INSPECTED, UNTIMED
from vfconvert.errors import MissingPackageError, UnwritableOutputError
from vfconvert.reporting.frontier_plot import draw_frontier

SVG = "{http://www.w3.org/2000/svg}"
CURVES = {"parameters": "#0072b2", "MACs": "#d55e00", "latency": "#009e73"}


def drawn(path: Path, report=INSPECTED) -> bytes:
    draw_frontier(report, path)
    return path.read_bytes()


def texts(svg: bytes) -> set[str]:
    return {"".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text")}


def corners(svg: bytes, colour: str) -> int:
    """The number of points of the longest line of a colour; those of the legend are not cut off at the axes."""
    paths = re.findall(r'<path d="([^"]*)" clip-path[^>]*style="fill: none; stroke[^"]*: ' + colour, svg.decode())
    return max((len(re.findall("[ML]", path)) for path in paths), default=0)


def test_svg_is_xml_and_holds_the_labels_with_their_units(tmp_path):
    said = texts(drawn(tmp_path / "f.svg"))
    assert {"share of the original network (%)", "predicted damage (nats)"} <= said
    assert {f"least damage by {name}" for name in CURVES} <= said
    assert {"all layers spatial", "all layers channel", "all layers both"} <= said
    assert any("a.pt" in text for text in said)


def test_svg_says_no_more_than_was_measured(tmp_path):
    said = texts(drawn(tmp_path / "f.svg", UNTIMED))
    assert "predicted damage (share of the output's variance)" in said
    assert {"least damage by parameters", "least damage by MACs"} <= said
    assert not any("latency" in text or "all layers" in text for text in said)


def test_every_point_of_a_frontier_is_a_corner_of_its_curve(tmp_path):
    svg = drawn(tmp_path / "f.svg", replace(INSPECTED, uniform=()))  # marks have corners too
    points = {frontier.cost: len(frontier.points) for frontier in INSPECTED.frontiers}
    found = [corners(svg, colour) for colour in CURVES.values()]
    assert found == [points["params"], points["macs"], points["latency"]] == [5, 4, 4]


def test_meta_a_shorter_frontier_has_fewer_corners(tmp_path):
    first = INSPECTED.frontiers[0]
    shorter = replace(INSPECTED, uniform=(), frontiers=(replace(first, points=first.points[:2]),))
    assert corners(drawn(tmp_path / "f.svg", shorter), CURVES["parameters"]) == 2


def test_png_is_a_picture(tmp_path):
    assert drawn(tmp_path / "f.PNG").startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_same_report_gives_the_same_bytes(tmp_path, suffix):
    first = drawn(tmp_path / f"a.{suffix}")
    assert drawn(tmp_path / f"b.{suffix}") == first
    assert b"dc:date" not in first


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_meta_another_report_gives_other_bytes(tmp_path, suffix):
    assert drawn(tmp_path / f"a.{suffix}") != drawn(tmp_path / f"b.{suffix}", UNTIMED)


def test_settings_of_the_user_are_neither_followed_nor_lost(tmp_path):
    first = drawn(tmp_path / "a.svg")
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert drawn(tmp_path / "b.svg") == first
        assert mpl.rcParams["font.size"] == 30


@pytest.mark.parametrize("report", [replace(INSPECTED, frontiers=()), replace(INSPECTED, frontiers=(), uniform=())])
def test_nothing_to_draw_is_still_a_picture(tmp_path, report):
    assert "share of the original network (%)" in texts(drawn(tmp_path / "f.svg", report))


@pytest.mark.parametrize("name", ["f.pdf", "f"])
def test_other_formats_are_refused(tmp_path, name):
    with pytest.raises(UnwritableOutputError, match=r"ends in \.svg or \.png"):
        draw_frontier(INSPECTED, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_is_refused(tmp_path):
    with pytest.raises(UnwritableOutputError, match="does not exist"):
        draw_frontier(INSPECTED, tmp_path / "no" / "f.svg")


def test_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'vfconvert\[plot\]'"):
        draw_frontier(INSPECTED, tmp_path / "f.svg")
    assert list(tmp_path.iterdir()) == []


def test_only_the_picture_is_left(tmp_path):
    drawn(tmp_path / "f.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["f.svg"]
