"""The file of damage: an exact round trip, and nothing believed of a file that is another's, damaged or hostile."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import vfconvert.budget.cache as module
from tests.budget.tables import GEOMETRY, SPATIAL
from vfconvert.budget.cache import cache_path, is_cache, key_of, read_harms, write_harms
from vfconvert.budget.damage import Harm
from vfconvert.specs import Crop, VersatileSpec

WINDOWS = VersatileSpec(
    crops=(Crop(0, 3, 0, 3),), levels=((0,),), windows=2, channel_stride=4, group_primaries=12, whole_window=True
)
HARMS = {
    "a": (
        Harm(kind="spatial", spec=SPATIAL, unexplained=0.1 + 0.2, damage=1 / 3, products=1440),
        Harm(kind="channel", spec=WINDOWS, unexplained=1e-17, damage=0.0, products=7),
    ),
    "b": (),
}
GEOMETRIES = dict.fromkeys(HARMS, GEOMETRY)
ANSWERS = [torch.tensor([[0.3, -1.2], [2.1, 0.4]])]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "m.pt.damage.json"
    assert write_harms(found, "key", HARMS, "nats")
    return found


def read(path: Path, key: str = "key"):
    return read_harms(path, key, GEOMETRIES)


def test_harms_come_back_exactly(path: Path) -> None:
    assert read(path) == (HARMS, "nats")
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing temporary is left


def test_same_harms_give_the_same_bytes(path: Path, tmp_path: Path) -> None:
    write_harms(tmp_path / "again", "key", HARMS, "nats")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_other_measure_comes_back(path: Path) -> None:
    write_harms(path, "key", HARMS, "variance")
    assert read(path) == (HARMS, "variance")


def test_place_is_beside_the_model() -> None:
    assert cache_path(Path("models/net.v2.pt")) == Path("models/net.v2.pt.damage.json")


def test_all_layers_of_the_file_are_read_whatever_is_asked_for(path: Path) -> None:
    """The others are kept too: they are written again beside what is measured anew."""
    assert read_harms(path, "key", {"a": GEOMETRY}) == (HARMS, "nats")
    assert read_harms(path, "key", {**GEOMETRIES, "c": GEOMETRY}) == (HARMS, "nats")


def test_nothing_is_there(tmp_path: Path) -> None:
    assert read(tmp_path / "none") is None
    assert read(tmp_path) is None  # a folder


def test_file_of_another_key_is_not_believed(path: Path) -> None:
    assert read(path, "other") is None


def changed(path: Path, change: Any) -> Path:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def of_harm(key: str, value: Any, *within: str):
    def change(content: Any) -> None:
        place = content["layers"]["a"][1]
        for name in within:
            place = place[name]
        place[key] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(version=0),
        of_harm("windows", 1e400, "spec"),
        lambda c: c.update(measure="bits"),
        lambda c: c.update(measure=["nats"]),
        lambda c: c.pop("layers"),
        lambda c: c.update(layers=[]),
        lambda c: c["layers"].update(a=1),
        lambda c: c["layers"].update(a="text"),
        lambda c: c["layers"].update(a=[None]),
        lambda c: c["layers"]["a"][0].pop("products"),
        of_harm("damage", -1.0),
        of_harm("damage", math.nan),
        of_harm("damage", math.inf),
        of_harm("damage", None),
        of_harm("damage", "0.1x"),
        of_harm("unexplained", -0.5),
        of_harm("products", 0),
        of_harm("products", []),
        of_harm("products", math.inf),
        of_harm("spec", None),
        of_harm("windows", 40, "spec"),
        of_harm("windows", -1, "spec"),
        of_harm("channel_stride", 9, "spec"),
        of_harm("group_primaries", 99, "spec"),
        of_harm("crops", [], "spec"),
        of_harm("crops", [{"top": 0, "bottom": 9, "left": 0, "right": 3}], "spec"),
        of_harm("crops", [[0, 3, 0, 3]], "spec"),
        of_harm("levels", [[1]], "spec"),
        of_harm("levels", 3, "spec"),
    ],
)
def test_damaged_file_is_not_believed(path: Path, change: Any) -> None:
    assert read(path) is not None
    assert read(changed(path, change)) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b"3", b'"text"', b"\xff\xfe\x00", b"[" * 100_000, b"9" * 10_000, b"\x80\x04K\x01."],
    ids=["empty", "cut", "null", "list", "number", "text", "bytes", "deep", "long number", "pickle"],
)
def test_what_is_no_such_file_is_not_believed(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert read(path) is None


def test_huge_file_is_not_even_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", path.stat().st_size - 1)
    monkeypatch.setattr(Path, "read_text", _refuse)
    assert read(path) is None


def _refuse(*arguments: object, **keywords: object) -> None:
    raise AssertionError("was called")


def test_huge_limit_lets_the_file_itself_through(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", path.stat().st_size)
    assert read(path) is not None


def test_nothing_is_executed(path: Path) -> None:
    code = "__import__('builtins').executed = True"
    changed(path, of_harm("kind", code))
    changed(path, lambda c: c.update(extra={"__reduce__": ["eval", [code]], "py/object": "os.system"}))
    events: list[str] = []
    watching = True
    sys.addaudithook(lambda event, _: events.append(event) if watching else None)
    found = read(path)
    watching = False
    assert not any(event in ("exec", "compile", "import", "pickle.find_class", "os.system") for event in events)
    assert "open" in events
    assert found is not None
    assert found[0]["a"][1].kind == code  # a word like any other, which no kind of option is


def test_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    assert not write_harms(tmp_path / "none" / "m.damage.json", "key", HARMS, "nats")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "folder").mkdir()
    assert not write_harms(tmp_path / "folder", "key", HARMS, "nats")


def test_key_depends_on_all_that_is_measured() -> None:
    images = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    other = images.clone()
    other[3, 2, 4, 4] += 1e-6
    keys = [
        key_of("sha", images, 0, ANSWERS),
        key_of("sha2", images, 0, ANSWERS),
        key_of("sha", images, 1, ANSWERS),
        key_of("sha", other, 0, ANSWERS),
        key_of("sha", images[:3], 0, ANSWERS),
        key_of("sha", images.view(4, 3, 25, 1), 0, ANSWERS),
        key_of("sha", images, 0, [1.01 * ANSWERS[0]]),
    ]
    assert len(set(keys)) == len(keys)
    near = [ANSWERS[0] * (1 + 1e-7)]
    assert key_of("sha", images, 0, near) == keys[0]
    assert key_of("sha", images.to(memory_format=torch.channels_last), 0, ANSWERS) == keys[0]


def test_only_a_cache_is_taken_for_one(tmp_path: Path) -> None:
    path = tmp_path / "m.damage.json"
    assert not is_cache(path)
    write_harms(path, "key", HARMS, "nats")
    assert is_cache(path)
    path.write_bytes(b"PK\x03\x04" + path.read_bytes())
    assert not is_cache(path)
