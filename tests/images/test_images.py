"""Reading and preprocessing: every format against values known beforehand, every failure by its error."""

import dataclasses
import inspect
import io
import os
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import numpy as jnp
from PIL import Image

from jaxcam.images import IMAGENET, Preprocessing, limits, normalise, picture, preprocess, read_image, resize_and_crop
from jaxcam.images.preprocessing import read_view
from jaxcam.images.reading import read_reduced

RNG = np.random.default_rng(0)
STEPS = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20  # 0, 20 .. 220
COLOURS = RNG.integers(0, 256, (7, 5, 3), dtype=np.uint8)


def written(folder: Path, picture: Image.Image, **options: object) -> Path:
    path = folder / "picture"  # no suffix: the contents decide
    picture.save(path, **options)
    return path


def rgb(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, :, np.newaxis], 3, axis=-1)


# --- formats ---


@pytest.mark.parametrize(
    "options",
    [{"format": "PNG"}, {"format": "BMP"}, {"format": "WEBP", "lossless": True}, {"format": "GIF"}],
    ids=lambda options: options["format"],
)
def test_lossless_formats_give_the_stored_values(tmp_path, options):
    picture = Image.fromarray(COLOURS)
    stored = picture.convert("P") if options["format"] == "GIF" else picture
    expected = np.asarray(stored.convert("RGB")).astype(np.float64) / 255
    image = read_image(written(tmp_path, stored, **options))
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, expected, rtol=0, atol=1e-7)
    image[0, 0, 0] = 0.5  # writable, and its own memory


@pytest.mark.parametrize("options", [{"format": "JPEG", "quality": 95}, {"format": "WEBP", "quality": 95}])
def test_lossy_formats_are_near_a_smooth_picture(tmp_path, options):
    y, x = np.mgrid[:32, :48]
    smooth = np.stack([y * 4 + 50, x * 3 + 30, 200 - y - x], axis=-1).astype(np.uint8)
    image = read_image(written(tmp_path, Image.fromarray(smooth), **options))
    assert np.abs(image * 255 - smooth).max() < 8
    assert np.abs(image * 255 - smooth).mean() < 2


def test_progressive_grey_jpeg(tmp_path):
    flat = Image.fromarray(np.full((16, 16), 77, np.uint8))
    image = read_image(written(tmp_path, flat, format="JPEG", progressive=True))
    np.testing.assert_allclose(image, np.full((16, 16, 3), 77 / 255), atol=1.01 / 255)


def test_grey_becomes_three_equal_channels(tmp_path):
    image = read_image(written(tmp_path, Image.fromarray(STEPS), format="PNG"))
    np.testing.assert_allclose(image, rgb(STEPS / 255), rtol=0, atol=1e-7)


def test_one_bit_pictures_are_black_and_white(tmp_path):
    bits = RNG.random((5, 9)) > 0.5
    for file_format in ("PNG", "BMP"):
        image = read_image(written(tmp_path, Image.fromarray(bits).convert("1"), format=file_format))
        np.testing.assert_array_equal(image, rgb(bits.astype(np.float32)))


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    stored = np.array([[0, 1, 255, 256], [4096, 32768, 65534, 65535]], np.uint16)
    image = read_image(written(tmp_path, Image.fromarray(stored), format="PNG"))
    np.testing.assert_allclose(image, rgb(stored / 65535), rtol=1e-6)


def test_16_bit_grey_with_a_transparent_value(tmp_path):
    stored = np.array([[0, 300, 65535]], np.uint16)
    image = read_image(written(tmp_path, Image.fromarray(stored), format="PNG", transparency=300))
    np.testing.assert_allclose(image, rgb(np.array([[0.0, 1.0, 1.0]])), rtol=1e-6)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_rgba_lies_over_white(tmp_path, file_format):
    opacity = np.array([0, 51, 128, 255], np.uint8)
    stored = np.stack([np.full(4, 200), np.full(4, 100), np.full(4, 0), opacity], axis=-1).astype(np.uint8)
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    image = read_image(written(tmp_path, Image.fromarray(stored[np.newaxis]), format=file_format, **options))
    a = opacity / 255
    expected = np.stack([a * 200 / 255 + 1 - a, a * 100 / 255 + 1 - a, 1 - a], axis=-1)
    np.testing.assert_allclose(image[0], expected, atol=1e-6)


def test_grey_with_alpha_lies_over_white(tmp_path):
    stored = np.array([[[0, 0], [0, 102], [51, 255]]], np.uint8)  # (grey, opacity)
    image = read_image(written(tmp_path, Image.fromarray(stored, mode="LA"), format="PNG"))
    np.testing.assert_allclose(image, rgb(np.array([[1.0, 0.6, 0.2]])), atol=1e-6)


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_a_palette_with_one_transparent_entry(tmp_path, file_format):
    stored = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    stored.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image = read_image(written(tmp_path, stored, format=file_format, transparency=1))
    np.testing.assert_array_equal(image, [[[1, 0, 0], [1, 1, 1], [0, 0, 1]]])


