import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vfconvert.data.batches import Batch, BatchStream, split_examples, telling_of_dead_workers
from vfconvert.data.examples import open_examples
from vfconvert.data.preprocessing import Preprocessing
from vfconvert.data.restoration import RestorationTransform
from vfconvert.data.transforms import TrainTransform
from vfconvert.errors import IllegalSpecError, NoImagesError, PreprocessingError, UnreadableImageError

TRANSFORM = TrainTransform(preprocessing=Preprocessing(channels=1), padding=1)


@pytest.fixture
def examples(tmp_path: Path):
    """21 images of 4x4 pixels, labelled by the remainder of their number by 3."""
    generator = np.random.default_rng(0)
    for number in range(21):
        path = tmp_path / f"{number % 3}" / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (4, 4), dtype=np.uint8)).save(path)
    return open_examples(str(tmp_path))


def stream(examples, **options) -> BatchStream:
    indices = options.pop("indices", range(len(examples)))
    return BatchStream(examples, indices, options.pop("transform", TRANSFORM), **{"batch": 4, "seed": 1, **options})


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        a.indices == b.indices and torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets)
        for a, b in zip(first, second, strict=True)
    )


def order(batches) -> list[int]:
    return [index for batch in batches for index in batch.indices]


def damage(examples, *indices: int) -> list[str]:
    names = [examples.name(index) for index in indices]
    for name in names:
        (Path(examples.root) / name).write_bytes(b"no image")
    return names


def test_training_batches_are_full_and_hold_images_with_their_classes(examples) -> None:
    batches = list(stream(examples).epoch(0))
    assert len(stream(examples)) == len(batches) == 5
    for batch in batches:
        assert (batch.images.shape, batch.targets.dtype) == ((4, 1, 4, 4), torch.int64)
        assert batch.targets.tolist() == [examples.labels()[index] for index in batch.indices]
    assert len(set(order(batches))) == 20


def test_evaluation_takes_every_example_once_in_order(examples) -> None:
    evaluation = stream(examples, train=False, shuffle=False)
    batches = list(evaluation.epoch(0))
    assert len(evaluation) == len(batches) == 6
    assert order(batches) == list(range(21))
    expected = torch.stack([TRANSFORM.preprocessing(examples.read(index)[0]) for index in range(21)])
    assert torch.equal(torch.cat([batch.images for batch in batches]), expected)


def test_other_seeds_and_epochs_give_other_orders_and_views(examples) -> None:
    epochs = {(seed, number): list(stream(examples, seed=seed).epoch(number)) for seed in (1, 2) for number in (0, 1)}
    assert same(epochs[1, 0], list(stream(examples).epoch(0)))
    assert all(order(a) != order(b) for a, b in itertools.combinations(epochs.values(), 2))
    unshuffled = [list(stream(examples, shuffle=False).epoch(number)) for number in (0, 1)]
    assert order(unshuffled[0]) == order(unshuffled[1])
    assert not same(*unshuffled)


@pytest.mark.parametrize("bad", [(), (3, 4)], ids=["whole", "damaged"])
def test_workers_change_nothing(examples, bad: tuple[int, ...]) -> None:
    names = damage(examples, *bad)
    before = torch.get_rng_state()
    alone, helped = (stream(examples, workers=workers, most_unreadable=0.5) for workers in (0, 2))
    assert same(list(alone.epoch(3)), list(helped.epoch(3)))
    assert alone.unreadable == helped.unreadable
    assert set(alone.unreadable) <= set(names)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_goes_on_in_the_middle_of_an_epoch(examples) -> None:
    damage(examples, 5)
    whole = list(stream(examples, most_unreadable=0.5).epoch(2))
    for start in range(6):
        assert same(list(stream(examples, most_unreadable=0.5).epoch(2, start)), whole[start:])
    assert not same(whole[:4], whole[1:])


def test_batches_before_the_start_are_not_decoded(examples) -> None:
    first = next(stream(examples).epoch(0)).indices
    damage(examples, *first)
    resumed = stream(examples)
    assert len(list(resumed.epoch(0, 1))) == 4
    assert resumed.unreadable == {}


