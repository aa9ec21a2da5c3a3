"""The page of maps that are there already: what it holds, what it forbids, and that nothing breaks out of it."""

import base64
import hashlib
import html.parser
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

import jaxcam
from jaxcam.pages import Exhibit, Maps, document

RANDOM = np.random.default_rng(0)
PICTURE = RANDOM.random((12, 16, 3)).astype(np.float32)
NASTY = ("</script><script>alert(1)</script>", "<!-- a & b -->", "{{script}} \"'>", "ünïcode \u2028 \udc80")
MAPS = RANDOM.normal(size=(4, 3, 5)) * np.array([1e-6, 1.0, 30.0, 0.0]).reshape(4, 1, 1)
MAPS[1] = -np.abs(MAPS[1])
VALUE = np.array([0.25, -1.5, 3.0, 0.0])
CONFIDENCE = np.array([0.2, 0.05, 0.7, 0.05])


def exhibit(**changes):
    given = {
        "picture": PICTURE,
        "names": ["cat", "dog", "cup", "none"],
        "maps": [Maps(values=MAPS, title="Grad-CAM", layer="layer4", status=[0, 1, 0, 2], on_e={2: 0.5})],
        "value": VALUE,
        "confidence": CONFIDENCE,
    }
    return Exhibit(**{**given, **changes})


