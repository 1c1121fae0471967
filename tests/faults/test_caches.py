"""A damaged file of damage: measured again and told, where the file is ours; another's stays and is an error."""

import json
from pathlib import Path

import pytest

from tests.budget.test_cache import HARMS
from tests.cli.conftest import invoke, write_images
from tests.cli.conftest import model_path as model_path
from vfconvert.budget.cache import cache_path, is_damaged, read_harms, write_harms
from vfconvert.errors import NotAModelError, UnwritableOutputError

LINE = ("--no-reconstruct", "--no-measure", "--dry-run", "-q", "--target", "params=80%")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    path = tmp_path / "m.pt.damage.json"
    write_harms(path, "key", HARMS, "nats")
    return path


def test_whole_files_of_other_keys_and_versions_are_not_damaged(kept: Path) -> None:
    assert not is_damaged(kept, "other")
    kept.write_text(kept.read_text().replace('"version":2', '"version":1'))
    assert not is_damaged(kept, "key")
    assert not is_damaged(kept.with_name("none"), "key")
    assert not is_damaged(kept.parent, "key")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\x00", b"[]", b"null", b'{"version":2}', b'{"version":2,"key":'])
def test_all_else_is_damaged(kept: Path, content: bytes) -> None:
    kept.write_bytes(content)
    assert read_harms(kept, "key", {}) is None
    assert is_damaged(kept, "key")


def test_what_has_the_right_key_and_cannot_be_read_is_damaged(kept: Path) -> None:
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"layers": []}))
    assert is_damaged(kept, "key")


def test_what_does_not_look_like_ours_is_put_aside(kept: Path) -> None:
    kept.write_bytes(b"notes")
    assert write_harms(kept, "key", HARMS, "nats")
    assert kept.with_name("m.pt.damage.json.damaged").read_bytes() == b"notes"
    assert {path.name for path in kept.parent.iterdir()} == {"m.pt.damage.json", "m.pt.damage.json.damaged"}
    assert read_harms(kept, "key", {}) == (HARMS, "nats")


def test_damaged_file_is_measured_anew_and_the_report_says_so(model_path: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 20, 0)
    line = (model_path, *LINE[:2], "--spatial", "--data", tmp_path / "images", "-q", "--target", "params=90%")
    out, report, cache = tmp_path / "m.ts", tmp_path / "r.json", cache_path(model_path)

    def warnings() -> list[str]:
        invoke(*line, "--format", "torchscript", "-o", out, "--report", report, exit_code=0)
        return [said for said in json.loads(report.read_text())["warnings"] if "was damaged" in said]

    assert warnings() == []
    whole = cache.read_bytes()
    assert warnings() == []  # read back
    cache.write_bytes(whole[:-9])
    assert warnings() == [f"{cache} was damaged, so that what it held was measured anew"]
    assert cache.read_bytes() == whole
    cache.write_bytes(b"")
    assert len(warnings()) == 1
    assert cache.read_bytes() == whole


def test_files_that_the_user_names_stay_errors(model_path: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 20, 0)
    (tmp_path / "mine").write_text("notes")
    line = (model_path, *LINE, "--data", tmp_path / "images")
    told = invoke(*line, "--damage-cache", tmp_path / "mine", exit_code=UnwritableOutputError.exit_code).stderr
    assert "holds no measured damage and is left alone" in told
    line = tuple(part for part in line if part != "--no-measure")
    told = invoke(*line, "--costs", tmp_path / "mine", exit_code=NotAModelError.exit_code).stderr
    assert "no table of layer costs" in told
    assert (tmp_path / "mine").read_text() == "notes"
