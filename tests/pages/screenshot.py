"""The README's picture of a page: python tests/pages/screenshot.py (a Chromium, and pip install scikit-image).

scikit-image's cat, a photograph without rights reserved, by EfficientNet-Lite0 of the extra `photographs`; two of the
cats against each other. Written to notebooks/pictures/page.webp; with an argument, the page itself is written there.
"""

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from browser import browser
from PIL import Image

import jaxcam

TARGET = Path(__file__).parents[2] / "notebooks" / "pictures" / "page.webp"


def main():
    """Writes it."""
    model = jaxcam.models.efficientnet_lite0("imagenet")
    page = jaxcam.page(model, str(files("skimage") / "data" / "chelsea.png"), network="EfficientNet-Lite0")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "page.html"
        page.save(place)
        second = model.class_names.index("Egyptian cat")
        with browser() as window:
            window.open(place, width=1120, height=760, hash_=f"#b={second}")
            window.screenshot(Path(folder) / "page.png")
        with Image.open(Path(folder) / "page.png") as seen:
            seen.convert("RGB").save(TARGET, quality=72, method=6)
    print(page, TARGET, TARGET.stat().st_size)


if __name__ == "__main__":
    main()
