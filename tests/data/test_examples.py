import pickle
import string
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from vfconvert.data import foreign
from vfconvert.data.examples import open_examples
from vfconvert.data.foreign import DatasetExamples
from vfconvert.errors import NoImagesError, UnreadableImageError, UntrustedModelError


def write(root: Path, *names: str, mode: str = "RGB") -> Path:
    """Images of 4x6 pixels, each of one grey: its number."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (6, 4), number).convert(mode).save(root / name)
    return root


def grey(image: Image.Image) -> int:
    return int(np.array(image).flat[0])


def test_folder_is_labelled_by_its_subfolders(tmp_path: Path) -> None:
    examples = open_examples(str(write(tmp_path, "cat/a.png", "dog/a.png", "dog/b.png")))
    assert (len(examples), examples.classes, examples.labels(), examples.root) == (3, 2, (0, 1, 1), str(tmp_path))
    assert [examples.name(index) for index in range(3)] == ["cat/a.png", "dog/a.png", "dog/b.png"]
    assert examples.class_names == ("cat", "dog")
    assert [(grey(image), label) for image, label in map(examples.read, range(3))] == [(0, 0), (1, 1), (2, 1)]


def test_flat_folder_has_no_labels(tmp_path: Path) -> None:
    examples = open_examples(str(write(tmp_path, "a.png")))
    assert (examples.classes, examples.labels(), examples.read(0)[1]) == (0, None, None)
    assert examples.class_names == ()


def test_folder_names_the_image_it_cannot_read(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    examples = open_examples(str(tmp_path))
    assert grey(examples.read(0)[0]) == 0
    with pytest.raises(UnreadableImageError, match=r"cannot decode the image .*/b\.png: .*; replace or remove it"):
        examples.read(1)


def test_too_many_pixels_are_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = open_examples(str(write(tmp_path, "a.png")))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 23)
    with pytest.raises(UnreadableImageError, match=r"a\.png: Image size \(24 pixels\) exceeds limit"):
        examples.read(0)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24)
    assert examples.read(0)[0].size == (6, 4)


def test_targets_are_paired_by_stem(tmp_path: Path) -> None:
    images = write(tmp_path / "images", "a.jpg", "b.jpg")
    masks = write(tmp_path / "masks", "extra.png", "b.png", "a.png", mode="P")
    examples = open_examples(str(images), targets=masks)
    assert (len(examples), examples.classes, examples.labels()) == (2, 0, None)
    assert str(images) in examples.root
    assert str(masks) in examples.root
    pairs = [examples.read(index) for index in range(2)]
    assert [(grey(image), label.mode, grey(label)) for image, label in pairs] == [(0, "P", 2), (1, "P", 1)]


def test_targets_are_paired_by_path_where_stems_repeat(tmp_path: Path) -> None:
    images = write(tmp_path / "images", "x/a.png", "y/a.png")
    masks = write(tmp_path / "masks", "y/a.bmp", "x/a.bmp")
    examples = open_examples(str(images), targets=masks)
    assert [(grey(image), grey(label)) for image, label in map(examples.read, range(2))] == [(0, 1), (1, 0)]


def test_missing_partners_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    images, masks = write(tmp_path / "i", "a.png", "b.png", "c.png"), write(tmp_path / "m", "b.png")
    with pytest.raises(NoImagesError, match=r"2 of 3 images in .* have no partner .* called a\.\*"):
        open_examples(str(images), targets=masks)


def test_torchvision_dataset_by_name_and_root(tmp_path: Path) -> None:
    examples = open_examples(f"torchvision:ImageFolder:{write(tmp_path, 'cat/a.png', 'dog/a.png')}")
    assert (len(examples), examples.classes, examples.labels()) == (2, 2, (0, 1))
    assert [(grey(image), label) for image, label in map(examples.read, range(2))] == [(0, 0), (1, 1)]
    assert examples.name(1) == f"torchvision:ImageFolder:{tmp_path}[1]"


def mnist(root: Path) -> Path:
    """The four files of MNIST, 3 images to train on and 2 to test, all labelled 7."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 3), ("t10k", 2)):
        sizes = [count.to_bytes(4, "big"), (28).to_bytes(4, "big") * 2]
        (raw / f"{part}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + b"".join(sizes) + bytes(count * 784))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + sizes[0] + b"\7" * count)
    return root


@pytest.mark.parametrize(("option", "count"), [("", 3), (":train", 3), (":test", 2)])
def test_torchvision_part(tmp_path: Path, option: str, count: int) -> None:
    examples = open_examples(f"torchvision:MNIST:{mnist(tmp_path)}{option}")
    assert (len(examples), examples.classes, examples.labels(), examples.read(0)[1]) == (count, 10, (7,) * count, 7)
    assert examples.class_names[7] == "7 - seven"


def pets(root: Path) -> Path:
    base = root / "oxford-iiit-pet"
    write(base, "images/a_1.jpg", "annotations/trimaps/a_1.png")
    (base / "annotations" / "trainval.txt").write_text("a_1 1 1 1\n")
    return root


TORCHVISION_REFUSED = {
    "misspelt": ("CIFAR1O:/nowhere", r"no dataset 'CIFAR1O'; the nearest is CIFAR10\b"),
    "function": ("wrap_dataset_for_transforms_v2:/nowhere", "no dataset 'wrap_dataset_for_transforms_v2'"),
    "no root": ("CIFAR10", "expected torchvision:NAME:FOLDER"),
    "no files": ("CIFAR10:/nowhere", "cannot open it: .*not found.*; put the files there, none are downloaded"),
    "no such part": ("CIFAR10:/nowhere:val", "this dataset has no option 'val'; it takes train"),
    "no such option": ("SVHN:/nowhere:mode=x", "this dataset has no option 'mode=x'; it takes split"),
}


@pytest.mark.parametrize(("rest", "message"), TORCHVISION_REFUSED.values(), ids=TORCHVISION_REFUSED)
def test_torchvision_refuses(rest: str, message: str) -> None:
    with pytest.raises(NoImagesError, match=message) as caught:
        open_examples(f"torchvision:{rest}")
    assert "\n" not in str(caught.value)


def test_torchvision_refuses_items_that_are_no_image_and_class(tmp_path: Path) -> None:
    with pytest.raises(NoImagesError, match=r"not a dataset of images and classes: its labels are a .*Image"):
        open_examples(f"torchvision:OxfordIIITPet:{pets(tmp_path)}:target_types=segmentation")


class Written:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("LSUN", "it unpickles a file of the current directory, which could run any code"),
        ("LSUNClass", "it unpickles a file of the current directory, which could run any code"),
        ("VOCSegmentation", "it is none of the datasets of images and classes that are known to run no code from"),
    ],
)
def test_torchvision_opens_no_dataset_that_could_run_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "lmdb", MagicMock())
    root = tmp_path / "lsun"
    for folder in (root, root / "bedroom_train_lmdb"):
        cache = "_cache_" + "".join(letter for letter in str(folder) if letter in string.ascii_letters)
        (tmp_path / cache).write_bytes(pickle.dumps(Written(tmp_path / "ran")))
    with pytest.raises(UntrustedModelError, match=f"{why}.*; copy its images into a folder, or .*--trust-data-code"):
        open_examples(f"torchvision:{name}:{root}")
    assert not (tmp_path / "ran").exists()


