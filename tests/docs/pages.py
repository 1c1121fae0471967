"""The README and the pages of the site, their fenced blocks, and the words of commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", *sorted(DOCS.glob("*.md")))
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_ENDS = {"|", "||", "&&", ";", "&", ">"}


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: the comment right above it ("" for none), its language, its text, the line it begins at."""

    mark: str
    language: str
    text: str
    line: int


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks_of(text: str) -> list[Block]:
    return [
        Block(found["mark"] or "", found["language"].strip(), found["text"], text[: found.start()].count("\n") + 1)
        for found in _BLOCK.finditer(text)
    ]


def prose_of(text: str) -> str:
    """What stands outside of fenced blocks."""
    return _BLOCK.sub("", text)


def commands_in(script: str) -> Iterator[list[str]]:
    """The words of every simple command of a shell script, assignments before it left out, variables as 1."""
    words: list[str] = []
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        for word in [*lexer, ";"]:
            if word in _ENDS:
                if words:
                    yield words
                words = []
            elif words or not re.fullmatch(r"\w+=.*", word):
                words.append(re.sub(r"\$\{?\w+\}?", "1", word))


def vfconvert_arguments(words: list[str]) -> list[str] | None:
    """What follows `vfconvert`, also in an environment, as a module or under torchrun; None for other commands."""
    if Path(words[0]).name == "vfconvert":
        return words[1:]
    if "-m" in words and words[words.index("-m") + 1 :][:1] == ["vfconvert"]:
        return words[words.index("-m") + 2 :]
    return None


def module_and_arguments(words: list[str]) -> tuple[str, list[str]] | None:
    """`python -m MODULE ARGUMENTS`; None for other commands."""
    if Path(words[0]).name.startswith("python") and words[1:2] == ["-m"] and len(words) > 2:
        return words[2], words[3:]
    return None
