"""The summary of a batch says the same to programs and people, and shows no text of a model as markup."""

import json
from pathlib import Path

from tests.reporting.printed import html_tables
from vfconvert.batching.items import Item
from vfconvert.batching.records import Record
from vfconvert.reporting.batch import cells, counts_of, headline, numbers, rows_of, to_json, to_markdown
from vfconvert.reporting.batch_html import to_html

REPORT = {
    "before": {"parameters": 2_000_000, "file_bytes": 8_000_000},
    "after": {"parameters": 1_000_000, "file_bytes": 4_200_000},
    "latency": {"before": 0.02, "after": 0.015},
    "agreement": {"measure": "top-1 agreement", "value": 0.98765},
    "artefacts": [{"path": "out/a.onnx", "bytes": 4_200_000}],
    "precisions": [
        {"name": "converted", "path": None, "bytes": 4_200_000},
        {"name": "converted int8", "path": "out/a.int8.onnx", "bytes": 1_100_000},
    ],
}


def record(exit_code: int, **fields: object) -> Record:
    return Record(key="k", exit_code=exit_code, seconds=75.2, **fields)  # type: ignore[arg-type]


def item(name: str) -> Item:
    return Item(name=name, model=Path(f"models/{name}.pt"))


ROWS = rows_of(
    [
        (item("a"), record(0, report=REPORT, peak_bytes=10**9)),
        (item("b|<b>"), record(13, error="`model` wants | to run <script>")),
        (item("c"), record(3, report={**REPORT, "latency": None}, error="a gate failed")),
        (item("d"), None),
    ]
)


def test_the_headline_counts_what_there_is() -> None:
    assert headline(ROWS) == "4 models: 1 converted, 1 gate failed, 1 failed, 1 pending"
    assert sum(counts_of(ROWS).values()) == len(ROWS)
    assert headline(ROWS[:1]) == "1 model: 1 converted"


def test_json_holds_every_figure() -> None:
    found = json.loads(to_json(ROWS, {"torch": "2"}))
    assert (found["schema_version"], found["versions"]) == (1, {"torch": "2"})
    first = found["models"][0]
    assert (first["parameters_before"], first["parameters_after"]) == (2_000_000, 1_000_000)
    assert (first["bytes_after"], first["latency_ratio"], first["agreement"]) == (4_200_000, 0.75, 0.98765)
    assert (first["state"], first["peak_bytes"]) == ("converted", 10**9)
    assert first["files"] == ["out/a.onnx", "out/a.int8.onnx"]
    assert [row["state"] for row in found["models"]] == ["converted", "failed", "gate failed", "pending"]


def test_markdown_shows_the_row_and_the_whole_error() -> None:
    lines = to_markdown(ROWS).splitlines()
    assert "| `a` | converted | 1,000,000 | 0.500 | 4.01 MiB | 0.525 | 0.750 | 98.76 % | 75.2 s |" in lines
    (failure,) = [line for line in lines if "code 13" in line]
    assert failure.endswith(r"\`model\` wants &#124; to run &lt;script>")
    found = [line for line in lines if line.startswith("|")]
    assert len(found) == 2 + len(ROWS)
    assert {line.count("|") for line in found} == {10}


def test_the_page_shows_the_same_cells_and_escapes_names() -> None:
    page = to_html(ROWS, {"torch": "2"})
    (shown,) = html_tables(page)
    assert [row[1:] for row in shown.rows] == [[text or "-" for text in cells(row)[1:]] for row in ROWS]
    assert page.count("<script") == 1  # the page's own
    assert "`model` wants | to run &lt;script&gt;" in page
    assert 'data-key="0.525"' in page


def test_unknown_numbers_are_empty_and_not_zero() -> None:
    assert cells(ROWS[3]) == ("d", "pending", "", "", "", "", "", "", "")
    assert numbers(ROWS[3]) == (None,) * 7
