"""What importing jaxcam adds to importing jax and flax.nnx: counted, in a fresh process."""

import subprocess
import sys

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
