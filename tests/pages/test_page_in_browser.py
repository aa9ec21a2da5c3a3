"""The page in a real browser, as people use it: pointer, keys, address, dark, phone. Skipped where there is none."""

import base64
import json

import numpy as np
import pytest
from browser import browser, path
from PIL import Image
from test_document import floats

from jaxcam.pages import Exhibit, Maps, document

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(path() is None, reason="needs a Chromium: apt-get install chromium"),
]

RANDOM = np.random.default_rng(5)
NAMES = ["</script><b>cat", "dog & bone", "cup", "catfish", "blank", *(f"class {i}" for i in range(30))]
NUM = len(NAMES)
VALUES = RANDOM.normal(size=(NUM, 4, 5))
VALUES[4] = -np.abs(VALUES[4])
VALUES[:, 0, 0] = -1.0
VALUES[2, 0, 0], VALUES[3, 0, 0] = 0.25, 0.5  # of the classes only these have evidence in the first cell
FINER = RANDOM.normal(size=(NUM, 8, 10))
CONFIDENCE = np.linspace(0.2, 0.001, NUM)
STATUS = [int(i == 4) for i in range(NUM)]
RAMP = np.linspace(0, 1, 400, dtype=np.float32)
PICTURE = np.stack([np.broadcast_to(RAMP, (320, 400)), np.full((320, 400), 0.5), np.zeros((320, 400))], -1)
WORDS = ["two", "red", "hearts"]


def pictures():
    layers = [
        Maps(
            values=VALUES, title="Grad-CAM", layer="layer4", status=STATUS, on_e={0: 0.4}, share=1.0, bias=np.ones(NUM)
        ),
        Maps(values=FINER, title="Grad-CAM", layer="layer3"),
        Maps(values=np.abs(VALUES), title="Grad-CAM++", layer="layer4"),
    ]
    first = Exhibit(
        picture=PICTURE, names=NAMES, maps=layers, value=np.arange(NUM), confidence=CONFIDENCE, label="first"
    )
    clip = Exhibit(
        picture=RANDOM.random((6, 40, 40, 3)).astype(np.float32),
        names=WORDS,
        maps=[Maps(values=RANDOM.normal(size=(3, 2, 4, 4)), title="Grad-CAM", layer="layer4")],
        value=np.array([0.1, 0.2, 0.3]),
        label="clip",
        in_order=True,
        value_name="score",
    )
    return document([first, clip], title="A </title> page", facts=["network", "layer4"])


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "page.html"
    pictures().save(file)
    return file


@pytest.fixture(scope="module")
def window():
    with browser() as opened:
        yield opened


def text(window, selector):
    return window.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")


def rows(window):
    code = "[...document.querySelectorAll('#list .row .name')].map((name) => name.textContent)"
    return window.evaluate(code)


def address(window):
    return window.evaluate("Object.fromEntries(new URLSearchParams(location.hash.slice(1)))")


def pixels(window, number=0):
    """What is drawn, `[H, W, 4]`."""
    window.settle()
    code = f"""(() => {{
      const canvas = document.querySelectorAll("#canvases canvas")[{number}];
      const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      let text = "";
      for (const byte of data) text += String.fromCharCode(byte);
      return [canvas.height, canvas.width, btoa(text)];
    }})()"""
    window.wait(f"document.querySelectorAll('#canvases canvas')[{number}].dataset.drawn !== undefined")
    height, width, data = window.evaluate(code)
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4).astype(np.float64)


def test_it_opens_without_a_complaint_and_loads_nothing(window, shown):
    window.open(shown)
    assert window.complaints() == []
    assert text(window, "h1") == "A </title> page"
    assert text(window, "figcaption strong") == NAMES[0]
    assert rows(window) == NAMES  # the likeliest first
    assert window.evaluate("document.scripts.length") == 2
    facts = text(window, "figcaption dl")
    assert "40.0 %" in facts  # on E
    assert "shares of the logit" in text(window, "#says")


def test_the_heat_is_the_map_enlarged(window, shown):
    # In colours, of full opacity and on its own scale: where the map is high the pixels have inferno's colour.
    window.open(shown, hash_="#common=0&opacity=100")
    positive = np.maximum(VALUES[0], 0) / VALUES[0].max()
    heat = np.asarray(Image.fromarray(positive.astype(np.float32)).resize((400, 320), Image.Resampling.BILINEAR))
    from jaxcam import colour_map

    found, high = pixels(window)[..., :3], heat > 0.2
    inside = high & (np.abs(heat[..., np.newaxis] - [0.25, 0.5, 0.75]).min(-1) > 0.04)  # no lines
    expected = 255 * np.asarray(colour_map(heat))
    assert inside.sum() > 3000
    assert np.abs(found[inside] - expected[inside]).max() < 6


