from pathlib import Path

import pytest

from vfconvert.data.folder import list_images
from vfconvert.errors import NoImagesError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def relative(root: Path, paths: tuple[Path, ...]) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def test_list_images_of_subfolders_labels_by_the_first_level(tmp_path: Path) -> None:
    touch(tmp_path, "dog/b.jpg", "dog/a.PNG", "cat/deep/er/c.jpeg", "cat/z.webp")
    found = list_images(tmp_path)
    assert found.classes == ("cat", "dog")
    assert relative(tmp_path, found.paths) == ["cat/z.webp", "cat/deep/er/c.jpeg", "dog/a.PNG", "dog/b.jpg"]
    assert found.labels == (0, 0, 1, 1)
    assert found.unused == ()


def test_list_images_of_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    touch(tmp_path, "2.png", "10.png", "1.bmp")
    found = list_images(tmp_path)
    assert relative(tmp_path, found.paths) == ["1.bmp", "10.png", "2.png"]
    assert found.labels is None
    assert found.classes == ()


def test_list_images_passes_over_hidden_files_other_suffixes_and_empty_subfolders(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a.png", "cat/.b.png", "cat/notes.txt", "cat/.cache/c.png", ".thumbs/d.png", "empty/readme.md")
    (tmp_path / "cat" / "folder.png").mkdir()
    found = list_images(tmp_path)
    assert relative(tmp_path, found.paths) == ["cat/a.png"]
    assert found.classes == ("cat",)


def test_list_images_where_both_forms_occur_prefers_subfolders_and_names_the_loose(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a.png", "sheet.png")
    found = list_images(tmp_path)
    assert relative(tmp_path, found.paths) == ["cat/a.png"]
    assert relative(tmp_path, found.unused) == ["sheet.png"]


def test_list_images_follows_a_link_to_a_class_folder(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/a.png", "set/dog/b.png")
    (tmp_path / "set" / "cat").symlink_to(tmp_path / "elsewhere")
    assert list_images(tmp_path / "set").labels == (0, 1)


def test_list_images_without_images_says_what_was_looked_for(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt", "sub/more.txt")
    with pytest.raises(NoImagesError, match=r"no images in .* or its subfolders: looked for .*\.jpg .*\.png"):
        list_images(tmp_path)


@pytest.mark.parametrize(("name", "reason"), [("missing", "no such file"), ("file.png", "not a directory")])
def test_list_images_of_no_folder_says_why(tmp_path: Path, name: str, reason: str) -> None:
    touch(tmp_path, "file.png")
    with pytest.raises(NoImagesError, match=f"cannot read images from .*{name}: {reason}"):
        list_images(tmp_path / name)
