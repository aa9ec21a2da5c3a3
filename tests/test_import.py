"""What importing jaxcam adds to importing jax and flax.nnx: counted, in a fresh process."""

import subprocess
import sys
import tomllib
from pathlib import Path

CODE = """
import sys, jax, flax.nnx
before = set(sys.modules)
import jaxcam
print(*sorted(set(sys.modules) - before))
"""
LATER = (
    *("scipy", "optax", "rich", "keras", "torch", "huggingface_hub", "matplotlib", "equinox", "tensorflow", "pandas"),
    *("PIL.ImageFont", "PIL.ImageDraw", "concurrent.futures.process", "multiprocessing.pool"),
)
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


def test_the_lowest_versions_that_are_tried_are_those_declared():
    root = Path(__file__).parent
    lines = (root / "lowest-requirements.txt").read_text().splitlines()
    tried = dict(line.split("==") for line in lines if not line.startswith("#"))
    declared = tomllib.loads((root.parent / "pyproject.toml").read_text())["project"]["dependencies"]
    lowest = dict(line.split(">=") for line in declared)
    assert tried.keys() == lowest.keys()
    for name, version in lowest.items():
        assert tried[name] in (version, f"{version}.0")
