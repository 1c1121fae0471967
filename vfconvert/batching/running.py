"""A batch from its items to their records: what is done is skipped, the rest runs, one failure stops no other."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vfconvert.batching.items import FOLDER, Item
from vfconvert.batching.pool import Ended, Job, free_bytes, run_all
from vfconvert.batching.records import Record, is_done, key_of, read_record, record_path, write_record
from vfconvert.container import processors
from vfconvert.errors import GateError, UnwritableOutputError
from vfconvert.files import check_writable
from vfconvert.shortages import reason_of

_BASE_BYTES, _EACH_BYTE = 3 * 2**29, 12  # of a conversion that was never measured: torch, and copies of the weights
_LONGEST = 500  # letters of an error
_PROMPT = "Error: "
CHECKPOINT = "checkpoint.safetensors"  # that of vfconvert.training, which takes long to import


@dataclass(frozen=True, kw_only=True, slots=True)
class Progressed:
    """One step of a batch: an item began (`record` None), ended, or was done already (`skipped`)."""

    item: Item
    record: Record | None
    skipped: bool = False


def run_batch(
    items: Sequence[Item],
    folder: Path,
    *,
    jobs: int,
    again: bool = False,
    resume: bool = False,
    told: Callable[[Progressed], None] = lambda step: None,
    idle: Callable[[], None] = lambda: None,
    without: Sequence[str] = (),
    free: Callable[[], int] = free_bytes,
) -> dict[str, Record]:
    """Convert the items into `folder`, at most `jobs` at a time; the record of each by its name.

    An item that was converted from the same model, recipe and arguments by this version is skipped, unless `again`.
    With `resume`, trainings that were interrupted go on from their checkpoints. Conversions get
    this process's environment but for the names `without`. Raises `UnwritableOutputError`.
    """
    _make(folder / FOLDER)
    records, waiting = dict[str, Record](), list[tuple[Item, str]]()
    for item in items:
        key, known = key_of(item), read_record(folder, item)
        if known is not None and not again and is_done(known, key):
            records[item.name] = known
            told(Progressed(item=item, record=known, skipped=True))
        else:
            waiting.append((item, key))
    work = [_job(number, item, folder, resume) for number, (item, _) in enumerate(waiting)]
    threads = max(1, processors() // max(1, min(jobs, len(work))))

    def begun(number: int) -> None:
        item, _ = waiting[number]
        report_path(folder, item).unlink(missing_ok=True)  # an earlier run's, in whose record it stays
        told(Progressed(item=item, record=None))

    for ended in run_all(work, jobs, threads=threads, without=without, begun=begun, idle=idle, free=free):
        item, key = waiting[ended.number]
        record = _record(ended, key, work[ended.number], report_path(folder, item))
        write_record(folder, item, record)
        records[item.name] = record
        told(Progressed(item=item, record=record))
    return records


def has_checkpoint(folder: Path, name: str) -> bool:
    """Whether an item's training was interrupted, or its file discarded."""
    return (folder / f"{name}.training" / CHECKPOINT).exists()


def report_path(folder: Path, item: Item) -> Path:
    """Where the report of an item's conversion is."""
    return folder / f"{item.name}.report.json"


def part_of(items: Sequence[Item], part: tuple[int, int]) -> tuple[Item, ...]:
    """Every `count`-th item from number `first`, from 1: for one job of an array that shares the folder."""
    first, count = part
    return tuple(items[first - 1 :: count])


def known_records(
    items: Sequence[Item], folder: Path, done: Mapping[str, Record | None]
) -> Iterator[tuple[Item, Record | None]]:
    """Every item with its record: by name in `done`, what this run knows of its own; of others what another run left.

    The record of another model, recipe, argument or version under an item's name is none of the item's.
    """
    for item in items:
        if item.name in done:
            yield item, done[item.name]
            continue
        record = read_record(folder, item)
        yield item, record if record is not None and record.key == key_of(item) else None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnwritableOutputError(
            f"cannot make the folder {folder}: {reason_of(error)}; choose another --output"
        ) from error
    check_writable(folder / "record.json")


def _job(number: int, item: Item, folder: Path, resume: bool) -> Job:
    output = folder / f"{item.name}.onnx"
    command = [sys.executable, "-m", "vfconvert", "convert", *item.arguments]
    command += ["--config", str(item.config), "--no-verbose"] if item.config is not None else []
    command += ["--output", str(output), "--report", str(report_path(folder, item)), "--quiet"]
    command += ["--resume"] if resume and has_checkpoint(folder, item.name) else []
    command += ["--", str(item.model)]  # whatever it is called, it is no option
    log = record_path(folder, item)
    return Job(
        number=number,
        command=tuple(command),
        output=log.with_suffix(".out"),
        errors=log.with_suffix(".log"),
        need=_need(item, read_record(folder, item)),
    )


def _need(item: Item, known: Record | None) -> int:
    """Bytes that a conversion takes: what it took before, else by the size of its file."""
    if known is not None and known.peak_bytes:
        return known.peak_bytes
    try:
        return _BASE_BYTES + _EACH_BYTE * item.model.stat().st_size
    except (OSError, ValueError):
        return 0


def _record(ended: Ended, key: str, job: Job, report: Path) -> Record:
    record = Record(
        key=key,
        exit_code=ended.exit_code if ended.exit_code >= 0 else 128 - ended.exit_code,
        seconds=round(ended.seconds, 3),
        error=_error(ended, job.errors) if ended.exit_code else "",
        peak_bytes=ended.peak_bytes,
        report=_read(report) if ended.exit_code in (0, GateError.exit_code) else None,
    )
    if record.exit_code == 0 and record.state != "converted":
        return dataclasses.replace(record, error=f"ended with 0 and wrote no file; {job.errors} has what it said")
    return record


def _error(ended: Ended, log: Path) -> str:
    if ended.exit_code < 0:
        return f"ended by signal {-ended.exit_code}"
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if line.startswith(_PROMPT)), lines[-1] if lines else "")
    return said.removeprefix(_PROMPT)[:_LONGEST] or f"ended with code {ended.exit_code} and said nothing"


def _read(report: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(report.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
