"""What notebooks show of jaxcam's results, in a real browser: names stay names, dark and light can be read."""

import numpy as np
import pytest
import treescope
from browser import browser, path
from test_foldable import HOSTILE, MADE

import jaxcam

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(path() is None, reason="needs a Chromium: apt-get install chromium"),
]
PAGE = """<!doctype html><meta charset=utf-8><style>body {{ background: {ground}; color: {ink} }}</style>{parts}"""


def luminance(colour):
    """Of "rgb(r, g, b)", by WCAG 2."""
    parts = np.array([int(part) for part in colour.removeprefix("rgb(").rstrip(")").split(",")]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.fixture(scope="module")
def window():
    with browser() as opened:
        yield opened


@pytest.mark.parametrize("ground", ["rgb(255, 255, 255)", "rgb(17, 17, 17)"])
def test_in_a_notebook(window, tmp_path, ground):
    images = np.random.default_rng(0).random((2, 32, 32, 3)).astype(np.float32)
    over = jaxcam.explain(jaxcam.models.mini_resnet(), images, class_idx=[0, 1])
    parts = [made()._repr_html_() for made in MADE.values()] + [over._repr_html_()]
    ink = "rgb(0, 0, 0)" if ground.startswith("rgb(255") else "rgb(220, 220, 220)"
    file = tmp_path / "notebook.html"
    file.write_text(PAGE.format(ground=ground, ink=ink, parts="<hr>".join(parts)))
    window.open(file)
    assert window.complaints() == []  # a picture of a name that is markup would be one: there is no file x
    assert window.evaluate("document.images.length") == 1 + 4
    assert window.evaluate("[...document.images].every((image) => image.naturalWidth === image.width && image.alt)")
    assert window.evaluate("document.querySelectorAll('script').length") == 0
    shown = window.evaluate("document.body.innerText")
    assert shown.count(HOSTILE[: HOSTILE.index("\x1b")]) >= 6
    inks = window.evaluate("[...document.querySelectorAll('th, td, p, pre, b')].map((e) => getComputedStyle(e).color)")
    for each in set(inks):
        light, dark = sorted([luminance(each), luminance(ground)], reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 4.2, each
    window.screenshot(tmp_path / "shown.png", full=True)


def test_by_treescope(window, tmp_path):
    file = tmp_path / "treescope.html"
    file.write_text("<!doctype html><meta charset=utf-8>" + "".join(map(treescope.render_to_html, [
        made() for made in MADE.values()
    ])))  # fmt: skip
    window.open(file)
    assert window.complaints() == []
    code = "[...document.querySelectorAll('treescope-container')].map((each) => each.shadowRoot.textContent)"
    window.wait(f"{code}.length === 4 && {code}.every((text) => text.length > 100)")
    for name, text in zip(MADE, window.evaluate(code), strict=True):
        assert f"{name}(" in text
    window.screenshot(tmp_path / "treescope.png")
