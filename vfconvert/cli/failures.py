"""What a CI system is told of a run that ends in an error: the JUnit file and the step's summary say so themselves.

Else those of an earlier run would stand there as if they were of this one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from vfconvert.cli.group import COMMAND_LINE, SectionCommand
from vfconvert.cli.recipe import keys_of, refuse_unsafe
from vfconvert.cli.step_summary import STEP_SUMMARY, append_text
from vfconvert.errors import VfconvertError, first_line
from vfconvert.options import ConversionOptions
from vfconvert.shortages import shortage_of

_HEAD = b"<?xml"  # of every JUnit file that we write


@dataclass(kw_only=True, eq=False)
class Asked:
    """What is known of a run that may fail: values by parameter, as texts or parsed; later its options.

    `silent` is one of several processes that train together, where another one speaks.
    """

    values: Mapping[str, Any]
    options: ConversionOptions | None = None
    silent: bool = False


class ToldCommand(SectionCommand):
    """A command whose arguments may be wrong: that is told as any other error is."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and tell of what goes wrong."""
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        given = list(args)
        with telling(ctx) as asked:
            try:
                return super().parse_args(ctx, args)
            except BaseException:
                asked.values = self._unparsed(given)
                raise

    def _unparsed(self, args: list[str]) -> dict[str, Any]:
        """As far as words and recipe can be read, whatever else is wrong with them."""
        lenient = click.Context(self, resilient_parsing=True, ignore_unknown_options=True)
        values = {name: value for name, value in self.make_parser(lenient).parse_args(args)[0].items() if value}
        if "config" not in values:
            return values
        from vfconvert.config.document import read_document

        keys = keys_of(self)
        with suppress(VfconvertError):
            entries = [each for each in read_document(Path(values["config"])).entries if each.key in keys]
            safe = {str(keys[each.key].name): each.texts for each in entries if _is_safe(keys[each.key], each.texts)}
            values = safe | values
        return values


def _is_safe(parameter: click.Parameter, texts: Sequence[str]) -> bool:
    """Whether a recipe may say so: a place that it may not write to is not written to in telling of that."""
    with suppress(ValueError):
        refuse_unsafe(parameter, texts)
        return True
    return False


@contextmanager
def telling(ctx: click.Context) -> Iterator[Asked]:
    """Within, whatever ends the run is written to the JUnit file and to the step's summary, and goes on."""
    asked = Asked(values=ctx.params, silent=is_not_first())
    try:
        yield asked
    except (click.exceptions.Exit, SystemExit):  # help, for one
        raise
    except BaseException as error:
        if not asked.silent:
            _tell(asked, str(ctx.meta.get(COMMAND_LINE, "vfconvert")), error)
        raise


def is_not_first() -> bool:
    """Whether the environment says that this is one of several processes, and not the first.

    Where it says so in no numbers, the run itself refuses it.
    """
    with suppress(ValueError):
        return "WORLD_SIZE" in os.environ and int(os.environ.get("RANK", "")) > 0
    return False


def _tell(asked: Asked, command: str, error: BaseException) -> None:
    known = (shortage_of(error) or error) if isinstance(error, Exception) else error
    kind, said = type(known).__name__.lstrip("_"), " ".join(_said(known).split())
    models = _texts(asked.values.get("model"))
    model = models[0] if models else "no model"
    dry = _texts(asked.values.get("dry_run")) in (["True"], ["true"])
    for junit in [] if dry else _texts(asked.values.get("junit"))[:1]:
        with suppress(VfconvertError, OSError, ValueError):  # of the two errors the first is the one to hear of
            if _is_free(Path(junit), asked):
                from vfconvert.reporting.junit import write_error

                line = asked.options.command if asked.options is not None else command
                write_error(model, line, kind, said, Path(junit))
    if summary := os.environ.get(STEP_SUMMARY):
        from vfconvert.reporting.markdown import code, plain

        append_text(f"**No conversion** of {code(model)}: {plain(said)} ({kind})\n", summary)


def _said(error: BaseException) -> str:
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, VfconvertError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "Interrupted."
    return f"a fault in vfconvert: {first_line(error)}" if isinstance(error, Exception) else "Terminated."


def _is_free(junit: Path, asked: Asked) -> bool:
    """Whether an error may be written there: nothing else is of that name, and what is there now is such a file."""
    others = [Path(text) for name, value in asked.values.items() if name != "junit" for text in _texts(value)]
    if asked.options is not None:
        from vfconvert.delivery import paths_of, precision_paths

        others += paths_of(asked.options).values()
        with suppress(VfconvertError):
            others += precision_paths(asked.options).values()
    if junit.resolve() in {other.resolve() for other in others}:
        return False
    if not junit.exists():
        return True
    with junit.open("rb") as file:
        return file.read(len(_HEAD)) in (_HEAD, b"")


def _texts(value: Any) -> list[str]:
    """All texts of a value, which may be one, several or none."""
    if isinstance(value, (tuple, list)):
        return [text for each in value for text in _texts(each)]
    return [] if value is None else [str(value)]
