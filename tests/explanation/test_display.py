"""What an explanation shows of itself, against what is in it; and that it shows something whatever is in it."""

import base64
import io
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxcam
from jaxcam.explanation.lent import Lent
from jaxcam.pictures import colour_map, overlay, series
from jaxcam.pictures.slices import volume_cells

RNG = np.random.default_rng(0)


def made(*spatial, n=2, m=(), names=(), **changed):
    """An explanation with one hot place for each map, of any axes."""
    heat = RNG.random((n, *m, *spatial)).astype(np.float32) / 2
    heat.reshape(-1, *spatial)[(slice(None), *(size // 2 for size in spatial))] = 1
    count = n * int(np.prod(m, dtype=int))
    fields = {
        "heatmap": heat,
        "cam_map": heat[..., ::2],
        "class_idx": (np.arange(count) % 3).reshape(n, *m),
        "value": np.linspace(1, 2, count).reshape(n, *m),
        "confidence": np.linspace(0.25, 0.75, count).reshape(n, *m),
        "status": np.zeros((n, *m), np.int32),
    }
    return jaxcam.Explanation(**{**fields, **changed}).with_names(names)


def images_in(html):
    pattern = r'<img alt="[^"<>]+" width="(\d+)" height="(\d+)" src="data:image/(?:png|webp);base64,([^"]*)">'
    found = re.findall(pattern, html)
    pictures = [Image.open(io.BytesIO(base64.b64decode(data))) for _, _, data in found]
    assert [(int(w), int(h)) for w, h, _ in found] == [picture.size for picture in pictures]
    return [np.asarray(picture.convert("RGB")).astype(int) for picture in pictures]


def within(page, part):
    """How often a picture stands in a page, pixel by pixel."""
    page, part = (np.asarray(picture.convert("RGB")) for picture in (page, part))
    (height, width), (down, across) = part.shape[:2], (page.shape[i] - part.shape[i] + 1 for i in range(2))
    starts = np.argwhere((page[:down, :across] == part[0, 0]).all(-1))
    for y, x in zip(RNG.integers(0, height, 40), RNG.integers(0, width, 40), strict=True):  # most places fail here
        starts = starts[(page[starts[:, 0] + y, starts[:, 1] + x] == part[y, x]).all(-1)]
    return sum(bool((page[y : y + height, x : x + width] == part).all()) for y, x in starts)


def test_the_text_is_short_and_says_what_is_there():
    found = made(8, 8, names=("cat", "dog"), status=np.array([0, 1]), confidence=np.array([0.25, 0.0001]))
    lines = repr(found).splitlines()
    assert lines[0].startswith("Explanation: heatmap float32[2,8,8], cam_map float32[2,8,4], class_idx int64[2]")
    assert lines[1:] == ["  0: cat · 25.0 %", "  1: dog · < 0.1 % · zero map"]


def test_values_stand_where_there_is_no_confidence():
    nothing = np.full(2, np.nan)
    assert repr(made(5, confidence=nothing)).splitlines()[1:] == ["  0: score 0 · value 1", "  1: score 1 · value 2"]
    one = made(5, confidence=nothing, class_idx=np.zeros(2, int))
    assert repr(one).splitlines()[1:] == ["  0: value 1", "  1: value 2"]


def test_a_class_without_a_name_has_its_number():
    assert "  2: class 2 · 75.0 %" in repr(made(4, n=3, names=("cat", "dog"))).splitlines()


def test_of_many_the_first_are_shown():
    found = made(4, 4, n=50, m=(30,))
    lines = repr(found).splitlines()
    assert len(lines) == 1 + 4 * 4 + 2
    assert [line.strip() for line in lines[-2:]] == ["the first 4 of 50 examples", "the first 4 of 30 maps of each"]
    html = found._repr_html_()
    assert len(images_in(html)) == 16
    assert "the first 4 of 50 examples" in html
    assert len(html) < 60_000


def test_a_notebook_shows_the_heatmaps_in_colour():
    heat = np.zeros((2, 96, 48), np.float32)
    heat[0, 10], heat[1, :, 7] = 1, 1
    shown = images_in(made(96, 48, heatmap=heat)._repr_html_())
    hot, cold = (np.rint(255 * colour_map(np.full((1, 1), value, np.float32))[0, 0]) for value in (1, 0))
    assert [picture.shape for picture in shown] == [(96, 48, 3)] * 2
    for picture, expected in zip(shown, heat, strict=True):
        np.testing.assert_array_equal(picture, np.where(expected[..., np.newaxis] > 0, hot, cold))


def test_a_notebook_shows_series_and_volumes():
    heat = np.zeros((1, 4), np.float32)
    heat[0, 2] = 1
    band = images_in(made(4, n=1, heatmap=heat)._repr_html_())[0]
    assert band.shape == (24, 96, 3)
    bright = band.sum(-1) > 400
    assert bright[:, 48:72].all()
    assert not bright[:, :48].any()
    assert not bright[:, 72:].any()
    volume = np.zeros((1, 3, 96, 96), np.float32)
    volume[0, 2, 5, 6] = 1
    slices = images_in(made(3, 96, 96, n=1, heatmap=volume)._repr_html_())[0]
    assert np.argwhere(slices.sum(-1) > 400).tolist() == [[5, 6]]


def test_names_are_no_markup():
    html = made(4, 4, names=('<i>cat</i>"', "dog"))._repr_html_()
    assert html.count("&lt;i&gt;cat&lt;/i&gt;&quot;") == 2  # below the map, and as its text for who does not see it
    assert "<i>" not in html


KERNEL = RNG.normal(size=(3, 3, 3, 2)).astype(np.float32)


def seen_by_a_network(inputs):
    """Explained by a convolution."""
    layout = ("NHWC", "HWIO", "NHWC")
    return jaxcam.explain(
        lambda x: jax.nn.relu(jax.lax.conv_general_dilated(x, KERNEL, (1, 1), "SAME", None, None, layout)).mean((1, 2)),
        inputs,
    )


def test_a_notebook_shows_the_maps_over_their_inputs_while_these_are_there():
    inputs = RNG.random((2, 5, 8, 3)).astype(np.float32)
    inputs[0, 0, 0], inputs[1, 0, 0] = 0, 1
    found = seen_by_a_network(inputs)
    expected = []
    for picture, heat in zip(inputs, found.heatmap, strict=True):
        large = enlarged(picture, 160, 100)
        expected += [large, overlay(np.asarray(large) / 255, np.clip(heat, 0, 1))]
    shown = images_in(found._repr_html_())
    assert len(shown) == 4
    for image, own in zip(shown, expected, strict=True):
        assert image.shape == (100, 160, 3)
        apart = [np.abs(image - np.asarray(each, int)).mean() for each in expected]
        # WebP loses a little; other pictures are farther off than that.
        assert np.argmin(apart) == [each is own for each in expected].index(True)
        assert min(apart) < 8 < sorted(apart)[1]
    assert ".over(inputs)" not in found._repr_html_()
    alone = seen_by_a_network(np.array(inputs))  # of which nothing is kept
    assert [image.shape for image in images_in(alone._repr_html_())] == [(60, 96, 3)] * 2
    assert ".over(inputs)" in alone._repr_html_()
    # What follows the arrays through a tree has no inputs; names come and go with them.
    assert len(images_in(found.with_names(["a", "b"])._repr_html_())) == 4
    assert len(images_in(jax.tree.map(lambda x: x, found)._repr_html_())) == 2
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.heatmap, found.heatmap)
    assert len(images_in(again._repr_html_())) == 2
    # The buffer of a loader that has the next pictures in it.
    inputs[:] = RNG.random(inputs.shape)
    assert len(images_in(found._repr_html_())) == 2


def test_series_and_several_inputs_are_shown_a_line_for_each_map():
    inputs = {"ecg": RNG.normal(size=(2, 30)), "scan": jnp.asarray(RNG.random((2, 12, 16, 1))), "age": np.ones((2, 1))}
    heat = {"ecg": made(30).heatmap, "scan": made(12, 16).heatmap, "age": None}
    found = made(30, heatmap=heat, names=("cat", "dog"))._with(_inputs=Lent(inputs))
    html = found._repr_html_()
    assert [picture.shape for picture in images_in(html)] == [(127, 480, 3)] * 2 + [(120, 160, 3)] * 4
    assert re.findall("<th>(.*?)</th>", html) == [
        "ecg 0<br>cat<br>25.0 %<br>ok", "ecg 1<br>dog<br>75.0 %<br>ok", "scan 0", "scan 1",
    ]  # fmt: skip
    del inputs["age"]
    assert len(images_in(found._repr_html_())) == 4  # without one of them they are not what was explained


def test_it_is_no_tuple():
    found = made(4, 4)
    assert not isinstance(found, tuple)
    assert not {"count", "index"} & set(dir(found))


def test_names_are_no_part_of_the_tree():
    found = made(4, 4, names=("cat", "dog"))
    assert found.class_names == ("cat", "dog")
    assert jax.tree.structure(found) == jax.tree.structure(made(4, 4))
    assert jax.tree.map(lambda x: x, found).class_names == ()


@pytest.mark.usefixtures("unchecked")
def test_names_come_from_the_model():
    kernel = jnp.asarray(RNG.normal(size=(3, 3, 2)))

    def model(x):
        return jnp.tanh(jax.lax.conv_general_dilated(x, kernel, (1,), "SAME", None, None, ("NWC", "WIO", "NWC"))).mean(
            1
        )

    inputs = RNG.normal(size=(2, 6, 3))
    net = jaxcam.adapt(model, class_names=("cat", "dog"))
    assert jaxcam.explain(net, inputs).class_names == ("cat", "dog")
    # A target's scores are no classes.
    assert jaxcam.explain(net, inputs, target=lambda outputs, inputs: outputs).class_names == ()
    with pytest.raises(TypeError, match="is 'cat'"):
        jaxcam.explain(net, inputs).with_names("cat")


def broken():
    found = made(4, 4)
    deleted = jnp.ones((2, 4, 4))
    deleted.delete()
    yield "shapes", jax.eval_shape(lambda x: x, found)
    yield "nothing", jax.tree.map(lambda x: None, found)
    yield "objects", jax.tree.map(lambda x: object(), found)
    yield "numbers", jax.tree.map(lambda x: 1.5, found)
    yield "one example", jax.tree.map(lambda x: x[0], found)
    yield "no examples", jax.tree.map(lambda x: x[:0], found)
    yield "deleted", made(4, 4, heatmap=deleted)
    yield "NaN", jax.tree.map(lambda x: x * np.nan if x.dtype.kind == "f" else x, found)
    yield "infinity", made(4, 4, heatmap=np.full((2, 4, 4), np.inf))
    yield "bfloat16", jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16) if x.dtype.kind == "f" else x, found)
    yield "statuses", made(4, 4, status=np.array([-3, 99]))
    yield "classes", made(4, 4, names=("a",), class_idx=np.array([-1, 10**9]))
    yield "other shapes", made(4, 4, status=np.zeros(3, int))
    yield "other heatmaps", made(4, 4, heatmap=np.zeros((3, 4, 4)))
    yield "complex", made(4, 4, heatmap=np.zeros((2, 4, 4), complex))
    yield "words", made(4, 4, heatmap=np.full((2, 4, 4), "x"))
    yield "five axes", made(4, 4, heatmap=np.zeros((2, 2, 2, 2, 2)))
    yield "an empty grid", made(4, 4, heatmap=np.zeros((2, 0, 4)))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("case", "found"), [pytest.param(*each, id=each[0]) for each in broken()])
