"""Colour maps against published tables, and overlays against the formula by hand."""

import inspect

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from jaxcam.pictures import colour_map, overlay

RNG = np.random.default_rng(0)


# --- colour maps ---

# Entries of matplotlib's tables of 256 colours (viridis, inferno and magma are CC0, turbo is Apache-2.0).
PUBLISHED = {
    "viridis": {
        0: (0.267004, 0.004874, 0.329415),
        3: (0.271305, 0.019942, 0.347269),
        64: (0.229739, 0.322361, 0.545706),
        128: (0.127568, 0.566949, 0.550556),
        200: (0.440137, 0.811138, 0.340967),
        253: (0.974417, 0.90359, 0.130215),
        255: (0.993248, 0.906157, 0.143936),
    },
    "inferno": {
        0: (0.001462, 0.000466, 0.013866),
        3: (0.004547, 0.003392, 0.030909),
        64: (0.3415, 0.062325, 0.429425),
        128: (0.735683, 0.215906, 0.330245),
        200: (0.985952, 0.61575, 0.025592),
        253: (0.976511, 0.989753, 0.61676),
        255: (0.988362, 0.998364, 0.644924),
    },
    "magma": {
        0: (0.001462, 0.000466, 0.013866),
        3: (0.004512, 0.00349, 0.029965),
        64: (0.316654, 0.07169, 0.48538),
        128: (0.716387, 0.214982, 0.47529),
        200: (0.992785, 0.594891, 0.410283),
        253: (0.987691, 0.977154, 0.734536),
        255: (0.987053, 0.991438, 0.749504),
    },
    "turbo": {
        0: (0.18995, 0.07176, 0.23217),
        3: (0.20415, 0.10652, 0.31844),
        64: (0.15844, 0.73551, 0.92305),
        128: (0.64362, 0.98999, 0.23356),
        200: (0.95801, 0.39958, 0.08831),
        253: (0.50664, 0.02354, 0.00863),
        255: (0.4796, 0.01583, 0.01055),
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_colour_maps_agree_with_the_published_tables(name):
    entries = PUBLISHED[name]
    values = np.array([list(entries)]) / 255
    # 0.0044 was the greatest error over the whole tables, when the anchors were chosen.
    np.testing.assert_allclose(colour_map(values, name=name)[0], list(entries.values()), atol=0.0045)
    ends = colour_map(np.array([[0.0, 1.0]]), name=name)[0]
    np.testing.assert_allclose(ends, [entries[0], entries[255]], atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("name", PUBLISHED)
def test_colour_maps_are_smooth(name):
    """A wrong digit in an anchor would be a kink: nowhere does the step change by more than 6 of 255."""
    colours = 255 * colour_map(np.linspace(0, 1, 52)[np.newaxis], name=name)[0]
    assert np.abs(np.diff(colours, 2, axis=0)).max() < 6.01


@pytest.mark.parametrize("name", ["viridis", "inferno", "magma", "gray"])
def test_perceptual_maps_grow_lighter_evenly(name):
    colours = colour_map(np.linspace(0, 1, 101)[np.newaxis], name=name)[0].astype(np.float64)
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    lightness = np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)  # CIE L*
    steps = np.diff(lightness)
    assert steps.min() > 0
    assert abs(steps - steps.mean()).max() < 0.75 * steps.mean()


def test_gray_is_the_value_and_jax_arrays_are_fine():
    values = RNG.random((3, 4)).astype(np.float32)
    np.testing.assert_allclose(colour_map(values, name="gray"), np.repeat(values[..., np.newaxis], 3, -1), atol=1e-6)
    np.testing.assert_array_equal(colour_map(jnp.asarray(values)), colour_map(values))


def test_colours_between_anchors_are_interpolated():
    # Entries 5 and 10 of viridis are anchors: #46085c and #471063.
    middle = colour_map(np.array([[7.5 / 255]]), name="viridis")[0, 0] * 255
    np.testing.assert_allclose(middle, [(0x46 + 0x47) / 2, (0x08 + 0x10) / 2, (0x5C + 0x63) / 2], atol=1e-3)


# --- overlays ---

PIXELS = np.array([[[0.2, 0.4, 0.6], [0.2, 0.4, 0.6], [1.0, 0.0, 0.4]]])
HEAT = np.array([[0.0, 1.0, 0.5]])  # gray: the colours are (0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"alpha": 0.5}, [[0.1, 0.2, 0.3], [0.6, 0.7, 0.8], [0.75, 0.25, 0.45]]),
        ({"alpha": 0.2}, [[0.16, 0.32, 0.48], [0.36, 0.52, 0.68], [0.9, 0.1, 0.42]]),
        ({"alpha": 0}, PIXELS[0]),
        ({"alpha": 1}, [[0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5]]),
    ],
)
def test_blending_by_hand(options, expected):
    picture = overlay(PIXELS, HEAT, style="plain", colormap="gray", **options)
    assert (picture.mode, picture.size) == ("RGB", (3, 1))
    np.testing.assert_allclose(np.asarray(picture)[0], 255 * np.asarray(expected), atol=0.501)


