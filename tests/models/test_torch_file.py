"""Files of torch.save without torch: bytes put together by hand from the descriptions of pickle and zip."""

import io
import pickle
import struct
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcam.models.loading.checkpoint import opened

# --- A pickle's instructions, as `pickletools` describes them ---


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value):
    return b"J" + struct.pack("<i", value) if abs(value) < 2**31 else b"\x8a\x09" + value.to_bytes(9, "little")


def items(*parts):
    return b"(" + b"".join(parts) + b"t"


def call(function, *arguments):
    return function + items(*arguments) + b"R"


def dictionary(**entries):
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def storage(kind, key, count, *part):
    return items(text("storage"), name("torch", f"{kind}Storage"), text(key), text("cpu"), number(count), *part) + b"Q"


def tensor(stored, offset, shape, strides, *rest):
    numbers = [items(*map(number, values)) for values in (shape, strides)]
    hooks = call(name("collections", "OrderedDict"))
    return call(REBUILD, stored, number(offset), *numbers, b"\x89", hooks, *rest)


REBUILD = name("torch._utils", "_rebuild_tensor_v2")


def pickled(value):
    return b"\x80\x02" + value + b"."


# --- The two formats ---


def zipped(value, storages, order="little", folder="archive", **more):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(f"{folder}/data.pkl", pickled(value))
        if order is not None:
            file.writestr(f"{folder}/byteorder", order)
        for key, values in storages.items():
            file.writestr(f"{folder}/data/{key}", np.ascontiguousarray(values).tobytes())
        for record, content in more.items():
            file.writestr(record, content)
    return buffer.getvalue()


def old(value, storages, *_):
    sizes = dictionary(little_endian=b"\x88")
    head = [
        b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19",
        number(1001),
        sizes,
        value,
        b"](" + b"".join(map(text, storages)) + b"e",
    ]
    parts = [struct.pack("<q", values.size) + np.ascontiguousarray(values).tobytes() for values in storages.values()]
    return b"".join(map(pickled, head)) + b"".join(parts)


FORMATS = pytest.mark.parametrize("form", [zipped, old])
VALUES = np.arange(24, dtype=np.float32)
ONE = tensor(storage("Float", "0", 24), 0, (4, 6), (6, 1))


def read(tmp_path, data):
    path = tmp_path / "w.pth"
    path.write_bytes(data)
    return opened(path)


def refused(tmp_path, data):
    with pytest.raises(ValueError, match=r"^weights: .*w.pth' ") as error:
        read(tmp_path, data)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500 + len(str(tmp_path))
    return str(error.value)


@FORMATS
def test_tensors_are_views_of_their_storage(tmp_path, form):
    stored = storage("Float", "0", 24)
    value = dictionary(
        whole=tensor(stored, 0, (2, 3, 4), (12, 4, 1)),
        transposed=tensor(stored, 0, (4, 3, 2), (1, 4, 12)),
        part=tensor(stored, 13, (2, 2), (4, 2)),
        repeated=tensor(stored, 5, (3, 2), (0, 1)),
        scalar=tensor(stored, 23, (), ()),
        empty=tensor(stored, 24, (0, 5), (5, 1)),
        parameter=call(name("torch._utils", "_rebuild_parameter"), ONE, b"\x88", b"}"),
        epoch=number(3),
    )
    checkpoint = read(tmp_path, form(value, {"0": VALUES}))
    whole = VALUES.reshape(2, 3, 4)
    expected = {
        "whole": whole, "transposed": whole.T, "part": np.float32([[13, 15], [17, 19]]), "repeated": [[5, 6]] * 3,
        "scalar": 23, "empty": np.zeros((0, 5)), "parameter": VALUES.reshape(4, 6),
    }  # fmt: skip
    assert checkpoint.shapes == {key: np.shape(array) for key, array in expected.items()}
    for key, array in expected.items():
        assert checkpoint.tensor(key).dtype == np.float32
        np.testing.assert_array_equal(checkpoint.tensor(key), array)


