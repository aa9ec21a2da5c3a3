"""Panels: every picture, text and colour bar in its place, and no text outside of its column."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import numpy as jnp
from PIL import Image, ImageFont

from jaxcam.pictures import Cell, Row, colour_map, panel
from jaxcam.pictures.lettering import load_face, reach, readable, set_lines

RNG = np.random.default_rng(0)

SIDE = 60  # points; with two pixels a point the pictures below keep their very pixels


def picture(height: int = 2 * SIDE, width: int = 2 * SIDE) -> Image.Image:
    """Dark, so that it differs from paper and text fields, and unlike every other."""
    return Image.fromarray(RNG.integers(0, 100, (height, width, 3), dtype=np.uint8))


def places(page: Image.Image, wanted: Image.Image) -> list[tuple[int, int]]:
    """(top, left) of every exact copy of a picture in a page, by brute force over its first pixels."""
    page_pixels, pixels = np.asarray(page), np.asarray(wanted)
    height, width = pixels.shape[:2]
    starts = np.argwhere((page_pixels == pixels[0, 0]).all(-1))
    return [
        (int(top), int(left))
        for top, left in starts
        if np.array_equal(page_pixels[top : top + height, left : left + width], pixels)
    ]


def place(page: Image.Image, wanted: Image.Image) -> tuple[int, int]:
    found = places(page, wanted)
    assert len(found) == 1
    return found[0]


def blank(page: Image.Image, rows: slice, columns: slice) -> bool:
    return bool((np.asarray(page)[rows, columns] == 255).all())


def test_pictures_lie_in_rows_and_columns_with_even_gaps():
    grid = [[picture() for _ in range(3)] for _ in range(2)]
    lead = picture()
    rows = [Row(f"row {i}", [Cell(image) for image in line]) for i, line in enumerate(grid)]
    page = panel(rows, headings=["a", "b", "c"], lead=Cell(lead), cell_size=SIDE)
    found = np.array([[place(page, image) for image in line] for line in grid])  # [row, column, (top, left)]
    assert (found[:, :, 0] == found[:, :1, 0]).all()
    assert (found[:, :, 1] == found[:1, :, 1]).all()
    assert set(np.diff(found[0, :, 1])) == {2 * SIDE + 16}  # 8 points between columns
    assert found[1, 0, 0] - found[0, 0, 0] == 2 * SIDE + 24  # 12 points between rows
    top, left = place(page, lead)
    assert (top, left) == (found[0, 0, 0], 40)  # level with the first row, a margin of 20 points
    assert left + 2 * SIDE < found[0, 0, 1]


def test_pictures_are_scaled_to_one_size_with_their_aspect():
    wide = Image.new("RGB", (300, 150), "#ff0000")
    tall = Image.new("RGB", (20, 40), "#0000ff")
    page = np.asarray(panel([Row("", [Cell(wide), Cell(tall)])], headings=["", ""], cell_size=SIDE, colormap=None))
    red, blue = (np.argwhere((page == colour).all(-1)) for colour in ([255, 0, 0], [0, 0, 255]))
    assert np.ptp(red, axis=0).tolist() == [SIDE - 1, 2 * SIDE - 1]  # (height, width) less one
    assert np.ptp(blue, axis=0).tolist() == [2 * SIDE - 1, SIDE - 1]
    np.testing.assert_allclose(red.mean(0)[0], blue.mean(0)[0], atol=0.51)  # centred in the same row
    assert red[:, 1].min() == 40
    assert blue[:, 1].min() == 40 + 2 * SIDE + 16 + SIDE // 2


def test_arrays_and_pillow_images_are_drawn_alike():
    image = picture()
    values = np.asarray(image) / 255
    pages = [
        panel([Row("x", [Cell(form)])], headings=["h"], cell_size=SIDE)
        for form in (image, values, jnp.asarray(values, jnp.float32))
    ]
    assert pages[0] == pages[1] == pages[2]


def test_transparent_pictures_lie_over_white():
    glass = Image.new("RGBA", (2 * SIDE, 2 * SIDE), (255, 0, 0, 51))
    page = panel([Row("", [Cell(glass)])], headings=["h"], cell_size=SIDE)
    assert len(places(page, Image.new("RGB", glass.size, (255, 204, 204)))) == 1


TEXTS = {
    "title": "A title\nand a subtitle",
    "lead_heading": "Picture",
    "heading": "Grad-CAM",
    "label": "tabby cat\n62.3 %",
    "caption": "confidence on E: 41.0 %",
    "lead_caption": "tabby cat\t62.3 %\ntiger cat\t9.1 %",
    "field_caption": "CAM: head is not GAP + linear",
    "bar_label": "heat",
}
CELLS = [picture(), picture(), picture()]  # lead, first and second cell of the first row


def page_with(**changes: str) -> Image.Image:
    text = TEXTS | changes
    rows = [
        Row(text["label"], [Cell(CELLS[1], text["caption"]), Cell(CELLS[2])]),
        Row("second", [Cell(None, text["field_caption"]), Cell(None)]),
    ]
    return panel(
        rows,
        headings=[text["heading"], "other"],
        title=text["title"],
        lead=Cell(CELLS[0], text["lead_caption"]),
        lead_heading=text["lead_heading"],
        bar_label=text["bar_label"],
        cell_size=SIDE,
    )


@pytest.mark.parametrize("name", TEXTS)
def test_every_text_is_drawn(name):
    """One letter changed changes the picture."""
    full = page_with()
    assert full == page_with()
    assert full != page_with(**{name: ""})
    assert full != page_with(**{name: "Q" + TEXTS[name][1:]})


def test_texts_are_where_they_belong():
    page = page_with()
    (lead_top, lead_left), (top, left), (_, right) = (place(page, image) for image in CELLS)
    box = 2 * SIDE
    below = slice(top + box, top + box + 44)  # three lines of 11 points at most, and their gap
    assert not blank(page, slice(0, top - 40), slice(lead_left, right))  # title
    assert not blank(page, slice(top - 40, top), slice(left, left + box))  # headings
    assert not blank(page, slice(top - 40, top), slice(right, right + box))
    assert not blank(page, slice(top - 40, top), slice(lead_left, lead_left + box))
    assert not blank(page, below, slice(left, left + box))  # caption
    assert blank(page, below, slice(right, right + box))  # there is none
    assert not blank(page, slice(top, top + box), slice(lead_left + box, left))  # label
    assert not blank(page, slice(lead_top + box, lead_top + box + 60), slice(lead_left, lead_left + box))
    # Flush left and right: ink within three points of either edge.
    line = slice(lead_top + box + 8, lead_top + box + 30)
    assert not blank(page, line, slice(lead_left, lead_left + 6))
    assert not blank(page, line, slice(lead_left + box - 6, lead_left + box))
    assert blank(page, line, slice(lead_left + box, left))


def test_an_empty_cell_is_a_grey_field_with_its_caption_inside():
    page = np.asarray(page_with())
    field = (page == 0xF1).all(-1)  # and here and there the rim of a letter
    rows, columns = np.flatnonzero(field.sum(1) > SIDE), np.flatnonzero(field.sum(0) > SIDE)
    top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
    assert right - left + 1 == 2 * (2 * SIDE) + 16  # two fields and the gap between them
    assert bottom - top + 1 == 2 * SIDE
    with_text, without = (
        page[top : bottom + 1, left : left + 2 * SIDE],
        page[top : bottom + 1, right - 2 * SIDE + 1 :],
    )
    assert (without[:, : 2 * SIDE] == 0xF1).all()
    ink = np.argwhere((with_text != 0xF1).any(-1))
    assert len(ink) > 50
    assert ink.min() > 10
    assert ink.max() < 2 * SIDE - 10
    np.testing.assert_allclose(ink.mean(0), [SIDE, SIDE], atol=10)


def test_a_caption_too_long_for_its_field_goes_below():
    long = "\n".join(["words"] * 12)
    page = np.asarray(panel([Row("", [Cell(None, long)])], headings=["h"], cell_size=48, colormap=None))
    rows = np.flatnonzero((page == 0xF1).all(-1).sum(-1) > 40)
    assert rows[-1] - rows[0] + 1 == 96
    assert len(set(rows.tolist())) == 96  # no line of the field is hidden
    assert not (page[rows[-1] + 1 :] == 255).all()
    assert (page[-30:] == 255).all()


@settings(deadline=None, max_examples=15)
@given(
    words=st.lists(
        st.text(st.sampled_from("abcWMgjpqy_-%.é…日🐈\t\u0301\u202e\x07"), min_size=1, max_size=40),
        max_size=9,
    ),
    scale=st.sampled_from([1, 1.37, 2]),
)
@pytest.mark.thorough
def test_text_never_leaves_its_column(words, scale):
    """Gutters between columns, margins, and the lines above the second row of pictures stay white."""
    text = " ".join(words)
    side = round(SIDE * scale)
    images = [Image.new("RGB", (side, side), (0, 0, blue)) for blue in (1, 2, 3, 4)]
    caption = f"{text}\n{text}\t{text}"
    rows = [
        Row(caption, [Cell(images[0], caption), Cell(None, caption)]),
        Row(text, [Cell(images[1], text), Cell()]),
    ]
    page = panel(
        rows,
        headings=[text, text],
        title=text,
        lead=Cell(images[2], caption),
        bar_label=text,
        cell_size=SIDE,
        scale=scale,
    )
    # The tail of a "j" may hang a point over the edge, as type does.
    (top, left), (second_top, _), (_, lead_left) = (place(page, image) for image in images[:3])
    pixels, margin, gap, tail = np.asarray(page), int(18 * scale), int(7 * scale), round(1.5 * scale)
    for edge in (pixels[:margin], pixels[-margin:], pixels[:, :margin], pixels[:, -margin:]):
        assert (edge == 255).all()
    heads_top = top - int(20 * scale)
    assert (pixels[heads_top:, left + side + tail : left + side + gap - tail] == 255).all()  # columns
    assert (pixels[heads_top:, left - gap : left - tail] == 255).all()  # labels and cells
    assert (pixels[heads_top:, lead_left + side + tail : lead_left + side + gap] == 255).all()
    assert (pixels[second_top - gap : second_top, left - gap :][:, : 2 * side] == 255).all()


def test_a_long_label_makes_room_in_its_row():
    """Twelve lines at the left of a small picture push the next row down; none is drawn over another."""
    first, second = (Image.new("RGB", (96, 96), (0, 0, blue)) for blue in (1, 2))
    label = "\n".join(f"line {i}" for i in range(12))
    page = panel([Row(label, [Cell(first)]), Row("next", [Cell(second)])], headings=["h"], cell_size=48)
    (top, left), (second_top, _) = place(page, first), place(page, second)
    assert second_top - top > 12 * 2 * 12
    column = (np.asarray(page)[top - 4 : second_top, 40 : left - 4] != 255).any((1, 2))
    lines = np.flatnonzero(np.diff(column.astype(int)) == 1)
    assert len(lines) == 12
    assert not column[:3].any()
    assert not column[-10:].any()


def test_the_colour_bar_shows_the_map_from_1_down_to_0():
    for name in ("inferno", "viridis"):
        image = picture()
        rows = [Row("", [Cell(image)]), Row("", [Cell(picture())])]
        page = panel(rows, headings=["h"], cell_size=SIDE, colormap=name, style="plain")
        top, left = place(page, image)
        length = 2 * (2 * SIDE) + 24
        bar = np.asarray(page)[top : top + length, left + 2 * SIDE + 28 :][:, :20]  # 14 points apart, 10 wide
        expected = 255 * colour_map(np.linspace(1, 0, length)[:, np.newaxis], name=name)
        np.testing.assert_allclose(bar, np.broadcast_to(expected, bar.shape), atol=0.51)
        assert blank(page, slice(top + length, top + length + 2), slice(left + 2 * SIDE + 28, left + 2 * SIDE + 48))


def test_the_colour_bar_is_drawn_as_the_overlays_are():
    image = picture()
    pages = {
        style: panel([Row("", [Cell(image)]), Row("", [Cell(image)])], headings=["h"], cell_size=SIDE, style=style)
        for style in ("grey", "colour")
    }
    for style, page in pages.items():
        top, left = places(page, image)[0]
        length = 2 * (2 * SIDE) + 24
        bar = np.asarray(page)[top : top + length, left + 2 * SIDE + 28 :][:, 10]
        heat = np.linspace(1, 0, length)
        # Over a middle grey, away from the contours: those of pictures of 120 pixels are 0.9 pixels wide at most.
        away = np.min([abs(heat - level) for level in (0.25, 0.5, 0.75)], axis=0) > 3 / length
        ground = 0.08 + 0.92 * 0.5 if style == "grey" else 0.5
        share = 0.5 * np.minimum(1, heat / 0.2)[:, np.newaxis]
        expected = 255 * ((1 - share) * ground + share * colour_map(heat[:, np.newaxis])[:, 0])
        np.testing.assert_allclose(bar[away], expected[away], atol=0.51)
        lines = [int(row) for row in np.flatnonzero(~away) if bar[row].min() > expected[row].min() + 15]
        assert {round(4 * heat[row]) for row in lines} == {1, 2, 3}


def test_a_dark_page_has_light_letters_and_the_same_pictures():
    image = picture()
    rows = [Row("label\n1 %", [Cell(image, "caption"), Cell(None, "none")])]
    light, dark = (panel(rows, headings=["a", "b"], title="title", cell_size=SIDE, dark=d) for d in (False, True))
    assert dark.size == light.size
    assert place(dark, image) == place(light, image)
    assert dark.getpixel((0, 0)) == (0x16, 0x16, 0x16)
    ink = [np.asarray(page.convert("L")).astype(int)[:60, :200] for page in (light, dark)]
    assert (ink[0] < 128).sum() > 100  # the title
    assert ((ink[0] < 128) != (ink[1] > 128)).mean() < 1e-3  # inverted


def test_without_a_colour_bar_the_page_ends_after_the_pictures():
    image = picture()
    page = panel([Row("", [Cell(image)])], headings=["h"], cell_size=SIDE, colormap=None)
    _, left = place(page, image)
    assert page.width == left + 2 * SIDE + 40


def test_twice_the_scale_is_twice_the_size():
    rows = [Row("label\n1 %", [Cell(picture(), "caption"), Cell(None, "none")])]
    one, two, four = (
        panel(rows, headings=["a", "b"], title="title", lead=Cell(picture()), scale=scale) for scale in (1, 2, 4)
    )
    np.testing.assert_allclose(two.size, 2 * np.array(one.size), rtol=0.02)
    np.testing.assert_allclose(four.size, 2 * np.array(two.size), rtol=0.02)


ROW = Row("label", [Cell(None)])


@pytest.mark.parametrize(
    ("rows", "options", "error", "facts"),
    [
        ([], {}, ValueError, "rows .* 0 and 1"),
        ([ROW], {"headings": []}, ValueError, "headings .* 1 and 0"),
        ([ROW], {"headings": ["a", "b"]}, ValueError, r"rows\[0\] .* 2 .* 1"),
        ([ROW], {"headings": "a"}, TypeError, "headings .* 'a'"),
        ([ROW], {"headings": [1]}, TypeError, "strings .* 1"),
        ([ROW, "row"], {}, TypeError, r"rows\[1\] .* 'row'"),
        ([ROW], {"style": "gray"}, ValueError, "style .* 'gray'"),
        ([ROW], {"colormap": "jet"}, ValueError, "colour map .* 'jet'"),
        ([ROW], {"cell_size": 20}, ValueError, "cell_size .* 48 .* 20"),
        ([ROW], {"cell_size": float("nan")}, ValueError, "cell_size .* 48 .* nan"),
        ([ROW], {"scale": 0}, ValueError, "scale .* 0"),
        ([ROW], {"scale": "2"}, TypeError, "scale .* '2'"),
        ([ROW], {"font": "/no/such/font.ttf"}, ValueError, "font .* '/no/such/font.ttf'"),
        ([Row("", [Cell(np.full((2, 2, 3), 7.0))])], {}, ValueError, "cell's image .* 7"),
    ],
)
def test_what_cannot_be_a_panel(rows, options, error, facts):
    with pytest.raises(error, match=facts):
        inspect.unwrap(panel)(rows, **{"headings": ["h"], **options})


# --- text ---

FACE = load_face(20.0, None)


def broken(text, width, *, lines):
    """What stands at the left of each line."""
    return [left for left, _ in set_lines(text, FACE, width, lines=lines)]


def test_text_that_fits_stays_as_it_is():
    assert broken("two words", 400, lines=2) == ["two words"]
    assert broken("Grad-CAM++ (62.3 %)", 400, lines=1) == ["Grad-CAM++ (62.3 %)"]


@given(st.lists(st.text(st.sampled_from("abWg-_"), min_size=1, max_size=25), min_size=1), st.integers(60, 300))
@settings(deadline=None, max_examples=40)
def test_broken_lines_fit_and_lose_nothing(words, width):
    text = " ".join(words)
    lines = broken(text, width, lines=1000)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    few = broken(text, width, lines=2)
    assert len(few) == min(2, len(lines))
    assert all(FACE.getbbox(line)[2] <= width for line in (*lines, *few))
    assert few[-1].endswith("…") == (len(lines) > 2)


def test_lines_break_at_spaces_and_marks():
    assert broken("American Staffordshire terrier", 150, lines=3) == ["American", "Staffordshire", "terrier"]
    assert broken("class_name_with_parts", 140, lines=3) == ["class_name_", "with_parts"]


def test_what_follows_a_tab_keeps_its_room():
    name = "a name that is far too long for one line"
    lines = set_lines(f"{name}\t62.3 %", FACE, 200, lines=2)
    assert [right for _, right in lines] == ["62.3 %", ""]
    assert reach(lines[0][0], FACE) + reach("62.3 %", FACE) < 200
    assert set_lines("name", FACE, 200, lines=2) == [("name", None)]


def test_letters_that_the_font_lacks():
    assert readable("naïve café\u0301 Łódź — 3 × x", FACE) == "naive cafe Lodz - 3 x x"
    assert readable("日本 ok", FACE) == "?? ok"
    assert readable("a\x07b\u200bc\td\ud800", FACE) == "abc d"
    assert readable("plain 100 % [a-z] ~ «»", FACE) == "plain 100 % [a-z] ~ «»"  # these are in the font


def test_a_font_of_ones_own(tmp_path):
    path = tmp_path / "own.ttf"
    path.write_bytes(ImageFont.load_default(10).font_bytes)
    page, expected = (panel([ROW], headings=["h"], font=font, colormap=None) for font in (path, None))
    np.testing.assert_allclose(page.size, expected.size, rtol=0.02)  # other kerning
    ink, expected_ink = ((np.asarray(image)[:, :100] < 128).sum() for image in (page, expected))
    assert 0.9 < ink / expected_ink < 1.1