def test_a_palette_with_graded_transparency(tmp_path):
    stored = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    stored.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image = read_image(written(tmp_path, stored, format="PNG", transparency=bytes([255, 51, 0])))
    np.testing.assert_allclose(image, [[[1, 0, 0], [0.8, 1, 0.8], [1, 1, 1]]], atol=1e-6)


@pytest.mark.parametrize(("mode", "transparent"), [("L", 40), ("RGB", (40, 40, 40))])
def test_a_transparent_colour_of_a_png_without_alpha(tmp_path, mode, transparent):
    stored = Image.fromarray(STEPS).convert(mode)
    image = read_image(written(tmp_path, stored, format="PNG", transparency=transparent))
    np.testing.assert_allclose(image, rgb(np.where(STEPS == 40, 1.0, STEPS / 255)), atol=1e-6)


@pytest.mark.parametrize("ink", [(255, 0, 0, 0), (0, 200, 0, 0), (0, 0, 90, 0), (0, 0, 0, 128), (30, 60, 90, 40)])
def test_cmyk(tmp_path, ink):
    # Pillow writes CMYK as Adobe does, inverted and marked so: read wrongly, cyan would be its opposite.
    path = written(tmp_path, Image.new("CMYK", (16, 16), ink), format="JPEG", quality=100)
    assert b"Adobe" in path.read_bytes()
    c, m, y, k = np.array(ink) / 255
    expected = np.array([(1 - c) * (1 - k), (1 - m) * (1 - k), (1 - y) * (1 - k)])
    np.testing.assert_allclose(read_image(path)[8, 8], expected, atol=3 / 255)


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation(tmp_path, file_format):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
    options = {"lossless": True} if file_format == "WEBP" else {}
    path = written(tmp_path, frames[0], format=file_format, save_all=True, append_images=frames[1:], **options)
    with Image.open(path) as animation:
        assert animation.n_frames == 3
    np.testing.assert_array_equal(read_image(path), np.broadcast_to(np.float32([1, 0, 0]), (4, 6, 3)))


# --- orientation ---