KINDS = {
    "Double": "f8", "Float": "f4", "Half": "f2", "BFloat16": jnp.bfloat16, "Long": "i8", "Int": "i4",
    "Short": "i2", "Char": "i1", "Byte": "u1", "Bool": "?", "ComplexFloat": "c8", "ComplexDouble": "c16",
}  # fmt: skip


@pytest.mark.parametrize("order", ["little", "big", None, "old"])
def test_every_kind_of_number_in_either_order_of_bytes(tmp_path, order):
    values = {kind: np.array([0, 1, 1, 0, 1, 1]).astype(dtype) for kind, dtype in KINDS.items()}
    for kind, array in values.items():
        if kind not in ("Bool", "Byte", "Char"):
            array *= np.array(3).astype(array.dtype)
    entries = {kind: tensor(storage(kind, f"{i}", 6), 1, (2, 2), (1, 2)) for i, kind in enumerate(KINDS)}
    written = {}
    for i, (kind, array) in enumerate(values.items()):
        unit = array.itemsize // (2 if array.dtype.kind == "c" else 1)
        as_bytes = array.view(f"u{unit}")
        written[f"{i}"] = as_bytes.byteswap() if order == "big" else as_bytes
        if kind.startswith("Complex") and order == "old":
            written[f"{i}"] = array
    value = dictionary(**entries)
    checkpoint = read(tmp_path, old(value, written) if order == "old" else zipped(value, written, order))
    for kind, array in values.items():
        found = checkpoint.tensor(kind)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array[1:5].reshape(2, 2).T)


def test_kinds_without_a_storage_of_their_own(tmp_path):
    """torch's uint16 and the like: bytes, and the dtype with the tensor."""
    reference = (
        items(text("storage"), name("torch.storage", "UntypedStorage"), text("0"), text("cpu"), number(8)) + b"Q"
    )
    rest = (number(1), items(number(2)), items(number(1)), b"\x89", b"}", name("torch", "uint16"))
    value = dictionary(a=call(name("torch._utils", "_rebuild_tensor_v3"), reference, *rest))
    checkpoint = read(tmp_path, zipped(value, {"0": np.array([1, 2, 60000, 4], np.uint16)}))
    np.testing.assert_array_equal(checkpoint.tensor("a"), np.array([2, 60000], np.uint16))
    assert checkpoint.tensor("a").dtype == np.uint16


def test_old_files_may_say_that_a_storage_is_a_part_of_another(tmp_path):
    part = items(text("view"), number(10), number(6))
    value = dictionary(a=tensor(storage("Float", "7", 24, part), 1, (2,), (2,)))
    np.testing.assert_array_equal(read(tmp_path, old(value, {"7": VALUES})).tensor("a"), [11, 13])
    beyond = dictionary(a=tensor(storage("Float", "7", 24, part), 4, (2,), (2,)))
    assert "a tensor that is not in its storage" in refused(tmp_path, old(beyond, {"7": VALUES}))


@FORMATS
@pytest.mark.parametrize("around", ["state_dict", "model", "net", "module.", ""])
def test_where_training_scripts_put_the_state_dict(tmp_path, form, around):
    if around == "module.":
        value = dictionary(**{"module.a": ONE})
    elif around:
        value = dictionary(epoch=number(1), **{around: dictionary(a=ONE)})
    else:  # an OrderedDict with a state, as state_dict() makes it
        pairs = b"](" + items(text("a"), ONE) + b"e"
        value = call(name("collections", "OrderedDict"), pairs) + dictionary(_metadata=b"}") + b"b"
    checkpoint = read(tmp_path, form(value, {"0": VALUES}))
    assert dict(checkpoint.shapes) == {"a": (4, 6)}


