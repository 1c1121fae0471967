"""Modules saved whole."""

import dataclasses
import functools
import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models
from torchvision.models.resnet import BasicBlock

from tests.loading.helpers import assert_same_weights
from vfconvert.errors import ArchitectureError, EmptyModelError, TruncatedModelError, UnsupportedModelError
from vfconvert.loading import load_model

NETWORKS = {
    "resnet": lambda: models.ResNet(BasicBlock, [1, 1, 1, 1], width_per_group=64, num_classes=3),
    "densenet": lambda: models.DenseNet(4, (1, 1), 8),
    "mobilenet_v3": lambda: models.mobilenet_v3_small(width_mult=0.25),
    "shufflenet": lambda: models.shufflenet_v2_x0_5(num_classes=3),
    "squeezenet": lambda: models.squeezenet1_1(),
    "mnasnet": lambda: models.MNASNet(0.35, num_classes=3),
    "regnet": lambda: models.regnet_y_400mf(num_classes=3),
    "efficientnet": lambda: models.efficientnet_b0(num_classes=3),
    "convnext": lambda: models.ConvNeXt([models.convnext.CNBlockConfig(8, None, 2)], num_classes=3),
    "swin": lambda: models.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4], num_classes=3),
    "vit": lambda: models.VisionTransformer(32, 16, 1, 2, 16, 16, num_classes=3),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_load_model_opens_torchvision_networks_without_a_flag(name: str, tmp_path: Path) -> None:
    network = NETWORKS[name]()
    torch.save(network, tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt")
    assert (loaded.format, loaded.architecture, loaded.trusted, loaded.skipped) == ("module", None, False, ())
    assert type(loaded.model) is type(network)
    assert_same_weights(loaded.model, network)
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.model(x), network.eval()(x))


def test_load_model_tells_about_the_file(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(network, path)
    loaded = load_model(path)
    assert loaded.path == path
    assert loaded.size_bytes == len(path.read_bytes())
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(dataclasses.FrozenInstanceError, match="trusted"):
        loaded.trusted = True  # type: ignore[misc]


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_load_model_records_the_mode_and_leaves_it(network: nn.Module, training: bool, tmp_path: Path) -> None:
    torch.save(network.train(training), tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt")
    assert loaded.was_training is training
    assert not any(module.training for module in loaded.model.modules())


@pytest.mark.parametrize("key", ["model", "net", "ema", "generator"])
def test_load_model_opens_a_module_under_a_key(network: nn.Module, key: str, tmp_path: Path) -> None:
    torch.save({"epoch": 3, key: network, "optimizer": {"state": {}, "param_groups": []}}, tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt")
    assert (loaded.format, loaded.key) == ("module", key)
    assert_same_weights(loaded.model, network)


def test_load_model_takes_a_module_out_of_data_parallel(network: nn.Module, tmp_path: Path) -> None:
    torch.save(nn.DataParallel(network), tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt")
    assert type(loaded.model) is nn.Sequential
    assert_same_weights(loaded.model, network)


def test_load_model_opens_modules_that_hold_harmless_functions(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3))
    network[0].activation, network[0].make = F.relu, functools.partial(nn.BatchNorm2d, eps=1e-3)
    torch.save(network, tmp_path / "model.pt")
    conv = load_model(tmp_path / "model.pt").model[0]
    assert conv.activation is F.relu
    assert (conv.make.func.__name__, conv.make.keywords) == ("BatchNorm2d", {"eps": 1e-3})
    with pytest.raises(pickle.UnpicklingError, match="BatchNorm2d is built with arguments"):
        conv.make(4)


def test_load_model_puts_a_modules_weights_into_an_architecture(
    network: nn.Module, architecture: str, tmp_path: Path
) -> None:
    torch.save(network, tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt", architecture=architecture)
    assert (loaded.format, loaded.architecture) == ("module", architecture)
    assert_same_weights(loaded.model, network)


def test_load_model_refuses_arguments_without_architecture(network: nn.Module, tmp_path: Path) -> None:
    torch.save(network, tmp_path / "model.pt")
    with pytest.raises(ArchitectureError, match="--arch-arg num_classes: needs --arch"):
        load_model(tmp_path / "model.pt", architecture_arguments={"num_classes": 3})


def test_load_model_refuses_a_module_without_weights(tmp_path: Path) -> None:
    torch.save(nn.ReLU(), tmp_path / "model.pt")
    with pytest.raises(EmptyModelError, match="a ReLU without any weights"):
        load_model(tmp_path / "model.pt")


def test_load_model_refuses_meta_weights(tmp_path: Path) -> None:
    torch.save(nn.Conv2d(3, 4, 3, device="meta"), tmp_path / "model.pt")
    with pytest.raises(EmptyModelError, match="'weight' is on the meta device"):
        load_model(tmp_path / "model.pt")


def test_load_model_refuses_several_modules(network: nn.Module, tmp_path: Path) -> None:
    torch.save({"generator": network, "discriminator": network}, tmp_path / "model.pt")
    with pytest.raises(UnsupportedModelError, match=r"holds 2 networks \('generator', 'discriminator'\)"):
        load_model(tmp_path / "model.pt")


def test_load_model_refuses_a_module_inside_itself(network: nn.Sequential, tmp_path: Path) -> None:
    network.add_module("again", network)
    torch.save(network, tmp_path / "model.pt")
    with pytest.raises(TruncatedModelError, match=r"not complete \(it is inside itself"):
        load_model(tmp_path / "model.pt")
