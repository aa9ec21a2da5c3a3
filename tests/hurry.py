"""XLA's flags to compile in a hurry. `python tests/hurry.py` prints those of programs that also run for a while.

A notebook that compiles most of its time ends a fifth sooner with those; without optimisation, as what is compiled for
one small test, one that computes would take four times as long.
"""

import jaxlib.version

LONGER = []
if jaxlib.version.__version_info__[:2] == (0, 10):  # XLA ends the process at a flag that it no longer knows
    LONGER += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
ONCE = ["--xla_backend_optimization_level=0", *LONGER]

if __name__ == "__main__":
    print(" ".join(LONGER))
