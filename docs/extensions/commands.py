"""The page of the command line, generated from the commands themselves, so that it cannot say anything else.

The page `commands` ends in what `reference` returns; everything above is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import click

from vfconvert.cli.group import MAIN_JOB, MainJobGroup, SectionOption
from vfconvert.cli.main import main

PAGE = "commands"
_WIDTH = 100
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|$~])")
_FLAG = re.compile(r"(?<![\w-])(--?[a-z][\w-]*)")


def reference(group: MainJobGroup = main) -> str:
    """Every command and every option in Markdown: usage, what it does, options under the headings of the help."""
    parts = [part for name in sorted(group.commands, key=_order) for part in _command(group, name)]
    return "\n\n".join([*parts, *_own(group)]) + "\n"


def _order(name: str) -> tuple[bool, str]:
    return name != MAIN_JOB, name


def _command(group: MainJobGroup, name: str) -> Iterator[str]:
    command, parent = group.commands[name], click.Context(group, info_name="vfconvert")
    if name == MAIN_JOB:
        context = click.Context(command, info_name="vfconvert")
        title, program = "vfconvert MODEL", "vfconvert"
    else:
        context = click.Context(command, info_name=name, parent=parent)
        title = program = f"vfconvert {name}"
    yield f"## `{title}`"
    yield f"```text\n{_usage(command, context)}\n```"
    # The main job is what the group's help describes at length.
    yield from _paragraphs((group.help if name == MAIN_JOB else command.help) or "")
    yield f"```{{program}} {program}\n```"
    yield from _options(command.params, context)


def _own(group: MainJobGroup) -> Iterator[str]:
    """The options of every command."""
    yield "## Options without a command"
    yield "```{program} vfconvert\n```"
    context = click.Context(group, info_name="vfconvert")
    yield from (_option(option, context) for option in group.get_params(context) if isinstance(option, click.Option))


def _usage(command: click.Command, context: click.Context) -> str:
    formatter = click.HelpFormatter(width=_WIDTH)
    command.format_usage(context, formatter)
    return formatter.getvalue().strip()


def _options(parameters: Sequence[click.Parameter], context: click.Context) -> Iterator[str]:
    sections: dict[str, list[SectionOption]] = {}
    for parameter in parameters:
        if isinstance(parameter, SectionOption):
            sections.setdefault(parameter.section, []).append(parameter)
    for heading, options in sections.items():
        if len(sections) > 1:
            yield f"### {prose(heading)}"
        yield from (_option(option, context) for option in options)


def _option(option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    if record is None:
        return ""
    names, said = record
    return f"```{{option}} {names.replace(' / ', ', ')}\n{prose(said)}\n```"


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield prose(" ".join(paragraph.split()))


def prose(text: str) -> str:
    """Words of the help as Markdown: nothing in them is markup, and options are set as code."""
    parts = _FLAG.split(text)
    return "".join(f"`{part}`" if at % 2 else _SPECIAL.sub(r"\\\1", part) for at, part in enumerate(parts))


def _append(_app: Any, page: str, source: list[str]) -> None:
    if page == PAGE:
        source[0] += "\n" + reference()


def setup(app: Any) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("source-read", _append)
    return {"version": "1", "parallel_read_safe": True}
