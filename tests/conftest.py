"""Every test runs in float64, with strict dtype promotion, no silent rank promotion, and checked shape annotations."""

import importlib
import importlib.util
import os
import re
import sys
import warnings
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxtyping import install_import_hook

# The hook must be in place before the first import of the package: it checks every annotated shape while tests run.
_hook = install_import_hook("jaxcam", "beartype.beartype")

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

import jaxtyping
import pytest


@pytest.fixture
def unchecked():
    """As users run it: without the shape checks of the tests, which would answer bad input first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def torchvision():
    """The torchvision package. Its models and transforms are pure Python and work beside any build of torch."""
    torch = pytest.importorskip("torch")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # A compiled part that does not fit this torch stops the import at each operator that it would have declared.
        for _ in range(40):
            try:
                package = importlib.import_module("torchvision")
                break
            except RuntimeError as error:
                missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
                if missing is None:
                    raise
                torch.library.define(f"torchvision::{missing.group(1)}", "(Tensor x) -> Tensor")
                for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                    del sys.modules[name]
        importlib.import_module("torchvision.transforms")
    return package


@pytest.fixture(scope="session")
def data():
    """The folder of real weights and photographs that JAXCAM_DATA names; without it these tests are skipped."""
    folder = os.environ.get("JAXCAM_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("JAXCAM_DATA does not name a folder with real weights and photographs")
    return Path(folder)
