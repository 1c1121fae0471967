"""What a run tells while it goes on, and the log of it: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from vfconvert.errors import MissingPackageError, UnwritableOutputError
from vfconvert.files import atomic_path

LOG = "log.jsonl"


class Watcher(Protocol):
    """Told of every step and every epoch, in the first process only."""

    def step(self, step: int, steps: int, loss: float, rate: float, images_per_second: float) -> None:
        """After the step of that number, from 1."""
        ...

    def epoch(self, record: Mapping[str, Any]) -> None:
        """After each validation; epoch 0 is before any training."""
        ...

    def note(self, line: str) -> None:
        """Something that a person should know."""
        ...


class Silent:
    """Tells nobody."""

    def step(self, step: int, steps: int, loss: float, rate: float, images_per_second: float) -> None:
        """Nothing."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Nothing."""

    def note(self, line: str) -> None:
        """Nothing."""


class Log:
    """Appends to `log.jsonl`, from the step at which a run goes on: what came after it is forgotten."""

    def __init__(self, folder: Path, step: int) -> None:
        """Raises `UnwritableOutputError`."""
        self._path = folder / LOG
        try:
            folder.mkdir(parents=True, exist_ok=True)
            kept = self._lines_until(step) if step else []
            with atomic_path(self._path) as temporary:
                temporary.write_text("".join(kept), encoding="utf-8")
        except OSError as error:
            raise UnwritableOutputError(
                f"cannot write {self._path}: {error.strerror}; give other --checkpoints"
            ) from error

    def _lines_until(self, step: int) -> list[str]:
        if not self._path.exists():
            return []
        kept = []
        for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
            try:
                entry = json.loads(line)
            except ValueError:  # cut off by a kill
                continue
            if isinstance(entry, dict) and int(entry.get("step", 0)) <= step:
                kept.append(line)
        return kept

    def write(self, entry: Mapping[str, Any]) -> None:
        """One line, flushed."""
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise UnwritableOutputError(
                f"cannot write {self._path}: {error.strerror}; make room and --resume"
            ) from error


def check_board() -> Any:
    """What writes for TensorBoard. Raises `MissingPackageError` where that is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingPackageError(
            "--tensorboard needs the package tensorboard: pip install 'vfconvert[tensorboard]'"
        ) from error
    return SummaryWriter


class Board:
    """TensorBoard's files of the loss, the rate and the metrics."""

    def __init__(self, folder: Path) -> None:
        """Raises `MissingPackageError` where TensorBoard is not installed."""
        self._writer: Any = check_board()(str(folder))

    def write(self, entry: Mapping[str, Any]) -> None:
        """The numbers of a line of the log."""
        for name, value in entry.items():
            if isinstance(value, (int, float)) and name not in ("step", "epoch"):
                self._writer.add_scalar(name, value, entry["step"])
        self._writer.flush()
