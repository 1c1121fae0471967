"""Files that hold only weights."""

import argparse
import collections
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision import models

from tests.loading.helpers import assert_same_weights
from vfconvert.errors import (
    ArchitectureNeededError,
    EmptyModelError,
    StateDictMismatchError,
    UnsupportedModelError,
)
from vfconvert.loading import load_model

Weights = dict[str, Tensor]


class Settings(dict[str, object]):
    """A class of one's own that a checkpoint carries along."""


def prefixed(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {f"{prefix}{name}": tensor for name, tensor in weights.items()}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "key", ["", "state_dict", "model", "model_state_dict", "ema", "params", "model.state_dict", "G"]
)
def test_load_model_finds_weights_under_a_key(
    network: nn.Module, architecture: str, key: str, legacy: bool, tmp_path: Path
) -> None:
    value: Any = network.state_dict()
    for name in reversed(key.split(".") if key else []):
        value = {"epoch": 3, "loss": torch.tensor(0.1), name: value}
    torch.save(value, tmp_path / "weights.pt", _use_new_zipfile_serialization=not legacy)
    loaded = load_model(tmp_path / "weights.pt", architecture=architecture)
    assert (loaded.format, loaded.key, loaded.architecture) == ("state_dict", key, architecture)
    assert not loaded.model.training
    assert_same_weights(loaded.model, network)


def test_load_model_prefers_the_weights_to_their_average(network: nn.Module, architecture: str, tmp_path: Path) -> None:
    average = {name: torch.zeros_like(tensor) for name, tensor in network.state_dict().items()}
    torch.save({"model_ema": average, "model": network.state_dict()}, tmp_path / "weights.pt")
    loaded = load_model(tmp_path / "weights.pt", architecture=architecture)
    assert loaded.key == "model"
    assert_same_weights(loaded.model, network)


