"""Writing pictures: the file is whole or as it was, whatever happens in between."""

import inspect
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcam.pictures import save

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize(
    ("name", "file_format"),
    [("a.png", "PNG"), ("a.PNG", "PNG"), ("a.jpg", "JPEG"), ("a.jpeg", "JPEG"), ("a.b.webp", "WEBP")],
)
def test_the_suffix_gives_the_format(tmp_path, name, file_format):
    smooth = np.add.outer(np.arange(20) * 4, np.arange(30) * 3)[:, :, np.newaxis] + np.array([0, 40, 80])
    for path in (tmp_path / name, str(tmp_path / name)):
        save(Image.fromarray(smooth.astype(np.uint8)), path)
        with Image.open(path) as stored:
            assert stored.format == file_format
            tolerance = 0 if file_format == "PNG" else 6
            np.testing.assert_allclose(np.asarray(stored, np.int64), smooth, atol=tolerance)
    assert names(tmp_path) == [name]


def test_small_coloured_text_stays_sharp_as_jpeg(tmp_path):
    """One-pixel stripes of red and blue: with colour at half resolution both would be purple."""
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2, 0] = stripes[:, 1::2, 2] = 255
    save(Image.fromarray(stripes), tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as stored:
        assert np.abs(np.asarray(stored, np.int64) - stripes).max() < 60


def test_an_existing_file_is_replaced(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    save(PICTURE, path)
    with Image.open(path) as stored:
        np.testing.assert_array_equal(np.asarray(stored), PIXELS)
    assert names(tmp_path) == ["a.png"]


def test_jpeg_lays_transparency_over_white(tmp_path):
    save(Image.new("RGBA", (8, 8), (255, 0, 0, 51)), tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as stored:
        np.testing.assert_allclose(np.asarray(stored, np.int64)[4, 4], [255, 204, 204], atol=3)
    palette = Image.fromarray(np.zeros((8, 8), np.uint8)).convert("P")
    palette.putpalette([0, 0, 255])
    save(palette, tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as stored:
        np.testing.assert_allclose(np.asarray(stored, np.int64)[4, 4], [0, 0, 255], atol=3)


class Failing:
    """Stands in for a function of the system and fails."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, *_: object, **__: object) -> None:
        raise self.error


FAILURES = [
    pytest.param(OSError(28, "No space left on device"), OSError, "No space left on device", id="disk full"),
    pytest.param(PermissionError(13, "Permission denied"), PermissionError, "permission denied", id="denied"),
    pytest.param(KeyboardInterrupt(), KeyboardInterrupt, None, id="interrupted"),
    pytest.param(MemoryError(), MemoryError, None, id="memory"),
]


@pytest.mark.parametrize(("error", "expected", "message"), FAILURES)
@pytest.mark.parametrize(
    ("step", "exists"),
    [("fsync", False), ("replace", False), ("fsync", True), ("chmod", True), ("replace", True)],
)
def test_a_failure_in_the_middle_leaves_everything_as_it_was(
    tmp_path, monkeypatch, step, error, expected, message, exists
):
    path = tmp_path / "a.png"
    if exists:
        path.write_bytes(b"old")
    monkeypatch.setattr(os if step == "fsync" else Path, step, Failing(error))
    with pytest.raises(expected, match=message) as caught:
        save(PICTURE, path)
    monkeypatch.undo()
    assert names(tmp_path) == (["a.png"] if exists else [])
    if exists:
        assert path.read_bytes() == b"old"
    if expected in (OSError, PermissionError):
        assert repr(str(path)) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_bytes_are_on_the_disk_before_the_name_changes(tmp_path, monkeypatch):
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace
    path = tmp_path / "a.png"

    def recorded_fsync(descriptor: int) -> None:
        steps.append(f"fsync of {os.fstat(descriptor).st_size > 1000}")
        fsync(descriptor)

    def recorded_replace(source: Path, target: Path) -> Path:
        steps.append("replace")
        assert source.parent == path.parent
        with Image.open(source) as complete:
            np.testing.assert_array_equal(np.asarray(complete), PIXELS)
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    save(PICTURE, path)
    assert steps == ["fsync of True", "replace"]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_a_new_file_has_the_permissions_of_the_umask(tmp_path, umask, expected):
    before = os.umask(umask)
    try:
        save(PICTURE, tmp_path / "a.png")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == expected


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_an_existing_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    path.chmod(0o604)
    save(PICTURE, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "a.png"
    link.symlink_to(tmp_path / "real" / "b.png")
    for _ in range(2):  # first the link leads nowhere yet
        save(PICTURE, link)
        assert link.is_symlink()
        assert names(tmp_path / "real") == ["b.png"]
        assert names(tmp_path) == ["a.png", "real"]
    with Image.open(link) as stored:
        np.testing.assert_array_equal(np.asarray(stored), PIXELS)


def test_a_protected_file_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda *_: False)  # not chmod: root may write everything
    with pytest.raises(PermissionError, match="permission denied"):
        save(PICTURE, path)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("a", ValueError, "cannot tell the format .* end the name in .png, .jpg, .jpeg, .webp"),
        ("a.tiff", ValueError, "cannot tell the format"),
        (".png", ValueError, "cannot tell the format"),
        ("a\0.png", ValueError, "cannot tell the format"),
        ("none/a.png", FileNotFoundError, "its folder does not exist; make it first"),
        ("file/a.png", OSError, "cannot write"),
        ("folder.png", ValueError, "it is a folder or a device"),
        ("x" * 300 + ".png", OSError, "File name too long"),
    ],
)
def test_places_that_are_refused(tmp_path, name, error, message):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    path = tmp_path / name
    with pytest.raises(error, match=message) as caught:
        save(PICTURE, path)
    assert repr(str(path)) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["file", "folder.png"]


def test_what_a_format_cannot_hold(tmp_path):
    wide = Image.new("L", (66_000, 1))
    for name in ("a.jpg", "a.webp"):
        with pytest.raises(ValueError, match="cannot hold a picture of mode L and 66000 by 1 pixels"):
            save(wide, tmp_path / name)
    with pytest.raises(ValueError, match="cannot hold a picture of mode F"):
        save(Image.new("F", (2, 2)), tmp_path / "a.png")
    assert names(tmp_path) == []
    save(wide, tmp_path / "a.png")


@pytest.mark.parametrize(
    ("picture", "path", "message"),
    [
        (PIXELS, "a.png", "picture must be a PIL.Image.Image, got ndarray; draw a heatmap with jaxcam.overlay, a "),
        ("a.png", PICTURE, "picture must be a PIL.Image.Image, got str"),
        (PICTURE, 3, "path must be a str or a pathlib.Path, got int"),
        (PICTURE, b"a.png", "got bytes"),
    ],
)
def test_arguments_of_the_wrong_kind(picture, path, message):
    with pytest.raises(TypeError, match=message):
        inspect.unwrap(save)(picture, path)
