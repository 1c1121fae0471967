import gzip
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vfconvert.data import shards as shards_module
from vfconvert.data.examples import open_examples
from vfconvert.data.shards import open_shards
from vfconvert.errors import NoImagesError, UnreadableImageError


def picture(number: int) -> bytes:
    encoded = io.BytesIO()
    Image.new("L", (6, 4), number).save(encoded, "PNG")
    return encoded.getvalue()


def write(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def example(number: int) -> dict[str, bytes]:
    return {
        f"{number:04}.cls": b"%d\n" % (number % 3),
        f"{number:04}.json": b"{}",
        f"{number:04}.png": picture(number),
    }


def shard(path: Path, *numbers: int) -> Path:
    return write(path, {name: content for number in numbers for name, content in example(number).items()})


def greys(examples) -> list[int]:
    return [int(np.array(examples.read(index)[0]).flat[0]) for index in range(len(examples))]


def test_shards_by_braces_are_read_in_order(tmp_path: Path) -> None:
    shard(tmp_path / "train-009.tar", 4, 5)
    shard(tmp_path / "train-010.tar", 6)
    examples = open_examples(f"{tmp_path}/train-{{009..010}}.tar")
    assert (len(examples), examples.classes, examples.labels()) == (3, 3, (1, 2, 0))
    assert greys(examples) == [4, 5, 6]
    assert [examples.read(index)[1] for index in range(3)] == [1, 2, 0]
    assert examples.name(2) == f"{tmp_path}/train-010.tar:0006.png"


@pytest.mark.parametrize("pattern", ["*.tar", "{b,a}.tar", "a.tar"])
def test_shards_by_other_patterns(tmp_path: Path, pattern: str) -> None:
    shard(tmp_path / "a.tar", 1)
    shard(tmp_path / "b.tar", 2)
    expected = {"*.tar": [1, 2], "{b,a}.tar": [2, 1], "a.tar": [1]}[pattern]
    assert greys(open_shards(f"{tmp_path}/{pattern}")) == expected


def test_shards_are_read_in_any_order_and_after_pickling(tmp_path: Path) -> None:
    examples = pickle.loads(pickle.dumps(open_shards(str(shard(tmp_path / "a.tar", 1, 2, 3)))))
    assert [int(np.array(examples.read(index)[0]).flat[0]) for index in (2, 0, 1)] == [3, 1, 2]


def test_shards_without_classes(tmp_path: Path) -> None:
    examples = open_shards(str(write(tmp_path / "a.tar", {"x/1.JPG": picture(1), "x/2.webp": picture(2)})))
    assert (examples.classes, examples.labels(), examples.read(0)[1]) == (0, None, None)


def test_key_ends_at_the_first_dot_of_the_file_name(tmp_path: Path) -> None:
    members = {"v1.0/a.png": picture(1), "v1.0/a.mask.png": picture(9), "v1.0/a.cls": b"4", "v2.0/a.png": picture(2)}
    examples = open_shards(str(write(tmp_path / "a.tar", {**members, "v2.0/a.cls": b"0"})))
    assert (greys(examples), examples.labels()) == ([1, 2], (4, 0))


def test_links_and_odd_paths_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {"a.png": picture(1), "/etc/b.png": picture(2), "../c.png": picture(3)})
    with tarfile.open(path, "a") as archive:
        for name, kind in (("d.png", tarfile.SYMTYPE), ("e.png", tarfile.LNKTYPE), ("f.png", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        archive.addfile(tarfile.TarInfo(".png"))
    examples = open_shards(str(path))
    assert (greys(examples), examples.passed_over) == ([1], 6)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    examples = open_shards(str(write(tmp_path / "a.tar", {"1.png": b"hello", "2.png": picture(2)})))
    assert int(np.array(examples.read(1)[0]).flat[0]) == 2
    with pytest.raises(UnreadableImageError, match=r"cannot decode the image .*/a\.tar:1\.png"):
        examples.read(0)


def test_a_huge_image_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = open_shards(str(shard(tmp_path / "a.tar", 1)))
    assert greys(examples) == [1]
    monkeypatch.setattr(shards_module, "_LARGEST_IMAGE", 20)
    with pytest.raises(UnreadableImageError, match=r"0001\.png: \d+ bytes, expected at most 256 MiB"):
        examples.read(0)


@pytest.mark.parametrize(("content", "message"), [(None, "No such file"), (b"", "has become shorter")])
def test_a_shard_that_changes_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = shard(tmp_path / "a.tar", 1)
    examples = open_shards(str(path))
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=rf"cannot read .*a\.tar:0001\.png: .*{message}"):
        examples.read(0)


def damaged(whole: bytes) -> dict[str, tuple[bytes, str]]:
    header = bytearray(whole)
    header[1024 + 100] ^= 0xFF  # in the second member's header
    negative = bytearray(whole)
    negative[124:136] = b"\xff" * 10 + b"\xf0\x00"  # a size of -4096 in base 256
    checksum = sum(negative[:148]) + 8 * 32 + sum(negative[156:512])
    negative[148:156] = b"%06o\0 " % checksum
    return {
        "empty": (b"", "empty file"),
        "no archive": (b"hello" * 400, "invalid header|bad checksum|truncated"),
        "gzip": (gzip.compress(whole), "compressed with gzip, .*; unpack it"),
        "cut in an image": (whole[:2000], "unexpected end|cut short"),
        "cut between members": (whole[:1024], "cut short: the end marker is missing"),
        "bad header": (bytes(header), "a header in the middle is wrong, or archives were joined"),
        "joined": (whole + whole, "a header in the middle is wrong, or archives were joined"),
        "negative size": (bytes(negative), "the header at byte|invalid|wrong|unexpected"),
    }


@pytest.mark.parametrize("kind", damaged(bytes(2000)))
def test_a_damaged_shard_is_refused(tmp_path: Path, kind: str) -> None:
    path = shard(tmp_path / "a.tar", 1, 2)
    content, message = damaged(path.read_bytes())[kind]
    assert len(open_shards(str(path))) == 2
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=f"cannot read the shard .*a.tar: .*({message})") as caught:
        open_shards(str(path))
    assert "\n" not in str(caught.value)


