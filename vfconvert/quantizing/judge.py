"""Files of one network side by side: how large, how fast, and how far from the first."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vfconvert.errors import ParityError
from vfconvert.exporting.outputs import main_output
from vfconvert.measuring.timing import in_turns
from vfconvert.quantizing.sessions import Session, open_session
from vfconvert.verification import Agreement, agreement


@dataclass(frozen=True, kw_only=True, slots=True)
class Precision:
    """One file: its size on disk, the median time of one call, and how its main output agrees with the first file's.

    A call takes one image, or the one batch size of the file.
    """

    name: str
    bytes: int
    milliseconds: float
    agreement: Agreement


def judge(
    files: Mapping[str, Path],
    images: Tensor,
    *,
    threads: int,
    rounds: int,
    class_maps: bool = False,
    named: bool = True,
) -> tuple[Precision, ...]:
    """Compare ONNX files with the first of them on `images` `(N, C, H, W)`, in ONNX Runtime on the CPU.

    With `class_maps` main outputs are logits of every pixel. All are timed in turns, `rounds` times. Of several outputs
    the main one is that called "out", else the first, which it always is where they are not `named` by us. Raises
    `ParityError` where there is no file or no image, a file does not open or run, or main outputs differ in shape.
    """
    if not files or not len(images):
        raise ParityError(f"precision: got {len(files)} files and {len(images)} images, expected one or more of both")
    sessions = {name: open_session(path, threads=threads) for name, path in files.items()}
    found = {name: session.run_all(images) for name, session in sessions.items()}
    outputs = {name: main_output(one if named else tuple(one.values())[:1]) for name, one in found.items()}
    timings = in_turns(
        {name: functools.partial(session.run, _first(session, images)) for name, session in sessions.items()},
        rounds=rounds,
    )
    reference = next(iter(outputs.values()))
    return tuple(
        Precision(
            name=name,
            bytes=path.stat().st_size,
            milliseconds=1e3 * timings[name].median,
            agreement=agreement(reference, outputs[name], class_maps=class_maps),
        )
        for name, path in files.items()
    )


def _first(session: Session, images: Tensor) -> Tensor:
    return images[[index % len(images) for index in range(session.batch or 1)]]