@pytest.mark.parametrize("train", [True, False], ids=["train", "evaluate"])
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_every_batch(examples, train: bool, world: int) -> None:
    whole = list(stream(examples, train=train).epoch(1))
    shares = [stream(examples, train=train, rank=rank, world=world) for rank in range(world)]
    parts = [list(share.epoch(1)) for share in shares]
    assert [len(part) for part in parts] == [len(share) for share in shares]
    for number, batch in enumerate(whole):
        held = [part[number] for part in parts if number < len(part)]
        assert tuple(index for share in held for index in share.indices) == batch.indices
        assert torch.equal(torch.cat([share.images for share in held]), batch.images)
        if len(batch.indices) == 4:
            assert {len(share.indices) for share in held} == {4 // world}


def test_fewer_images_than_a_batch_are_one_batch(examples) -> None:
    few = stream(examples, indices=[2, 7, 11], batch=8)
    assert len(few) == 1
    assert sorted(order(few.epoch(0))) == [2, 7, 11]


def test_views_show_every_image_so_often_each_time_anew(examples) -> None:
    transform = TrainTransform(preprocessing=Preprocessing(channels=1), padding=3)
    indices = [1, 4, 6, 9]
    views = stream(examples, indices=indices, transform=transform, views=3)
    assert len(views) == 3
    batches = list(views.epoch(0))
    assert sorted(order(batches)) == sorted(indices * 3)
    images = torch.cat([batch.images for batch in batches])
    for index in indices:
        shown = [image for image, other in zip(images, order(batches), strict=True) if other == index]
        assert len({tuple(image.flatten().tolist()) for image in shown}) == 3
    assert same(list(views.epoch(0, 2)), batches[2:])
    once = list(stream(examples, indices=indices, transform=transform).epoch(0))
    again = list(stream(examples, indices=indices, transform=transform, views=1).epoch(0))
    assert same(once, again)


def test_unreadable_images_of_several_views_are_counted_once(examples) -> None:
    names = damage(examples, 0, 2)  # not the two views that are left over
    views = stream(examples, views=2, most_unreadable=0.1)
    assert len(order(views.epoch(0))) == 40
    assert set(views.unreadable) == set(names)


def test_an_unreadable_image_is_replaced_by_the_next_of_the_epoch(examples) -> None:
    whole = order(stream(examples).epoch(0))
    (name,) = damage(examples, whole[5])
    damaged = stream(examples, most_unreadable=0.05)
    batches = list(damaged.epoch(0))
    assert order(batches) == [*whole[:5], whole[6], *whole[6:]]
    assert list(damaged.unreadable) == [name]
    assert "cannot decode the image" in damaged.unreadable[name]
    list(damaged.epoch(1))
    assert list(damaged.unreadable) == [name]  # met again, counted once


def test_the_last_image_is_replaced_by_the_first(examples) -> None:
    exact = stream(examples, indices=range(8), most_unreadable=0.2)
    whole = order(exact.epoch(0))
    damage(examples, whole[-1])
    assert order(exact.epoch(0)) == [*whole[:-1], whole[0]]


def test_an_evaluation_goes_without_unreadable_images(examples) -> None:
    names = damage(examples, 1, 4, 5, 6, 7)
    evaluation = stream(examples, train=False, shuffle=False, most_unreadable=0.3)
    assert [batch.indices for batch in evaluation.epoch(0)][:2] == [(0, 2, 3), (8, 9, 10, 11)]
    assert list(evaluation.unreadable) == names


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("train", [True, False], ids=["train", "evaluate"])
def test_more_unreadable_images_than_allowed_are_an_error(examples, train: bool, workers: int) -> None:
    damage(examples, *range(4))
    with pytest.raises(UnreadableImageError, match=r"\d of 21 images cannot be decoded, allowed are 0\.1 of them: \d/"):
        list(stream(examples, train=train, most_unreadable=0.1, workers=workers).epoch(0))
    list(stream(examples, train=train, most_unreadable=0.2, workers=workers).epoch(0))


def test_nothing_but_unreadable_images_is_an_error(examples) -> None:
    damage(examples, *range(21))
    with pytest.raises(UnreadableImageError, match=r"21 of 21 images .*: .*, .*, .*, \.\.\.; replace or remove them"):
        list(stream(examples, most_unreadable=0.94).epoch(0))


@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_other_sizes_are_named_in_one_line(examples, workers: int) -> None:
    Image.new("L", (9, 5)).save(Path(examples.root) / examples.name(2))
    with pytest.raises(PreprocessingError, match=r"0/.*\.png is 1x5x9 with a class; use --size, or a batch") as caught:
        list(stream(examples, shuffle=False, workers=workers).epoch(0))
    assert "\n" not in str(caught.value)
    assert len(list(stream(examples, train=False, batch=1).epoch(0))) == 21


class Broken(TrainTransform):
    def __call__(self, image, label, seed, train):
        raise self.error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PreprocessingError("too small"), r"^0/00\.png: too small$"),
        (RuntimeError("odd\nlines"), r"^0/00\.png: cannot be transformed: odd; the transform is luminance"),
    ],
    ids=["ours", "torchvision's"],
)
def test_an_error_of_the_transform_names_the_image(examples, monkeypatch, error, message) -> None:
    monkeypatch.setattr(Broken, "error", error, raising=False)
    with pytest.raises(PreprocessingError, match=message):
        list(stream(examples, transform=Broken(preprocessing=Preprocessing(channels=1)), shuffle=False).epoch(0))