@FORMATS
@pytest.mark.parametrize(
    ("value", "what"),
    [
        (call(name("os", "system"), text("true")), "os.system"),
        (name("builtins", "eval"), "builtins.eval"),
        (name("torch.nn.modules.linear", "Linear"), "torch.nn.modules.linear.Linear"),
        (name("torch._utils", "_rebuild_sparse_tensor"), "torch._utils._rebuild_sparse_tensor"),
        (name("torch", "load"), "torch.load"),
        (b"ios\nsystem\n", "the instruction INST"),
        (name("collections", "OrderedDict") + b")\x81", "the instruction NEWOBJ"),
        (text("os") + text("system") + b"\x93", "os.system"),
        (b"}" + items(number(1)) + number(2) + b"s", "tuple as a key"),
        (name("x" * 100_000, "\x1b[31m"), "x" * 70),
    ],
)  # fmt: skip
def test_everything_else_is_refused_by_its_name(tmp_path, form, value, what):
    message = refused(tmp_path, form(dictionary(a=ONE, b=value), {"0": VALUES}))
    assert "holds more than tensors" in message
    assert what in message
    assert "weights_only" not in message


def test_nothing_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "pwned"), "w")

    for protocol in range(6):
        refused(tmp_path, pickle.dumps({"a": Evil()}, protocol=protocol))
    assert not (tmp_path / "pwned").exists()


def test_archives_with_code_are_refused(tmp_path):
    for record in ("archive/code/a.py", "archive/constants.pkl"):
        assert "an archive with code in it" in refused(tmp_path, zipped(b"}", {}, **{record: "x"}))
    assert "first format, of 2017" in refused(tmp_path, b"\0" * 257 + b"ustar" + b"\0" * 500)


HUGE = 2**62
BAD_TENSORS = {
    "beyond its storage": tensor(storage("Float", "0", 24), 1, (4, 6), (6, 1)),
    "strides beyond it": tensor(storage("Float", "0", 24), 0, (4, 6), (7, 1)),
    "a negative stride": tensor(storage("Float", "0", 24), 23, (24,), (-1,)),
    "a negative offset": tensor(storage("Float", "0", 24), -1, (2,), (1,)),
    "a negative side": tensor(storage("Float", "0", 24), 0, (-2, -2), (1, 1)),
    "larger than any memory": tensor(storage("Float", "0", 24), 0, (2**31 - 1,) * 3, (0, 0, 0)),
    "empty and larger": tensor(storage("Float", "0", 24), 0, (0, HUGE, HUGE), (1, 1, 1)),
    "of many axes": tensor(storage("Float", "0", 24), 0, (1,) * 100, (1,) * 100),
    "of other strides": tensor(storage("Float", "0", 24), 0, (4, 6), (6,)),
    "a storage that is not there": tensor(storage("Float", "1", 24), 0, (4, 6), (6, 1)),
    "a storage of another size": tensor(storage("Float", "0", 25), 0, (4, 6), (6, 1)),
    "a storage of another kind": tensor(storage("Double", "0", 24), 0, (4, 6), (6, 1)),
    "a huge storage": tensor(storage("Float", "0", HUGE), 0, (4, 6), (6, 1)),
    "no storage": tensor(number(3), 0, (4, 6), (6, 1)),
    "a reference to nothing": number(1) + b"Q",
    "a shape of text": call(REBUILD, storage("Float", "0", 24), number(0), text("ab"), text("cd"), b"\x89", b"}"),
    "too few arguments": call(REBUILD, storage("Float", "0", 24)),
    "a call of a number": call(number(3), number(4)),
    "its neighbours in a tuple": b"\x87",
    "an item of no list": number(1) + number(2) + b"a",
    "never stored": b"h\x07",
    "text that never comes": b"X\xff\xff\xff\x7fabc",
    "bytes that never come": b"\x8e" + b"\xff" * 7 + b"\x7fabc",
    "a number of no digits": b"Lx\n",
    "a number of very many": b"L" + b"9" * 5000 + b"L\n",
}  # fmt: skip


