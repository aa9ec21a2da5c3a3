"""Damaged and hostile files, tried by the thousand: each gives what it gave before, or a documented error.

    python tests/fuzzing/hostile.py --minutes 10 --seed 1

A case is a valid file that something happened to: bits, bytes and pieces of it, or the values in it with its checksums
put right. What is wrong is anything else than a right value and a ValueError or OSError of one line; more than ten
seconds; a line that a terminal would obey. The same seed tries the same cases.
"""

import argparse
import io
import json
import random
import resource
import struct
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from flax import nnx
from PIL import Image

from jaxcam.datasets.annotations import read_annotations, resolved
from jaxcam.datasets.class_index import ClassIndex
from jaxcam.evaluation.journal import Journal, Record
from jaxcam.images import Preprocessing, read_image
from jaxcam.images.preprocessing import read_view
from jaxcam.models.loading import timm_config
from jaxcam.models.loading.checkpoint import opened
from jaxcam.models.weights import loaded

Random = random.Random
SECONDS = 10.0
LONGEST = 2000


class Wrong(AssertionError):  # noqa: N818
    """A case that is neither right nor refused as it should be."""


class Kind(NamedTuple):
    """A kind of file."""

    make: Callable[[Random], tuple[bytes, Any]]
    """A hostile file, and what its reading is compared with."""
    read: Callable[[Path, Any], None]
    """Raises an error that is documented, or `Wrong`."""
    suffix: str


# --- What happens to bytes and to values ---


def damaged(draw: Random, data: bytes) -> bytes:
    """The bytes after one to four accidents."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        at = draw.randrange(len(out) + 1)
        end = min(len(out), at + draw.choice((1, 2, 4, 8, 40)))
        match draw.randrange(7):
            case 0 if out:
                out[min(at, len(out) - 1)] ^= 1 << draw.randrange(8)
            case 1:
                out[at:end] = draw.randbytes(end - at)
            case 2:
                out[at:end] = b""
            case 3:
                out[at:at] = out[at:end] * draw.choice((1, 2, 100))
            case 4:
                out[at:end] = draw.choice((b"\xff", b"\0", b"\x7f", b"\x80")) * (end - at)
            case 5:
                out[at:at] = draw.choice((b"\n", b"]", b"}", b"[" * 5000, b"1e999", b"-", b'"', b"\x1b[31m"))
            case _:
                del out[at:]
    return bytes(out)


ODD = (
    None, True, False, 0, -1, 1, 2.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), 2**31, 2**63, 10**400, "", "x",
    "\x1b[31m\n", "x" * 100_000, [], {}, [[]], [1, 2], {"a": 1}, [None], "0", [[1, 2, 3, 4]], "../../etc/passwd", "\0",
)  # fmt: skip


def changed(draw: Random, value: Any) -> Any:
    """A value of JSON with something in it replaced, left out or added."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        if draw.random() < 0.1:
            return {other: item for other, item in value.items() if other != key}
        if draw.random() < 0.1:
            return {**value, draw.choice(("id", "bbox", "x" * 5000, "error")): draw.choice(ODD)}
        return {**value, key: changed(draw, value[key])}
    if isinstance(value, list) and value and draw.random() < 0.9:
        at = draw.randrange(len(value))
        if draw.random() < 0.1:
            return value[:at] + value[at + 1 :]
        if draw.random() < 0.1:
            return value + value[at : at + 1] * draw.choice((1, 1000))
        return [*value[:at], changed(draw, value[at]), *value[at + 1 :]]
    return draw.choice(ODD)


def json_bytes(draw: Random, value: Any) -> bytes:
    for _ in range(draw.choice((1, 1, 2, 3))):
        value = changed(draw, value)
    data = json.dumps(value).encode()
    return damaged(draw, data) if draw.random() < 0.1 else data


# --- Pictures ---