def test_what_is_blank_says_so(window, shown):
    window.open(shown, hash_="#a=4")
    assert "Nothing here speaks for blank" in text(window, ".blank")
    assert "zero map" in text(window, "figcaption dl")
    window.click("#item-0")
    assert window.evaluate("document.querySelector('.blank')") is None


def test_pointing_shows_and_clicking_chooses(window, shown):
    window.open(shown)
    window.hover("#item-2")
    assert text(window, "figcaption strong") == "cup"
    assert address(window) == {}
    window.mouse("mouseMoved", 5, 5)
    window.settle()
    assert text(window, "figcaption strong") == NAMES[0]
    window.click("#item-2")
    window.mouse("mouseMoved", 5, 5)
    window.settle()
    assert text(window, "figcaption strong") == "cup"
    assert address(window) == {"a": "2"}
    assert window.evaluate("document.querySelector('#item-2').getAttribute('aria-selected')") == "true"
    assert text(window, "#live").startswith("cup, 18.8 %")


def test_search_by_keys_alone(window, shown):
    window.open(shown)
    window.key("/")
    window.type("CAT")
    assert rows(window) == [NAMES[0], "catfish"]
    window.key("ArrowDown")
    assert text(window, "figcaption strong") == "catfish"
    assert window.evaluate("document.querySelector('#search').getAttribute('aria-activedescendant')") == "item-3"
    window.key("Escape")
    assert len(rows(window)) == NUM
    window.type("no such")
    assert "No class" in text(window, "#list")


def test_a_click_lists_what_has_evidence_there(window, shown):
    window.open(shown)
    window.click("#canvases canvas", 0.1, 0.12)
    assert rows(window) == ["catfish", "cup"]
    assert address(window) == {"place": "0,0"}
    assert text(window, "#wherewords") == "Evidence at row 1, column 1"
    assert text(window, "#live").startswith("Row 1, column 1: evidence for 2. catfish 0.5")
    window.evaluate("document.querySelector('#canvases canvas').focus()")
    window.key("ArrowRight")
    assert address(window) == {"place": "0,1"}
    found = np.array([VALUES[NAMES.index(name), 0, 1] for name in rows(window)])
    assert len(found) == (VALUES[:, 0, 1] > 0).sum()
    assert (np.diff(found) <= np.abs(VALUES).max() / 127).all()  # the strongest first, as exactly as they are stored
    window.key("Escape")
    assert len(rows(window)) == NUM


def test_two_classes_against_each_other(window, shown):
    window.open(shown)
    window.click("#slot-b")
    assert window.evaluate("document.querySelectorAll('#canvases canvas').length") == 3
    window.click("#item-2")
    assert address(window) == {"b": "2"}
    captions = window.evaluate("[...document.querySelectorAll('figcaption strong')].map((each) => each.innerText)")
    assert captions == [f"A {NAMES[0]}", "B cup", "A − B"]
    # The third: orange where more speaks for A, blue where for B.
    difference = VALUES[0] - VALUES[2]
    drawn = pixels(window, 2)
    wanted = np.unravel_index(difference.argmax(), difference.shape), np.unravel_index(difference.argmin(), (4, 5))
    reds = [drawn[int((i + 0.5) * 80), int((j + 0.5) * 80)] for i, j in wanted]
    assert reds[0][0] > reds[0][2] + 40
    assert reds[1][2] > reds[1][0] + 40
    window.click("#drop-b")
    assert window.evaluate("document.querySelectorAll('#canvases canvas').length") == 1


def test_method_layer_view_scale_and_table(window, shown):
    window.open(shown)

    def pick(selector, value):
        element = f"document.querySelector({json.dumps(selector)})"
        window.evaluate(f"{element}.value = {json.dumps(value)}")
        window.evaluate(f"{element}.dispatchEvent(new Event('input', {{ bubbles: true }}))")
        window.settle()

    pick("#layer", "layer3")
    assert text(window, "#says") == ""  # nothing is known of that layer's cells
    pick("#method", "Grad-CAM++")
    assert window.evaluate("document.querySelector('#layer').value") == "layer4"
    window.click("#views label:nth-of-type(3)")
    pick("#sort", "name")
    assert rows(window)[1:4] == ["blank", "catfish", "class 0"]
    assert address(window) == {"method": "Grad-CAM++", "view": "e", "sort": "name"}
    window.evaluate("document.querySelector('#figures').open = true")
    window.settle()
    table = text(window, "#table")
    assert table.count("\n") == 25
    window.click("#more")
    assert text(window, "#table").count("\n") == NUM


