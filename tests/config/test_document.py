"""Recipes as text: what is read of YAML, and that what is written reads back."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vfconvert.config.document import MOST_BYTES, Entry, read_document, write_recipe, written
from vfconvert.errors import ConfigError, UnwritableOutputError


@pytest.fixture
def document(tmp_path):
    def read(text: str | bytes):
        path = tmp_path / "r.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_document(path)

    return read


def test_values_stay_the_text_that_the_file_has(document):
    text = "rate: 1e-3\nstride: 1/4\nsize: 032x64\nday: 2020-01-01\nyes: no\nseed: 0x10\nname: 'a: b'\nhour: 1:30\n"
    read = document(text)
    assert read.errors == []
    assert [(entry.key, entry.texts) for entry in read.entries] == [
        ("rate", ("1e-3",)),
        ("stride", ("1/4",)),
        ("size", ("032x64",)),
        ("day", ("2020-01-01",)),
        ("yes", ("no",)),
        ("seed", ("0x10",)),
        ("name", ("a: b",)),
        ("hour", ("1:30",)),
    ]


def test_every_kind_of_value_is_told_with_its_line(document):
    read = document("# head\na:\nb: ~\nc: [1, two]\n\nd:\n  x: 1\n  y: 2\n")
    assert read.entries == (
        Entry(key="a", line=2, kind="none"),
        Entry(key="b", line=3, kind="none"),
        Entry(key="c", line=4, kind="list", texts=("1", "two")),
        Entry(key="d", line=6, kind="mapping", texts=("1", "2"), names=("x", "y")),
    )


@pytest.mark.parametrize("text", ["", "# nothing\n", "\ufeff---\n"], ids=["empty", "a comment", "a mark"])
def test_empty_recipe_says_nothing(document, text):
    assert document(text).entries == ()


def test_all_errors_of_the_structure_come_at_once(document):
    read = document("a: 1\na: 2\nb: !!python/name:os.system x\nc: [[1]]\n? [d]\n: 1\ne: {x: 1, x: 2}\nf: 3\n")
    assert [(entry.key, entry.texts) for entry in read.entries] == [("a", ("1",)), ("f", ("3",))]
    assert read.errors == [
        (2, "a: given on line 1 already; give it once"),
        (3, "got a value tagged python/name:os.system, expected a plain text, number, true or false"),
        (4, "got a list, expected a plain text, number, true or false"),
        (5, "got a list, expected a plain text, number, true or false"),
        (7, "e: a name is given twice in it; give each once"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "line 1: expected keys with values"),
        ("\n\nspatial\n", "line 3: expected keys with values"),
        ("a: [1\nb: 2\n", "line 2, column 2: expected ',' or ']'"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1: but found another document"),
        ("a: *b\n", "line 1, column 4: found undefined alias"),
        ("a: !!set {x}\n---", "another document"),
        (b"a: \xff\n", "byte 3: got no UTF-8 text"),
        (b"a: \x01\n", "special characters are not allowed"),
        (b"[" * 1500, "nested too deeply"),
        (b"#" * (MOST_BYTES + 1), "more than 1,048,576 bytes, expected a recipe"),
    ],
    ids=["a list", "a text", "syntax", "two documents", "alias", "set", "bytes", "control", "deep", "large"],
)
def test_text_that_is_no_recipe_is_refused(document, text, said):
    with pytest.raises(ConfigError, match=said.replace("[", r"\[")):
        document(text)


@pytest.mark.parametrize(("name", "said"), [("none.yaml", "no such file"), (".", "no regular file"), ("a\0", "null")])
def test_file_that_cannot_be_read_is_refused(tmp_path, name, said):
    with pytest.raises(ConfigError, match=said):
        read_document(tmp_path / name)


ESCAPE = '"k\\e[2J\\a'  # YAML for the characters that clear a terminal and ring it


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'{ESCAPE}": 1\n{ESCAPE}": 2\n', r"k\x1b[2J\x07: given on line 1 already; give it once"),
        (f'{ESCAPE}": {{a: 1, a: 2}}\n', r"k\x1b[2J\x07: a name is given twice in it; give each once"),
        ("a: !%1B%5B2Jx 1\n", r"got a value tagged !\x1b[2Jx, expected a plain text, number, true or false"),
    ],
    ids=["key twice", "name twice", "tag"],
)
def test_names_of_the_file_are_printable_in_errors(document, text, said):
    (error,) = [error for _, error in document(text).errors]
    assert error == said


def test_alias_of_itself_ends(document):
    assert document("a: &x [*x]\n").errors == [(1, "got a list, expected a plain text, number, true or false")]


TEXTS = st.text(st.characters(exclude_categories=[]), max_size=20)


@settings(max_examples=60)
@given(st.text(st.characters(codec="utf-8"), max_size=9), st.one_of(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)))
def test_what_is_written_reads_back(tmp_path_factory, key, value):
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    write_recipe(written(key, value) + "\n", path)
    read = read_document(path)
    assert read.errors == []
    ((got,), texts) = read.entries, (value,) if isinstance(value, str) else tuple(value)
    assert (got.key, got.texts) == (key, texts)
    assert got.kind == ("one" if isinstance(value, str) else "list")


def test_simple_values_are_written_without_quotes():
    assert written("windows", "4") == "windows: 4"
    assert written("layer", ["a.*=spatial", "null"]) == "layer:\n- a.*=spatial\n- 'null'"
    assert written("rate", None) == "# rate:"
    assert yaml.safe_load(written("spatial", "true")) == {"spatial": True}


def test_recipe_in_no_folder_is_refused(tmp_path):
    with pytest.raises(UnwritableOutputError, match="does not exist"):
        write_recipe("", tmp_path / "none" / "r.yaml")
