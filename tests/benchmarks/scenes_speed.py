"""How many scenes of each kind are drawn a second: `python tests/benchmarks/scenes_speed.py [num]`."""

import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from jaxcam import scenes

DRAWN: dict[str, Callable[[int, int], Any]] = {
    "scene": partial(scenes.batch, kind="scene"),
    "pair": partial(scenes.batch, kind="pair"),
    "clip": partial(scenes.many, scenes.clip),
    "series": partial(scenes.many, scenes.series),
    "volume": partial(scenes.many, scenes.volume),
    "caption": partial(scenes.many, scenes.caption),
    "question": partial(scenes.many, scenes.question),
}


def main() -> None:
    num = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print(f"jax {jax.__version__} on {jax.default_backend()}, {platform.machine()}, {num} of each, the median of 5")
    for kind, draw in DRAWN.items():
        start = time.perf_counter()
        jax.block_until_ready(draw(0, num))
        first = time.perf_counter() - start
        times: list[float] = []
        for seed in range(1, 6):
            start = time.perf_counter()
            jax.block_until_ready(draw(seed, num))
            times.append(time.perf_counter() - start)
        median = sorted(times)[len(times) // 2]
        print(f"{kind:8} {num / median:8,.0f} a second, {first - median:.1f} s to compile", flush=True)


if __name__ == "__main__":
    main()