def test_it_shows_something_whatever_is_in_it(case, found):
    inputs = np.zeros((2, 4, 4, 3))
    text, html = repr(found), found._repr_html_()
    assert text.startswith("Explanation")
    assert found._with(_inputs=Lent(inputs))._repr_html_()
    assert len(text) < 600
    assert html
    if case in ("NaN", "infinity", "bfloat16", "statuses", "classes"):
        assert len(images_in(html)) == 2


def test_it_shows_something_inside_transformations():
    seen = []

    def look(found):
        seen.extend((repr(found), found._repr_html_()))
        return found.value

    jax.jit(jax.vmap(look))(made(4, 4))
    assert "heatmap float32[4,4]" in seen[0]
    assert "heatmap float32[4,4]" in seen[1]


# --- over the inputs ---


def enlarged(picture, width, height, heat=None, style="grey"):
    """The picture in the size of the page, and the heat over that: small pictures have fine contours too."""
    larger = Image.fromarray(np.uint8(np.rint(255 * np.float32(picture)))).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return larger if heat is None else overlay(np.asarray(larger) / 255, heat, style=style)


def test_pictures_are_overlaid_in_the_order_of_their_maps():
    found, inputs = made(40, 60, m=(2,)), RNG.random((2, 40, 60, 3))
    page = found.over(inputs)
    for i in range(2):
        assert within(page, enlarged(inputs[i], 320, 213)) == 1
        for j in range(2):
            assert within(page, enlarged(inputs[i], 320, 213, found.heatmap[i, j])) == 1
    assert within(found.over(inputs, style="plain"), enlarged(inputs[1], 320, 213, found.heatmap[1, 0], "plain")) == 1