@pytest.mark.parametrize(
    ("heat", "grey", "colour"),
    [  # Y = 0.299 · 0.2 + 0.587 · 0.4 + 0.114 · 0.6 = 0.363, and 0.08 + 0.92 Y = 0.41396
        (0.0, 0.41396, [0.2, 0.4, 0.6]),
        (0.1, 0.33547, [0.175, 0.325, 0.475]),  # a = 1/4
        (0.2, 0.30698, [0.2, 0.3, 0.4]),  # a = 1/2, and no more
        (0.9, 0.65698, [0.55, 0.65, 0.75]),
    ],
)
def test_what_is_cold_stays_as_it_is(heat, grey, colour):
    for style, expected in (("grey", [grey] * 3), ("colour", colour)):
        picture = overlay(PIXELS[:, :2], np.full((1, 2), heat), style=style, colormap="gray")
        np.testing.assert_allclose(np.asarray(picture)[0, 0], 255 * np.asarray(expected), atol=0.501)


@pytest.mark.parametrize("angle", [0, 30, 90])
@pytest.mark.parametrize("size", [448, 896, 100])
def test_contours_have_their_places_and_widths(angle, size):
    """On an even slope the lines are straight: ink = width · length."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    across = x * np.cos(np.radians(angle)) + y * np.sin(np.radians(angle))
    length = 0.8 * size
    heat = np.clip(0.5 + across / length, 0, 1)
    drawn = np.asarray(overlay(np.zeros((size, size, 3)), heat, style="colour", alpha=0))[..., 0] / 255
    rim, unit = 22 / 255, max(size / 448, 0.5)
    for level, width in ((0.25, 1.0), (0.5, 1.8), (0.75, 1.0)):
        place = (level - 0.5) * length
        near = (abs(across - place) < 0.1 * length) & (x**2 + y**2 < (0.45 * size) ** 2)
        chord = 2 * np.sqrt((0.45 * size) ** 2 - place**2)
        ink = (width + rim * 1.2) * unit * chord
        assert drawn[near].sum() == pytest.approx(ink, rel=0.05)
        assert np.average(across[near], weights=drawn[near]) == pytest.approx(place, abs=0.1)


def test_no_contour_where_the_heat_is_flat():
    for level in (0.25, 0.5, 0.75):
        flat = overlay(np.full((60, 60, 3), 0.3), np.full((60, 60), level), style="colour", alpha=0)
        assert np.asarray(flat).min() == np.asarray(flat).max() == 76


def test_plain_has_no_contours_and_one_opacity():
    heat = np.tile(np.linspace(0, 1, 200), (200, 1))
    drawn = np.asarray(overlay(np.ones((200, 200, 3)), heat, style="plain", colormap="gray"))
    np.testing.assert_allclose(drawn[..., 0], 255 * (0.5 + 0.5 * heat), atol=0.51)


def test_blending_uses_the_colour_map():
    heat, image = RNG.random((6, 5)), RNG.random((6, 5, 3))
    for options, name in (({}, "inferno"), ({"colormap": "turbo"}, "turbo")):
        expected = 0.5 * image + 0.5 * colour_map(heat, name=name)
        np.testing.assert_allclose(
            np.asarray(overlay(image, heat, style="plain", **options)), 255 * expected, atol=0.501
        )


def test_a_small_heatmap_is_resized_by_hand():
    # Centres at half-integers: the four new pixels lie at 0, 1/4, 3/4 and 1 between the two old ones.
    picture = overlay(np.zeros((2, 4, 3)), np.array([[0.0, 1.0]]), style="plain", alpha=1, colormap="gray")
    np.testing.assert_array_equal(np.asarray(picture)[:, :, 0], [[0, 64, 191, 255]] * 2)


@pytest.mark.parametrize(("small", "large"), [((7, 5), (56, 40)), ((13, 5), (40, 16)), ((20, 30), (8, 12))])
def test_resizing_agrees_with_jax(small, large):
    heat = RNG.random(small).astype(np.float32)
    expected = np.asarray(jax.image.resize(jnp.asarray(heat), large, "bilinear"))
    picture = overlay(np.zeros((*large, 3)), heat, style="plain", alpha=1, colormap="gray")
    np.testing.assert_allclose(np.asarray(picture)[:, :, 0], 255 * expected, atol=0.51)


def test_jax_arrays_of_any_precision_are_drawn():
    image, heat = jnp.asarray(PIXELS, jnp.float32), jnp.asarray(HEAT, jnp.bfloat16)
    np.testing.assert_array_equal(np.asarray(overlay(image, heat)), np.asarray(overlay(PIXELS, HEAT)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"image": (PIXELS * 255).astype(np.uint8)}, TypeError, "image must be floating point.*got uint8"),
        ({"image": PIXELS * 255}, ValueError, r"image must lie in \[0, 1\], got values from 0 to 255"),
        ({"image": PIXELS[0]}, ValueError, r"image must have shape \[H, W, 3\], got \[3, 3\]"),
        ({"heatmap": HEAT * 2}, ValueError, r"heatmap must lie in \[0, 1\], got values from 0 to 2; divide"),
        ({"heatmap": HEAT - 1}, ValueError, "got values from -1 to 0"),
        ({"heatmap": HEAT * np.nan}, ValueError, "heatmap must be finite, got 3 values"),
        ({"heatmap": HEAT[np.newaxis]}, ValueError, r"heatmap must have shape \[H, W\].*heatmap\[0\]"),
        ({"heatmap": HEAT[:, :0]}, ValueError, "heatmap is empty"),
        ({"heatmap": HEAT > 0}, TypeError, "heatmap must be floating point.*got bool"),
        ({"heatmap": HEAT.tolist()}, TypeError, "got list"),
        ({"alpha": 1.5}, ValueError, "alpha .* 1 .* 1.5"),
        ({"alpha": np.nan}, ValueError, "alpha .* nan"),
        ({"alpha": "half"}, TypeError, "alpha .* 'half'"),
        ({"style": "gray"}, ValueError, "style must be one of grey, colour, plain but is 'gray'"),
        ({"colormap": "jet"}, ValueError, "must be one of viridis, inferno, magma, turbo, gray, got 'jet'"),
    ],
)
def test_what_cannot_be_overlaid(change, error, message):
    arguments = {"image": PIXELS, "heatmap": HEAT, **change}
    with pytest.raises(error, match=message):
        inspect.unwrap(overlay)(arguments.pop("image"), arguments.pop("heatmap"), **arguments)


def test_a_colour_map_refuses_what_is_no_map():
    with pytest.raises(ValueError, match=r"values must have shape \[H, W\], got \[3\]"):
        inspect.unwrap(colour_map)(HEAT[0])
    with pytest.raises(ValueError, match="values must lie in"):
        inspect.unwrap(colour_map)(HEAT * 2)


@pytest.mark.usefixtures("unchecked")
def test_heatmap_of_other_proportions_is_refused():
    picture = np.zeros((280, 425, 3), np.float32)
    with pytest.raises(ValueError, match=r"of the image \[280, 425\], but came as \[224, 224\]: lay it over"):
        overlay(picture, np.zeros((224, 224), np.float32))
    for size in ((280, 425), (9, 14), (9, 13), (1, 1)):  # rounded to whole positions
        over = overlay(picture, np.ones(size, np.float32), style="plain", alpha=1, colormap="gray")
        assert over.getpixel((3, 3)) == (255, 255, 255)