# TIFF 6.0, tag 274: where the stored picture's first row and first column belong in the upright one.
FIRST_ROW_AND_COLUMN = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Pixel by pixel from the definition."""
    num_rows, num_columns = stored.shape[:2]
    row_side, column_side = FIRST_ROW_AND_COLUMN[orientation]
    turned = row_side in ("left", "right")
    height, width = (num_columns, num_rows) if turned else (num_rows, num_columns)
    result = np.full((height, width, *stored.shape[2:]), -1, stored.dtype)
    for r in range(num_rows):
        for c in range(num_columns):
            place = {row_side: r, column_side: c}
            y = place["top"] if "top" in place else height - 1 - place["bottom"]
            x = place["left"] if "left" in place else width - 1 - place["right"]
            result[y, x] = stored[r, c]
    return result


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG", "16 bit", "RGBA"])
def test_exif_orientation(tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind == "16 bit":
        stored = RNG.integers(0, 65536, (3, 5)).astype(np.uint16)
        path = written(tmp_path, Image.fromarray(stored), format="PNG", exif=exif)
        expected = rgb(stored / 65535)
    elif kind == "RGBA":
        stored = np.concatenate([COLOURS, COLOURS[:, :, :1]], axis=-1)
        path = written(tmp_path, Image.fromarray(stored), format="PNG", exif=exif)
        opacity = stored[:, :, 3:] / 255
        expected = opacity * stored[:, :, :3] / 255 + 1 - opacity
    elif kind == "JPEG":
        blocks = np.kron(RNG.integers(0, 2, (2, 3)) * 255, np.ones((16, 16))).astype(np.uint8)
        path = written(tmp_path, Image.fromarray(blocks), format="JPEG", exif=exif, quality=100)
        expected = rgb(blocks / 255)
    else:
        options = {"lossless": True} if kind == "WEBP" else {}
        path = written(tmp_path, Image.fromarray(COLOURS), format=kind, exif=exif, **options)
        expected = COLOURS / 255
    np.testing.assert_allclose(read_image(path), upright(expected, orientation), atol=0.03 if kind == "JPEG" else 1e-6)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\x40", b"Exif\0\0garbage", b"II*\0\xff\xff\xff\xff"]
)
def test_a_damaged_exif_block_leaves_the_picture_as_stored(tmp_path, exif):
    path = written(tmp_path, Image.fromarray(COLOURS), format="PNG", exif=exif)
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        image = read_image(path)
    assert leaked == []
    np.testing.assert_allclose(image, COLOURS / 255, atol=1e-7)


# --- files that cannot be read ---


def error_of(path: object) -> str:
    with pytest.raises(ValueError) as caught:
        read_image(path)
    message = str(caught.value)
    assert "\n" not in message
    assert repr(str(path)) in message
    return message


@pytest.mark.parametrize(
    "options",
    [
        {"format": "JPEG"},
        {"format": "JPEG", "progressive": True},
        {"format": "PNG"},
        {"format": "WEBP"},
        {"format": "BMP"},
        {"format": "GIF"},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
@pytest.mark.sample(2)
def test_a_truncated_file_is_an_error_at_every_length(tmp_path, options):
    """Or, where only a trailer without pixels is missing, it gives exactly the whole picture."""
    y, x = np.mgrid[:12, :16]
    smooth = np.stack([y * 20, x * 15, y + x], axis=-1).astype(np.uint8)
    path = written(tmp_path, Image.fromarray(smooth), **options)
    data, whole = path.read_bytes(), read_image(path)
    num_refused = 0
    for length in range(len(data)):
        path.write_bytes(data[:length])
        try:
            image = read_image(path)
        except ValueError:
            num_refused += 1
        else:
            np.testing.assert_array_equal(image, whole)
            assert len(data) - length <= 21, "more than a checksum and an end marker is missing"
    assert num_refused >= len(data) - 21


def test_what_is_wrong_is_said(tmp_path):
    path = tmp_path / "holiday.jpg"
    path.write_text("This is not an image.\n" * 100)
    assert "not a JPEG, PNG, WebP, BMP or GIF file" in error_of(path)
    path.write_bytes(b"")
    assert "empty" in error_of(path)
    Image.fromarray(COLOURS).save(path, format="TIFF")  # Pillow could; formats nobody asked for stay closed
    assert "not a JPEG" in error_of(path)
    Image.fromarray(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path, format="PNG")
    path.write_bytes(path.read_bytes()[:2000])
    assert "truncated or damaged" in error_of(path)
    assert "folder" in error_of(tmp_path)
    assert "null character" in error_of(Path("a\0b.png"))


def test_a_missing_file(tmp_path):
    for path in (tmp_path / "none.png", tmp_path / "file" / "none.png", "none\nsuch.png"):
        (tmp_path / "file").write_bytes(b"x")
        with pytest.raises(FileNotFoundError, match="does not exist; check the path") as caught:
            read_image(path)
        assert repr(str(path)) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = written(tmp_path, Image.fromarray(COLOURS), format="PNG")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # not chmod: the tests may run as root, who may read everything
    with pytest.raises(PermissionError, match="may not be read") as caught:
        read_image(path)
    assert repr(str(path)) in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    path = tmp_path / "a.png"
    os.mkfifo(path)
    assert "is a pipe or a device" in error_of(path)


def test_a_name_that_the_system_refuses(tmp_path):
    assert "could not be opened" in error_of(tmp_path / ("x" * 1000 + ".png"))


@pytest.mark.parametrize("path", [3, None, b"a.png", COLOURS])
def test_what_is_no_path_is_a_type_error(unchecked, path):
    with pytest.raises(TypeError, match="path must be a str or a pathlib"):
        read_image(path)


def test_a_str_and_a_path_are_the_same(tmp_path):
    path = written(tmp_path, Image.fromarray(COLOURS), format="PNG")
    np.testing.assert_array_equal(read_image(str(path)), read_image(path))


@pytest.mark.parametrize("side", [11, 40], ids=["where Pillow warns", "where Pillow raises"])
def test_a_decompression_bomb(tmp_path, monkeypatch, side):
    path = written(tmp_path, Image.new("RGB", (side, 10)), format="PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        assert "too many pixels" in error_of(path)
    assert leaked == []
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", side * 10)  # the limit itself is allowed
    assert read_image(path).shape == (10, side, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_image(path).shape == (10, side, 3)


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_bomb_is_found_before_a_pixel_is_decoded(tmp_path, side):
    """The pixel data are damaged: decoding them first would be another error."""

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"no data") + chunk(b"IEND", b""))
    assert "too many pixels" in error_of(path)


def test_files_are_closed_after_success_and_failure(tmp_path, monkeypatch):
    good = written(tmp_path, Image.fromarray(COLOURS), format="PNG")
    bad = tmp_path / "bad.png"
    bad.write_bytes(good.read_bytes()[:60])
    opened: list[io.IOBase] = []
    original = Path.open

    def recorded(*args: object, **kwargs: object) -> io.IOBase:
        opened.append(original(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(Path, "open", recorded)
    read_image(good)
    error_of(bad)
    assert len(opened) == 2
    assert all(stream.closed for stream in opened)


# --- files that ask for too much ---


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_segments(picture: bytes, *segments: bytes) -> bytes:
    """A JPEG with APP1 segments behind its first marker."""
    return picture[:2] + b"".join(b"\xff\xe1" + struct.pack(">H", len(s) + 2) + s for s in segments) + picture[2:]


def exif_of_many_bytes() -> bytes:
    """A few kilobytes of EXIF, each of whose fields claims to be all of it."""
    fields = [struct.pack(">HHII", i, 7, 0x10000, 8) for i in range(1000)]
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(fields)) + b"".join(fields)


@pytest.fixture
def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 300)).save(buffer, "JPEG", progressive=True)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["scans", "fill bytes", "runs"])
def test_a_file_that_takes_long_is_given_up(tmp_path, monkeypatch, jpeg, kind):
    if kind == "scans":
        last = jpeg.rfind(b"\xff\xda")
        data = jpeg[:-2] + jpeg[last:-2] * 20_000 + jpeg[-2:]
    elif kind == "fill bytes":
        data = jpeg[:2] + b"\xff" * 3_000_000 + jpeg[2:]
    else:  # BMP, one pixel a run, which Pillow reads in Python
        rows = (b"\1\0" * 1000 + b"\0\0") * 1000 + b"\0\1"
        sizes = struct.pack("<IiiHHIIiiII", 40, 1000, 1000, 1, 8, 1, len(rows), 0, 0, 256, 256)
        data = b"BM" + struct.pack("<IHHI", 1078 + len(rows), 0, 0, 1078) + sizes + bytes(1024) + rows
    path = tmp_path / "slow"
    path.write_bytes(data)
    monkeypatch.setattr(limits, "SECONDS", 0.05)
    began = time.thread_time()
    assert "takes more than 0.05 seconds to decode and is not read" in error_of(path)
    assert time.thread_time() - began < 2


def test_metadata_without_end_is_refused(tmp_path, jpeg):
    path = tmp_path / "a.jpg"
    path.write_bytes(with_segments(jpeg, *[b"Exif\0\0" + bytes(65527)] * 300))
    assert "has more than 16,777,216 bytes of metadata" in error_of(path)
    path.write_bytes(with_segments(jpeg, exif_of_many_bytes()))
    assert "has an EXIF block of more bytes than it has" in error_of(path)
    path.write_bytes(with_segments(jpeg, *[b"ICC_PROFILE\0" + bytes(65000)] * 20, b"http://ns.adobe.com/xap/1.0/\0x"))
    assert read_image(path).shape == (300, 300, 3)


def test_fields_of_exif_take_no_memory(tmp_path):
    """Of a block of which Pillow would make 64 MiB; the orientation among them is found all the same."""
    path = written(tmp_path, Image.fromarray(COLOURS), format="PNG")
    data, block = path.read_bytes(), exif_of_many_bytes()[6:]
    turned = struct.pack(">HHIHH", 0x0112, 3, 1, 3, 0)
    path.write_bytes(data[:33] + chunk(b"eXIf", block[:-12] + turned) + data[33:])
    np.testing.assert_allclose(read_image(path), COLOURS[::-1, ::-1] / 255, atol=1e-7)


def test_an_orientation_may_stand_elsewhere(tmp_path):
    path = written(tmp_path, Image.fromarray(COLOURS), format="PNG")
    data = path.read_bytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHIHH", 0x0112, 3, 1, 3, 0)
    for kind, text in (
        (b"tEXt", b"Raw profile type exif\0\nexif\n" + b"%8d\n" % len(exif) + exif.hex().encode() + b"\n"),
        (b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<rdf:Description tiff:Orientation="3"/>'),
    ):
        path.write_bytes(data[:33] + chunk(kind, text) + data[33:])
        np.testing.assert_allclose(read_image(path), COLOURS[::-1, ::-1] / 255, atol=1e-7)


def test_a_file_of_more_bytes_than_pixels_is_refused(tmp_path, monkeypatch):
    path = written(tmp_path, Image.fromarray(COLOURS), format="PNG")
    with path.open("r+b") as stream:
        stream.truncate(2**20 + 601)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "has 1,049,177 bytes, more than a picture of 100 pixels needs, and is not read" in error_of(path)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16"])
def test_grey_pictures_for_a_network_of_one_channel(tmp_path, mode):
    grey = Preprocessing(resize=9, crop=8, mean=(0.25,), std=(0.5,))
    coloured = Preprocessing(resize=9, crop=8)
    if mode == "I;16":
        stored = Image.fromarray(RNG.integers(0, 65536, (13, 11)).astype(np.uint16))
    else:
        stored = Image.fromarray(RNG.integers(0, 256, (13, 11, 4)).astype(np.uint8), "RGBA").convert(mode)
    path = written(tmp_path, stored, format="PNG")
    view, size = read_view(path, grey)
    flat = Image.fromarray(np.rint(read_image(path) * 255).astype(np.uint8)).convert("L")  # ITU-R 601-2, in 8 bits
    luminance = np.asarray(flat)[..., None] / np.float32(255)
    assert size == (13, 11)
    np.testing.assert_array_equal(view, coloured.view(np.repeat(luminance, 3, axis=-1))[..., :1])
    np.testing.assert_array_equal(grey.view(luminance), view)
    np.testing.assert_allclose(grey(luminance), (view - 0.25) / 0.5, atol=1e-6)
    np.testing.assert_allclose(grey.denormalise(grey(luminance)), view, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ((9, 9), r"image\[\.\.\., None\]"),
        ((9, 9, 3), r"image\.mean\(-1, keepdims=True\)"),
        ((2, 9, 9, 1), r"image\[0\]"),
    ],
)
def test_pictures_that_are_not_grey_ones_are_refused_with_what_makes_them_so(unchecked, shape, remedy):
    grey = Preprocessing(resize=9, crop=8, mean=(0.25,), std=(0.5,))
    with pytest.raises(ValueError, match=rf"must have shape \[H, W, 1\], got .*; .*: {remedy}$"):
        grey(np.full(shape, 0.5))
    # And that it does.
    makes = {
        2: lambda image: image[..., None],
        3: lambda image: image.mean(-1, keepdims=True),
        4: lambda image: image[0],
    }
    np.testing.assert_allclose(
        grey(makes[len(shape)](np.full(shape, 0.5))), np.full((8, 8, 1), (128 / 255 - 0.25) / 0.5), rtol=1e-6
    )


def test_grey_and_coloured_do_not_mix(unchecked):
    with pytest.raises(ValueError, match="mean and std must be of as many channels"):
        Preprocessing(mean=(0.5,))
    with pytest.raises(ValueError, match=r"image must have shape \[H, W, 1\], got \[4, 4, 3\]"):
        Preprocessing(mean=(0.5,), std=(1,)).view(np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match=r"image must have shape \[..., H, W, 1\]"):
        Preprocessing(mean=(0.5,), std=(1,)).normalise(np.zeros((4, 4, 3)))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "I;16", "CMYK", "1"])
def test_strips_are_the_whole(tmp_path, monkeypatch, mode):
    """Whatever the number of rows converted at a time."""
    if mode == "I;16":
        stored = Image.fromarray(RNG.integers(0, 65536, (37, 11)).astype(np.uint16))
    else:
        stored = Image.fromarray(RNG.integers(0, 256, (37, 11, 4)).astype(np.uint8), "RGBA")
        stored = stored.convert("RGB").convert(mode) if mode in ("CMYK", "P", "1") else stored.convert(mode)
    path = written(tmp_path, stored, format="JPEG" if mode == "CMYK" else "PNG")
    seen = Preprocessing(resize=9, crop=8), Preprocessing(crop=8), Preprocessing()
    whole = read_image(path)
    with monkeypatch.context() as patch:
        patch.setattr(picture, "_STRIP", 30)
        np.testing.assert_array_equal(read_image(path), whole)
        for preprocessing in seen:
            np.testing.assert_array_equal(read_view(path, preprocessing)[0], preprocessing.view(whole))


@pytest.mark.parametrize("turn", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.sample(5)
def test_a_large_photograph_is_not_decoded_whole_and_looks_the_same(tmp_path, turn, interpolation):
    """With sides that no power of two divides: the frame is that of the whole picture, to the pixel."""
    smooth = Image.fromarray(RNG.integers(0, 256, (40, 50, 3)).astype(np.uint8)).resize((1001, 803), Image.BICUBIC)
    noise = RNG.integers(-10, 11, (803, 1001, 3))
    stored = Image.fromarray(np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8))
    exif = stored.getexif()
    exif[274] = turn
    path = tmp_path / "large.jpg"
    stored.save(path, quality=95, exif=exif)
    preprocessing = Preprocessing(resize=64, crop=60, interpolation=interpolation)
    found = read_reduced(path, 64)
    assert min(found.picture.size) == 201  # 803 / 4, and no less than 3 times 64
    assert (found.height, found.width) == read_image(path).shape[:2] == ((1001, 803) if turn > 4 else (803, 1001))
    view, size = read_view(path, preprocessing)
    assert size == (found.height, found.width)
    difference = 255 * np.abs(view - preprocessing.view(read_image(path)))
    assert difference.max() < 3.01
    assert difference.mean() < 0.5
    # One that is not much larger than what is wanted is decoded whole.
    whole = Preprocessing(resize=140, crop=128, interpolation=interpolation)
    np.testing.assert_array_equal(read_view(path, whole)[0], whole.view(read_image(path)))


_PEAK = """
import sys, time
import jaxcam
from jaxcam.images.preprocessing import IMAGENET, read_view
began = time.process_time()
try:
    read_view(sys.argv[1], IMAGENET) if sys.argv[2] == "view" else jaxcam.read_image(sys.argv[1])