def test_series_volumes_and_clips_are_drawn_by_their_own_functions():
    found, inputs = made(30), RNG.normal(size=(2, 30, 2))
    assert within(found.over(inputs), series(inputs[1], found.heatmap[1])) == 1
    assert within(found.over(inputs[..., 0]), series(inputs[0, :, 0], found.heatmap[0])) == 1  # without channels
    found, inputs = made(7, 8, 9, n=1), RNG.random((1, 7, 8, 9, 1))
    cells = volume_cells(inputs[0], found.heatmap[0], longest=320)
    assert [within(found.over(inputs), cell.image) for cell in cells] == [1, 1, 1]
    hottest = int(found.heatmap[0].max((1, 2)).argmax())
    strip = enlarged(np.repeat(inputs[0, hottest], 3, axis=-1), 200, 178, found.heatmap[0, hottest])
    assert within(found.over(inputs, kind="clip"), strip) == 1
    colour = np.repeat(inputs, 3, axis=-1)
    assert found.over(colour).size == found.over(inputs, kind="clip").size


def test_what_is_said_of_a_series_stands_on_lines_of_its_own():
    found, inputs = made(30, names=("cat", "dog"), status=np.array([0, 1])), RNG.normal(size=(2, 30))
    labels = ["0: cat\n25.0 %", "1: dog\n75.0 %\nzero map"]
    drawn = [jaxcam.pictures.Cell(series(inputs[i], found.heatmap[i])) for i in range(2)]
    rows = [jaxcam.pictures.Row(label, [cell]) for label, cell in zip(labels, drawn, strict=True)]
    page = jaxcam.panel(rows, headings=[""], style="plain", cell_size=480)
    np.testing.assert_array_equal(found.over(inputs), page)


