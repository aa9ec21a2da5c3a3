"""What importing jaxcam adds to importing jax and flax.nnx: counted, in a fresh process."""

import ast
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import jaxcam

CODE = """
import sys, jax, flax.nnx
before = set(sys.modules)
import jaxcam
print(*sorted(set(sys.modules) - before))
"""
LATER = (
    *("scipy", "optax", "rich", "keras", "torch", "huggingface_hub", "matplotlib", "equinox", "tensorflow", "pandas"),
    *("PIL.ImageFont", "PIL.ImageDraw", "concurrent.futures.process", "multiprocessing.pool"),
    *(f"jaxcam.{room}" for room in ("datasets", "evaluation", "learning", "metrics", "models", "pages", "scenes")),
    *("jaxcam.verification", "jaxcam.commands"),
)
OF_A_FUNCTION = """
import sys, jax.numpy as jnp, jaxcam
jaxcam.explain(lambda x: jnp.tanh(x).mean((1, 2)) @ jnp.eye(3), jnp.ones((1, 4, 4, 3)))
print(*sorted(sys.modules))
"""
OWN = ("jaxcam",)
MOST = 40


def test_importing_adds_little():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    added = done.stdout.split()
    assert "jaxcam.explanation.explain" in added
    assert [name for name in added if any(name == later or name.startswith(f"{later}.") for later in LATER)] == []
    foreign = [
        name for name in added if name.split(".")[0] not in OWN and name.split(".")[0] not in sys.stdlib_module_names
    ]
    assert len(foreign) <= MOST, foreign


@pytest.mark.thorough
def test_a_model_of_no_flax_is_explained_without_it():
    done = subprocess.run([sys.executable, "-c", OF_A_FUNCTION], capture_output=True, text=True, check=True)
    imported = done.stdout.split()
    assert "jaxcam.cuts.refusals" in imported
    assert "flax.nnx" not in imported


def _told_to_type_checkers():
    """The names under `if TYPE_CHECKING`, with the modules that they come from."""
    tree = ast.parse(Path(jaxcam.__file__).read_text(encoding="utf-8"))
    (block,) = [node.body for node in tree.body if isinstance(node, ast.If) and getattr(node.test, "id", "")]
    return [(alias.name, node.module) for node in block for alias in node.names]


@pytest.mark.parametrize(("name", "module"), _told_to_type_checkers())
def test_what_is_read_later_is_what_type_checkers_are_told(name, module):
    found = importlib.import_module(f"jaxcam.{name}" if module == "jaxcam" else module)
    assert getattr(jaxcam, name) is (found if module == "jaxcam" else getattr(found, name))
    assert name in dir(jaxcam)


def test_type_checkers_are_told_all_that_is_read_later():
    told = {name for name, _ in _told_to_type_checkers()}
    assert {*jaxcam._LATER, *(name for names in jaxcam._LATER.values() for name in names)} == told
    with pytest.raises(AttributeError, match="evaluat_"):
        jaxcam.evaluat_


def test_the_lowest_versions_that_are_tried_are_those_declared():
    root = Path(__file__).parent
    lines = (root / "lowest-requirements.txt").read_text().splitlines()
    tried = dict(line.split("==") for line in lines if not line.startswith("#"))
    declared = tomllib.loads((root.parent / "pyproject.toml").read_text())["project"]["dependencies"]
    lowest = dict(line.split(">=") for line in declared)
    assert tried.keys() == lowest.keys()
    for name, version in lowest.items():
        assert tried[name] in (version, f"{version}.0")
