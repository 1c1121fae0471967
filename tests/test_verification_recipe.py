"""A recipe passes where it gives back the network, and fails where a tensor or an output differs."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.cli.conftest import network
from vfconvert.errors import ParityError
from vfconvert.exporting.recipe import write_safetensors
from vfconvert.nn import VersatileConv2d
from vfconvert.rewriting import replace_module
from vfconvert.specs import ConvGeometry
from vfconvert.verification import verify_recipe

IMAGES = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def student() -> nn.Module:
    model = copy.deepcopy(network()).eval()
    old = model.get_submodule("3")
    replace_module(model, "3", VersatileConv2d(ConvGeometry.of(old)))
    return model


@pytest.fixture
def path(student: nn.Module, tmp_path: Path) -> Path:
    file = tmp_path / "model.safetensors"
    settings = {"architecture": None, "architecture_arguments": {}, "metadata": {}, "input_shape": (3, 12, 12)}
    write_safetensors(student, file, variants={"3": "segments"}, **settings)
    return file


@pytest.mark.parametrize("lowered", [False, True])
def test_a_recipe_gives_the_network_back(path, student, lowered):
    parity = verify_recipe(path, student, IMAGES, like=network(), lowered=lowered)
    assert parity.batch_sizes == (1, 2, 5)
    assert (parity.relative_error > 0) == lowered  # the inference form adds up in another order
    assert parity.relative_error < 1e-6


def test_meta_another_tensor_is_seen(path, student):
    student.get_submodule("3").weight.data[0, 0, 0, 0] += 1e-6
    with pytest.raises(ParityError, match=r"gives back another network \(3.weight\)"):
        verify_recipe(path, student, IMAGES, like=network(), lowered=True)


def test_a_buffer_of_nan_is_itself(student, tmp_path):
    student.register_buffer("unused", torch.tensor([torch.nan, 1.0]))
    like = network()
    like.register_buffer("unused", torch.zeros(2))
    settings = {"architecture": None, "architecture_arguments": {}, "metadata": {}, "input_shape": (3, 12, 12)}
    write_safetensors(student, tmp_path / "nan.safetensors", variants={"3": "segments"}, **settings)
    assert verify_recipe(tmp_path / "nan.safetensors", student, IMAGES, like=like, lowered=True).relative_error < 1e-6
    student.unused[1] = torch.nan
    with pytest.raises(ParityError, match=r"gives back another network \(unused\)"):
        verify_recipe(tmp_path / "nan.safetensors", student, IMAGES, like=like, lowered=True)


def test_meta_another_inference_form_is_seen(path, student, monkeypatch):
    from vfconvert.recipes import load
    from vfconvert.verification import recipe

    def spoilt(file, *, like, lowered=False, example=None):
        found = load(file, like=like, lowered=lowered, example=example)
        return nn.Sequential(found, nn.Softplus(beta=1e2)) if lowered else found

    monkeypatch.setattr(recipe, "load", spoilt)
    with pytest.raises(ParityError, match=r"output 'output' at batch 1: .* relative error"):
        verify_recipe(path, student, IMAGES, like=network(), lowered=True)
