"""Every command in the README and in the pages exists, with all of its options; every option that prose names too."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.docs.pages import (
    DOCS,
    PAGES,
    ROOT,
    blocks_of,
    commands_in,
    module_and_arguments,
    prose_of,
    read,
    vfconvert_arguments,
)
from vfconvert.cli.batch import _ARGUMENTS as BATCH_ARGUMENTS
from vfconvert.cli.main import main

SCRIPTS = ("sh", "bash", "console")
IDS = [page.name for page in PAGES]
# Options of other programs that the pages name.
OTHERS = {"--help", "--no-FLAG", "--quiet", "--nproc-per-node", "--no-deps"}


def parsed(arguments: list[str]) -> dict[str, object]:
    """The values of a command line of vfconvert, parsed as the program does, and nothing run. Raises click's errors."""
    context = main.make_context("vfconvert", list(arguments))
    words = [*context._protected_args, *context.args]
    name, command, rest = main.resolve_command(context, words)
    with command.make_context(name, rest, parent=context) as own:
        after = list(own.meta.get(BATCH_ARGUMENTS, ()))
    if after:  # of every conversion of a batch
        parsed(["model.pt", *after])
    return own.params


def lines_of(page: Path) -> Iterator[tuple[int, list[str]]]:
    for block in blocks_of(read(page)):
        if block.language in SCRIPTS:
            yield from ((block.line, words) for words in commands_in(block.text))


def spoken_commands(text: str) -> Iterator[list[str]]:
    """Commands in inline code, but for those that are only named (`vfconvert batch`)."""
    for code in re.findall(r"`((?:vfconvert|python -m) [^`]+)`", " ".join(prose_of(text).split())):
        yield from (words for words in commands_in(code) if words[1:] not in [[name] for name in main.commands])


def flags_of_commands() -> set[str]:
    found = {"--version"}
    for command in main.commands.values():
        for parameter in command.params:
            found |= {flag for flag in (*parameter.opts, *parameter.secondary_opts) if flag.startswith("--")}
    return found


def flags_of_benchmarks(module: str | None = None) -> set[str]:
    """The options that a benchmark declares, or that any does."""
    paths = (ROOT / "benchmarks").glob("*.py") if module is None else [ROOT / f"{module.replace('.', '/')}.py"]
    found: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(read(path))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
                found |= {str(part.value) for part in node.args if isinstance(part, ast.Constant)}
    return {flag for flag in found if flag.startswith("--")}


def unknown_flags(text: str, known: set[str]) -> list[str]:
    """Options in inline code that no program has."""
    said = {
        flag for code in re.findall(r"`([^`]+)`", prose_of(text)) for flag in re.findall(r"(?<![\w-])--\w[\w-]*", code)
    }
    return sorted(said - known)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_of_the_page_is_understood(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # recipes are read: where the page has them
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for line, words in [*lines_of(page), *((0, words) for words in spoken_commands(read(page)))]:
        arguments = vfconvert_arguments(words)
        if arguments and "..." not in arguments and "…" not in arguments:
            try:
                parsed(arguments)
            except click.exceptions.Exit:  # of --help and --version
                assert {"--help", "-h", "--version"} & {*arguments}
            except click.ClickException as error:
                pytest.fail(f"{page.name}:{line}: {' '.join(words)}: {error.format_message()}")


def test_options_that_the_script_for_ci_is_given_are_understood():
    (options,) = re.findall(r"OPTIONS='([^']*)'", read(DOCS / "ci.md"))
    assert "--config" in options
    assert parsed(["model.pt", *options.replace("configs/", f"{ROOT}/configs/").split()])["int8"] is True


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_benchmark_of_the_page_exists_with_its_options(page):
    for line, words in [*lines_of(page), *((0, words) for words in spoken_commands(read(page)))]:
        called = module_and_arguments(words)
        if called is None or not called[0].startswith("benchmarks."):
            continue
        module, arguments = called
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), f"{page.name}:{line}: {module}"
        given = {word.partition("=")[0] for word in arguments if word.startswith("--")}
        assert given <= flags_of_benchmarks(module), f"{page.name}:{line}: {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_option_that_the_page_names_exists(page):
    assert unknown_flags(read(page), flags_of_commands() | flags_of_benchmarks() | OTHERS) == []


def test_pages_have_commands():
    counts = {page.name: sum(vfconvert_arguments(words) is not None for _, words in lines_of(page)) for page in PAGES}
    assert counts["README.md"] >= 2
    assert sum(counts.values()) > 30


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_python_of_the_page_compiles(page):
    for block in blocks_of(read(page)):
        if block.language == "python":
            compile(block.text, f"{page.name}:{block.line}", "exec")


RUN = [
    (page, block)
    for page in PAGES
    for block in blocks_of(read(page))
    if (block.language, block.mark) == ("python", "run")
]


@pytest.mark.parametrize(("page", "block"), RUN, ids=[f"{page.stem}-{block.line}" for page, block in RUN])
def test_python_that_stands_by_itself_runs(page, block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, page.name, "exec"), {})


def test_some_python_is_run():
    assert len(RUN) >= 1


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", prose_of(read(page))):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_reached_from_the_front_page():
    listed = [
        line
        for block in blocks_of(read(DOCS / "index.md"))
        if block.language == "{toctree}"
        for line in block.text.splitlines()
    ]
    assert {page.stem for page in DOCS.glob("*.md")} - {"index"} <= set(listed)


def test_every_recipe_has_its_section():
    page = read(DOCS / "recipes.md")
    for path in (ROOT / "configs").glob("*.yaml"):
        assert f"\n## {path.stem}\n" in page
        assert f"vfconvert --config configs/{path.stem}.yaml " in page
        assert f"```{{literalinclude}} ../configs/{path.name}\n" in page


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("vfconvert model.pt --spatial --spacial", "No such option"),
        ("vfconvert model.pt --crops circles", "is not one of"),
        ("vfconvert batch a.pt -o out -- --spacial", "No such option"),
        ("vfconvert inspect model.pt --int8", "No such option"),
        ("vfconvert bench", "Missing parameter: files"),
    ],
)
def test_meta_a_wrong_command_is_seen(line, said):
    ((_, *arguments),) = commands_in(line)
    with pytest.raises(click.UsageError, match=said):
        parsed(arguments)


def test_meta_commands_are_taken_apart():
    script = "A=1 x -m vfconvert m.pt \\\n  --spatial  # said\nls && .venv/bin/vfconvert demo\n"
    script += 'python -m benchmarks.a --b "c $D"\n'
    found = list(commands_in(script))
    assert [vfconvert_arguments(words) for words in found] == [["m.pt", "--spatial"], None, ["demo"], None]
    assert module_and_arguments(found[3]) == ("benchmarks.a", ["--b", "c 1"])


def test_meta_blocks_are_found():
    text = "a\n<!-- run -->\n```sh\nls\n```\n\n```python\n1\n```\n"
    assert [(block.mark, block.language, block.text, block.line) for block in blocks_of(text)] == [
        ("run", "sh", "ls\n", 2),
        ("", "python", "1\n", 7),
    ]
    assert "ls" not in prose_of(text)


def test_meta_an_unknown_option_is_seen():
    assert unknown_flags("say `--spatial` or `x --spacial y`, --other", {"--spatial"}) == ["--spacial"]
    assert "--fill-slots" in flags_of_benchmarks("benchmarks.accuracy")