def test_channels_may_come_first():
    found, inputs = made(12, 16), RNG.random((2, 12, 16, 3))
    np.testing.assert_array_equal(found.over(np.moveaxis(inputs, -1, 1)), found.over(inputs))


def test_several_inputs_each_have_a_panel():
    heat = {"ecg": made(30).heatmap, "scan": made(12, 16).heatmap, "age": None}
    found = made(30, heatmap=heat)
    inputs = {"ecg": RNG.normal(size=(2, 30)), "scan": RNG.random((2, 12, 16, 1)), "age": np.ones((2, 1))}
    page = found.over(inputs)
    assert within(page, series(inputs["ecg"][1], heat["ecg"][1])) == 1
    own = enlarged(np.repeat(inputs["scan"][0], 3, -1), 320, 240, heat["scan"][0])
    assert within(page, own) == 1
    # Only one has a grid: its heatmap stands alone.
    alone = made(30, heatmap=heat["ecg"])
    assert within(alone.over(inputs), series(inputs["ecg"][1], heat["ecg"][1])) == 1
    assert len(images_in(found._repr_html_())) == 4


def test_larger_pictures_of_the_same_proportions_are_welcome():
    found, inputs = made(16, 16), RNG.random((2, 64, 64, 3))
    own = enlarged(inputs[1], 320, 320, found.heatmap[1])
    assert within(found.over(inputs), own) == 1


def test_an_input_that_is_not_finite_is_told():
    found, inputs = made(40, 60), RNG.random((2, 40, 60, 3))
    inputs[0, 0, 0, 0] = np.nan
    own = enlarged(inputs[1], 320, 213, found.heatmap[1])
    assert within(found.over(inputs), own) == 1


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_laid_over():
    found, inputs = made(6, 8), np.zeros((2, 6, 8, 3))
    for wrong, error, message in (
        (inputs[:1], ValueError, r"those that were explained, \[2, 6, 8\] and channels, but are \[1, 6, 8, 3\]"),
        (np.zeros((2, 5)), ValueError, r"are \[2, 5\]"),
        (inputs.tolist(), TypeError, "but hold a float"),
        ({"a": inputs[:, :3, :3], "b": np.zeros(2)}, ValueError, "none of .* has the heatmap's size"),
        (np.zeros((2, 9, 9, 3)), ValueError, "proportions"),
    ):
        with pytest.raises(error, match=message):
            found.over(wrong)
    with pytest.raises(ValueError, match="kind must be one of series, picture, volume, clip but is 'movie'"):
        found.over(inputs, kind="movie")
    with pytest.raises(ValueError, match="kind must fit heatmaps with 2 axes"):
        found.over(inputs, kind="clip")
    with pytest.raises(ValueError, match="num must be"):
        found.over(inputs, num=0)
    with pytest.raises(TypeError, match="outside of jit"):
        jax.jit(lambda e: e.over(inputs))(found)
    with pytest.raises(TypeError, match="outside of jit"):
        jax.jit(lambda x: found.over(x))(inputs)
