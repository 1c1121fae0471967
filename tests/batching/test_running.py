"""A batch converts what is not done, keeps what is, and one failure stops no other."""

import dataclasses
import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from tests.loading.onnx_samples import floats, node, saved
from vfconvert.batching import running
from vfconvert.batching.items import Item
from vfconvert.batching.pool import Job
from vfconvert.batching.records import is_done, key_of, read_record, record_path, write_record
from vfconvert.batching.running import Progressed, part_of, run_batch
from vfconvert.cli.main import main
from vfconvert.errors import UnwritableOutputError
from vfconvert.training.checkpoint import NAME

CONVERSION = """
import json, sys
model, output, report = sys.argv[1:]
text = open(model).read()
if text == "nothing":
    sys.exit(0)
if text == "bad":
    print("Error: model.pt: is bad; choose another", file=sys.stderr)
    sys.exit(13)
open(output, "w").write(text.upper())
eight = output.replace(".onnx", ".int8.onnx")
open(eight, "w").write("8")
precisions = [{"path": eight, "bytes": 1}, {"path": None, "bytes": 7}]
json.dump({"artefacts": [{"path": output, "bytes": len(text)}], "precisions": precisions}, open(report, "w"))
sys.exit(3 if text == "gate" else 0)
"""


REAL = running._job