def test_datasets_that_are_opened_exist() -> None:
    assert set(foreign._READ) <= set(datasets.__all__)
    assert set(foreign._UNPICKLING) <= set(datasets.__all__)


CODE = """
import torch
from beside import COUNT
class Data:
    classes = ["a", "b"]
    targets = [0, 1, 1]
    def __len__(self): return COUNT
    def __getitem__(self, index):
        if index == 1: raise OSError("disk\\non fire")
        return torch.full((3, 4, 4), float(index)), torch.tensor(self.targets[index])
def data(): return Data()
def pixels(): return [torch.zeros(3, 4, 4, dtype=torch.uint8)]
def wrong(): return [("text", 1), (torch.zeros(3, 4, 4), "cat"), (torch.zeros(3, 4, 4), -1), torch.zeros(4)]
def nothing(): return None
def empty(): return []
def broken(): return 1 / 0
def leaves(): raise SystemExit(3)
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("COUNT = 3")
    (tmp_path / "my.py").write_text(CODE)
    return tmp_path / "my.py"


def test_user_code_runs_only_where_it_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "mark.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\ndef data(): return [1]")
    with pytest.raises(UntrustedModelError, match=r"mark\.py:data runs code .* add --trust-data-code"):
        open_examples(f"{tmp_path}/mark.py:data")
    assert not (tmp_path / "ran").exists()
    open_examples(f"{tmp_path}/mark.py:data", run_code=True)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("said", "names"),
    [(3, ()), (None, ()), ([0, 1], ()), ([("tench", "Tinca tinca"), ("goldfish",)], ("tench", "goldfish"))],
    ids=["a number", "nothing", "numbers", "synonyms"],
)
def test_names_of_classes_are_texts_or_none(said: object, names: tuple[str, ...]) -> None:
    class Data:
        classes = said

    assert DatasetExamples("here", Data()).class_names == names


def test_user_code_gives_images_and_labels(code: Path) -> None:
    examples = open_examples(f"{code}:data", run_code=True)
    assert (len(examples), examples.classes, examples.labels(), examples.root) == (3, 2, (0, 1, 1), f"{code}:data")
    assert examples.class_names == ("a", "b")
    image, label = examples.read(2)
    assert torch.equal(image, torch.full((3, 4, 4), 2.0))
    assert (label, type(label)) == (1, int)
    with pytest.raises(UnreadableImageError, match=r"cannot read .*my\.py:data\[1\]: disk$"):
        examples.read(1)


def test_user_code_is_run_again_in_another_process(code: Path) -> None:
    sent = pickle.loads(pickle.dumps(open_examples(f"{code}:data", run_code=True)))
    assert torch.equal(sent.read(2)[0], torch.full((3, 4, 4), 2.0))


def test_user_code_of_an_importable_module(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(code.parent))
    examples = open_examples("my:pixels", run_code=True)
    assert (examples.classes, examples.labels(), examples.read(0)[1]) == (0, None, None)


USER_REFUSED = {
    "no file": ("other.py:data", "no such file"),
    "no function": ("my.py:date", "AttributeError .*has no attribute 'date'"),
    "no dataset": ("my.py:nothing", "returned None, expected an object with a length and items"),
    "empty": ("my.py:empty", "a dataset of no images"),
    "raises": ("my.py:broken", r"raised ZeroDivisionError \(division by zero\)"),
    "exits": ("my.py:leaves", r"raised SystemExit \(3\)"),
}


@pytest.mark.parametrize(("function", "message"), USER_REFUSED.values(), ids=USER_REFUSED)
def test_user_code_refused(code: Path, function: str, message: str) -> None:
    with pytest.raises(NoImagesError, match=message):
        open_examples(f"{code.parent}/{function}", run_code=True)


@pytest.mark.parametrize(
    ("index", "message"),
    [(0, "is a str, expected a PIL"), (1, "with a str"), (2, "with -1, expected"), (3, r"a tensor \(4,\) of float32")],
)
def test_user_items_refused(code: Path, index: int, message: str) -> None:
    with pytest.raises(NoImagesError, match=message):
        open_examples(f"{code}:wrong", run_code=True).read(index)


def test_nothing_there_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(NoImagesError, match=r"missing: no such folder; expected a folder of images, torchvision:NAME"):
        open_examples(str(tmp_path / "missing"))
    with pytest.raises(NoImagesError, match="pair with a folder of images, got torchvision:CIFAR10:/x"):
        open_examples("torchvision:CIFAR10:/x", targets=tmp_path)
