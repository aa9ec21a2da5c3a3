"""Scenes a second at 64 pixels: `python tests/benchmarks/scenes_speed.py [num]`."""

import sys
import time

import jax

from jaxcam import scenes


def main() -> None:
    num = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    for kind in ("scene", "pair"):
        start = time.perf_counter()
        jax.block_until_ready(scenes.batch(0, num, kind=kind))
        first = time.perf_counter() - start
        times: list[float] = []
        for seed in range(1, 6):
            start = time.perf_counter()
            jax.block_until_ready(scenes.batch(seed, num, kind=kind))
            times.append(time.perf_counter() - start)
        median = sorted(times)[len(times) // 2]
        rate = num / median
        print(f"{kind}: {rate:,.0f} a second (median of 5 batches of {num}), compile {first - median:.1f} s")


if __name__ == "__main__":
    main()