def _pictures() -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (12, 17, 4)).astype(np.uint8)
    colours = Image.fromarray(noise, "RGBA")
    exif = Image.Exif()
    exif[0x0112] = 6
    ways: list[tuple[Image.Image, dict[str, Any]]] = [
        (colours, {"format": "PNG"}),
        (colours.convert("RGB"), {"format": "PNG", "exif": exif}),
        (colours.convert("LA"), {"format": "PNG"}),
        (colours.convert("RGB").convert("P"), {"format": "PNG", "transparency": 3}),
        (Image.fromarray(noise[..., 0].astype(np.uint16) * 257), {"format": "PNG"}),
        (colours.convert("RGB"), {"format": "JPEG", "exif": exif}),
        (colours.convert("RGB"), {"format": "JPEG", "progressive": True, "subsampling": 0}),
        (colours.convert("CMYK"), {"format": "JPEG"}),
        (colours.convert("L"), {"format": "JPEG", "quality": 30}),
        (colours, {"format": "WEBP", "lossless": True, "exif": exif}),
        (colours.convert("RGB"), {"format": "WEBP"}),
        (colours.convert("RGB"), {"format": "BMP"}),
        (colours.convert("1"), {"format": "BMP"}),
        (colours.convert("RGB"), {"format": "GIF"}),
    ]
    found: list[bytes] = []
    for image, options in ways:
        buffer = io.BytesIO()
        image.save(buffer, **options)
        found.append(buffer.getvalue())
    return found


