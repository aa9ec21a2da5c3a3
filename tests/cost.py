"""What the tests cost, file by file: `pytest --cost` ends with a table of programs compiled, CPU seconds and memory.

CPU seconds are those of all threads of the process and of the processes that it has waited for: other work on the
machine does not change them much. A program is what XLA compiles: a jitted function for one set of shapes, but also
every single operation on a JAX array outside of jit. A file with many more programs than tests keeps its data in JAX
arrays where NumPy would do. "Tracing" is Python's part: to read functions as jaxprs (the inner ones of jits inside of
jits are counted twice), and to write them down for XLA; it and "compiling" are seconds by the clock.
`--cost-lines FILE` writes a line of JSON for each test as it ends.
"""

import collections
import json
import pathlib
import resource
import sys
import time

import jax
import pytest

COMPILED = "/jax/core/compile/backend_compile_duration"
_TRACED = ("/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration")
_COLUMNS = ("seconds", "tracing", "compiling", "programs", "tests")


class Cost:
    """Counts while tests run; a worker of pytest-xdist hands its counts to the process that prints."""

    def __init__(self, lines=None):
        self.files = collections.defaultdict(lambda: dict.fromkeys((*_COLUMNS, "clock"), 0))
        self.lines = lines and pathlib.Path(lines)
        self.peaks = {}
        self.collecting = 0
        self.test = None
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event, seconds, **_):
        if self.test is None:
            return
        if event == COMPILED:
            self.test["programs"] += 1
            self.test["compiling"] += seconds
        elif event in _TRACED:
            self.test["tracing"] += seconds

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self):
        start = cpu_seconds()
        try:
            return (yield)
        finally:
            self.collecting = cpu_seconds() - start

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.test = dict.fromkeys((*_COLUMNS, "clock"), 0) | {"tests": 1}
        start, clock = cpu_seconds(), time.perf_counter()
        try:
            return (yield)
        finally:
            self.test |= {"seconds": cpu_seconds() - start, "clock": time.perf_counter() - clock}
            for name, value in self.test.items():
                self.files[item.location[0]][name] += value
            self.files[item.location[0]]["peak"] = _peak()
            if self.lines:
                with self.lines.open("a") as file:
                    file.write(json.dumps({"test": item.nodeid, "peak": _peak()} | self.test) + "\n")
            self.test = None

    def pytest_sessionfinish(self, session):
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["cost"] = (dict(self.files), _peak(), self.collecting)
        elif self.files:
            self.peaks["this process"] = _peak()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        files, peak, collecting = (
            node.workeroutput.get("cost", ({}, 0, 0)) if hasattr(node, "workeroutput") else ({}, 0, 0)
        )
        for file, row in files.items():  # more than one worker may have run tests of a file
            for name, value in row.items():
                seen = self.files[file].get(name, 0)
                self.files[file][name] = max(seen, value) if name == "peak" else seen + value
        self.peaks[node.gateway.id] = peak
        self.collecting += collecting

    def pytest_terminal_summary(self, terminalreporter):
        write = terminalreporter.write_line
        terminalreporter.section("cost")
        write(f"{'CPU s':>8} {'tracing':>10} {'compiling':>10} {'programs':>9} {'tests':>6} {'peak MiB':>9}")
        for file, row in sorted(self.files.items(), key=lambda entry: -entry[1]["seconds"]):
            write(_columns(row) + f" {row['peak']:>9.0f}  {file}")
        in_all = {name: sum(row[name] for row in self.files.values()) for name in _COLUMNS}
        write(_columns(in_all) + " " * 12 + "in all")
        write(f"{self.collecting:>8.1f} to import and to collect, in all workers")
        write("peak of each worker, MiB: " + ", ".join(f"{name} {peak:.0f}" for name, peak in self.peaks.items()))


def _columns(row):
    return "{seconds:>8.1f} {tracing:>10.1f} {compiling:>10.1f} {programs:>9} {tests:>6}".format(**row)


def cpu_seconds():
    """What this process has taken so far, and its children that have ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _peak():
    """Largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
