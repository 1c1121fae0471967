"""What a batch is to do is read from anywhere, and everything wrong in it is said at once."""

from pathlib import Path

import pytest

from vfconvert.batching.items import Check, Item, read_items
from vfconvert.errors import ManifestError


def read(
    *sources: object,
    lines: tuple[str, ...] = (),
    config: Path | None = None,
    arguments: tuple[str, ...] = (),
    check: Check = lambda said, own: [],
):
    return read_items([str(source) for source in sources], config=config, arguments=arguments, lines=lines, check=check)


def test_models_of_the_command_line_are_called_after_their_files():
    assert read("a/one.pt", "two.v2.onnx", arguments=("--spatial",)) == (
        Item(name="one", model=Path("a/one.pt"), arguments=("--spatial",)),
        Item(name="two.v2", model=Path("two.v2.onnx"), arguments=("--spatial",)),
    )


def test_models_of_one_name_are_told_apart_by_their_folders():
    assert [item.name for item in read("a/model.pt", "b/model.pt", "c/other.pt")] == ["a-model", "b-model", "other"]


def test_a_name_is_made_of_what_every_file_system_takes():
    assert [item.name for item in read("my net (best).pt", "ü.pt")] == ["my-net-best", "model"]


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_manifest_says_what_each_model_is_converted_by(tmp_path, suffix):
    text = """{"models": ["a.pt", {"model": "b.pt", "name": "fast", "config": "r.yaml", "arguments": ["--seed", 3]}]}"""
    path = tmp_path / f"manifest{suffix}"
    path.write_text(text)
    assert read(path, config=Path("all.yaml"), arguments=("--channel",)) == (
        Item(name="a", model=tmp_path / "a.pt", config=Path("all.yaml"), arguments=("--channel",)),
        Item(name="fast", model=tmp_path / "b.pt", config=tmp_path / "r.yaml", arguments=("--channel", "--seed", "3")),
    )


def test_standard_input_has_paths_and_objects():
    lines = ("a.pt\n", "\n", '{"model": "b.pt", "arguments": ["--spatial"]}\n')
    assert read("-", lines=lines) == (
        Item(name="a", model=Path("a.pt")),
        Item(name="b", model=Path("b.pt"), arguments=("--spatial",)),
    )


def test_everything_wrong_is_said_at_once(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text("models:\n- {modle: a.pt}\n- 7\n- {model: b.pt, name: 'a b', arguments: --spatial}\nextra: 1\n")

    def check(said, own):
        return [f"({' '.join(said)}) is wrong"] if own else []

    with pytest.raises(ManifestError, match="field model: is missing") as caught:
        read(path, "x.pt", arguments=("-o", "y"), check=check)
    said = str(caught.value)
    for part in (
        'model 1: field "modle": got an unknown field',
        "model 1: field model: is missing",
        "model 2: got a int, expected a path",
        'model 3: field name: got "a b", expected letters',
        'model 3: field arguments: got "--spatial", expected a list',
        "got the keys extra, expected models alone",
        "(-o y) is wrong",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("m.yaml", "models: [", "no manifest"),
        ("m.json", "{", "no manifest"),
        ("m.yaml", "a: 1", "got no key models"),
        ("m.yaml", "models: []", "no models"),
        ("m.yaml", "!!python/object/apply:os.system ['touch canary']", "no manifest"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(tmp_path, monkeypatch, name, text, said):
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(text)
    with pytest.raises(ManifestError, match=said):
        read(name)
    assert not Path("canary").exists()


def test_two_models_of_one_name_are_refused():
    with pytest.raises(ManifestError, match="2 models have the name a-model; give them names"):
        read("a/model.pt", "x/a/model.onnx")


@pytest.mark.parametrize("name", ["col.fp16.pt", "COL.INT8.onnx", "col.versatile.pt"])
def test_a_model_of_the_name_of_a_further_file_of_another_is_refused(name):
    with pytest.raises(
        ManifestError, match=r"is what further files of (col|COL) are called; give it another in a manifest"
    ):
        read("col.pt", name)
    assert len(read("other.pt", name)) == 2


def test_a_manifest_that_is_missing_is_refused():
    with pytest.raises(ManifestError, match=r"none\.yaml: the manifest cannot be read"):
        read("none.yaml")


def test_aliases_that_grow_without_end_are_refused(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    (tmp_path / "m.yaml").write_text("\n".join([*lines, "models: [*a11]"]))
    with pytest.raises(ManifestError, match=r"no manifest \(it has an alias"):
        read(tmp_path / "m.yaml")


@pytest.mark.parametrize("name", ["summary.pt", "records.pt", "net.report.pt"])
def test_names_of_the_batches_own_files_are_refused(name):
    with pytest.raises(ManifestError, match=r"as the batch's own files; give it another"):
        read(name)