class Parser(html.parser.HTMLParser):
    """The elements of a page with their attributes, and what scripts and styles hold."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.inside, self.open = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.open = tag

    def handle_data(self, data):
        if self.open in ("script", "style", "title", "h1"):
            self.inside.append((self.open, data))
            self.open = None


def book_of(page):
    return json.loads(re.search(r'id="book">(.*?)</script>', page.html, re.DOTALL)[1])


def floats(text):
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_what_is_stored_is_the_maps_within_half_a_step():
    shown = document(exhibit(), title="t")
    stored = book_of(shown)["exhibits"][0]
    (maps,) = stored["maps"]
    q = np.frombuffer(base64.b64decode(maps["q"]), np.int8).reshape(4, 3, 5).astype(np.float64)
    extent = floats(maps["extent"]).astype(np.float64)
    wide = extent.reshape(4, 1, 1)
    # Half a step of 1/127 of each map's largest magnitude, and the rounding of float32.
    assert (np.abs(q / 127 * wide - MAPS) <= wide / 254 + 1e-6 * wide).all()
    assert np.abs(q).max((1, 2)).tolist() == [127, 127, 127, 0]
    np.testing.assert_allclose(floats(maps["peak"]), MAPS.max((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(floats(stored["value"]), VALUE, rtol=1e-6)
    np.testing.assert_allclose(floats(stored["confidence"]), CONFIDENCE, rtol=1e-6)
    assert list(base64.b64decode(maps["status"])) == [0, 1, 0, 2]
    assert (maps["grid"], maps["layer"], maps["on_e"]) == ([3, 5], "layer4", [[2, 0.5]])
    assert stored["start"] == 2  # the likeliest


def test_the_picture_is_in_it_with_its_size():
    smooth = np.broadcast_to(np.linspace(0, 1, 64, dtype=np.float32)[:, np.newaxis], (48, 64, 1))
    stored = book_of(document(exhibit(picture=smooth), title="t"))["exhibits"][0]
    assert (stored["height"], stored["width"]) == (48, 64)
    head, data = stored["frames"][0].split(",")
    assert head == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as decoded:
        np.testing.assert_allclose(np.asarray(decoded)[..., 0] / 255, smooth[..., 0], atol=0.03)


def test_the_policy_allows_the_script_and_the_style_in_it_and_nothing_else():
    shown = document(exhibit(), title="t")
    parsed = Parser(shown.html)
    policy = next(a["content"] for tag, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    scripts = [text for tag, text in parsed.inside if tag == "script"]
    styles = [text for tag, text in parsed.inside if tag == "style"]
    assert len(scripts) == 2
    for text, rule in ((scripts[1], rules["script-src"]), (styles[0], rules["style-src"])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rule == f"'sha256-{digest}'"
    # Nothing that such a policy would refuse, and nothing from elsewhere.
    for tag, attributes in parsed.elements:
        assert not {name for name in attributes if name.startswith("on") or name in ("style", "href", "src")}, tag
    assert not re.search(r"https?:|\beval\(|innerHTML|new Function|setAttribute\(\"style", shown.html)


def test_names_are_text_whatever_they_hold():
    maps = [Maps(values=MAPS, title="<b>", layer="</title>")]
    shown = document(exhibit(names=NASTY, maps=maps, label=NASTY[0]), title=NASTY[0], facts=[NASTY[2]])
    parsed = Parser(shown.html)
    assert sum(tag == "script" for tag, _ in parsed.elements) == 2
    assert "alert(1)</script" not in shown.html
    stored = book_of(shown)
    assert stored["names"][0][:3] == list(NASTY[:3])
    assert stored["names"][0][3].startswith("ünïcode ")
    assert stored["exhibits"][0]["maps"][0]["layer"] == "</title>"
    assert ("title", NASTY[0]) in parsed.inside
    assert ("h1", NASTY[0]) in parsed.inside
    shown.html.encode()  # lone surrogates, as file names have them, would not be written


def test_without_the_script_the_figures_are_there():
    text = document(exhibit(), title="t").html
    rows = re.findall(r"<tr>(.*?)</tr>", text[text.index("<noscript>") : text.index("</noscript>")])
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in rows]
    assert [row[0] for row in cells] == ["", "cup", "cat", "dog", "none"]
    assert cells[1] == ["cup", "3", "70.0 %", f"{MAPS[2].max():.4g}"]


def test_the_same_exhibits_give_the_same_bytes():
    assert document(exhibit(), title="t").html == document(exhibit(), title="t").html


def test_a_thousand_classes_by_two_methods_are_small():
    maps = [Maps(values=RANDOM.normal(size=(1000, 7, 7)), title=title) for title in ("Grad-CAM", "Grad-CAM++")]
    names = [f"class with a name {i}" for i in range(1000)]
    waves = np.sin(np.arange(448) / 9)
    picture = 0.5 + 0.5 * (waves[:, np.newaxis] * waves)[..., np.newaxis] * RANDOM.uniform(0.9, 1, (448, 448, 3))
    share = np.full(1000, 1e-3)
    shown = document(exhibit(picture=picture, maps=maps, names=names, value=share, confidence=share), title="t")
    assert len(shown.html.encode()) < 400_000


def test_of_several_with_the_same_names_these_stand_once():
    stored = book_of(document([exhibit(), exhibit(label="other"), exhibit(names=list("abcd"))], title="t"))
    assert [each["names"] for each in stored["exhibits"]] == [0, 0, 1]


def test_maps_that_are_not_known_are_empty():
    values = MAPS.copy()
    values[0] = np.nan
    (maps,) = exhibit(maps=[Maps(values=values, title="m", status=[3, 0, 0, 0])]).maps
    assert not maps.values[0].any()
    np.testing.assert_array_equal(maps.values[1:], MAPS[1:])


def test_saved_whole_and_shown_in_a_notebook(tmp_path):
    shown = document(exhibit(names=NASTY), title="a & b")
    place = tmp_path / "page.html"
    place.write_text("old")
    shown.save(place)
    assert place.read_bytes() == shown.html.encode()
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    ((tag, attributes),) = Parser(shown._repr_html_()).elements
    assert (tag, attributes["sandbox"]) == ("iframe", "allow-scripts")
    assert attributes["srcdoc"] == shown.html


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("page.png", ValueError, "path must end in .html"),
        ("folder.html", ValueError, "is a folder"),
        ("missing/page.html", FileNotFoundError, "missing/page.html"),
        (3, TypeError, "path must be a str or a pathlib.Path but is int"),
    ],
)
def test_a_place_that_is_none(tmp_path, monkeypatch, path, error, message, unchecked):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(error, match=message):
        document(exhibit(), title="t").save(path)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"names": "cats"}, TypeError, "names must be a sequence"),
        ({"names": ["cat", "dog", "cup", 3]}, TypeError, "names must be strings but one is 3"),
        ({"names": ["cat"]}, ValueError, r"value must be \[1\]"),
        ({"confidence": [1.0]}, ValueError, r"confidence must be \[4\]"),
        ({"maps": []}, TypeError, "maps must be a list"),
        ({"maps": [MAPS]}, TypeError, "maps must be a list"),
        ({"maps": [Maps(values=MAPS[:2], title="m")]}, ValueError, r"values of the maps of 'm' must be \[4, i, j\]"),
        ({"maps": [Maps(values=MAPS, title="m", status=[0])]}, ValueError, "status of the maps of 'm'"),
        ({"maps": [Maps(values=MAPS, title="m", status=[99] * 4)]}, ValueError, "status of the maps of 'm'"),
        ({"maps": [Maps(values=MAPS * np.nan, title="m")]}, ValueError, "must be finite, or their status NOT_FINITE"),
        ({"maps": [Maps(values=MAPS, title="m", on_e={7: 1.0})]}, ValueError, "on_e of the maps of 'm'"),
        ({"maps": [Maps(values=MAPS, title="m", share=1.0)]}, TypeError, "bias of the maps of 'm' must be numbers"),
        ({"maps": [Maps(values=MAPS, title="m")] * 2}, ValueError, "must differ in title or layer"),
        ({"maps": [Maps(values=MAPS[:, None], title="m")]}, ValueError, r"picture must be frames \[t, H, W, d\]"),
        ({"start": 4}, ValueError, "start must be at least 0 and at most 3"),
        ({"picture": PICTURE * np.nan}, ValueError, "picture must be finite"),
    ],
)
def test_what_does_not_fit_is_refused(changes, error, message, unchecked):
    with pytest.raises(error, match=message):
        exhibit(**changes)


@pytest.mark.parametrize(
    ("exhibits", "error", "message"),
    [([], ValueError, "exhibits must be one or more"), ([3], TypeError, "exhibits must be jaxcam.pages.Exhibit")],
)
def test_no_exhibits(exhibits, error, message, unchecked):
    with pytest.raises(error, match=message):
        document(exhibits, title="t")


def test_the_room_and_the_function_have_their_names():
    assert jaxcam.pages.page is jaxcam.page