except ValueError as error:
    assert "is not read" in str(error)
# Not getrusage: its peak is that of the process that this one was forked from, if that was larger.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(time.process_time() - began, int(status["VmHWM"].split()[0]) / 2**20)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is not to be had here")
@pytest.mark.slow
@pytest.mark.parametrize("reader", ["image", "view"])
@pytest.mark.parametrize("kind", ["RGBA", "16 bit", "WebP", "scans"])
def test_the_largest_pictures_take_little_memory_and_time(tmp_path, kind, reader):
    side, path = 9400, tmp_path / "large"
    if kind in ("RGBA", "16 bit"):
        row = b"\1" + (b"\7\3\5\1" if kind == "RGBA" else b"\7\3") * side
        header = struct.pack(">IIBBBBB", side, side, *((8, 6) if kind == "RGBA" else (16, 0)), 0, 0, 0)
        pixels = zlib.compress(row * side, 1)
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    elif kind == "WebP":
        Image.new("RGBA", (side, side), (1, 2, 3, 4)).save(path, "WEBP", lossless=True, method=0, quality=0)
    else:
        Image.new("RGB", (side, side)).save(path, "JPEG", progressive=True, subsampling=0)
        data = path.read_bytes()
        path.write_bytes(data[:-2] + data[data.rfind(b"\xff\xda") : -2] * 1000 + data[-2:])
    run = [sys.executable, "-c", _PEAK, str(path), reader]
    seconds, peak = map(float, subprocess.run(run, check=True, capture_output=True, text=True).stdout.split())
    assert peak < 1.5
    assert seconds < 15  # about 5, on a machine that may have other work


