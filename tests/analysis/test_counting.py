import logging
import warnings

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.analysis.nets import COUNTED, PlainNet, SharedModuleNet, TiedNet, UnknownNet
from vfconvert.analysis.counting import count_macs, count_numbers
from vfconvert.nn import VersatileConv2d
from vfconvert.specs import ConvGeometry

ZOO = {
    "resnet18": {},
    "mobilenet_v2": {},
    "googlenet": {"init_weights": False, "aux_logits": False},
    "shufflenet_v2_x0_5": {},
}


@pytest.fixture(params=ZOO, scope="module")
def published_network(request):
    return torchvision.models.get_model(request.param, weights=None, **ZOO[request.param]).eval()


def test_macs_of_published_networks_are_those_of_torch(published_network):
    x = torch.zeros(2, 3, 64, 64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        published_network(x)
    count = count_macs(published_network, x)
    assert count.flops == counter.get_total_flops() > 0
    assert count.uncounted == {}


def _fvcore_operators(model, x):
    """Its FLOPs, of which one is a multiply-add, by its names of operators."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it scripts when imported and traces when used, which torch calls deprecated
        from fvcore.nn import FlopCountAnalysis

        logging.getLogger("fvcore").setLevel(logging.ERROR)
        found = FlopCountAnalysis(model, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return found.by_operator()


def test_macs_of_published_networks_are_those_of_fvcore(published_network):
    x = torch.zeros(2, 3, 64, 64)
    operators = _fvcore_operators(published_network, x)
    count = count_macs(published_network, x)
    assert count.by_operator == {"aten.convolution": operators["conv"], "aten.addmm": operators["linear"]}


@pytest.mark.parametrize("counted", COUNTED, ids=lambda counted: counted.net.__name__)
def test_counts_are_those_made_by_hand(counted):
    model = counted.net()
    count = count_macs(model, torch.randn(counted.shape))
    assert {name: macs for name, macs in count.by_module.items() if macs} == counted.macs
    assert count.total == counted.macs[""]
    assert count.flops == 2 * count.total
    assert count.uncounted == {}
    assert count_numbers(model).parameters == counted.parameters
    assert count_numbers(model).weight_bytes == 4 * counted.parameters


def test_counting_sees_operators_under_inference_mode():
    class Inference(PlainNet):
        @torch.inference_mode()
        def forward(self, x):
            return super().forward(x)

    x = torch.randn(2, 3, 6, 6)
    assert count_macs(Inference(), x).by_operator == count_macs(PlainNet(), x).by_operator


def test_unknown_operators_are_reported():
    count = count_macs(UnknownNet(), torch.randn(1, 1, 4, 4))
    assert count.uncounted == {"aten._cdist_forward": 1, "aten.dot": 1}
    assert count.total == 16


def test_fused_recurrent_layers_are_reported_or_counted():
    count = count_macs(nn.LSTM(4, 4), torch.randn(1, 5, 4))
    assert count.uncounted or count.total >= 5 * 2 * 4 * 4 * 4


def test_every_module_on_the_way_gets_the_count_once():
    model = nn.Sequential(nn.Sequential(PlainNet()), nn.Softmax(dim=1))
    count = count_macs(model, torch.randn(2, 3, 6, 6))
    assert dict(count.by_module) == {"": 15712, "0": 15712, "0.0": 15712, "0.0.conv": 15552, "0.0.classifier": 160}


def test_counting_survives_a_forward_that_catches_an_error():
    class Trying(nn.Module):
        def __init__(self):
            super().__init__()
            self.wrong, self.right = nn.Conv2d(9, 1, 1), nn.Conv2d(1, 1, 1)

        def forward(self, x):
            try:
                return self.wrong(x)
            except RuntimeError:
                return self.right(x)

    count = count_macs(Trying(), torch.randn(1, 1, 2, 2))
    assert dict(count.by_module) == {"": 4, "right": 4}


def test_numbers_are_sorted_by_kind():
    numbers = count_numbers(PlainNet())
    assert numbers.layer_weights == 216 + 80
    assert (numbers.norm_statistics, numbers.statistics_bytes) == (16, 64)
    assert numbers.buffer_bytes == 64 + 8  # and the norm's int64 count of batches


def test_numbers_count_shared_and_tied_once():
    assert count_numbers(SharedModuleNet()).layer_weights == 36
    assert count_numbers(TiedNet()).layer_weights == 4 + 4
    twins = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    twins[1].weight = nn.Parameter(twins[0].weight.data)  # two objects, one memory
    assert count_numbers(twins).parameters == 4 + 2 + 2


def test_numbers_follow_the_dtype_and_skip_what_no_file_holds():
    model = PlainNet().half()
    model.register_buffer("scratch", torch.zeros(100), persistent=False)
    numbers = count_numbers(model)
    assert numbers.weight_bytes == 2 * numbers.parameters
    assert numbers.buffer_bytes == 32 + 8


def test_numbers_of_a_versatile_layer_are_those_of_its_bank():
    layer = VersatileConv2d(ConvGeometry(in_channels=4, out_channels=8, kernel_size=(3, 3)), scale=True)
    numbers = count_numbers(layer)
    assert numbers.layer_weights == 4 * 4 * 9
    assert numbers.parameters == 4 * 4 * 9 + 8 + 8
    assert numbers.buffer_bytes == 8 * 8
    assert numbers.norm_statistics == 0
