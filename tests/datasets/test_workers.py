"""Decoding in worker processes: the same pixels in the same order, whatever happens to the workers."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcam.datasets import decoding as workers
from jaxcam.datasets.decoding import Decoder, checked_num_workers, packed
from jaxcam.datasets.sources import source_of
from jaxcam.datasets.views import Seen, seen_file
from jaxcam.images import Preprocessing

SMALL = Preprocessing(resize=20, crop=16)


@pytest.fixture
def folder(tmp_path):
    """Thirty pictures in several formats and depths, two of them damaged."""
    rng = np.random.default_rng(0)
    for i in range(30):
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


def children():
    """The worker processes of this one, and what is left of any that ended."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent, *_ = (place / "stat").read_text().rpartition(")")[2].split()
            if int(parent) == os.getpid() and (state == "Z" or "worker" in (place / "cmdline").read_text()):
                found.append(int(place.name))
    return found


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
def nothing_left():
    """No process, no thread and no file descriptor may be left over."""
    before = open_files(), threading.active_count()
    assert children() == []
    yield
    assert children() == []
    assert (open_files(), threading.active_count()) == before


def same(views, expected):
    assert len(views) == len(expected)
    for view, wanted in zip(views, expected, strict=True):
        assert (view.index, view.name, view.error) == (wanted.index, wanted.name, wanted.error)
        if wanted.image is None:
            assert view.image is None
        else:
            assert view.image.dtype == np.float32
            np.testing.assert_array_equal(view.image, wanted.image)


@pytest.mark.parametrize("preprocessing", [SMALL, Preprocessing()])
def test_the_same_views_with_and_without_workers(folder, preprocessing):
    source = source_of(folder)
    order = [*range(30), 3, 29, 0]
    here = list(source.views(order, preprocessing=preprocessing, num_workers=0))
    assert [view.index for view in here] == order
    assert [view.index for view in here if view.error] == [7, 13]
    same(list(source.views(order, preprocessing=preprocessing, num_workers=2)), here)
    same(list(source.views(order, preprocessing=preprocessing, num_workers=1, prefetch=1)), here)
    same(list(source.views(order[:3], preprocessing=preprocessing, num_workers=1, prefetch=50)), here[:3])


def test_packing_is_exact_or_left_alone():
    every = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    exact = np.divide(every, np.float32(255), dtype=np.float32)
    sent = packed(Seen(exact, 1, 2)).image
    assert sent.dtype == np.uint8
    np.testing.assert_array_equal(sent, every)
    finer = exact.copy()
    finer[100, 0, 0] = np.nextafter(finer[100, 0, 0], np.float32(1))
    np.testing.assert_array_equal(packed(Seen(finer, 1, 2)).image, finer)
    assert packed(Seen(None, error="no")) == Seen(None, error="no")


def slow_folder(tmp_path, num):
    """Pictures that take some milliseconds each."""
    pixels = np.random.default_rng(1).integers(0, 256, (400, 400, 3)).astype(np.uint8)
    for i in range(num):
        pixels[0, 0] = i
        Image.fromarray(pixels).save(tmp_path / f"{i:03}.png", compress_level=1)
    return tmp_path


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_nothing_is_lost(tmp_path):
    source = source_of(slow_folder(tmp_path, 24))
    here = list(source.views(range(24), preprocessing=SMALL, num_workers=0))
    found = []
    with contextlib.closing(source.views(range(24), preprocessing=SMALL, num_workers=2)) as views:
        for view in views:
            found.append(view)
            if view.index in (1, 8):
                victim = children()[0]
                os.kill(victim, signal.SIGKILL)
    same(found, here)


@pytest.fixture
def crashing(monkeypatch, tmp_path):
    """A worker that kills itself over the file names in $CRASH, as a decoder's crash would."""
    package = tmp_path / "sabotage"
    package.mkdir()
    (package / "crashing_worker.py").write_text(
        textwrap.dedent("""
            import os, signal
            from jaxcam.datasets import decode_worker as worker
            decode = worker.seen_file
            def crash(path, preprocessing):
                if os.path.basename(path) in os.environ["CRASH"].split():
                    os.kill(os.getpid(), signal.SIGSEGV)
                print("a library that talks")
                return decode(path, preprocessing)
            worker.seen_file = crash
            try:
                worker.main()
            except EOFError:
                pass
        """)
    )
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.setattr(workers, "_MODULE", "crashing_worker")
    return lambda *names: monkeypatch.setenv("CRASH", " ".join(names))


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_image_that_crashes_the_decoder_is_bad_and_the_others_are_not(folder, crashing, num_workers):
    crashing("05.jpg", "06.png")
    source = source_of([*sorted(folder.glob("0*.*"))])
    here = list(source.views(range(10), preprocessing=SMALL, num_workers=0))
    found = list(source.views(range(10), preprocessing=SMALL, num_workers=num_workers))
    for i in (5, 6):
        assert found[i].image is None
        assert "decoding ended the worker process, 2 times (signal 11)" in found[i].error
        assert f"0{i}." in found[i].error
        found[i] = here[i]
    same(found, here)


