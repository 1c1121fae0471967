"""What the package raises, and what the tests expect, read from the source by `ast`."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Raise:
    """One `raise` of a module: `what` is the expression called or named, `said` whether it is given a message."""

    module: str
    line: int
    what: str
    said: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: raise {self.what}"


def raises_of(module: str, source: str) -> Iterator[Raise]:
    """Every `raise` but those that pass on what was caught."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and node.exc is not None:
            called = isinstance(node.exc, ast.Call)
            said = called and bool(node.exc.args) and not _empty(node.exc.args[0])
            yield Raise(module, node.lineno, ast.unparse(node.exc.func if called else node.exc), said)


def _empty(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and not str(node.value or "").strip()


def classes_of(sources: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The bases of every class, by its name."""
    return {
        node.name: tuple(ast.unparse(base) for base in node.bases)
        for source in sources.values()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
    }


def makers_of(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """What functions of each name return, as annotated: `raise _unwritable(…)` raises that."""
    found: dict[str, set[str]] = {}
    for source in sources.values():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                found.setdefault(node.name, set()).add(ast.unparse(node.returns) if node.returns else "")
    return found


def family_of(classes: Mapping[str, tuple[str, ...]], base: str = "VfconvertError") -> dict[str, str]:
    """Class -> the class of `vfconvert.errors` whose code it has: itself, or what it inherits from there."""
    own = {name for name, bases in classes.items() if bases == (base,)}
    family = {name: name for name in own}
    for name, bases in classes.items():
        if inherited := own.intersection(bases):
            family[name] = inherited.pop()
    return family


def wrong_raises(
    module: str,
    source: str,
    family: Mapping[str, str],
    makers: Mapping[str, set[str]],
    internal: Mapping[str, set[str]],
) -> list[str]:
    """Raises of a module that are neither of the family nor internal to it, and those that say nothing.

    `internal`: what may be raised besides -> the modules where.
    """
    wrong = []
    for found in raises_of(module, source):
        if {module, module.partition(".")[0]} & internal.get(found.what, set()):
            continue
        made = makers.get(found.what, set())
        if found.what not in family and not (made and made <= set(family)):
            wrong.append(f"{found}: not of the family")
        elif not found.said:
            wrong.append(f"{found}: without a message")
    return wrong


def expected_in(source: str) -> set[str]:
    """The classes whose message or exit code a test asks for.

    `pytest.raises(Kind, match=…)` and `Kind.exit_code` count, `pytest.raises(Kind)` does not.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr == "exit_code":
            found.add(_last(node.value))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.raises" and node.args:
            kinds = node.args[0].elts if isinstance(node.args[0], ast.Tuple) else [node.args[0]]
            if any(keyword.arg == "match" for keyword in node.keywords):
                found.update(map(_last, kinds))
    return found


def _last(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]


def sources_below(folder: Path) -> dict[str, str]:
    """Dotted name below the folder -> source of every module."""
    return {
        ".".join(path.relative_to(folder).with_suffix("").parts): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*.py"))
    }


def built_in(source: str) -> set[str]:
    """Every class or function that a module calls by its name."""
    return {
        node.func.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


def caught_in(source: str) -> set[str]:
    """Every class that an `except` or a `suppress` of a module names."""
    nodes = list(ast.walk(ast.parse(source)))
    kinds = [node.type for node in nodes if isinstance(node, ast.ExceptHandler) and node.type]
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    kinds += [kind for call in calls if ast.unparse(call.func).endswith("suppress") for kind in call.args]
    return {_last(each) for kind in kinds for each in (kind.elts if isinstance(kind, ast.Tuple) else [kind])}
