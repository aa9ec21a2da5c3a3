"""Decoding by threads: the same pixels in the same order, whatever is wrong with a file and however it ends."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcam.datasets import views as decoded
from jaxcam.datasets.decoding import checked_num_workers
from jaxcam.datasets.sources import source_of
from jaxcam.images import Preprocessing, read_image

SMALL = Preprocessing(resize=20, crop=16)
NUM = 30


@pytest.fixture
def folder(tmp_path):
    """Pictures in several formats and depths, two of them damaged."""
    rng = np.random.default_rng(0)
    for i in range(NUM):
        pixels = rng.integers(0, 256, (24 + i, 40 - i // 2, 3)).astype(np.uint8)
        name = tmp_path / f"{i:02}"
        if i % 5 == 1:
            Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257 + 3).save(f"{name}.png")
        elif i % 5 == 2:
            Image.fromarray(np.concatenate([pixels, pixels[:, :, :1]], axis=2), "RGBA").save(f"{name}.png")
        else:
            Image.fromarray(pixels).save(f"{name}.jpg")
    (tmp_path / "07.png").write_bytes(b"")
    (tmp_path / "13.jpg").write_bytes((tmp_path / "13.jpg").read_bytes()[:300])
    return tmp_path


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("jaxcam")]


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
def nothing_left():
    """No thread and no file may be left over."""
    before = open_files()
    yield
    assert threads() == []
    assert open_files() == before


@pytest.fixture
def reader(monkeypatch):
    """Calls a function with the number of each file before it is read."""

    def install(before):
        original = decoded.read_view

        def read(path, preprocessing):
            before(int(Path(path).stem))
            return original(path, preprocessing)

        monkeypatch.setattr(decoded, "read_view", read)

    return install


def views(folder, num_workers, indices=range(NUM), **options):
    return source_of(folder).views(indices, preprocessing=SMALL, num_workers=num_workers, **options)


@pytest.mark.parametrize("preprocessing", [SMALL, Preprocessing(resize=12), Preprocessing(crop=16), Preprocessing()])
@pytest.mark.sample(2)
def test_the_same_views_with_any_number_of_threads(folder, preprocessing):
    order = [*range(NUM), 3, 29, 0]
    paths = sorted(folder.iterdir())
    options = ({"num_workers": 0}, {"num_workers": 2}, {"num_workers": 1, "prefetch": 1}, {"num_workers": 4})
    for given in (*options, {"num_workers": 1, "prefetch": 50}, {}):
        found = list(source_of(folder).views(order, preprocessing=preprocessing, **given))
        assert [view.index for view in found] == order
        for view in found:
            path = paths[view.index]
            assert view.name == path.name
            if view.index in (7, 13):
                assert view.image is None
                assert path.name in view.error
                continue
            assert view.error is None
            assert view.image.dtype == np.float32
            np.testing.assert_array_equal(view.image, preprocessing.view(read_image(path)))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_is_wrong_with_a_file_is_one_bad_picture(folder, monkeypatch, reader, num_workers):
    def before(i):
        if i == 3:
            raise MemoryError
        if i == 4:
            raise RecursionError("too\ndeep")

    reader(before)
    Image.new("RGB", (300, 300)).save(folder / "05.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60_000)
    (folder / "08.jpg").write_bytes(b"GIF89a no picture")
    source = source_of(folder)
    (folder / "06.png").unlink()
    found = list(source.views(range(NUM), preprocessing=SMALL, num_workers=num_workers))
    errors = {view.index: view.error for view in found if view.error is not None}
    assert [view.index for view in found if view.image is None] == list(errors) == [3, 4, 5, 6, 7, 8, 13]
    assert errors[3] == "not enough memory (MemoryError)"
    assert errors[4] == "RecursionError: too deep"
    reasons = {5: "too many pixels", 6: "does not exist", 7: "is empty", 8: "damaged", 13: "truncated"}
    for i, reason in reasons.items():
        assert reason in errors[i]
        assert f"{i:02}." in errors[i]
        assert "\n" not in errors[i]


def test_threads_decode_at_the_same_time_and_without_them_the_caller_does(folder, reader):
    met, who = threading.Barrier(2, timeout=30), set()

    def before(i):
        who.add(threading.current_thread())
        if i < 2:
            met.wait()  # breaks, and so makes a bad picture, unless two come

    reader(before)
    assert all(view.error is None for view in views(folder, 2, range(6)))
    assert len(who) == 2
    assert threading.current_thread() not in who
    who.clear()
    assert [view.error for view in views(folder, 0, range(2, 6))] == [None] * 4
    assert who == {threading.current_thread()}


def test_the_order_is_kept_when_a_later_file_is_done_first(folder, reader):
    done = threading.Event()

    def before(i):
        if i == 0:
            assert done.wait(30)
        if i == 3:
            done.set()

    reader(before)
    assert [(view.index, view.error) for view in views(folder, 2, range(6))] == [(i, None) for i in range(6)]


def test_only_so_many_are_taken_ahead(folder, reader):
    asked, read = [], []
    reader(read.append)

    def indices():
        for i in range(NUM):
            asked.append(i)
            yield i

    for num_workers, prefetch, ahead in ((1, None, 4), (2, None, 8), (2, 3, 3), (2, 1, 1), (0, 5, 1)):
        asked.clear(), read.clear()
        with contextlib.closing(views(folder, num_workers, indices(), prefetch=prefetch)) as found:
            next(found)
            assert len(asked) == ahead
            next(found)
            assert len(asked) == ahead + 1
        assert len(read) <= ahead + 1


def test_pictures_in_memory_need_no_threads():
    pictures = [np.full((4, 4, 3), i / 10, np.float32) for i in range(5)]
    for view in source_of(pictures).views(range(5), preprocessing=Preprocessing(), num_workers=2):
        np.testing.assert_array_equal(view.image, pictures[view.index])
        assert threads() == []


def test_pictures_in_memory_among_files_keep_their_places(folder):
    grey = np.full((20, 20, 3), 0.5, np.float32)
    path = folder / "00.jpg"
    source = source_of([path, grey, path, path, None, grey, path])
    found = list(source.views(range(7), preprocessing=SMALL, num_workers=2))
    assert [view.index for view in found] == list(range(7))
    assert [view.error is None for view in found] == [True] * 4 + [False] + [True] * 2
    for i in (0, 2, 3, 6):
        np.testing.assert_array_equal(found[i].image, SMALL.view(read_image(path)))


# How it ends


def test_closing_early_ends_the_threads(folder):
    found = views(folder, 2)
    next(found)
    assert len(threads()) == 2
    found.close()
    assert threads() == []
    views(folder, 2).close()  # before anything was asked for


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_exception_in_the_consumer_ends_the_threads(folder, error):
    def consume():
        for view in views(folder, 2):
            if view.index == 4:
                raise error

    with pytest.raises(error):
        consume()


def test_an_exception_in_the_indices_ends_the_threads(folder):
    def indices():
        yield from range(12)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(views(folder, 1, indices()))


def test_ctrl_c_drops_what_has_not_begun(folder, reader):
    begun = []

    def before(i):
        begun.append(i)
        if i == 4:  # the caller waits for this one
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    reader(before)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            list(views(folder, 1, prefetch=20))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert begun == [0, 1, 2, 3, 4]
    assert threads() == []


def test_the_number_of_threads(unchecked, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert checked_num_workers(None) == 4
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert checked_num_workers(None) == 1
    assert checked_num_workers(9) == 9
    assert checked_num_workers(0) == 0
    for wrong, error in ((True, TypeError), (1.0, TypeError), (-1, ValueError)):
        with pytest.raises(error, match="num_workers"):
            checked_num_workers(wrong)