def test_a_worker_that_dies_is_an_error(examples, monkeypatch) -> None:
    monkeypatch.setattr(type(examples), "read", lambda self, index: __import__("os")._exit(1))
    with (
        pytest.raises(UnreadableImageError, match=r"a process that decodes images died: .*; use fewer workers"),
        telling_of_dead_workers(),
    ):
        list(stream(examples, workers=1).epoch(0))


def test_meta_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^odd$"), telling_of_dead_workers():
        raise RuntimeError("odd")


def test_restoration_batches_hold_images_as_targets(examples) -> None:
    transform = RestorationTransform(scale=2, patch=4, upscaled=False, preprocessing=Preprocessing(channels=1))
    batch = next(stream(examples, transform=transform).epoch(0))
    assert (batch.images.shape, batch.targets.shape) == ((4, 1, 2, 2), (4, 1, 4, 4))


def test_flat_folders_have_no_targets(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    assert next(stream(open_examples(str(tmp_path))).epoch(0)).targets is None


REFUSED = {
    "batch": ({"batch": 0}, IllegalSpecError, "--batch: got 0, expected a multiple of the number of processes, 1"),
    "odd batch": ({"batch": 4, "world": 3}, IllegalSpecError, "--batch: got 4, expected a multiple of .* 3"),
    "rank": ({"rank": 2, "world": 2}, IllegalSpecError, "got rank 2 of 2"),
    "workers": ({"workers": -1}, IllegalSpecError, "-1 workers"),
    "share": ({"most_unreadable": 1.0}, IllegalSpecError, "a share of 1 unreadable"),
    "no images": ({"indices": []}, NoImagesError, r"0 image\(s\) to read for 1 process"),
    "too few": ({"indices": [1], "world": 2}, NoImagesError, r"1 image\(s\) to read for 2 process"),
}


@pytest.mark.parametrize(("options", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_batches_refuse(examples, options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        stream(examples, **options)


def test_split_examples_keeps_the_proportion_of_classes(examples) -> None:
    train, validation = split_examples(examples, 6, 0)
    assert sorted(train + validation) == list(range(21))
    assert sorted(examples.labels()[index] for index in validation) == [0, 0, 1, 1, 2, 2]
    assert (train, validation) == split_examples(examples, 6, 0)
    assert set(validation) != set(split_examples(examples, 6, 1)[1])
    assert len(split_examples(examples, 0.2, 0)[1]) == 4


@pytest.mark.parametrize("held_out", [0, 21, -1.0])
def test_split_examples_refuses(examples, held_out: float) -> None:
    with pytest.raises(NoImagesError, match=r"held-out images: got .* of 21, expected 1 to 20"):
        split_examples(examples, held_out, 0)
