"""Norms that share statistics while several processes train, and are afterwards what they were."""

import copy

import torch
from torch import Tensor, nn

from vfconvert.training.ranks import Ranks, plain_norms

CUDA = torch.device("cuda")


class Own(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


class Mixed(nn.Module):
    """Norms of one, two and three dimensions, one of a user's class, and one under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.two, self.own, self.three = nn.BatchNorm2d(3), Own(3), nn.BatchNorm3d(3, affine=False)
        self.one = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=None, eps=0.25), nn.BatchNorm1d(4))
        self.again, self.bare = self.two, nn.BatchNorm1d(4, track_running_stats=False, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.own(self.two(x)))
        return self.bare(self.one(self.three(x.unsqueeze(2)).mean((2, 3, 4))))


def test_norms_become_shared_and_their_own_again() -> None:
    torch.manual_seed(0)
    model, images = Mixed(), torch.randn(4, 3, 5, 5)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 2 if "weight" in name or "var" in name else 1)
    wanted = copy.deepcopy(model).eval()(images)
    kinds = [type(module) for module in model.modules()]
    parameters = list(model.parameters())
    shared = Ranks(rank=0, world=2, local=0).with_shared_norms(model, CUDA)
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in shared.modules()) == 5
    assert type(shared.own) is Own
    assert shared.again is shared.two
    assert [id(parameter) for parameter in shared.parameters()] == [id(parameter) for parameter in parameters]
    plain = plain_norms(shared.eval())
    assert [type(module) for module in plain.modules()] == kinds
    assert plain.again is plain.two
    torch.testing.assert_close(plain(images), wanted, rtol=0, atol=0)
    assert (plain.one[1].momentum, plain.one[1].eps) == (None, 0.25)


def test_one_process_and_processors_keep_their_norms() -> None:
    model = Mixed()
    kinds = [type(module) for module in model.modules()]
    for ranks, device in ((Ranks(), CUDA), (Ranks(rank=1, world=2, local=1), torch.device("cpu"))):
        assert [type(module) for module in ranks.with_shared_norms(model, device).modules()] == kinds
    assert type(plain_norms(nn.BatchNorm1d(3))) is nn.BatchNorm1d
    alone = Ranks(rank=0, world=2, local=0).with_shared_norms(nn.BatchNorm1d(3), CUDA)
    assert isinstance(alone, nn.SyncBatchNorm)
    assert type(plain_norms(alone)) is nn.BatchNorm1d
