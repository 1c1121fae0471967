"""A batch from its items to its summary: what ran is told row by row, and the files over all are written at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vfconvert.batching import running
from vfconvert.batching.items import Item
from vfconvert.batching.records import Record
from vfconvert.batching.running import Progressed
from vfconvert.container import processors
from vfconvert.errors import BatchError, GateError
from vfconvert.reporting.batch import Row, counted, counts_of, headline, rows_of
from vfconvert.reporting.batch_files import write_summary
from vfconvert.reporting.units import plural


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class BatchSummary:
    """How the models of a batch ended: a row for each, in their order, and the folder that has the files.

    There, `summary.json`, `summary.md` and `summary.html` have the same rows (with `part`, those of all parts).
    """

    rows: tuple[Row, ...]
    folder: Path

    def __repr__(self) -> str:
        return f"BatchSummary({headline(self.rows)})"

    @property
    def counts(self) -> dict[str, int]:
        """How many models are in each state: converted, gate failed, failed, pending."""
        return counts_of(self.rows)

    @property
    def resumable(self) -> bool:
        """Whether a training was interrupted that `resume` would go on with."""
        return any(running.has_checkpoint(self.folder, row.name) for row in self.rows if row.state != "converted")

    def check(self) -> None:
        """Raise `GateError` where gates failed and nothing else did, `BatchError` where a model failed otherwise."""
        refuse_failures(self.rows, self.folder / "summary.md", resumable=self.resumable)


def conducted(
    items: Sequence[Item],
    folder: Path,
    *,
    jobs: int | None = None,
    part: tuple[int, int] | None = None,
    again: bool = False,
    resume: bool = False,
    without: Sequence[str] = (),
    told: Callable[[Progressed], None] = lambda step: None,
    idle: Callable[[], None] = lambda: None,
) -> BatchSummary:
    """Convert the items of a part (None: all) and write the summary, after an interruption too.

    `jobs` is how many run at a time, None: one for 2 cores. Raises `UnwritableOutputError`.
    """
    mine = running.part_of(items, part) if part is not None else tuple(items)
    known: dict[str, Record | None] = {item.name: None for item in mine}

    def step(progressed: Progressed) -> None:
        known[progressed.item.name] = progressed.record
        told(progressed)

    try:
        records = running.run_batch(
            mine,
            folder,
            jobs=jobs or max(1, processors() // 2),  # a conversion uses two cores well
            again=again,
            resume=resume,
            without=without,
            told=step,
            idle=idle,
        )
    finally:  # what did not run is pending
        if folder.is_dir():
            write_summary(rows_of(running.known_records(items, folder, known)), folder)
    return BatchSummary(rows=rows_of((item, records[item.name]) for item in mine), folder=folder)


def refuse_failures(rows: Sequence[Row], summary: Path, *, resumable: bool) -> None:
    """Raise `GateError` where gates failed and nothing else did, `BatchError` where any model failed otherwise."""
    bad = [row for row in rows if row.state != "converted"]
    if not bad:
        return
    failed = [row for row in bad if row.state != "gate failed"]
    first = (failed or bad)[0]
    said = (
        f"of {plural(len(rows), 'model')} {counted(bad)}, for instance {first.name}: {first.error}; "
        f"{summary} lists all, and the same command tries them again"
        f"{' (with --resume, since trainings have begun)' if resumable else ''}"
    )
    if failed:
        raise BatchError(said)
    raise GateError(said)