@pytest.fixture
def noisy(tmp_path, monkeypatch):
    """A file about whose EXIF block Pillow warns, and two events: a thread has begun to read it, and may go on."""
    path = written(tmp_path, Image.fromarray(COLOURS), format="PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x40")
    begun, may_go_on, original = threading.Event(), threading.Event(), Image.open

    def slow(*args: object, **kwargs: object) -> Image.Image:
        begun.set()
        assert may_go_on.wait(30)
        return original(*args, **kwargs)

    with pytest.warns(UserWarning, match="EXIF"), Image.open(path) as image:
        image.getexif()
    monkeypatch.setattr(Image, "open", slow)
    return path, begun, may_go_on


def test_threads_may_read_while_others_change_the_warning_filters(noisy):
    """The filters are global: whoever saved them last, puts back what a thread had changed in between."""
    path, begun, may_go_on = noisy
    with ThreadPoolExecutor(4) as pool, warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        images = [pool.submit(read_image, path) for _ in range(8)]
        assert begun.wait(30)
        with warnings.catch_warnings(record=True) as ours:
            warnings.simplefilter("always")
            warnings.warn("of this thread", UserWarning, stacklevel=1)
            may_go_on.set()
            for image in images:
                np.testing.assert_allclose(image.result(), COLOURS / 255, atol=1e-7)
        warnings.warn("afterwards", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in ours] == ["of this thread"]
    assert [str(warning.message) for warning in leaked] == ["afterwards"]