UNFIT = [b"cat", b"-1", b"", b"1" * 33, b"\xff", "²".encode(), b"1" * 31, b"9" * 18, b"1000000"]


@pytest.mark.parametrize("text", UNFIT, ids=str)
def test_a_class_that_is_no_number_is_refused(tmp_path: Path, text: bytes) -> None:
    path = write(tmp_path / "a.tar", {"1.png": picture(1), "1.cls": text})
    with pytest.raises(UnreadableImageError, match=r"1\.cls holds .*, expected a class from 0 to 999,999"):
        open_shards(str(path))


@pytest.mark.parametrize("text", [b"0", b"00000000000000000000000000000007\n"[1:], b"999999"], ids=str)
def test_a_class_below_a_million_is_read(tmp_path: Path, text: bytes) -> None:
    path = write(tmp_path / "a.tar", {"1.png": picture(1), "1.cls": text})
    assert open_shards(str(path)).labels() == (int(text),)


def header(kind: bytes, size: int, content: bytes) -> bytes:
    member = tarfile.TarInfo("1.png")
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT) + content.ljust(-len(content) % 512 + len(content), b"\0")


STRANGE = {
    "many names for one file": (
        header(b"L", 5, b"1.png") * 3000,
        "a header follows too many others .*; write it again",
    ),
    "a size of 2**87": (header(b"0", 2**87, b""), "cannot fit 'int'"),
    "a name of 2**60 bytes": (header(b"L", 2**60, b"1.png"), "a header has a name that is longer than the memory"),
    "a name of 2**87 bytes": (header(b"L", 2**87, b"1.png"), "cannot fit 'int'"),
}


@pytest.mark.parametrize(("before", "message"), STRANGE.values(), ids=STRANGE)
def test_headers_that_no_program_writes_are_refused(tmp_path: Path, before: bytes, message: str) -> None:
    image = picture(1)
    whole = header(b"0", len(image), image) + bytes(1024)
    (tmp_path / "a.tar").write_bytes(header(b"L", 5, b"1.png") + whole)
    assert len(open_shards(str(tmp_path / "a.tar"))) == 1
    (tmp_path / "a.tar").write_bytes(before + whole)
    with pytest.raises(UnreadableImageError, match=f"cannot read the shard .*a.tar: {message}"):
        open_shards(str(tmp_path / "a.tar"))


def test_two_images_under_a_key_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {"1.jpg": picture(1), "1.png": picture(1)})
    with pytest.raises(UnreadableImageError, match=r"1\.jpg and 1\.png are two images under one key"):
        open_shards(str(path))


def test_some_classes_missing_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {**example(1), "2.png": picture(2)})
    with pytest.raises(NoImagesError, match=r"1 of 2 images in .* have no \.cls beside them, the first is 2\.png"):
        open_shards(str(path))


MISSING = {
    "braces": ("a-{0..2}.tar", r"2 of 3 are missing, the first is .*a-1\.tar"),
    "wildcard": ("b*.tar", "none is there; check the pattern"),
    "too many": ("a-{0..99999999}.tar", "more than 100,000"),
    "too many together": ("a-{0..999}{0..999}.tar", "more than 100,000"),
    "no images": ("none.tar", r"no images in .*: looked in 1 shard\(s\) for"),
}


@pytest.mark.parametrize(("pattern", "message"), MISSING.values(), ids=MISSING)
def test_shards_missing(tmp_path: Path, pattern: str, message: str) -> None:
    shard(tmp_path / "a-0.tar", 1)
    write(tmp_path / "none.tar", {"1.cls": b"1", "readme": b""})
    with pytest.raises(NoImagesError, match=message):
        open_examples(f"{tmp_path}/{pattern}")