PICTURES = _pictures()
SEEN = Preprocessing(resize=9, crop=8)


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have those that belong to their bytes."""
    out, at = [data[:8]], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        body = data[at + 4 : at + 8 + length]
        out += [data[at : at + 4], body, struct.pack(">I", zlib.crc32(body))]
        at += 12 + length
    return b"".join(out)


def picture(draw: Random) -> tuple[bytes, None]:
    data = damaged(draw, draw.choice(PICTURES))
    return (with_checksums(data) if data[:4] == b"\x89PNG" and draw.random() < 0.7 else data), None


def read_picture(path: Path, _: None) -> None:
    image = read_image(path)
    low, high = float(image.min()), float(image.max())
    if image.dtype != np.float32 or image.ndim != 3 or image.shape[2] != 3 or not 0 <= low <= high <= 1:
        raise Wrong(f"{image.dtype} {image.shape} from {low} to {high}")
    view, size = read_view(path, SEEN)
    if size != image.shape[:2] or not np.array_equal(view, SEEN.view(image)):
        raise Wrong("another view")


# --- Weights ---


class Small(nnx.Module):
    """What the weights are of."""

    def __init__(self) -> None:
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0))


TENSORS = {
    "conv.weight": np.arange(108, dtype=np.float32).reshape(4, 3, 3, 3),
    "conv.bias": np.arange(4, dtype=np.float16),
}
CONFIG = {
    "architecture": "resnet18", "label_names": ["a", "b"], "dialect": "timm",
    "pretrained_cfg": {
        "input_size": [3, 32, 32], "crop_pct": 0.9, "crop_mode": "center", "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5], "std": [0.1, 0.2, 0.3],
    },
}  # fmt: skip
SAVED = {
    "label_names": ["a", "b"],
    "preprocessing": {"resize": 9, "crop": 8, "mean": [0, 0, 0], "std": [1.0, 1.0, 1.0]},
}


def safetensors_file(draw: Random) -> tuple[bytes, None]:
    data = safetensors.numpy.save(TENSORS, metadata={"jaxcam": json.dumps(SAVED)})
    if draw.random() < 0.5:
        return damaged(draw, data), None
    (length,) = struct.unpack("<Q", data[:8])
    header = json_bytes(draw, json.loads(data[8 : 8 + length]))
    return struct.pack("<Q", len(header)) + header + data[8 + length :], None


def config_file(draw: Random) -> tuple[bytes, None]:
    return json_bytes(draw, draw.choice((CONFIG, SAVED))), None


def read_config(path: Path, _: None) -> None:
    folder = path.parent / "folder"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(safetensors.numpy.save(TENSORS))
    (folder / "config.json").write_bytes(path.read_bytes())
    config = opened(folder).config
    timm_config.dialect(config, of="here")
    timm_config.preprocessing(config, of="here")
    names = timm_config.class_names(config, 2, of="here")
    if names is not None and not all(name.isprintable() for name in names):
        raise Wrong(f"names {names!r}")


def read_weights(path: Path, expected: dict[str, np.ndarray] | None) -> None:
    checkpoint = opened(path)
    for key, shape in checkpoint.shapes.items():
        if np.prod([max(1, side) for side in shape], dtype=float) > 2**24:
            continue  # a view that is repeated: `loaded` reads only what has the shape that it wants
        array = checkpoint.tensor(key)
        if array.shape != tuple(shape):
            raise Wrong(f"{key} is {array.shape}, not {shape}")
        if expected is not None and not np.array_equal(array, expected[key]):
            raise Wrong(f"{key} has other values")
    loaded(Small, checkpoint)


def _instruction(name: str, attribute: str) -> bytes:
    return f"c{name}\n{attribute}\n".encode()


def _tensor(key: str, kind: str, array: np.ndarray) -> bytes:
    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"M" + struct.pack("<H", value) for value in values) + b"t"

    strides = tuple(stride // array.itemsize for stride in array.strides)
    storage = b"(" + text("storage") + _instruction("torch", f"{kind}Storage") + text(key) + text("cpu")
    storage += b"M" + struct.pack("<H", array.size) + b"tQ"
    hooks = _instruction("collections", "OrderedDict") + b")R"
    rest = storage + b"K\0" + numbers(array.shape) + numbers(strides) + b"\x89" + hooks
    return _instruction("torch._utils", "_rebuild_tensor_v2") + b"(" + rest + b"tR"


def _pickle() -> bytes:
    parts = [b"\x80\x02}q\x00("]
    for i, (key, array) in enumerate(TENSORS.items()):
        parts.append(b"X" + struct.pack("<I", len(key)) + key.encode() + b"q" + bytes([i + 1]))
        parts.append(_tensor(str(i), ("Float", "Half")[i], array))
    return b"".join(parts) + b"u."


def _zip(pickled: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a/data.pkl", pickled)
        file.writestr("a/byteorder", "little")
        for i, array in enumerate(TENSORS.values()):
            file.writestr(f"a/data/{i}", array.tobytes())
    return buffer.getvalue()


def _old(pickled: bytes) -> bytes:
    head = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."
    keys = b"\x80\x02](" + b"".join(b"X\1\0\0\0" + str(i).encode() for i in range(len(TENSORS))) + b"e."
    storages = [struct.pack("<q", array.size) + array.tobytes() for array in TENSORS.values()]
    return head + pickled + keys + b"".join(storages)


def torch_file(draw: Random) -> tuple[bytes, dict[str, np.ndarray] | None]:
    match draw.randrange(4):
        case 0:  # its checksums say so
            return damaged(draw, _zip(_pickle())), TENSORS
        case 1:
            return damaged(draw, _old(_pickle())), None
        case 2:
            return _zip(damaged(draw, _pickle())), None
        case _:
            return _old(damaged(draw, _pickle())), None


# --- Annotations ---

OWN = [
    {"file": "a.png", "label": "cat", "boxes": [[0, 0, 5, 5], [1.5, 2, 3, 4]], "width": 17, "height": 12},
    {"file": "b.png", "label": 1, "box_labels": ["dog"], "boxes": [[0, 1, 2, 3]], "imagenet_indices": [3]},
]
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 17, "height": 12}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": [[0, 0, 5, 0, 5, 5]], "iscrowd": 0},
        {
            "image_id": 1,
            "category_id": 2,
            "bbox": [0, 0, 9, 9],
            "segmentation": {"size": [12, 17], "counts": [100, 104]},
        },
    ],
}
VOC = b"""<annotation><filename>a.png</filename><size><width>17</width><height>12</height></size>
<object><name>cat</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>7</ymax></bndbox></object></annotation>"""


def annotations(draw: Random) -> tuple[bytes, None]:
    return json_bytes(draw, draw.choice((OWN, COCO))), None


def voc(draw: Random) -> tuple[bytes, None]:
    data = VOC
    if draw.random() < 0.5:
        word = draw.choice((b"1", b"2", b"cat", b"a.png", b"object", b"<size>", b"17"))
        odd = draw.choice(
            (b"", b"nan", b"1e999", b"-5", b"\xff", b"<a/>", b"&x;", b"9" * 5000, b"<b>" * 3000, b"&#27;[1m")
        )
        data = data.replace(word, odd)
    return damaged(draw, data), None


def read_annotation(path: Path, _: None) -> None:
    if path.suffix == ".xml":
        path = path.parent
    found = read_annotations(path)
    for truth in resolved(found, ClassIndex(None, ("cat", "dog"))):
        if not np.isfinite(truth.boxes).all() or (truth.boxes[:, :2] > truth.boxes[:, 2:]).any():
            raise Wrong(f"boxes {truth.boxes}")
        if not -1 <= truth.label < 1000:
            raise Wrong(f"label {truth.label}")


# --- Results ---

HEADER = {"jaxcam_evaluation": 1, "methods": ["a", "b"], "metrics": ["x"], "dataset": {"number": 4}}


def _rows() -> tuple[list[bytes], list[Record]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.jsonl")
        journal = Journal(path, HEADER)
        random = np.random.default_rng(0).random((3, 5)).tolist()
        rows = [Record(i, f"{i}.png", 3, 2, y, [a, b], [0, 1], [[c], [d]]) for i, (y, a, b, c, d) in enumerate(random)]
        journal.append([*rows, Record(3, "bad.png", error="cut off")])
        journal.finish()
        records = list(journal.records())
        journal.close()
        return path.read_bytes().splitlines(keepends=True), records


LINES, RECORDS = _rows()


def results(draw: Random) -> tuple[bytes, list[Record] | None]:
    if draw.random() < 0.5:
        return damaged(draw, b"".join(LINES)), RECORDS
    lines, at = list(LINES), draw.randrange(1, len(LINES))
    row = json.loads(lines[at])
    del row["crc32"]
    body = json_bytes(draw, row)
    lines[at] = body[:-1] + b', "crc32": "%08x"}\n' % zlib.crc32(body)
    return b"".join(lines), None


def read_results(path: Path, expected: list[Record] | None) -> None:
    journal = Journal(path, HEADER)
    try:
        found = list(journal.records())
        for rows, _ in journal.rows():
            if not np.isfinite(rows.y).all() and expected is not None:
                raise Wrong("a figure is missing")
        if expected is not None and [repr(record) for record in found] != [repr(expected[r.index]) for r in found]:
            raise Wrong("other rows")
    finally:
        journal.close()


KINDS = {
    "pictures": Kind(picture, read_picture, ""),
    "safetensors": Kind(safetensors_file, read_weights, ".safetensors"),
    "configs": Kind(config_file, read_config, ".json"),
    "torch": Kind(torch_file, read_weights, ".pth"),
    "annotations": Kind(annotations, read_annotation, ".json"),
    "voc": Kind(voc, read_annotation, ".xml"),
    "results": Kind(results, read_results, ".jsonl"),
}


def tried(name: str, seed: str, folder: Path) -> str:
    """One case: "read" or "refused".

    Raises:
        Wrong: it is neither.
    """
    kind = KINDS[name]
    draw = Random(f"{name} {seed}")
    data, expected = kind.make(draw)
    place = folder / name
    place.mkdir(exist_ok=True)
    path = place / f"case{kind.suffix}"
    path.write_bytes(data)
    began, outcome = time.thread_time(), "read"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            kind.read(path, expected)
    except (ValueError, OSError) as error:
        outcome, message = "refused", str(error)
        if not message.isprintable() or len(message) > LONGEST:
            raise Wrong(f"{name} {seed}: the message {message[:300]!r}") from error
    except Wrong as error:
        raise Wrong(f"{name} {seed}: {error}") from error
    except Exception as error:
        raise Wrong(f"{name} {seed}: {type(error).__name__}: {error!s:.300}") from error
    if time.thread_time() - began > SECONDS:
        raise Wrong(f"{name} {seed}: took {time.thread_time() - began:.0f} s")
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (1)")
    parser.add_argument("--seed", type=int, default=0, help="of the cases (0)")
    parser.add_argument("--kinds", default=",".join(KINDS), metavar="LIST", help=f"of {', '.join(KINDS)} (all)")
    options = parser.parse_args()
    end, counts, wrong = time.monotonic() + 60 * options.minutes, Counter[tuple[str, str]](), list[str]()
    number = 0
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            for name in options.kinds.split(","):
                try:
                    counts[name, tried(name, f"{options.seed} {number}", Path(folder))] += 1
                except Wrong as error:
                    counts[name, "wrong"] += 1
                    wrong.append(str(error))
                    print(error, file=sys.stderr, flush=True)
            number += 1
    for name in options.kinds.split(","):
        told = ", ".join(f"{counts[name, what]:,} {what}" for what in ("read", "refused", "wrong"))
        print(f"{name:12} {sum(n for (kind, _), n in counts.items() if kind == name):7,} files: {told}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{counts.total():,} files, {len(wrong)} wrong; at most {peak:.2f} GiB")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