def test_reading_leaves_no_warning_filter_behind_that_hides_others(noisy):
    path, begun, may_go_on = noisy
    with ThreadPoolExecutor(1) as pool, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        image = pool.submit(read_image, path)
        assert begun.wait(30)
        with warnings.catch_warnings():  # saves the filters while the thread reads, and puts them back afterwards
            may_go_on.set()
            image.result()
        warnings.warn("by this thread", UserWarning, stacklevel=1)
        pool.submit(warnings.warn, "by the thread that has read", UserWarning).result()
    assert [str(warning.message) for warning in seen] == ["by this thread", "by the thread that has read"]


# --- preprocessing ---


def test_box_shrinking_by_hand():
    # Means of 2 by 2 blocks: (0+0+0+40)/4 = 10, (100+200+100+200)/4 = 150.
    stored = np.array([[0, 0, 100, 200], [0, 40, 100, 200]])
    image = resize_and_crop(rgb(stored / 255), resize=1, crop=None, interpolation="box")
    np.testing.assert_allclose(image, rgb(np.array([[10 / 255, 150 / 255]])), atol=1e-7)


def test_bilinear_enlarging_by_hand():
    # Pixel centres at half-integers: the four new centres lie at 0, 1/4, 3/4 and 1 between the two old ones.
    stored = np.array([[0, 200], [0, 200]])
    image = resize_and_crop(rgb(stored / 255), resize=4, crop=None)
    np.testing.assert_allclose(image * 255, rgb(np.broadcast_to([0.0, 50, 150, 200], (4, 4))), atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "resize", "expected"),
    [((3, 5), 2, (2, 3)), ((5, 3), 2, (3, 2)), ((375, 500), 256, (256, 341)), ((7, 7), 3, (3, 3))],
)
def test_the_longer_side_is_truncated(shape, resize, expected):
    assert resize_and_crop(np.zeros((*shape, 3)), resize=resize, crop=None).shape == (*expected, 3)


@pytest.mark.parametrize(
    ("size", "crop", "first"),
    [
        (4, 2, 1),
        (5, 2, 2),
        (3, 2, 0),
        (7, 2, 2),
        (9, 2, 4),
        (6, 6, 0),
    ],  # 1.5 -> 2, 0.5 -> 0, 2.5 -> 2, 3.5 -> 4
)
def test_where_the_crop_begins(size, crop, first):
    image = RNG.random((size, size + 4, 3))
    cropped = resize_and_crop(image, resize=None, crop=crop)
    np.testing.assert_array_equal(cropped, image.astype(np.float32)[first : first + crop, first + 2 : first + 2 + crop])


