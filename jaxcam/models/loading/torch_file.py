"""Files of `torch.save`, both of its formats, read without torch: tensors by key, and nothing that could run.

    zip (since 2020)     NAME/data.pkl: the pickle; NAME/data/0, 1 ...: the storages, stored and not compressed;
                         NAME/byteorder: "little" or "big"
    before               five pickles: a number, a version, sizes of C's types, the object, the storages' keys; and
                         then each storage: how many elements, 8 bytes, and these, little-endian

In both the object refers to storages by key, and a tensor is a part of a storage: where it begins, its shape and its
strides. Shared storages, transposed and other views are views here too.

Contract: what is read is `TorchTensor`s inside of plain values (`pickled`). All that a tensor claims is compared with
what the file has before any memory is taken for it; the checksums that zip files have are compared when a tensor is
read. Everything else than these is refused by its name, a model saved whole and TorchScript among it.

**Source**: torch.serialization, `_legacy_save` and `_save`; torch._utils, `_rebuild_tensor_v2`; PKWARE's APPNOTE.
"""

import math
import mmap
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcam.models.loading.pickled import MOST_BYTES, PLAIN_NAMES, Callee, ForeignError, unpickled

_MAGIC = 0x1950A86A20F9469CFC6C
_MOST_RECORDS = 2**18
_MOST_AXES = 32
_DTYPES: dict[str, Any] = {
    "float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": jnp.bfloat16,
    "int64": np.int64, "int32": np.int32, "int16": np.int16, "int8": np.int8, "bool": np.bool_,
    "uint8": np.uint8, "uint16": np.uint16, "uint32": np.uint32, "uint64": np.uint64,
    "complex64": np.complex64, "complex128": np.complex128,
    "float8_e4m3fn": jnp.float8_e4m3fn, "float8_e4m3fnuz": jnp.float8_e4m3fnuz,
    "float8_e5m2": jnp.float8_e5m2, "float8_e5m2fnuz": jnp.float8_e5m2fnuz,
}  # fmt: skip
_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16",
    "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool",
    "ComplexFloat": "complex64", "ComplexDouble": "complex128",
}  # fmt: skip


@dataclass(frozen=True)
class _Kind:
    """A dtype by torch's name; of storages without one, bytes."""

    name: str

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(_DTYPES[self.name])


@dataclass(frozen=True)
class _Storage:
    """Bytes from `begin` to `end` of what the file has under this key."""

    key: str
    kind: _Kind
    begin: int
    end: int


@dataclass(frozen=True)
class TorchTensor:
    """A part of a storage; offset and strides in elements."""

    storage: _Storage
    kind: _Kind
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Place:
    """Bytes of the file."""

    start: int
    size: int
    checksum: int = 0
    """CRC-32; 0 where torch was told to compute none."""
    is_plain: bool = True
    """Neither compressed nor encrypted."""

    def of(self, data: Any) -> bytes:
        """A copy of them."""
        _check(self.is_plain, "a part of it is compressed or encrypted")
        _check(self.size <= MOST_BYTES, "a part of it is too long")
        found = data[self.start : self.start + self.size]
        _check(len(found) == self.size, "it ends too early")
        _check(self.checksum in (0, zlib.crc32(found)), "a checksum does not fit its bytes")
        return found


@dataclass(frozen=True)
class TorchFile:
    """What `torch.save` wrote."""

    path: Path
    value: Any
    """The object: plain values and `TorchTensor`s."""
    size: int
    places: Mapping[str, _Place]
    """Of the storages."""
    is_big_endian: bool

    def array(self, tensor: TorchTensor) -> np.ndarray:
        """The tensor's values in its own dtype; a view of the file where that can be.

        Raises:
            ValueError: a checksum says that the bytes are not those that were written, or the file has changed.
        """
        dtype, place = tensor.kind.dtype, self.places[tensor.storage.key]
        if not math.prod(tensor.shape):
            return np.zeros(tensor.shape, dtype)
        # Mapped anew for each: what was read counts as memory until the last array on the map is gone.
        data = _mapped(self.path)
        _check(len(data) == self.size, "it changed while it was read")
        stored = np.frombuffer(data, np.uint8, place.size, place.start)
        _check(place.checksum in (0, zlib.crc32(stored.data)), "a checksum does not fit its bytes")
        # Kinds that are not NumPy's own know no order of bytes.
        plain = np.dtype(f"u{dtype.itemsize}") if dtype.kind in "Vb" else dtype
        view = np.ndarray(
            tensor.shape,
            plain.newbyteorder(">" if self.is_big_endian else "<"),
            stored[tensor.storage.begin : tensor.storage.end],
            tensor.offset * dtype.itemsize,
            tuple(stride * dtype.itemsize for stride in tensor.strides),
        )
        if dtype == np.bool_:
            return view != 0
        if self.is_big_endian:
            view = view.astype(plain)
        return view if plain == dtype else view.view(dtype)


