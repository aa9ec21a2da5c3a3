"""Every test runs in float64, with strict dtype promotion, no silent rank promotion, and checked shape annotations."""

import collections
import gc
import importlib.util
import os
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# As many workers as cores: threads of torch that wait for each other take three times as long as one alone.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import annotations

# Traced programs are many small objects that live on. To look at them took 0.8 s of cuts/test_adapt.py and its imports.
gc.set_threshold(10_000, 10, 10)
annotations.install()  # before the first import of the package

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

import cost
import hurry
import jaxtyping
import pytest
import support


def pytest_addoption(parser):
    parser.addoption("--cost", action="store_true", help="what each file compiles, takes and needs")
    parser.addoption("--cost-lines", metavar="FILE", help="the same of each test, as lines of JSON")


def pytest_configure(config):
    """Compile what is not slow in a hurry: thousands of programs, most of which run once.

    Slow tests compile as users do. What one worker, file or command of a run has compiled, the others find in a folder
    that is deleted at the run's end.
    """
    chosen = config.option.markexpr
    if chosen and "slow" not in chosen.replace("not slow", ""):
        os.environ.setdefault("XLA_FLAGS", " ".join(hurry.ONCE))
    if config.option.cost or config.option.cost_lines:
        config.pluginmanager.register(cost.Cost(config.option.cost_lines))
    if not hasattr(config, "workerinput"):  # workers and processes that tests start inherit the environment
        folder = tempfile.TemporaryDirectory(prefix="jaxcam-programs-", ignore_cleanup_errors=True)
        config.add_cleanup(folder.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
        # To write a program down takes 10 to 20 ms, which most of them take to compile.
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
        jax.config.update("jax_compilation_cache_dir", folder.name)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    """Of the cases of a test with `sample(every, first=0)` all but every so many-th are thorough."""
    places = collections.Counter()
    for item in items:
        mark = item.get_closest_marker("sample")
        if mark:
            function = (item.path, item.cls, item.originalname)
            if (places[function] - mark.kwargs.get("first", 0)) % mark.args[0]:
                item.add_marker("thorough")
            places[function] += 1


def pytest_collection_finish():
    """What was imported stays: the collector of garbage need not look at it again and again."""
    gc.collect()
    gc.freeze()


_MAX_PROGRAMS = 300
_TOO_MANY = 3000
"""Each takes several of the 65,530 memory maps that Linux gives a process; without one left XLA crashes."""
_compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: _compiled.append(event) if event == cost.COMPILED else None
)


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Drops at a file's end what was compiled: at 2 to 4 MiB a program a worker would need gigabytes."""
    yield
    _drop_programs(above=_MAX_PROGRAMS)


@pytest.fixture(autouse=True)
def not_thousands():
    """Drops them within a file that compiles thousands, as that of random heads does when many are wanted."""
    yield
    _drop_programs(above=_TOO_MANY)


def _drop_programs(*, above):
    if len(_compiled) > above:  # to drop them takes a second
        jax.clear_caches()
        gc.collect()
        _compiled.clear()


@pytest.fixture
def unchecked():
    """As users run it: without the shape checks of the tests, which would answer bad input first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def torchvision():
    """The torchvision package."""
    pytest.importorskip("torch")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    return support.imported_torchvision()


@pytest.fixture(scope="session")
def data():
    """The folder of real weights and photographs that JAXCAM_DATA names; without it these tests are skipped."""
    folder = os.environ.get("JAXCAM_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("JAXCAM_DATA does not name a folder with real weights and photographs")
    return Path(folder)