def torchvision_view(stored: np.ndarray, resize: int, crop: int, method: Image.Resampling) -> np.ndarray:
    """torchvision's Resize and CenterCrop for Pillow images, from its rules, on 8-bit arrays."""
    picture = Image.fromarray(stored)
    width, height = picture.size
    size = (resize, int(resize * height / width)) if width <= height else (int(resize * width / height), resize)
    picture = picture.resize(size, method)
    left = round((size[0] - crop) / 2.0)
    top = round((size[1] - crop) / 2.0)
    return np.asarray(picture.crop((left, top, left + crop, top + crop)))


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    resize=st.integers(1, 48),
    share=st.floats(0, 1),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos", "box"]),
)
def test_the_view_is_torchvisions(height, width, resize, share, interpolation):
    crop = max(1, round(share * resize))
    stored = np.random.default_rng(height * 61 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = torchvision_view(stored, resize, crop, getattr(Image.Resampling, interpolation.upper()))
    image = stored.astype(np.float32) / np.float32(255)
    view = resize_and_crop(image, resize=resize, crop=crop, interpolation=interpolation)
    np.testing.assert_array_equal(view, expected.astype(np.float32) / np.float32(255))


def test_the_network_input_is_torchvisions():
    stored = RNG.integers(0, 256, (300, 411, 3), dtype=np.uint8)
    view = torchvision_view(stored, 256, 224, Image.Resampling.BILINEAR).astype(np.float32) / np.float32(255)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    expected = (view - mean[np.newaxis, np.newaxis]) / std[np.newaxis, np.newaxis]
    image = stored.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(IMAGENET(image), expected)
    by_function = preprocess(image, resize=256, crop=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    np.testing.assert_array_equal(by_function, expected)
    np.testing.assert_array_equal(IMAGENET.view(image), view)


@pytest.mark.parity
@pytest.mark.parametrize("shape", [(300, 411), (500, 375), (333, 250), (224, 224), (257, 1000), (90, 60)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_parity_with_torchvision(torchvision, shape, interpolation):
    transforms = torchvision.transforms
    stored = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    pipeline = transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode(interpolation)),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET.mean, IMAGENET.std),
        ]
    )
    expected = np.moveaxis(pipeline(Image.fromarray(stored)).numpy(), 0, -1)
    ours = dataclasses.replace(IMAGENET, interpolation=interpolation)(stored.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(ours, expected)


def test_8_bit_values_survive_the_way_to_float_and_back():
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = rgb(stored.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(resize_and_crop(image, resize=16, crop=None), image)


def test_without_resizing_nothing_is_rounded():
    image = RNG.random((4, 6, 3)).astype(np.float32)
    np.testing.assert_array_equal(Preprocessing()(image), image)
    assert not np.shares_memory(Preprocessing().view(image), image)


def test_normalising_by_hand():
    image = np.array([[[0.5, 0.25, 1.0]]])
    normal = normalise(image, mean=(0.5, 0.5, 0.5), std=(0.1, 0.25, 2.0))
    np.testing.assert_allclose(normal, [[[0.0, -1.0, 0.25]]], atol=1e-15)
    assert normal.dtype == np.float64


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_normalising_is_traceable_batched_and_keeps_the_dtype(dtype):
    batch = jnp.asarray(RNG.random((2, 4, 5, 3)), dtype)
    normal = jax.jit(IMAGENET.normalise)(batch)
    assert normal.dtype == jnp.dtype(dtype)
    precise = np.asarray(batch.astype(jnp.float64))
    expected = np.stack([(precise[..., c] - IMAGENET.mean[c]) / IMAGENET.std[c] for c in range(3)], axis=-1)
    tolerance = 8 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(normal.astype(jnp.float64)), expected, atol=tolerance * 4)
    back = np.asarray(jax.jit(IMAGENET.denormalise)(normal).astype(jnp.float64))
    np.testing.assert_allclose(back, precise, atol=tolerance)


def test_denormalising_by_hand():
    preprocessing = Preprocessing(mean=(0.5, 0.0, 0.1), std=(0.1, 1.0, 2.0))
    np.testing.assert_allclose(
        preprocessing.denormalise(np.array([[[2.0, 0.5, -1.0]]])), [[[0.7, 0.5, -1.9]]], atol=1e-15
    )


def test_jax_arrays_are_pictures_too():
    image = RNG.random((9, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(
        resize_and_crop(jnp.asarray(image), resize=6, crop=5), resize_and_crop(image, resize=6, crop=5)
    )


def test_preprocessing_is_a_hashable_value():
    first, second = Preprocessing(resize=64, crop=64), Preprocessing(resize=64, crop=64)
    assert first == second
    assert hash(first) == hash(second)
    assert first != Preprocessing(resize=64, crop=60)
    scaled = jax.jit(lambda image, how: how.normalise(image), static_argnums=1)
    np.testing.assert_allclose(scaled(jnp.ones((1, 1, 3)), Preprocessing(mean=(1.0, 0.5, 0.0))), [[[0, 0.5, 1]]])


# --- arguments that are refused ---

GOOD = np.full((6, 8, 3), 0.5)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (COLOURS, TypeError, r"got uint8 \(0 to 255\); pass image / 255"),
        (COLOURS.astype(np.int64), TypeError, "got int64"),
        (GOOD.tolist(), TypeError, "got list; read a file with"),
        (Image.new("RGB", (3, 3)), TypeError, "got PIL.Image.Image; read a file with"),
        (GOOD[:, :, 0], ValueError, r"must have shape \[H, W, 3\], got \[6, 8\]; repeat a grey"),
        (GOOD[:, :, :1], ValueError, "repeat a grey picture"),
        (np.zeros((6, 8, 4)), ValueError, "alpha"),
        (np.zeros((3, 6, 8)), ValueError, "channels last"),
        (GOOD[np.newaxis], ValueError, r"image\[0\]"),
        (GOOD[:0], ValueError, r"empty: shape \[0, 8, 3\]"),
        (np.where(np.arange(3) == 1, np.nan, GOOD), ValueError, "finite, got 48 values"),
        (np.where(np.arange(3) == 1, np.inf, GOOD), ValueError, "finite, got 48 values"),
        (GOOD * 255, ValueError, "from 127.5 to 127.5; divide by 255"),
        (GOOD - 0.6, ValueError, "denormalise"),
    ],
)
def test_what_is_no_picture(image, error, message):
    with pytest.raises(error, match=message):
        inspect.unwrap(resize_and_crop)(image, resize=4, crop=4)


def test_a_traced_picture_is_refused_with_the_remedy():
    with pytest.raises(TypeError, match="outside of jit"):
        jax.jit(lambda image: IMAGENET.view(image))(jnp.zeros((4, 4, 3)))


def test_resizing_rounds_to_the_nearest_8_bit_value():
    image = np.full((4, 4, 3), 1 / 3)
    image[:2] = 0.999 / 255
    image[2] = 2.501 / 255
    expected = np.array([1, 1, 3, 85]) / 255
    np.testing.assert_allclose(resize_and_crop(image, resize=4, crop=None)[:, 0, 0], expected, atol=1e-7)


def test_rounding_just_outside_the_range_is_clipped():
    image = np.full((1, 1, 3), 1.0005)
    np.testing.assert_array_equal(resize_and_crop(image, resize=None, crop=None), np.ones((1, 1, 3)))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"resize": 0, "crop": None}, ValueError, "resize .* 1 .* 0"),
        ({"resize": None, "crop": -3}, ValueError, "crop .* 1 .* -3"),
        ({"resize": 2.0, "crop": None}, TypeError, "resize .* 2.0"),
        ({"resize": (4, 4), "crop": None}, TypeError, r"resize .* \(4, 4\)"),
        ({"resize": True, "crop": None}, TypeError, "resize .* True"),
        ({"resize": None, "crop": 7}, ValueError, r"crop=7 for a picture \[6, 8\]; use resize=7 or more, or"),
        ({"resize": 5, "crop": 6}, ValueError, r"\[5, 6\] \(after resize=5\)"),
        (
            {"resize": 4, "crop": 4, "interpolation": "cubic"},
            ValueError,
            "bilinear, bicubic, lanczos, got 'cubic'",
        ),
    ],
)
def test_sizes_that_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        inspect.unwrap(resize_and_crop)(GOOD, **options)


