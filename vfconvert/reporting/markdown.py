"""The report as Markdown of GitHub's kind: for a pull request, an issue, or the summary of a CI step.

Texts from the model and the command line are shown as they are: none of them makes a link, a tag or a mention.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from math import fsum
from pathlib import Path

from vfconvert.reporting.budget_lines import budget_lines
from vfconvert.reporting.figures import (
    ALL,
    DECISION_OF_THE_REST,
    EVERYTHING_ELSE,
    converted_of,
    decision_text,
    figures,
    further_files,
    rest_of,
)
from vfconvert.reporting.gates import gate_text
from vfconvert.reporting.report import ConversionReport
from vfconvert.reporting.sentences import (
    images_lines,
    notes,
    parity_lines,
    provenance_lines,
    speed_lines,
    whose_images,
)
from vfconvert.reporting.training import training_lines
from vfconvert.reporting.units import judged_value, mebibytes, milliseconds, percent, ratio, whole

# What means something to Markdown, and what GitHub looks for in finished text too, where only a break in it helps.
_SAFE = {letter: f"\\{letter}" for letter in "\\`*_{}[]~$"}
_SAFE |= {"&": "&amp;", "<": "&lt;", "|": "&#124;"}
_SAFE |= {"@": "@<!-- -->", "#": "#<!-- -->", "://": ":<!-- -->//", "www.": "www<!-- -->."}
_UNSAFE = re.compile("|".join(map(re.escape, _SAFE)))
_SIMPLE = re.compile(r"[\w./ :+-]*[\w./]")  # what is the same between backticks
_SHARE_UNKNOWN = "-"


def to_markdown(report: ConversionReport) -> str:
    """The whole report; ends in a newline."""
    blocks = [*_headline(report), *_gates(report), *_speed(report), *_details(report), *_reproduce(report)]
    return "\n\n".join(blocks) + "\n"


def plain(text: str) -> str:
    """A text that Markdown shows as it is, on one line."""
    return _UNSAFE.sub(lambda found: _SAFE[found[0]], _one_line(text))


def code(text: str) -> str:
    """A text in type of one width, within a table too; no reader of Markdown looks for mentions there."""
    line = _one_line(text)
    if _SIMPLE.fullmatch(line) and line[:1] != " ":
        return f"`{line}`"
    return f"<code>{''.join(letter if letter.isalnum() else f'&#{ord(letter)};' for letter in line)}</code>"


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """Rows of finished cells; the first `texts` columns are set to the left, numbers to the right."""
    rules = [":--" if index < texts else "--:" for index in range(len(headings))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rules, *rows))


def _headline(report: ConversionReport) -> Iterator[str]:
    name = Path(report.output.path if report.output is not None else report.input.path).name
    before, after = report.before, report.after
    yield (
        f"## {code(name)}: {ratio(after.parameters, before.parameters)} of the parameters, "
        f"{ratio(after.macs_executed, before.macs_executed)} of the MACs"
    )
    found = report.agreement
    if report.dry:
        yield "Dry run: these are the decisions; nothing was fitted, nothing is written."
    if found is not None:
        value = judged_value(found.measure, found.value)
        yield f"**{value}** {found.measure} with the original on {plain(whose_images(found, report))}."
    rows = [(figure.label, figure.before, figure.after, figure.change) for figure in figures(report)]
    yield table(("", "before", "after", "ratio"), rows)
    if report.warnings:
        yield "\n".join(["> [!WARNING]", *(f"> - {plain(warning)}" for warning in report.warnings)])
    yield " ".join(plain(line.plain) for line in notes(report))


def _gates(report: ConversionReport) -> Iterator[str]:
    if report.gates:
        rows = [
            (code(gate.name), "passed" if gate.passed else "**failed**", plain(gate_text(gate)))
            for gate in report.gates
        ]
        yield table(("gate", "result", "figure and limit"), rows, texts=3)
    if report.discarded:
        files = ", ".join(code(file.path) for file in report.discarded)
        yield f"Not written, since a gate failed: {files}"


def _speed(report: ConversionReport) -> Iterator[str]:
    lines = [*budget_lines(report.budget), *training_lines(report.training), *speed_lines(report)]
    if lines:
        yield "\n".join(f"- {plain(line.plain.strip())}" for line in lines)
    if report.precisions:
        rows = [
            (plain(row.name), mebibytes(row.bytes), milliseconds(row.seconds), judged_value(row.measure, row.value))
            for row in report.precisions
        ]
        yield table(("precision", "bytes", "latency", report.precisions[0].measure), rows)


def _details(report: ConversionReport) -> Iterator[str]:
    yield _folded(f"Layers: {converted_of(report)} converted", _layers(report))
    kept = [row for row in report.layers if row.decision == "keep"]
    if kept:
        rows = [
            (
                code(row.name),
                plain(row.reason or row.code or "no reason given"),
                code(row.flag) if row.flag else "no flag",
                percent(row.parameters_share),
                _SHARE_UNKNOWN if row.macs_share is None else percent(row.macs_share),
            )
            for row in kept
        ]
        headings = ("layer", "kept because", "included by", "parameters", "MACs")
        share = percent(fsum(row.parameters_share for row in kept))
        yield _folded(f"Kept: {share} of the parameters", table(headings, rows, texts=3))


def _layers(report: ConversionReport) -> str:
    rows = [
        (
            code(row.name),
            plain(decision_text(row)),
            "" if row.unexplained is None else percent(row.unexplained),
            whole(row.weights_before),
            whole(row.weights_after),
        )
        for row in report.layers
    ]
    rest = rest_of(report)
    rows.append((EVERYTHING_ELSE, DECISION_OF_THE_REST, "", whole(rest.weights_before), whole(rest.weights_after)))
    before, after = whole(report.before.parameters), whole(report.after.parameters)
    rows.append((f"**{ALL}**", "", "", f"**{before}**", f"**{after}**"))
    return table(("layer", "decision", "unexplained", "weights", "after"), rows, texts=2)


def _reproduce(report: ConversionReport) -> Iterator[str]:
    lines = [*images_lines(report), *parity_lines(report), *provenance_lines(report)]
    files = [f"Read {code(report.input.path)}, sha256 {code(report.input.sha256)}"]
    files += [
        f"Wrote {code(file.path)} ({mebibytes(file.bytes)}), sha256 {code(file.sha256)}" for file in report.artefacts
    ]
    files += [f"Wrote {code(row.path or '')} ({mebibytes(row.bytes)})" for row in further_files(report)]
    listed = [*(plain(line.plain.strip()) for line in lines), *files]
    command = _one_line(report.command)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", command)), default=0))
    yield _folded("How this was made", "\n".join(f"- {line}" for line in listed) + f"\n\n{fence}sh\n{command}\n{fence}")


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"