def read_torch_file(path: Path) -> TorchFile:
    """The file's contents, tensors not yet read.

    Raises:
        ForeignError: it holds something else than tensors and plain values.
        ValueError: it is damaged, or no file of torch's.
        OSError: it cannot be read.
    """
    data = _mapped(path)
    value, places, is_big_endian = _read_zip(data) if data[:2] == b"PK" else (*_read_old(data), False)
    return TorchFile(path, value, len(data), places, is_big_endian)


def _mapped(path: Path) -> Any:
    """The file in memory without reading it."""
    with path.open("rb") as stream:
        is_empty = not os.fstat(stream.fileno()).st_size
        return b"" if is_empty else mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


# --- The object and its tensors ---


def _check(is_right: bool, otherwise: str) -> None:
    if not is_right:
        raise ValueError(otherwise)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


class _Storages:
    """The storages that a pickle refers to."""

    def __init__(self) -> None:
        self.found: dict[str, _Storage] = {}

    def __call__(self, reference: Any) -> _Storage:
        """A storage, from ("storage", kind, key, device, number of elements), in old files with a part of it."""
        _check(isinstance(reference, tuple) and len(reference) in (5, 6), "a reference to nothing known")
        what, kind, key, _, count, *part = reference
        _check(what == "storage" and isinstance(kind, _Kind) and isinstance(key, str), "a reference to no storage")
        _check(_is_count(count), "a storage of no size")
        width = kind.dtype.itemsize
        whole = _Storage(key, kind, 0, count * width)
        _check(self.found.setdefault(key, whole) == whole, "a storage of two sizes")
        if not part or part[0] is None:
            return whole
        _check(isinstance(part[0], tuple) and len(part[0]) == 3, "a part of a storage that is none")
        _, begin, size = part[0]
        _check(_is_count(begin) and _is_count(size) and begin + size <= count, "a part that is not in its storage")
        return _Storage(key, kind, begin * width, (begin + size) * width)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any, kind: Any = None) -> TorchTensor:
    _check(isinstance(storage, _Storage), "a tensor without a storage")
    kind = storage.kind if kind is None else kind
    _check(isinstance(kind, _Kind), "a tensor without a dtype")
    sizes = (offset, *shape, *strides)
    _check(len(shape) == len(strides) <= _MOST_AXES and all(map(_is_count, sizes)), "a tensor of no shape")
    _check(math.prod(size or 1 for size in shape) < 2**62 // kind.dtype.itemsize, "a tensor larger than any memory")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    room = (storage.end - storage.begin) // kind.dtype.itemsize
    _check(0 in shape or last < room, "a tensor that is not in its storage")
    if len(rest) > 2 and rest[2]:
        raise ForeignError("a conjugated or negated view")
    return TorchTensor(storage, kind, offset, tuple(shape), tuple(strides))


def _tensor_of_dtype(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> TorchTensor:
    """With requires_grad and hooks, which say nothing here, and the dtype."""
    _check(len(rest) > 2, "a tensor without a dtype")
    return _tensor(storage, offset, shape, strides, *rest[:2], *rest[3:], kind=rest[2])


def _parameter(tensor: Any, *_: Any) -> TorchTensor:
    _check(isinstance(tensor, TorchTensor), "a parameter that is no tensor")
    return tensor


_NAMES: dict[str, Any] = {
    **PLAIN_NAMES,
    "torch._utils _rebuild_tensor": Callee(_tensor),
    "torch._utils _rebuild_tensor_v2": Callee(_tensor),
    "torch._utils _rebuild_tensor_v3": Callee(_tensor_of_dtype),
    "torch._utils _rebuild_parameter": Callee(_parameter),
    "torch._utils _rebuild_parameter_with_state": Callee(_parameter),
    "torch Size": Callee(lambda sizes=(): tuple(sizes)),
    "torch device": Callee(lambda *name: name),
    "torch UntypedStorage": _Kind("uint8"),
    "torch.storage UntypedStorage": _Kind("uint8"),
    **{f"torch {name}Storage": _Kind(dtype) for name, dtype in _STORAGES.items()},
    **{f"torch {name}": _Kind(name) for name in _DTYPES},
}


# --- The two formats ---


def _read_old(data: Any) -> tuple[Any, dict[str, _Place]]:
    if data[257:262] == b"ustar":
        raise ForeignError("an archive of torch's first format, of 2017")
    storages, place = _Storages(), 0
    found: list[Any] = []
    for _ in range(5):  # a number, a version, the sizes of C's types, the object, the keys of the storages
        part = data[place : place + MOST_BYTES]
        value, size = unpickled(part, _NAMES, persistent=storages)
        found.append(value)
        place += size
        _check(found[0] == _MAGIC, "its first value is not torch's")
    *_, value, keys = found
    _check(isinstance(keys, list), "no list of storages")
    places: dict[str, _Place] = {}
    for key in keys:
        _check(isinstance(key, str) and key in storages.found and key not in places, "a storage that no tensor has")
        storage = storages.found[key]
        count = int.from_bytes(data[place : place + 8], "little")
        places[key] = _Place(place + 8, storage.end)
        _check(count * storage.kind.dtype.itemsize == storage.end, "a storage of another size")
        place += 8 + storage.end
        _check(place <= len(data), "it ends too early")
    _check(storages.found.keys() == places.keys(), "a storage is missing")
    return value, places


def _read_zip(data: Any) -> tuple[Any, dict[str, _Place], bool]:
    records = _records(data)
    names = [name for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
    _check(len(names) == 1, "no data.pkl, or several")
    folder = names[0].removesuffix("data.pkl")
    if any(name == f"{folder}constants.pkl" or name.startswith(f"{folder}code/") for name in records):
        raise ForeignError("an archive with code in it")
    order = records[f"{folder}byteorder"].of(data) if f"{folder}byteorder" in records else b"little"
    _check(order in (b"little", b"big"), "no order of bytes")
    storages = _Storages()
    value, _ = unpickled(records[names[0]].of(data), _NAMES, persistent=storages)
    places: dict[str, _Place] = {}
    for key, storage in storages.found.items():
        place = records.get(f"{folder}data/{key}")
        _check(place is not None, "a storage is missing")
        assert place is not None
        _check(place.size == storage.end and place.is_plain, "a storage of another size, or compressed")
        places[key] = place
    return value, places, order == b"big"


_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")


def _records(data: Any) -> dict[str, _Place]:
    """The files in a zip file, none of them compressed. Not by `zipfile`, which does not tell where they begin."""
    count, at = _directory(data)
    _check(count <= _MOST_RECORDS, "too many records")
    found: dict[str, _Place] = {}
    for _ in range(count):
        entry = _fields(_ENTRY, data, at, b"PK\1\2")
        flags, method, checksum, packed, size = entry[3], entry[4], entry[7], entry[8], entry[9]
        len_name, len_extra, len_comment, begin = entry[10], entry[11], entry[12], entry[16]
        at += _ENTRY.size
        name = data[at : at + len_name].decode()
        size, packed, begin = _widened((size, packed, begin), data[at + len_name : at + len_name + len_extra])
        at += len_name + len_extra + len_comment
        local = _fields(_LOCAL, data, begin, b"PK\3\4")
        start = begin + _LOCAL.size + local[9] + local[10]
        _check(start + packed <= len(data), "it ends too early")
        _check(name not in found, "a record twice")
        found[name] = _Place(start, size, checksum, is_plain=method == 0 and packed == size and not flags & 1)
    return found


def _directory(data: Any) -> tuple[int, int]:
    """How many records there are, and where their list begins."""
    tail = max(0, len(data) - _END.size - 2**16)
    at = data[tail:].rfind(b"PK\5\6")
    _check(at >= 0, "it has no end")
    end = _fields(_END, data, tail + at, b"PK\5\6")
    if 0xFFFF not in end[1:5] and 0xFFFFFFFF not in end[5:7]:
        return end[4], end[6]
    locator = _fields(_LOCATOR_64, data, tail + at - _LOCATOR_64.size, b"PK\6\7")
    wide = _fields(_END_64, data, locator[2], b"PK\6\6")
    return wide[7], wide[9]


def _fields(form: struct.Struct, data: Any, at: int, signature: bytes) -> tuple[Any, ...]:
    _check(0 <= at <= len(data) - form.size, "it ends too early")
    found = form.unpack(data[at : at + form.size])
    _check(found[0] == signature, "a part of it is damaged")
    return found


def _widened(sizes: tuple[int, ...], extra: bytes) -> list[int]:
    """The sizes with those that do not fit into 32 bits from where a zip file has them instead."""
    wide: list[int] = []
    while len(extra) >= 4:
        kind, length = struct.unpack("<HH", extra[:4])
        if kind == 1:
            wide = [number for (number,) in struct.iter_unpack("<Q", extra[4 : 4 + length // 8 * 8])]
        extra = extra[4 + length :]
    rest = iter(wide)
    return [next(rest, 2**62) if size == 0xFFFFFFFF else size for size in sizes]
