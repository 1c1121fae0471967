"""The summary of a CI step: the report as Markdown, where the system that runs the step wants one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vfconvert.reporting.report import ConversionReport

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"  # the variable that names the file


def append_step_summary(report: ConversionReport, path: str | None) -> None:
    """Append the report to the file; where there is none to write to, say so and go on: the outputs are complete."""
    if path:
        from vfconvert.reporting.markdown import to_markdown

        append_text(to_markdown(report), path)


def append_text(text: str, path: str) -> None:
    """Append a text in Markdown to the file, or say that it takes none."""
    try:
        with open(path, "ab") as file:
            file.write(text.encode("utf-8", errors="backslashreplace") + b"\n")
    except OSError as error:
        click.echo(f"Warning: ${STEP_SUMMARY} {path} takes no summary: {error.strerror}.", err=True)
