import copy

import pytest
import torch
from torch import nn

from tests.loading.helpers import assert_same_weights


def test_assert_same_weights_accepts_a_copy(network: nn.Module) -> None:
    assert_same_weights(copy.deepcopy(network), network)


@pytest.mark.parametrize("name", ["0.weight", "1.running_var", "5.bias"])
def test_assert_same_weights_fails_on_a_small_change(network: nn.Module, name: str) -> None:
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.state_dict()[name].view(-1)[-1] += 1e-6
    with pytest.raises(AssertionError, match=name):
        assert_same_weights(other, network)


def test_assert_same_weights_fails_on_another_name(network: nn.Module) -> None:
    with pytest.raises(AssertionError, match="other names"):
        assert_same_weights(nn.Sequential(network), network)