@pytest.fixture(autouse=True)
def quick_conversions(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of the command a small script of the same files and codes."""

    def quick(number: int, item: Item, folder: Path, resume: bool) -> Job:
        made = REAL(number, item, folder, resume)
        output, report = (made.command[made.command.index(flag) + 1] for flag in ("--output", "--report"))
        return dataclasses.replace(
            made, command=(made.command[0], "-S", "-c", CONVERSION, str(item.model), output, report)
        )

    monkeypatch.setattr(running, "_job", quick)


def items(folder: Path, **texts: str) -> list[Item]:
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [Item(name=name, model=folder / name) for name in texts]


def run(found: list[Item], folder: Path, **settings: object) -> dict[str, str]:
    """The state of each, in brackets where it was skipped."""
    steps: list[Progressed] = []
    run_batch(found, folder, jobs=2, told=steps.append, **settings)  # type: ignore[arg-type]
    ended = [step for step in steps if step.record is not None]
    return {s.item.name: f"[{s.record.state}]" if s.skipped else s.record.state for s in ended if s.record is not None}


def test_one_failure_stops_no_other(tmp_path: Path) -> None:
    found, out = items(tmp_path, a="one", b="bad", c="gate", d="two"), tmp_path / "out"
    assert run(found, out) == {"a": "converted", "b": "failed", "c": "gate failed", "d": "converted"}
    record = read_record(out, found[1])
    assert record is not None
    assert (record.exit_code, record.error) == (13, "model.pt: is bad; choose another")
    assert (out / "d.onnx").read_text() == "TWO"


def test_what_is_done_is_skipped_and_the_rest_is_tried_again(tmp_path: Path) -> None:
    found, out = items(tmp_path, a="one", b="bad", c="three"), tmp_path / "out"
    run(found, out)
    assert run(found, out) == {"a": "[converted]", "b": "failed", "c": "[converted]"}
    (tmp_path / "b").write_text("good")
    assert run(found, out) == {"a": "[converted]", "b": "converted", "c": "[converted]"}
    assert run(found, out, again=True) == dict.fromkeys("abc", "converted")


def spoil_output(item: Item, out: Path) -> Item:
    (out / "a.onnx").write_text("cut o")
    return item


def remove_output(item: Item, out: Path) -> Item:
    (out / "a.onnx").unlink()
    return item


def remove_further_output(item: Item, out: Path) -> Item:
    (out / "a.int8.onnx").unlink()
    return item


def damage_record(item: Item, out: Path) -> Item:
    record_path(out, item).write_text('{"key": ')
    return item


def change_model(item: Item, out: Path) -> Item:
    item.model.write_text("other")
    return item


def add_argument(item: Item, out: Path) -> Item:
    return dataclasses.replace(item, arguments=("--spatial",))


def add_recipe(item: Item, out: Path) -> Item:
    (out / "recipe.yaml").write_text("spatial: true")
    return dataclasses.replace(item, config=out / "recipe.yaml")


def test_weights_beside_a_model_and_files_of_arguments_count(tmp_path: Path) -> None:
    weight, nodes = floats(8, 4, 3, 3), [node("Conv", "x w", "y")]
    path = saved(tmp_path / "model.onnx", nodes, {"w": weight})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "plan.json").write_text("{}")
    item = Item(name="a", model=path, config=None, arguments=("--plan", str(tmp_path / "plan.json")))
    keys = [key_of(item), key_of(item)]
    (tmp_path / "weights.bin").write_bytes((weight + 1).tobytes())
    keys.append(key_of(item))
    (tmp_path / "plan.json").write_text("{ }")
    keys.append(key_of(item))
    (tmp_path / "weights.bin").unlink()
    keys.append(key_of(item))
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


@pytest.mark.parametrize("join", ["{0} {1}", "{0}={1}"])
def test_files_count_as_they_are_given(tmp_path: Path, join: str) -> None:
    (tmp_path / "model.pt").write_text("one")
    (tmp_path / "costs.json").write_text("{}")
    arguments = tuple(join.format("--costs", tmp_path / "costs.json").split())
    item = Item(name="a", model=tmp_path / "model.pt", arguments=arguments)
    before = key_of(item)
    (tmp_path / "costs.json").write_text("{ }")
    assert key_of(item) != before


@pytest.mark.parametrize("join", ["{0} {1}", "{0}={1}"])
def test_archives_of_images_count_by_their_names(tmp_path: Path, join: str) -> None:
    (tmp_path / "model.pt").write_text("one")
    (tmp_path / "images.tar").write_text("a")
    arguments = tuple(join.format("--data", tmp_path / "images.tar").split())
    item = Item(name="a", model=tmp_path / "model.pt", arguments=arguments)
    before = key_of(item)
    (tmp_path / "images.tar").write_text("b")
    assert key_of(item) == before
    assert key_of(dataclasses.replace(item, arguments=("--data", "other.tar"))) != before


@pytest.mark.parametrize(
    "change",
    [spoil_output, remove_output, remove_further_output, damage_record, change_model, add_argument, add_recipe],
    ids=lambda f: f.__name__,
)
def test_what_changed_is_converted_anew(tmp_path: Path, change: object) -> None:
    (item,), out = items(tmp_path, a="one"), tmp_path / "out"
    run([item], out)
    assert run([item], out) == {"a": "[converted]"}
    assert run([change(item, out)], out) == {"a": "converted"}  # type: ignore[operator]


def test_a_record_is_of_one_version_of_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (item,), out = items(tmp_path, a="one"), tmp_path / "out"
    run([item], out)
    record, key = read_record(out, item), key_of(item)
    assert is_done(record, key)
    monkeypatch.setattr("vfconvert.batching.records.__version__", "999")
    assert not is_done(record, key_of(item))


def test_a_failed_item_has_no_report_of_an_earlier_success(tmp_path: Path) -> None:
    (item,), out = items(tmp_path, a="one"), tmp_path / "out"
    run([item], out)
    item.model.write_text("bad")
    run([item], out)
    record = read_record(out, item)
    assert record is not None
    assert (record.state, record.report) == ("failed", None)
    assert (out / "a.onnx").read_text() == "ONE"  # of the earlier run, whole


def test_parts_are_disjoint_and_hold_all() -> None:
    found = [Item(name=str(number), model=Path(str(number))) for number in range(7)]
    parts = [part_of(found, (first, 3)) for first in (1, 2, 3)]
    assert [len(part) for part in parts] == [3, 2, 2]
    assert sorted(item.name for part in parts for item in part) == [item.name for item in found]


def test_memory_of_the_last_time_is_the_estimate(tmp_path: Path) -> None:
    (item,), out = items(tmp_path, a="one"), tmp_path / "out"
    run([item], out)
    record = read_record(out, item)
    assert record is not None
    write_record(out, item, dataclasses.replace(record, peak_bytes=12345))
    assert running._job(0, item, out, False).need == 12345
    record_path(out, item).unlink()
    assert running._job(0, item, out, False).need > 10**9


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableOutputError, match=r"cannot make the folder .*; choose another --output"):
        run(items(tmp_path, a="one"), tmp_path / "file" / "out")


def test_a_run_that_wrote_no_report_is_no_success(tmp_path: Path) -> None:
    (item,), out = items(tmp_path, a="one"), tmp_path / "out"
    run([item], out)
    record = read_record(out, item)
    assert record is not None
    assert dataclasses.replace(record, report=None).state == "failed"
    assert dataclasses.replace(record, report={"artefacts": []}).state == "failed"


def test_a_model_is_never_an_option(tmp_path: Path) -> None:
    made = running._job(0, Item(name="a", model=Path("--trust-pickle"), arguments=("--spatial",)), tmp_path, False)
    assert made.command[-6:-2] == ("-S", "-c", CONVERSION, "--trust-pickle")  # of the stand-in
    assert REAL(0, Item(name="a", model=Path("--x")), tmp_path, False).command[-2:] == ("--", "--x")


def test_the_checkpoint_is_that_of_the_training() -> None:
    assert running.CHECKPOINT == NAME


def test_records_are_plain_json(tmp_path: Path) -> None:
    found, out = items(tmp_path, a="one"), tmp_path / "out"
    run(found, out)
    assert set(json.loads(record_path(out, found[0]).read_text())) >= {"key", "exit_code", "seconds", "error", "report"}


def test_a_process_that_wrote_no_file_says_so(tmp_path: Path) -> None:
    (item,), out = items(tmp_path, a="nothing"), tmp_path / "out"
    assert run([item], out) == {"a": "failed"}
    record = read_record(out, item)
    assert record is not None
    assert (
        record.error == f"ended with 0 and wrote no file; {record_path(out, item).with_suffix('.log')} has what it said"
    )


def test_a_recipe_that_lists_every_layer_does_not_stop_a_quiet_run(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("spatial: true\nverbose: true\n")
    command = REAL(0, Item(name="a", model=tmp_path / "none.pt", config=tmp_path / "r.yaml"), tmp_path, False).command
    ran = CliRunner().invoke(main, command[3:])
    assert ran.exit_code != 2, ran.stderr
    assert "exclude each other" not in ran.stderr
