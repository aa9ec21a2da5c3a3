"""What importing jaxcam adds to importing jax and flax.nnx: python tests/benchmarks/import_time.py [runs]."""

import os
import statistics
import subprocess
import sys
import tempfile

CODE = """
import time
start = time.perf_counter()
import jax, flax.nnx
between = time.perf_counter()
import jaxcam
print(between - start, time.perf_counter() - between)
"""


def main(runs: int = 7) -> None:
    """Fresh processes, one after the other, with compiled bytecode as installed packages have it."""
    times: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as cache:
        # A first run that does not count fills the cache.
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": cache}
        for _ in range(runs + 1):
            command = [sys.executable, "-c", CODE]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            before, added = map(float, done.stdout.split())
            times.append((before, added))
    before, added = (statistics.median(column) for column in zip(*times[1:], strict=True))
    ratio = statistics.median(own / other for other, own in times[1:])
    print(
        f"import jax, flax.nnx: {before:.3f} s; jaxcam after it: {added:.3f} s, {100 * ratio:.1f} % (median of {runs})"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
