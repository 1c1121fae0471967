"""`vfconvert MODEL ...` is the main job, and other commands exist beside it."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from vfconvert.cli.boundary import one_line_errors

MAIN_JOB = "convert"
COMMAND_LINE = "vfconvert.command_line"  # where a context keeps the line that it was made from
ARGUMENTS = "vfconvert.arguments"  # and the words after the command's name


class SectionOption(click.Option):
    """An option with the heading under which help lists it.

    A flag has its opposite, `--no-…`, for what a recipe has switched on; help leaves it out.
    """

    def __init__(self, declarations: Sequence[str], *, section: str, **settings: Any) -> None:
        self._opposed = bool(settings.get("is_flag"))
        if self._opposed:
            declarations = [f"{one}/--no-{one[2:]}" if one.startswith("--") else one for one in declarations]
        super().__init__(declarations, **settings)
        self.section = section

    @property
    def opposites(self) -> list[str]:
        """`--no-…` of a flag, where that is not its own half of the option."""
        return self.secondary_opts if self._opposed else []

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The line of help."""
        if not self._opposed:
            return super().get_help_record(ctx)
        alone = copy.copy(self)
        alone.secondary_opts = []
        return click.Option.get_help_record(alone, ctx)


class SectionCommand(click.Command):
    """A command that lists its options under headings and knows the line it was called with."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Options that begin so; the opposites of flags only where they are asked for."""
        found = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("--no-"):
            return found
        opposites = {flag for option in self.params if isinstance(option, SectionOption) for flag in option.opposites}
        return [item for item in found if item.value not in opposites]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and keep the arguments as one line that a shell reads back."""
        own = [] if self.name == MAIN_JOB else [str(self.name)]
        ctx.meta[COMMAND_LINE], ctx.meta[ARGUMENTS] = shlex.join(["vfconvert", *own, *args]), tuple(args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options by heading, in the order of declaration; last, what click adds."""
        self.format_sections(ctx, formatter)
        added = [parameter for parameter in self.get_params(ctx) if parameter not in self.params]
        write_options(ctx, formatter, "Help", added)

    def format_sections(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options that the command declares."""
        sections: dict[str, list[click.Parameter]] = {}
        for parameter in self.params:
            if isinstance(parameter, SectionOption):
                sections.setdefault(parameter.section, []).append(parameter)
        for section, options in sections.items():
            write_options(ctx, formatter, section, options)


class MainJobGroup(click.Group):
    """A group whose first argument may be left out: then it is the main job. Its help shows that job's options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the name of the main job in front, unless a command or an option of the group stands there."""
        if args and args[0] not in (*self.commands, *self._own_options(ctx)):
            args = [MAIN_JOB, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What a shell may complete the first word to: a command, an option of the main job, or a file."""
        found = super().shell_complete(ctx, incomplete)
        job = self.commands[MAIN_JOB]
        own = {item.value for item in found}
        found += [item for item in job.shell_complete(ctx, incomplete) if item.value not in own]
        # Files first: bash starts its list anew at them.
        return found if incomplete.startswith("-") else [CompletionItem(incomplete, type="file"), *found]

    def _own_options(self, ctx: click.Context) -> Sequence[str]:
        return [flag for parameter in self.get_params(ctx) for flag in parameter.opts]

    @one_line_errors
    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Parse and run; what goes wrong while help or versions are printed passes here."""
        return super().main(*args, **kwargs)

    @one_line_errors
    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; every error of every command passes here."""
        return super().invoke(ctx)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Both forms."""
        formatter.write_usage(ctx.command_path, "MODEL --spatial --channel [OPTIONS]")
        formatter.write_usage(ctx.command_path, "COMMAND [ARGS]...", prefix="       ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options of the main job, the group's own and the commands."""
        job = self.commands[MAIN_JOB]
        if isinstance(job, SectionCommand):
            job.format_sections(click.Context(job, info_name=MAIN_JOB, parent=ctx), formatter)
        write_options(ctx, formatter, "Help", self.get_params(ctx))
        self.format_commands(ctx, formatter)


def write_options(
    ctx: click.Context, formatter: click.HelpFormatter, heading: str, options: Sequence[click.Parameter]
) -> None:
    """One heading and the help of its options."""
    records = [option.get_help_record(ctx) for option in options]
    with formatter.section(heading):
        formatter.write_dl([record for record in records if record is not None])
