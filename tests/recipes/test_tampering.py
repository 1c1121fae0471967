"""Whatever is changed in a file, it loads or is refused in one line."""

import json
import random
import re
import struct
from pathlib import Path
from typing import Any

import torch
from torch import nn

import vfconvert
from tests.recipes.helpers import Small, header_of, put
from vfconvert.errors import VfconvertError

ODD = [None, True, -1, 0, 2**31, 10**30, 1.5, "", "x", "\ud800\n", [], [1], {}, {"a": 1}]


def mutated(value: Any, chance: random.Random) -> Any:
    """A JSON value with one place in it changed, removed or doubled."""
    if isinstance(value, dict) and value and chance.random() < 0.95:
        key = chance.choice(sorted(value))
        changed = dict(value)
        what = chance.random()
        if what < 0.1:
            del changed[key]
        elif what < 0.15:
            changed[f"{key}x"] = changed.pop(key)
        else:
            changed[key] = mutated(value[key], chance)
        return changed
    if isinstance(value, list) and value and chance.random() < 0.9:
        at, what = chance.randrange(len(value)), chance.random()
        if what < 0.1:
            return value[:at] + value[at + 1 :]
        if what < 0.2:
            return value[: at + 1] + value[at:]
        return [*value[:at], mutated(value[at], chance), *value[at + 1 :]]
    if type(value) is int and chance.random() < 0.6:
        return value + chance.choice([-1, 1, 7, 10**6])
    return chance.choice(ODD)


def attempt(path: Path, like: nn.Module | None, lowered: bool) -> str:
    """ "loaded", or the one-line refusal; any other exception is passed on."""
    try:
        model = vfconvert.load(path, like=like, lowered=lowered)
    except VfconvertError as error:
        said = str(error)
    else:
        with torch.no_grad():
            assert torch.is_tensor(model(torch.zeros(2, 3, 32, 32)))
        return "loaded"
    assert re.fullmatch(r"[^\n]+", said)
    assert said.encode()
    return said


def test_no_change_to_the_recipe_does_more_than_be_refused(stored: Path, original: Small, tmp_path: Path) -> None:
    header, numbers = header_of(stored)
    recipe = json.loads(header["__metadata__"]["vfconvert"])
    said = []
    for seed in range(300):
        chance = random.Random(seed)
        if seed % 3:
            inside = (
                {**recipe, "layers": mutated(recipe["layers"], chance)} if seed % 3 == 1 else mutated(recipe, chance)
            )
            changed = {**header, "__metadata__": {"vfconvert": json.dumps(inside)}}
        else:
            changed = mutated(header, chance)
        said.append(attempt(put(tmp_path / "model.safetensors", changed, numbers), original, seed % 2 == 0))
    assert 5 < said.count("loaded") < 150  # what is for people may be anything
    assert len(set(said)) > 60


def test_no_change_to_the_bytes_does_more_than_be_refused(stored: Path, original: Small, tmp_path: Path) -> None:
    data, path = stored.read_bytes(), tmp_path / "model.safetensors"
    (length,) = struct.unpack("<Q", data[:8])
    said = []
    for seed in range(200):
        chance, changed = random.Random(seed), bytearray(data)
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(8 + length if seed % 4 else len(data))] = chance.choice(b'0179"\\{}[],:x\x00\xff')
        path.write_bytes(changed)
        said.append(attempt(path, original, seed % 2 == 0))
    assert said.count("loaded") < 150
    assert len(set(said)) > 40


def test_no_change_to_the_architecture_does_more_than_be_refused(stored_resnet: Path, tmp_path: Path) -> None:
    header, numbers = header_of(stored_resnet)
    recipe = json.loads(header["__metadata__"]["vfconvert"])
    said = []
    for seed in range(60):
        chance = random.Random(seed)
        part = chance.choice(["architecture", "architecture_arguments"])
        inside = {**recipe, part: mutated(recipe[part], chance)}
        changed = {**header, "__metadata__": {"vfconvert": json.dumps(inside)}}
        said.append(attempt(put(tmp_path / "model.safetensors", changed, numbers), None, False))
    assert said.count("loaded") < 10
    assert len(set(said)) > 10