@FORMATS
@pytest.mark.parametrize("what", BAD_TENSORS)
def test_what_cannot_be_is_refused_before_memory_is_taken(tmp_path, form, what):
    message = refused(tmp_path, form(dictionary(good=ONE, bad=BAD_TENSORS[what]), {"0": VALUES}))
    assert "is not a whole torch checkpoint (" in message


def test_places_of_the_memo_take_no_memory(tmp_path):
    value = dictionary(a=ONE, b=number(1) + b"r\xff\xff\xff\xff" + b"0j\xff\xff\xff\xff")
    assert dict(read(tmp_path, zipped(value, {"0": VALUES})).shapes) == {"a": (4, 6)}


def test_pickles_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxcam.models.loading.pickled.MOST_STEPS", 1000)
    assert "more than 1,000 steps" in refused(tmp_path, zipped(b"N0" * 1000 + b"}", {}))


@FORMATS
def test_a_file_cut_off_anywhere_is_refused(tmp_path, form):
    whole = form(dictionary(a=ONE), {"0": VALUES})
    for length in [*range(0, len(whole), 7), len(whole) - 1]:
        assert "is not a whole torch checkpoint" in refused(tmp_path, whole[:length])


def test_a_flipped_bit_in_a_zip_file_is_found(tmp_path):
    """Its checksums: another number in a weight is another network."""
    whole = zipped(dictionary(a=ONE), {"0": VALUES})
    place = whole.index(VALUES.tobytes())
    for at in (place, place + 37, place + 95):
        changed = bytearray(whole)
        changed[at] ^= 1
        with pytest.raises(ValueError, match=r"^weights: a of .* cannot be read \(a checksum does not fit"):
            read(tmp_path, bytes(changed)).tensor("a")


@pytest.mark.parametrize("order", ["middle", "", "little" * 100])
def test_other_orders_of_bytes_are_refused(tmp_path, order):
    assert "no order of bytes" in refused(tmp_path, zipped(dictionary(a=ONE), {"0": VALUES}, order))


def test_zip_files_of_others_are_refused(tmp_path):
    assert "no data.pkl, or several" in refused(tmp_path, zipped(b"}", {}, **{"other/data.pkl": "x"}))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", pickled(b"}") + b"0" * 1000)
    assert "compressed or encrypted" in refused(tmp_path, buffer.getvalue())


def test_sizes_beyond_32_bits_stand_elsewhere_in_a_zip_file(tmp_path):
    """As torch writes files of more than 4 GiB: the directory's sizes are all ones, and an extra field has them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a/data.pkl", pickled(dictionary(a=ONE)))
        file.writestr("a/data/0", VALUES.tobytes())
    whole = buffer.getvalue()
    directory = whole.index(b"PK\1\2")
    (size,) = struct.unpack_from("<L", whole, directory + 24)
    extra = struct.pack("<HHQQ", 1, 16, size, size)
    entry = bytearray(whole[directory : directory + 46])
    struct.pack_into("<LL", entry, 20, 2**32 - 1, 2**32 - 1)
    struct.pack_into("<H", entry, 30, len(extra))
    rest = whole[directory + 46 : whole.index(b"PK\5\6")]
    changed = whole[:directory] + entry + rest[:10] + extra + rest[10:]
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 2, 2, len(rest) + 46 + len(extra), directory)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(changed), 1)
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2**16 - 1, 2**16 - 1, 2**32 - 1, 2**32 - 1, 0)
    checkpoint = read(tmp_path, changed + end + locator + last)
    np.testing.assert_array_equal(checkpoint.tensor("a"), VALUES.reshape(4, 6))


@FORMATS
def test_what_is_no_state_dict_is_told(tmp_path, form):
    for value, kind in ((b"]", "list"), (b"}", "dict"), (number(3), "int"), (ONE, "TorchTensor")):
        message = refused(tmp_path, form(value, {"0": VALUES}))
        assert f"holds no state dict, but {kind}; expected tensors by key" in message or "a storage that no" in message