def test_an_extreme_shape_does_not_fill_the_memory():
    with pytest.raises(ValueError, match=r"resize=1000 would turn the picture \[1, 2000\] into 2,000,000,000 pixels"):
        resize_and_crop(np.zeros((1, 2000, 3)), resize=1000, crop=1000)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mean": (0.5, 0.5), "std": (1.0, 1.0, 1.0)}, ValueError, "mean must be three finite numbers"),
        (
            {"mean": (0.5, 0.5, np.nan), "std": (1.0, 1.0, 1.0)},
            ValueError,
            "mean must be three finite numbers",
        ),
        ({"mean": 0.5, "std": (1.0, 1.0, 1.0)}, TypeError, "mean must be three numbers"),
        ({"mean": (0.5, 0.5, 0.5), "std": (1.0, 0.0, 1.0)}, ValueError, "std must be positive"),
        ({"mean": (0.5, 0.5, 0.5), "std": (1.0, -1.0, 1.0)}, ValueError, "std must be positive"),
    ],
)
def test_channel_statistics_that_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        inspect.unwrap(normalise)(GOOD, **options)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (COLOURS, TypeError, "got uint8; divide uint8 by 255"),
        ([0.5], TypeError, "got list"),
        (np.zeros((2, 3, 4, 5)), ValueError, r"channels last, got \[2, 3, 4, 5\]"),
        (np.zeros((4, 3)), ValueError, r"got \[4, 3\]"),
    ],
)
def test_what_cannot_be_normalised(image, error, message):
    with pytest.raises(error, match=message):
        inspect.unwrap(normalise)(image, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    with pytest.raises(error, match=message):
        inspect.unwrap(Preprocessing.denormalise)(Preprocessing(), image)


def test_a_preprocessing_is_checked_when_it_is_made():
    with pytest.raises(ValueError, match="crop must be at most resize, got crop=65 and resize=64"):
        Preprocessing(resize=64, crop=65)
    with pytest.raises(ValueError, match="interpolation must be one of"):
        Preprocessing(interpolation="best")
    with pytest.raises(ValueError, match="std must be positive"):
        Preprocessing(std=(0.0, 1.0, 1.0))
    with pytest.raises(ValueError, match=r"resize .* 1 .* 0"):
        Preprocessing(resize=0)
