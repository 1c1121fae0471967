"""Small networks of several inputs."""

import torch
from torch import Tensor, nn

SIDE = 16


def layers(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()
    )


class Matting(nn.Module):
    """An image and a mask, each with layers of its own, and layers on both."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.of_image, self.of_mask = layers(3), layers(1)
        self.both, self.head = nn.Conv2d(32, 16, 3, padding=1), nn.Conv2d(16, 1, 1)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """`(B, 3, H, W)` and `(B, 1, H, W)`."""
        both = torch.cat([self.of_image(image), self.of_mask(mask)], 1)
        result: Tensor = self.head(self.both(both).relu())
        return result


class Flow(nn.Module):
    """Two frames through the same layers at once; a list of refined answers, and Python that cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.features, self.head = layers(3), nn.Conv2d(32, 2, 3, padding=1)

    def forward(self, first: Tensor, second: Tensor, rounds: int = 2) -> list[Tensor]:
        """`(B, 3, H, W)` twice."""
        batch, _, height, width = first.shape
        if second.shape[-2:] != (height, width):
            raise ValueError("two frames of one size are expected")
        features = self.features(torch.cat([first, second]))
        flow: Tensor = self.head(torch.cat([features[:batch], features[batch:]], 1))
        return [flow * (number + 1) for number in range(rounds)]


class Warped(nn.Module):
    """Two frames of one size for a network that takes them in one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """`(B, 3, H, W)` twice; writes into both."""
        first.mul_(2)
        second -= 1
        result: Tensor = self.conv(first + second)
        return result