def test_the_address_brings_all_of_it_back(window, shown):
    asked = (
        "#a=3&b=1&method=Grad-CAM&layer=layer3&view=signed&common=0&opacity=30&colour=1&place=7,9&search=c&sort=peak"
    )
    window.open(shown, hash_=asked)
    state = window.evaluate("({ ...state })")
    expected = {"a": 3, "b": 1, "layer": "layer3", "view": "signed", "common": False, "opacity": 30, "colour": True}
    assert state | expected | {"place": [7, 9], "search": "c", "sort": "peak"} == state
    window.settle()
    before = address(window)
    window.open(shown, hash_="#" + window.evaluate("written()"))
    assert address(window) == before
    window.open(shown, hash_="#a=999&layer=</script>&place=9,9&frame=x&exhibit=7&view=none")
    assert window.complaints() == []
    assert text(window, "figcaption strong") == NAMES[0]


def test_words_and_frames(window, shown):
    window.open(shown, hash_="#exhibit=1")
    assert text(window, "#sentence") == "two red hearts"
    window.click("#sentence button:nth-of-type(3)")
    assert text(window, "figcaption strong") == "hearts"
    assert rows(window) == WORDS
    first = pixels(window)
    window.evaluate("document.querySelector('#frame').focus()")
    window.key("End")
    assert text(window, "#frameno") == "6 of 6"
    assert address(window) == {"exhibit": "1", "a": "2", "frame": "5"}
    assert np.abs(pixels(window) - first).max() > 20
    window.click("#exhibits button:nth-of-type(1)")
    assert text(window, "figcaption strong") == NAMES[0]


def test_dark_and_on_a_phone(window, shown, tmp_path):
    for dark in (False, True):
        window.open(shown, width=360, height=740, dark=dark, phone=True)
        assert window.evaluate("document.documentElement.scrollWidth") <= 360
        ground = window.evaluate("getComputedStyle(document.body).backgroundColor")
        ink = window.evaluate("getComputedStyle(document.body).color")
        lights = [sum(map(int, colour.removeprefix("rgb(").rstrip(")").split(","))) for colour in (ground, ink)]
        assert (lights[0] < lights[1]) == dark
    window.screenshot(tmp_path / "phone.png")
    with Image.open(tmp_path / "phone.png") as seen:
        assert np.asarray(seen.convert("L")).std() > 20


def test_everything_has_a_name_for_screen_readers(window, shown):
    window.open(shown, hash_="#b=1")
    nodes = window.send("Accessibility.getFullAXTree")["nodes"]
    asked = {"button", "combobox", "slider", "checkbox", "radio", "listbox", "image", "option"}
    unnamed = [
        node["role"]["value"]
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in asked and not node.get("name", {}).get("value")
    ]
    assert unnamed == []
    roles = {node["role"]["value"] for node in nodes}
    assert {"listbox", "option", "radio", "slider", "image", "status", "heading"} <= roles


def test_in_the_frame_of_a_notebook(window, tmp_path):
    file = tmp_path / "notebook.html"
    file.write_text(f"<!doctype html><meta charset=utf-8>{pictures()._repr_html_()}")
    window.open(file)
    window.settle()
    window.screenshot(tmp_path / "notebook.png")
    assert window.complaints() == []
    with Image.open(tmp_path / "notebook.png") as seen:  # the picture's ramp is drawn, in the frame
        assert np.asarray(seen.convert("L")).std() > 20


def test_the_numbers_in_the_browser_are_those_that_were_stored(window, shown):
    window.open(shown)
    told = window.evaluate("[...maps().peak]")
    np.testing.assert_allclose(told, VALUES.max((1, 2)).astype(np.float32))
    q = window.evaluate("[...maps().values(3)]")
    assert np.abs(np.array(q) - VALUES[3].reshape(-1)).max() <= np.abs(VALUES[3]).max() / 253
    assert floats(base64.b64encode(np.float32([1.5]).tobytes())) == [1.5]
