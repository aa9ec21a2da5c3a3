"""Calls an exported explanation in a process that has JAX and NumPy only, for the test beside.

Arguments: the program, an archive of its parameters and inputs, and where the results go.
"""

import sys

import jax
import numpy as np
from jax import export

program, given, results = sys.argv[1:]
with open(program, "rb") as file:  # noqa: PTH123
    exported = export.deserialize(bytearray(file.read()))
arrays = np.load(given)
parameters = [arrays[f"parameter_{i}"] for i in range(sum(name.startswith("parameter_") for name in arrays))]
found = {}
for n in (1, 3):
    made = jax.jit(exported.call)(parameters, arrays[f"images_{n}"], arrays[f"class_idx_{n}"])
    found |= {f"{name}_{n}": np.asarray(value) for name, value in made.items()}
assert not {"jaxcam", "flax"} & {*sys.modules}
np.savez(results, **found)
