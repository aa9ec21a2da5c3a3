"""What a photograph of 8000 by 6000 pixels takes to become a network's view, read whole and no further than needed.

    python tests/benchmarks/large_photographs.py

Smooth colours with noise of ±12 of 255, as JPEG of quality 92 and as PNG; the view is 256 pixels, of which 224 by 224
are seen. Each is read in a process of its own: the processor's time, and how far its memory grows beyond that of the
imports.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from jaxcam.images.preprocessing import IMAGENET, view_of_picture
from jaxcam.images.reading import read_reduced


def written(folder):
    """Makes the files."""
    random = np.random.default_rng(0)
    colours = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((8000, 6000), Image.BICUBIC)
    noise = random.integers(-12, 13, (6000, 8000, 3), dtype=np.int16)
    picture = Image.fromarray(np.clip(np.asarray(colours) + noise, 0, 255).astype(np.uint8))
    picture.save(folder / "picture.jpg", quality=92)
    picture.save(folder / "progressive.jpg", quality=92, progressive=True)
    picture.save(folder / "picture.png", compress_level=1)


def read(path, shortest, target):
    """Reads one, and prints what that took."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    np.save(target, view_of_picture(read_reduced(path, shortest), IMAGENET))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{time.process_time() - start:.2f} s, {grown:.0f} MiB", end="")


def main():
    """Prints a line for each file and way to read it."""
    with tempfile.TemporaryDirectory() as name:
        # In another process: what is started by a large one counts its memory as its own.
        subprocess.run([sys.executable, __file__, name], check=True)
        for path in sorted(Path(name).iterdir()):
            views = []
            for shortest in (0, IMAGENET.resize):
                target = Path(name) / f"{path.name}-{shortest}.npy"
                print(f"{path.name:16}{'no further than needed' if shortest else 'whole':24}", end="", flush=True)
                subprocess.run([sys.executable, __file__, path, str(shortest), target], check=True)
                views.append(255 * np.load(target))
                print()
            print(f"{'':16}largest difference {np.abs(views[0] - views[1]).max():.0f} of 255")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        read(sys.argv[1], int(sys.argv[2]) or None, sys.argv[3])
    elif len(sys.argv) == 2:
        written(Path(sys.argv[1]))
    else:
        main()