RENAMINGS: dict[str, Callable[[Weights], Weights]] = {
    "data-parallel": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "lightning": prefixed("model."),
    "stacked": prefixed("model.module._orig_mod."),
    "averaged": lambda weights: {"n_averaged": torch.tensor(5), **prefixed("module.")(weights)},
    "inner-wrapper": lambda weights: {name.replace("0.", "0.module.", 1): value for name, value in weights.items()},
    "old-batchnorm": lambda weights: {n: v for n, v in weights.items() if not n.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("renaming", RENAMINGS.values(), ids=RENAMINGS)
def test_load_model_undoes_what_wrappers_do_to_names(
    network: nn.Module, architecture: str, renaming: Callable[[Weights], Weights], tmp_path: Path
) -> None:
    torch.save({"state_dict": renaming(network.state_dict())}, tmp_path / "weights.pt")
    assert_same_weights(load_model(tmp_path / "weights.pt", architecture=architecture).model, network)


def test_load_model_keeps_prefixes_that_the_architecture_has(tmp_path: Path) -> None:
    (tmp_path / "inside.py").write_text(
        "from torch import nn\ndef network():\n    return nn.ModuleDict({'model': nn.Conv2d(3, 4, 3)})\n"
    )
    network = nn.ModuleDict({"model": nn.Conv2d(3, 4, 3)})
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    loaded = load_model(tmp_path / "weights.pt", architecture=f"{tmp_path / 'inside.py'}:network")
    assert_same_weights(loaded.model, network)


def test_load_model_knows_the_old_names_of_densenet(tmp_path: Path) -> None:
    (tmp_path / "dense.py").write_text(
        "from torchvision.models import DenseNet\ndef network():\n    return DenseNet(4, (1, 1), 8)\n"
    )
    network = models.DenseNet(4, (1, 1), 8)
    old = {}
    for name, tensor in network.state_dict().items():
        for part in ("norm1", "norm2", "conv1", "conv2"):
            name = name.replace(f"denselayer1.{part}.", f"denselayer1.{part[:-1]}.{part[-1]}.")
        old[name] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "weights.pt")
    loaded = load_model(tmp_path / "weights.pt", architecture=f"{tmp_path / 'dense.py'}:network")
    assert_same_weights(loaded.model, network)


EXTRAS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "namespace": (argparse.Namespace(lr=0.1), ()),
    "numpy-number": (np.float64(0.9), ("numpy._core.multiarray.scalar", "numpy.dtype")),
    "numpy-array": (
        np.arange(3),
        ("numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype"),
    ),
    "defaultdict": (collections.defaultdict(int, a=1), ("collections.defaultdict", "builtins.int")),
    "path": (Path("data"), None),
    "datetime": (datetime.datetime(2020, 1, 1), ("datetime.datetime",)),
    "own-class": (Settings(lr=0.1), ("tests.loading.test_state_dicts.Settings",)),
    "device": (torch.device("cpu"), ()),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(("extra", "skipped"), EXTRAS.values(), ids=EXTRAS)
def test_load_model_skips_what_stands_beside_the_weights(
    network: nn.Module, architecture: str, extra: Any, skipped: tuple[str, ...] | None, legacy: bool, tmp_path: Path
) -> None:
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    checkpoint = {"args": extra, "state_dict": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    torch.save(checkpoint, tmp_path / "weights.pt", _use_new_zipfile_serialization=not legacy)
    loaded = load_model(tmp_path / "weights.pt", architecture=architecture)
    assert_same_weights(loaded.model, network)
    if skipped is None:
        assert loaded.skipped[0].startswith("pathlib.")
    else:
        assert [name.replace("numpy.core", "numpy._core") for name in loaded.skipped] == list(skipped)


def test_load_model_opens_safetensors(network: nn.Module, architecture: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    loaded = load_model(path, architecture=architecture)
    assert (loaded.format, loaded.trusted) == ("state_dict", False)
    assert dict(loaded.model.state_dict()).keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name
    path.rename(tmp_path / "weights.bin")
    assert load_model(tmp_path / "weights.bin", architecture=architecture).sha256 == loaded.sha256


def test_load_model_passes_arguments_to_the_factory(architecture: str, tmp_path: Path) -> None:
    weights = models.squeezenet1_1(num_classes=5).state_dict()
    torch.save(weights, tmp_path / "weights.pt")
    loaded = load_model(
        tmp_path / "weights.pt", architecture="torchvision:squeezenet1_1", architecture_arguments={"num_classes": 5}
    )
    assert_same_weights(loaded.model, weights)


def test_load_model_refuses_weights_without_architecture(network: nn.Module, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(
        ArchitectureNeededError, match=r"only weights \(9 tensors, the first '0.weight', 4x3x3x3\).*--arch torchvision:"
    ):
        load_model(tmp_path / "weights.pt")


def test_load_model_refuses_names_that_do_not_match(network: nn.Module, architecture: str, tmp_path: Path) -> None:
    weights = network.state_dict()
    weights["7.weight"] = weights.pop("0.weight")
    weights["1.bias"] = torch.zeros(6)
    torch.save(weights, tmp_path / "weights.pt")
    with pytest.raises(
        StateDictMismatchError,
        match=r"1 missing \('0.weight'\); 1 unexpected \('7.weight'\); 1 mis-shaped \('1.bias' 6 for 4\); name the net",
    ):
        load_model(tmp_path / "weights.pt", architecture=architecture)


def test_load_model_names_only_the_first_few(architecture: str, tmp_path: Path) -> None:
    torch.save({f"layer{i}.weight": torch.zeros(2) for i in range(5)}, tmp_path / "weights.pt")
    with pytest.raises(
        StateDictMismatchError,
        match=r"8 missing \('0.weight', '0.bias', '1.weight', …\); 5 unexpected \('layer0.weight', 'layer1.weight', 'l",
    ):
        load_model(tmp_path / "weights.pt", architecture=architecture)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_load_model_suggests_the_number_of_classes(
    network: nn.Sequential, architecture: str, legacy: bool, tmp_path: Path
) -> None:
    network[5] = nn.Linear(4, 7)
    torch.save(network.state_dict(), tmp_path / "weights.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        StateDictMismatchError, match=r"2 mis-shaped \('5.weight' 7x4 for 3x4, .*try --arch-arg num_classes=7$"
    ):
        load_model(tmp_path / "weights.pt", architecture=architecture)
    loaded = load_model(tmp_path / "weights.pt", architecture=architecture, architecture_arguments={"num_classes": 7})
    assert_same_weights(loaded.model, network)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}, "the state of an optimizer"),
        ({"optimizer": {"state": {}, "param_groups": []}, "loss": torch.tensor(1.0)}, "the state of an optimizer"),
        ({"epoch": 3, "loss": 0.5}, "holds no weights, but a mapping with the keys 'epoch', 'loss'"),
        ({}, "holds no weights, but an empty mapping"),
        ({"state_dict": {}}, "holds no weights, but a mapping with the keys 'state_dict'"),
        (torch.zeros(3), "holds no weights, but an object of type Tensor"),
        ([torch.zeros(3)], "holds no weights, but an object of type list"),
        (None, "holds no weights, but an object of type NoneType"),
    ],
    ids=["optimizer", "optimizer-nested", "numbers", "empty", "empty-nested", "tensor", "list", "none"],
)
def test_load_model_refuses_files_without_weights(value: Any, message: str, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "weights.pt")
    with pytest.raises(EmptyModelError, match=message):
        load_model(tmp_path / "weights.pt", architecture="torchvision:resnet18")


def test_load_model_refuses_several_sets_of_weights(network: nn.Module, tmp_path: Path) -> None:
    torch.save({"G": network.state_dict(), "D": network.state_dict()}, tmp_path / "weights.pt")
    with pytest.raises(UnsupportedModelError, match=r"holds 2 networks \('G', 'D'\), expected one"):
        load_model(tmp_path / "weights.pt", architecture="torchvision:resnet18")


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_layers_that_ask_for_a_version_are_loaded(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, path = models.mnasnet0_5(weights=None), tmp_path / f"weights.{suffix}"
    if suffix == "pt":
        torch.save(network.state_dict(), path)
    else:
        safetensors.torch.save_file(network.state_dict(), path)
    assert_same_weights(load_model(path, architecture="torchvision:mnasnet0_5").model, network)
