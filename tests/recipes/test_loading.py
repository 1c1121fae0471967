"""A stored network comes back bit for bit, and its inference form computes the same."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import vfconvert
from tests.recipes.helpers import WISH, Small, converted, write
from vfconvert.nn import VersatileConv2d
from vfconvert.planning import Wish


def same(got: nn.Module, wanted: nn.Module) -> bool:
    a, b = got.state_dict(), wanted.state_dict()
    return list(a) == list(b) and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def test_network_by_name_comes_back_bit_for_bit(stored_resnet: Path, resnet: nn.Module) -> None:
    random_state = torch.get_rng_state()
    model = vfconvert.load(str(stored_resnet))
    assert same(model, resnet)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(module.training for module in model.modules())
    images = torch.randn(2, 3, 64, 64)
    lowered = vfconvert.load(stored_resnet, lowered=True)
    assert not any(isinstance(module, VersatileConv2d) for module in lowered.modules())
    with torch.no_grad():
        wanted = resnet(images)
        assert torch.equal(model(images), wanted)
        assert (lowered(images) - wanted).abs().max() <= 1e-5 * wanted.abs().max()
        assert (lowered(images) * 1.001 - wanted).abs().max() > 1e-5 * wanted.abs().max()
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("wish", [WISH, Wish(), Wish(spatial=False, channel=True)], ids=["lines", "squares", "windows"])
@pytest.mark.parametrize("variant", ["segments", "full", "separate", "plain", None])
def test_network_of_another_kind_comes_back(original: Small, tmp_path: Path, wish: Wish, variant: str | None) -> None:
    model, images = converted(original, wish, 16), torch.randn(3, 3, 16, 16)
    names = [name for name, module in model.named_modules() if isinstance(module, VersatileConv2d)]
    variants = {} if variant is None else dict.fromkeys(names, variant)
    path = write(model, tmp_path / "model.safetensors", variants=variants)
    again = vfconvert.load(path, like=original)
    assert same(again, model)
    assert again.tied.weight is again.last.weight
    assert again.again is again.block
    assert type(original.block[0]) is nn.Conv2d
    with torch.no_grad():
        wanted = model(images)
        got = vfconvert.load(path, like=original, lowered=True, example=images[:2])(images)
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("wish", [WISH, Wish(channel=True)], ids=["lines", "both"])
def test_network_comes_back_with_ordinary_convolutions(original: Small, tmp_path: Path, wish: Wish) -> None:
    model, images = converted(original, wish, 16), torch.randn(3, 3, 16, 16)
    plain = vfconvert.load(write(model, tmp_path / "model.safetensors"), like=original, plain=True)
    kinds = {name: type(module) for name, module in original.named_modules(remove_duplicate=False)}
    assert {name: type(module) for name, module in plain.named_modules(remove_duplicate=False)} == kinds
    assert plain.again is plain.block
    assert all(parameter.requires_grad for parameter in plain.parameters())
    with torch.no_grad():
        assert torch.equal(plain(images), model(images))
        plain.block[0].weight += 1e-3
        assert not torch.equal(plain(images), model(images))


def test_precision_and_modes_are_kept(original: Small, student: nn.Module, tmp_path: Path) -> None:
    model = copy.deepcopy(student).double().train()
    path = write(model, tmp_path / "model.safetensors")
    assert model.training
    assert same(vfconvert.load(path, like=original), model)
    assert vfconvert.load(path, like=original, lowered=True)(torch.zeros(1, 3, 16, 16).double()).dtype == torch.float64


def test_package_loads_torch_on_first_use_only() -> None:
    code = "import sys, vfconvert; print('torch' in sys.modules, *vfconvert.__all__)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, *names = ran.stdout.split()
    assert first == "False"
    assert {"convert", "load", "inspect", "batch"} <= set(names)
    with pytest.raises(AttributeError, match="has no attribute 'save'"):
        vfconvert.save  # noqa: B018
