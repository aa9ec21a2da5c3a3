"""Progress: what a terminal, a notebook and a log file get to see."""

import io
import sys
import time
import types

import pytest

from jaxcam import progress as module
from jaxcam.progress import Progress, progress, silent


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(monkeypatch, stream, *, total=40, done=0, seconds=1.5, **settings):
    monkeypatch.setattr(module, "QUIET", 0.05)
    for name, value in settings.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress(total=total, label="count", done=done) as bar:
        for i in range(done, 40):
            time.sleep(seconds / (40 - done))
            bar.update(i + 1)
    return stream.getvalue()


def test_a_log_gets_plain_lines_at_every_tenth(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(module, "_TICK", 0.02)
    lines = run(monkeypatch, io.StringIO()).splitlines()
    assert "\x1b" not in "".join(lines)
    assert 5 <= len(lines) <= 12
    counts = [int(line.split("/")[0].split()[-1]) for line in lines]
    assert counts == sorted(counts)
    assert lines[-1].startswith("count 40/40 ")
    rate = float(lines[-1].split("/s")[0].split()[-1])
    assert 10 < rate < 40


@pytest.mark.thorough
def test_a_log_hears_of_a_step_that_takes_long(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(module, "QUIET", 0.05)
    monkeypatch.setattr(module, "SILENCE", 0.3)
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress(total=1, label="compile"):
        time.sleep(1.2)
    assert stream.getvalue().count("compile 0/1") in (3, 4, 5)


def test_a_log_is_told_the_end_once(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(module, "QUIET", 0.05)
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress(total=1, label="count") as bar:
        bar.update(1)
        time.sleep(0.6)
    assert stream.getvalue().count("count 1/1") == 1


@pytest.mark.thorough
def test_one_long_step_tells_how_long_it_has_been_at_it(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(module, "QUIET", 1.05)
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress(total=None, label="explain: Score-CAM", counts=False):
        time.sleep(1.4)
    # The time in which nothing is said counts.
    assert set(stream.getvalue().splitlines()) == {"explain: Score-CAM 0:00:01"}


def test_a_terminal_gets_one_line_drawn_anew(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    text = run(monkeypatch, Terminal(), seconds=0.5)
    assert "\x1b[2K" in text
    assert text.count("\n") == 1
    assert "40/40" in text


def test_a_notebook_gets_one_place(monkeypatch):
    shown = []

    class Place:
        def update(self, data, *, raw):
            assert raw
            shown.append(data["text/plain"])

    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    display = types.SimpleNamespace(display=lambda *_, **__: Place())
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    assert run(monkeypatch, io.StringIO(), seconds=0.5) == ""
    assert shown[-1].startswith("count 40/40")


def test_short_runs_say_nothing(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress(range(5), total=5, label="count")) == list(range(5))
    assert stream.getvalue() == ""


@pytest.mark.thorough
def test_what_was_done_before_does_not_count_for_the_rate(monkeypatch):
    lines = run(monkeypatch, io.StringIO(), done=30, seconds=1.0, _TICK=0.02).splitlines()
    rate = float(lines[-1].split("/s")[0].split()[-1])
    assert 3 < rate < 15


def test_errors_pass(monkeypatch):
    monkeypatch.setattr(module, "QUIET", 0.01)
    monkeypatch.setattr(sys, "stderr", io.StringIO())

    def fail():
        with Progress(total=None, label="count") as bar:
            bar.update(1)
            time.sleep(0.3)
            raise KeyError

    with pytest.raises(KeyError):
        fail()


def test_of_steps_within_steps_the_outermost_tells(monkeypatch):
    monkeypatch.setattr(module, "QUIET", 0.01)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress(total=2, label="outer") as outer:
        with Progress(total=9, label="inner"):
            time.sleep(0.1)
        outer.update(2)
        time.sleep(0.3)
    assert "outer 2/2" in stream.getvalue()
    assert "inner" not in stream.getvalue()
    with Progress(total=1, label="after"):
        time.sleep(0.1)
    assert "after" in stream.getvalue()


def test_silence(monkeypatch):
    monkeypatch.setattr(module, "QUIET", 0.01)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with silent(), Progress(total=2, label="count"):
        time.sleep(0.1)
    assert stream.getvalue() == ""
