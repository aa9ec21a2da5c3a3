"""What the tests cost, file by file: `pytest --cost` ends with a table of programs compiled, seconds and memory.

A program is what XLA compiles: a jitted function for one set of shapes, but also every single operation on a JAX array
outside of jit. A file with many more programs than tests keeps its data in JAX arrays where NumPy would do.
"""

import collections
import resource
import sys
import time

import jax
import pytest

COMPILED = "/jax/core/compile/backend_compile_duration"


class Cost:
    """Counts while tests run; a worker of pytest-xdist hands its counts to the process that prints."""

    def __init__(self):
        self.files = collections.defaultdict(lambda: dict.fromkeys(("tests", "programs", "compiling", "seconds"), 0))
        self.peaks = {}
        self.file = None
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event, seconds, **_):
        if event == COMPILED and self.file:
            self.files[self.file]["programs"] += 1
            self.files[self.file]["compiling"] += seconds

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.file, start = item.location[0], time.perf_counter()
        try:
            return (yield)
        finally:
            self.files[self.file]["tests"] += 1
            self.files[self.file]["seconds"] += time.perf_counter() - start
            self.files[self.file]["peak"] = _peak()

    def pytest_sessionfinish(self, session):
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["cost"] = (dict(self.files), _peak())
        elif self.files:
            self.peaks["this process"] = _peak()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        files, peak = node.workeroutput.get("cost", ({}, 0)) if hasattr(node, "workeroutput") else ({}, 0)
        self.files.update(files)
        self.peaks[node.gateway.id] = peak

    def pytest_terminal_summary(self, terminalreporter):
        write = terminalreporter.write_line
        terminalreporter.section("cost")
        write(f"{'seconds':>8} {'compiling':>10} {'programs':>9} {'tests':>6} {'peak MiB':>9}")
        for file, row in sorted(self.files.items(), key=lambda entry: -entry[1]["seconds"]):
            write(
                f"{row['seconds']:>8.1f} {row['compiling']:>10.1f} {row['programs']:>9} {row['tests']:>6} "
                f"{row['peak']:>9.0f}  {file}"
            )
        in_all = [
            sum(row[name] for row in self.files.values()) for name in ("seconds", "compiling", "programs", "tests")
        ]
        write("{:>8.1f} {:>10.1f} {:>9} {:>6}".format(*in_all) + " " * 12 + "in all")
        write("peak of each worker, MiB: " + ", ".join(f"{name} {peak:.0f}" for name, peak in self.peaks.items()))


def _peak():
    """Largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
