import copy

import pytest
import torch
from torch import nn

from tests.analysis.nets import PlainNet, RepeatedNet, SharedModuleNet, TiedNet
from vfconvert.analysis.counting import count_macs
from vfconvert.analysis.profile import Call, geometry_of, profile
from vfconvert.errors import InputShapeError
from vfconvert.nn import VersatileConv2d
from vfconvert.specs import ConvGeometry


def test_profile_notes_geometry_and_sizes():
    (layer,) = profile(PlainNet(), torch.randn(2, 3, 6, 7)).layers
    assert layer.name == "conv"
    assert layer.geometry == ConvGeometry(in_channels=3, out_channels=8, kernel_size=(3, 3), padding=(1, 1))
    assert layer.calls == (Call(batch=2, input_size=(6, 7), output_size=(6, 7)),)
    assert layer.output_positions == 2 * 6 * 7
    assert not layer.versatile


def test_profile_notes_every_call_and_layers_never_called():
    found = profile(RepeatedNet(), torch.randn(1, 2, 16, 12))
    conv, unused = found.layers
    assert [call.output_size for call in conv.calls] == [(8, 6), (4, 3), (2, 2)]
    assert [call.input_size for call in conv.calls] == [(16, 12), (8, 6), (4, 3)]
    assert unused.calls == ()
    assert unused.output_positions == 0
    assert found.shared_modules == found.tied_parameters == ()


def test_profile_names_shared_modules():
    found = profile(SharedModuleNet(), torch.randn(1, 2, 5, 5))
    (layer,) = found.layers
    assert layer.names == ("first", "block.1")
    assert len(layer.calls) == 2
    assert found.shared_modules == (("first", "block.1"),)
    assert found.tied_parameters == ()
    assert found.layer("block.1") is found.layer("first") is layer


def test_profile_names_tied_parameters():
    found = profile(TiedNet(), torch.randn(1, 2, 3, 3))
    assert found.tied_parameters == (("one.weight", "two.weight"),)
    assert found.shared_modules == ()


def test_profile_names_parameters_tied_by_memory_alone():
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1))
    model[1].bias = nn.Parameter(model[0].bias.data)
    assert profile(model, torch.randn(1, 2, 3, 3)).tied_parameters == (("0.bias", "1.bias"),)


def test_profile_takes_exact_types_only():
    class Mine(nn.Conv2d):
        pass

    geometry = ConvGeometry(in_channels=2, out_channels=2, kernel_size=(1, 1))
    model = nn.Sequential(Mine(2, 2, 1), nn.ConvTranspose2d(2, 2, 1), VersatileConv2d(geometry), nn.Conv2d(2, 2, 1))
    assert [(layer.name, layer.versatile) for layer in profile(model, torch.randn(1, 2, 3, 3)).layers] == [
        ("2", True),
        ("3", False),
    ]


def test_profile_takes_several_arguments_keywords_and_an_unbatched_image():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1)

        def forward(self, x, times):
            return self.conv(input=x) * times

    (layer,) = profile(Two(), (torch.randn(1, 4, 5), 3)).layers
    assert layer.calls == (Call(batch=1, input_size=(4, 5), output_size=(4, 5)),)


def test_profile_of_an_unknown_layer_has_no_answer():
    with pytest.raises(KeyError, match="nowhere"):
        profile(PlainNet(), torch.randn(1, 3, 6, 6)).layer("nowhere")
    with pytest.raises(TypeError, match="Linear is no 2-D convolution"):
        geometry_of(nn.Linear(1, 1))


class MovingNet(PlainNet):
    """Draws random numbers, counts its calls and replaces a buffer in every pass, in any mode."""

    def __init__(self, fails=False):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("last", torch.full((1,), torch.nan))
        self.fails = fails

    def forward(self, x):
        self.calls += 1
        self.last = torch.rand(1)
        if self.fails:
            raise ValueError("only even sizes\nand a second line")
        return super().forward(x) + self.last


@pytest.mark.parametrize("look", [profile, count_macs])
@pytest.mark.parametrize("fails", [False, True], ids=["passes", "fails"])
def test_the_network_is_left_as_found(look, fails):
    model = MovingNet(fails)
    model.train()
    model.conv.eval()
    heard = []
    model.conv.register_forward_hook(lambda *_: heard.append((model.training, torch.is_grad_enabled())))
    modes = [module.training for module in model.modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    state, buffers = copy.deepcopy(model.state_dict()), dict(model.named_buffers())
    random = torch.get_rng_state()
    if fails:
        with pytest.raises(InputShapeError, match="only even sizes"):
            look(model, torch.randn(1, 3, 6, 6, generator=torch.Generator()))
    else:
        look(model, torch.randn(1, 3, 6, 6, generator=torch.Generator()))
        assert heard == [(False, False)]
    assert [module.training for module in model.modules()] == modes
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled()
    assert all(buffers[name] is buffer for name, buffer in model.named_buffers())
    for name, value in model.state_dict().items():
        assert torch.equal(value.nan_to_num(), state[name].nan_to_num()), name


def test_meta_the_moving_network_moves():
    model, random = MovingNet(), torch.get_rng_state()
    model(torch.randn(1, 3, 6, 6, generator=torch.Generator()))
    assert model.calls == 1
    assert not torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("look", [profile, count_macs])
def test_a_rejected_input_is_one_line(look):
    with pytest.raises(InputShapeError, match="an input of 1x4x6x6") as caught:
        look(PlainNet(), torch.randn(1, 4, 6, 6))
    message = str(caught.value)
    assert message.startswith("the network rejects an input of 1x4x6x6: ")
    assert "to have 3 channels, but got 4 channels instead" in message
    assert message.endswith("; give the shape it takes with --input-shape")
    assert "\n" not in message


def test_a_rejected_input_names_every_argument_and_an_error_without_words():
    class Picky(nn.Module):
        def forward(self, x, y):
            raise IndexError

    with pytest.raises(InputShapeError, match="an input of 1x2, int: IndexError; give"):
        profile(Picky(), (torch.zeros(1, 2), 3))