@pytest.mark.slow
def test_a_worker_that_is_dead_before_it_is_asked_again_is_blamed_on_the_first(folder, crashing, monkeypatch):
    class Watched(workers._Worker):
        def ask(self, message):
            super().ask(message)
            if isinstance(message, str) and message.endswith("05.jpg"):
                self.process.wait(60)

    monkeypatch.setattr(workers, "_Worker", Watched)
    crashing("05.jpg")
    source = source_of([*sorted(folder.glob("0*.*"))])
    here = list(source.views(range(10), preprocessing=SMALL, num_workers=0))
    found = list(source.views(range(10), preprocessing=SMALL, num_workers=1))
    assert "decoding ended the worker process, 2 times (signal 11)" in found[5].error
    found[5] = here[5]
    same(found, here)


@pytest.mark.slow
def test_workers_that_keep_dying_end_it(folder, crashing, monkeypatch):
    monkeypatch.setattr(workers, "_DEATHS_IN_A_ROW", 3)
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    crashing(*names[3:])
    found = []
    with pytest.raises(RuntimeError, match=r"keep ending \(signal 11\).*num_workers=0"):
        found.extend(source_of(folder).views(range(30), preprocessing=SMALL, num_workers=1))


def test_workers_that_cannot_start_end_it(folder, monkeypatch, capfd):
    monkeypatch.setattr(workers, "_DEATHS_IN_A_ROW", 3)
    monkeypatch.setattr(workers, "_MODULE", "jaxcam.there_is_no_such_module")
    with pytest.raises(RuntimeError, match=r"keep ending .*standard error"):
        list(source_of(folder).views(range(30), preprocessing=SMALL, num_workers=2))
    assert "there_is_no_such_module" in capfd.readouterr().err
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(RuntimeError, match="keep ending"):
        list(source_of(folder).views(range(30), preprocessing=SMALL, num_workers=2))


def test_closing_early_ends_the_workers(folder):
    views = source_of(folder).views(range(30), preprocessing=SMALL, num_workers=2)
    next(views)
    assert len(children()) == 2
    views.close()
    assert children() == []
    # Closed before anything was asked for, and while the workers still start.
    source_of(folder).views(range(30), preprocessing=SMALL, num_workers=2).close()
    with Decoder(SMALL, 2) as decoder:
        for path in sorted(folder.glob("*.jpg")):
            decoder.submit(path)
    assert children() == []


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_exception_in_the_consumer_ends_the_workers(folder, error):
    def consume():
        for view in source_of(folder).views(range(30), preprocessing=SMALL, num_workers=2):
            if view.index == 4:
                raise error

    with pytest.raises(error):
        consume()
    assert children() == []


@pytest.mark.slow
def test_an_exception_in_the_indices_ends_the_workers(folder):
    def indices():
        yield from range(12)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(source_of(folder).views(indices(), preprocessing=SMALL, num_workers=1))
    assert children() == []


@pytest.mark.slow
def test_a_script_without_main_guard_and_the_end_of_its_process(folder, tmp_path):
    # A package of this name in the working folder must not get in the way of the workers.
    (tmp_path / "work" / "jaxcam").mkdir(parents=True)
    (tmp_path / "work" / "jaxcam" / "__init__.py").write_text("raise SystemExit('the wrong package')")
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
            import os, signal, sys
            sys.path.insert(0, {str(Path(workers.__file__).parents[2])!r})
            from jaxcam.datasets.sources import source_of
            from jaxcam.images import Preprocessing
            views = source_of({str(folder)!r}).views(
                range(30), preprocessing=Preprocessing(resize=20, crop=16), num_workers=1, prefetch=2)
            next(views)
            sys.stdout.write(os.popen(f"ps -o pid= --ppid {{os.getpid()}}").read())
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        """)
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path / "work", capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    started = [int(line) for line in done.stdout.split()]
    assert started
    deadline = time.monotonic() + 10
    while any(is_worker(pid) for pid in started) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(is_worker(pid) for pid in started)


def is_worker(pid):
    try:
        return b"decode_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_pictures_in_memory_need_no_workers():
    pictures = [np.full((4, 4, 3), i / 10, np.float32) for i in range(5)]
    for view in source_of(pictures).views(range(5), preprocessing=Preprocessing(), num_workers=2):
        np.testing.assert_array_equal(view.image, pictures[view.index])
        assert children() == []


def test_workers_are_asked_for_only_so_far_ahead(folder):
    asked = []

    def indices():
        for i in range(30):
            asked.append(i)
            yield i

    with contextlib.closing(source_of(folder).views(indices(), preprocessing=SMALL, num_workers=1)) as views:
        next(views)
        assert len(asked) == 4
        next(views)
        assert len(asked) == 5


def test_the_number_of_workers(unchecked, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert checked_num_workers(None) == 4
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert checked_num_workers(None) == 1
    assert checked_num_workers(9) == 9
    for wrong, error in ((True, TypeError), (1.0, TypeError), (-1, ValueError)):
        with pytest.raises(error, match="num_workers"):
            checked_num_workers(wrong)


def test_out_of_memory_is_one_bad_image(folder, monkeypatch):
    def no_memory(path):
        raise MemoryError

    monkeypatch.setattr("jaxcam.datasets.views.read_image", no_memory)
    assert seen_file(folder / "00.jpg", SMALL) == Seen(None, error="not enough memory (MemoryError)")
