"""Damage once measured, kept in a file beside the model: every further budget is then a matter of a moment.

The file is JSON and holds numbers only. It counts for one model file, one set of images, seed and version of the
measurement; for anything else it is written anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from vfconvert.budget.damage import Harm
from vfconvert.errors import IllegalSpecError, UnwritableOutputError
from vfconvert.files import atomic_path, read_regular, regular_file
from vfconvert.specs import ConvGeometry, Crop, VersatileSpec

SUFFIX = ".damage.json"
_VERSION = 2  # of what is measured, and of the file
_MOST_BYTES = 2**28
_BEGINNING = b'{"version":'


def cache_path(model: Path) -> Path:
    """Where the damage of a model file is kept."""
    return model.with_name(model.name + SUFFIX)


def is_cache(path: Path) -> bool:
    """Whether a file begins as one that `write_harms` wrote: no other is ever replaced."""
    try:
        with regular_file(path) as file:
            return file is not None and file.read(len(_BEGINNING)) == _BEGINNING
    except OSError:
        return False


def key_of(sha256: str, images: Tensor, seed: int, answers: Sequence[Tensor]) -> str:
    """What a measurement depends on, as a digest.

    `answers` are outputs of the network, since a file of weights does not say what they are weights of; they count to
    four digits, so that another number of threads makes no difference.
    """
    said = [f"{tuple(a.shape)} {float(a.double().abs().mean()):.4g} {float(a.double().mean()):.4g}" for a in answers]
    digest = hashlib.sha256(f"{_VERSION} {sha256} {seed} {tuple(images.shape)} {said}".encode())
    digest.update(images.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def read_harms(
    path: Path, key: str, geometries: Mapping[str, ConvGeometry]
) -> tuple[dict[str, tuple[Harm, ...]], str] | None:
    """The options of all layers that the file has, and what damage is counted in; None where it has none for this key.

    `geometries` are those of the layers that are wanted, which have to fit.

    Whatever is wrong with the file, it is not believed: then damage is measured again.
    """
    try:
        text = read_regular(path, _MOST_BYTES)
        if text is None:
            return None
        content = json.loads(text.decode("utf-8"))
        if content["version"] != _VERSION or content["key"] != key or content["measure"] not in ("nats", "variance"):
            return None
        found = {str(name): tuple(map(_harm, harms)) for name, harms in content["layers"].items()}
        for name in found.keys() & geometries.keys():
            for harm in found[name]:
                harm.spec.check(geometries[name])
        return found, content["measure"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, IllegalSpecError):
        return None


def is_damaged(path: Path, key: str) -> bool:
    """Whether a file from which nothing was read is no whole file of another key or version, a pipe perhaps."""
    try:
        if path.is_dir() or not path.exists():
            return False
        text = read_regular(path, _MOST_BYTES)
        if text is not None:
            content = json.loads(text.decode("utf-8"))
            return bool(content["version"] == _VERSION and content["key"] == key)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return True


def write_harms(path: Path, key: str, harms: Mapping[str, Sequence[Harm]], measure: str) -> bool:
    """Write the options; False where the folder cannot be written, which harms nothing but the next run's time.

    Whatever other file stands there is kept, under the same name and ".damaged"; a pipe or device is left alone.
    """
    content = {
        "version": _VERSION,
        "key": key,
        "measure": measure,
        "layers": {name: [dataclasses.asdict(harm) for harm in found] for name, found in harms.items()},
    }
    try:
        if path.is_file() and not is_cache(path):  # a damaged one, or what happens to have its name
            path.replace(path.with_name(f"{path.name}.damaged"))
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
    except (UnwritableOutputError, OSError):
        return False
    return True


def _harm(value: Any) -> Harm:
    spec = value["spec"]
    harm = Harm(
        kind=str(value["kind"]),
        spec=VersatileSpec(
            crops=tuple(Crop(*map(int, (c["top"], c["bottom"], c["left"], c["right"]))) for c in spec["crops"]),
            levels=tuple(tuple(map(int, level)) for level in spec["levels"]),
            windows=int(spec["windows"]),
            channel_stride=int(spec["channel_stride"]),
            group_primaries=None if spec["group_primaries"] is None else int(spec["group_primaries"]),
            whole_window=bool(spec["whole_window"]),
        ),
        unexplained=float(value["unexplained"]),
        damage=float(value["damage"]),
        products=int(value["products"]),
    )
    if not (0 <= harm.damage < math.inf and 0 <= harm.unexplained < math.inf and harm.products > 0):
        raise ValueError(f"damage {harm.damage}, unexplained {harm.unexplained}, products {harm.products}")
    return harm
