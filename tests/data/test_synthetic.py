import copy
import math

import pytest
import torch
from torch import Tensor, nn

from vfconvert.data import synthetic
from vfconvert.data.synthetic import noise_images, synthesise
from vfconvert.errors import FitError

SHAPE = (3, 12, 10)


def spectral_slope(images: Tensor) -> float:
    """The exponent of the amplitude spectrum: slope of log amplitude over log frequency, the lowest ones left out."""
    height, width = images.shape[2:]
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    amplitude = torch.fft.rfft2(images).abs().square().mean((0, 1)).sqrt()
    inside = (frequency > 2.5 / height) & (frequency < 0.5)
    x, y = frequency[inside].log(), amplitude[inside].log()
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def network(classes: int = 4) -> nn.Sequential:
    """A classifier whose BatchNorms remember images unlike noise: brighter, and with other contrasts per channel."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8, momentum=None),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1, stride=2),
        nn.BatchNorm2d(8, momentum=None),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, classes),
    )
    with torch.no_grad():
        model(torch.randn(256, *SHAPE) * torch.tensor([2.0, 0.5, 1.0]).view(1, 3, 1, 1) + 1.5)
    return model.eval()


def statistics_error(model: nn.Sequential, images: Tensor) -> float:
    """Mean difference of a channel's mean and deviation from what BatchNorm remembers, in deviations."""
    errors, x = [], images
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.BatchNorm2d):
                deviation = layer.running_var.sqrt()
                errors += [(x.mean((0, 2, 3)) - layer.running_mean) / deviation, x.std((0, 2, 3)) / deviation - 1]
            x = layer(x)
    return float(torch.cat(errors).abs().mean())


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.5])
def test_noise_images_have_the_spectrum(exponent: float) -> None:
    images = noise_images((1, 64, 64), 64, 0, exponent)
    assert spectral_slope(images) == pytest.approx(-exponent, abs=0.1)


@pytest.mark.parametrize("shape", [(3, 32, 24), (1, 9, 9), (4, 8, 1)], ids=str)
def test_noise_images_have_zero_mean_and_contrasts_around_one(shape: tuple[int, int, int]) -> None:
    images = noise_images(shape, 400, 1)
    assert images.shape == (400, *shape)
    assert images.dtype is torch.float32
    assert float(images.mean((1, 2, 3)).abs().max()) < 1e-5
    contrast = images.std((1, 2, 3), correction=0).log()
    assert float(contrast.mean()) == pytest.approx(0, abs=0.06)
    assert float(contrast.std()) == pytest.approx(0.35, rel=0.15)


def test_noise_images_share_luminance_between_channels() -> None:
    channels = noise_images((3, 32, 32), 100, 0).transpose(0, 1).flatten(1)
    correlation = torch.corrcoef(channels)
    assert correlation[0, 1:].tolist() == pytest.approx([1 / (1 + 0.35**2)] * 2, abs=0.03)


def test_noise_images_of_one_pixel_are_finite() -> None:
    assert torch.equal(noise_images((3, 1, 1), 2, 0).isfinite(), torch.ones(2, 3, 1, 1, dtype=torch.bool))


def test_synthesise_is_the_same_for_a_seed_and_leaves_the_random_state() -> None:
    model = network()
    before = torch.get_rng_state()
    first, second, other = (synthesise(model, SHAPE, 20, seed, steps=2).images for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    "norm", [nn.Identity(), nn.GroupNorm(1, 8), nn.BatchNorm2d(8, track_running_stats=False)], ids=lambda n: str(n)[:9]
)
def test_synthesise_without_statistics_to_match_is_noise(norm: nn.Module) -> None:
    made = synthesise(nn.Sequential(nn.Conv2d(3, 8, 3), norm), SHAPE, 6, 3)
    assert made.method == "noise"
    assert torch.equal(made.images, noise_images(SHAPE, 6, 3))


def test_synthesise_matches_what_batchnorm_remembers() -> None:
    model = network()
    noise = statistics_error(model, noise_images(SHAPE, 128, 0))
    made = synthesise(model, SHAPE, 128, 0, steps=60)
    assert made.method == "bn-matched"
    assert made.images.shape == (128, *SHAPE)
    assert not made.images.requires_grad
    assert noise > 0.3
    assert statistics_error(model, made.images) < noise / 3


def test_synthesise_makes_classes_diverse(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    model[-1].weight.data.mul_(3)  # so that images can be told apart
    model[-1].bias.data[0] += 2  # but most noise is class 0

    def entropy_of_mean() -> float:
        with torch.no_grad():
            mean = model(synthesise(model, SHAPE, 64, 0, steps=30).images).softmax(1).mean(0)
        return float(-(mean * mean.log()).sum())

    monkeypatch.setattr(synthetic, "_DIVERSITY", 0.5)  # this network's statistics weigh far more than a real one's
    with_term = entropy_of_mean()
    monkeypatch.setattr(synthetic, "_DIVERSITY", 0.0)
    assert with_term > entropy_of_mean() + 0.1
    assert with_term <= math.log(4)


def test_synthesise_leaves_the_model_as_it_was() -> None:
    model = network().train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    state = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    synthesise(model, SHAPE, 20, 0, steps=2)
    assert_untouched(model, state, modes)


def test_synthesise_leaves_the_model_as_it_was_after_a_failure() -> None:
    model = network().train()
    state = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    with pytest.raises(RuntimeError, match="expected input"):
        synthesise(model, (5, 8, 8), 4, 0, steps=1)
    assert_untouched(model, state, modes)


def assert_untouched(model: nn.Module, state: dict[str, Tensor], modes: list[bool]) -> None:
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_synthesise_within_no_grad_and_in_half_precision() -> None:
    model = network().to(torch.bfloat16)
    with torch.no_grad():
        made = synthesise(model, SHAPE, 16, 0, steps=2)
    assert made.images.dtype is torch.float32
    assert not torch.equal(made.images, noise_images(SHAPE, 16, 0))


def test_synthesise_of_a_network_that_is_no_classifier() -> None:
    made = synthesise(network()[:5], SHAPE, 16, 0, steps=2)
    assert made.method == "bn-matched"
    assert bool(made.images.isfinite().all())


def test_synthesise_refuses_activations_that_are_not_finite() -> None:
    model = network()
    model[0].weight.data.fill_(1e38)
    with pytest.raises(FitError, match="not finite on noise; give real images with --data"):
        synthesise(model, SHAPE, 4, 0, steps=1)


def test_synthesise_reports_every_step_of_every_batch() -> None:
    seen = []
    synthesise(network(), SHAPE, 300, 0, steps=2, progress=lambda *progress: seen.append(progress))
    assert seen == [("synthesise images", done, 4) for done in (1, 2, 3, 4)]


@pytest.mark.parametrize(("count", "steps"), [(512, 20), (10**12, 4)], ids=["small", "large"])
def test_synthesise_takes_as_many_steps_as_products_allow(count: int, steps: int) -> None:
    assert synthetic._affordable_steps(10**6, count) == steps


def test_synthesise_of_norms_that_never_run_is_noise() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)

    assert synthesise(Idle(), SHAPE, 4, 0).method == "noise"
