"""Any input: series, volumes, clips, channels first, several inputs, integers. Maps are those of `jax.grad` by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import drawn, normal

import jaxcam

STRINGS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}
FIRST = {1: ("NCW", "WIO", "NCW"), 2: ("NCHW", "HWIO", "NCHW"), 3: ("NCDHW", "DHWIO", "NCDHW")}
SIZES = {1: (9,), 2: (6, 5), 3: (4, 5, 3)}


def conv(x, kernel, names):
    axes = len(kernel.shape) - 2
    return jax.lax.conv_general_dilated(x, kernel, (1,) * axes, "SAME", None, None, names, precision="highest")


def by_hand(features, head, inputs):
    """Grad-CAM for each example, with channels last."""

    def one(x):
        a = features(x)
        gradient = jax.grad(lambda a: head(a, x))(a)
        return jax.nn.relu(jnp.tensordot(a, gradient.mean(tuple(range(a.ndim - 1))), 1))

    return jax.jit(jax.vmap(one))(inputs)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.sample(3)
def test_any_number_of_spatial_axes_channels_first_or_last(axes):
    kernel, last = normal(1, *(3,) * axes, 2, 4) / 3, normal(2, 4, 5)
    inputs = np.abs(normal(0, 3, *SIZES[axes], 2))
    spatial = tuple(range(1, axes + 1))
    model = lambda x: jnp.tanh(jax.nn.relu(conv(x, kernel, STRINGS[axes])).mean(spatial)) @ last
    features = lambda x: jax.nn.relu(conv(x[None], kernel, STRINGS[axes]))[0]
    head = lambda a, x: (jnp.tanh(a.mean(tuple(range(axes)))) @ last)[3]
    expected = by_hand(features, head, inputs)
    assert np.asarray(expected).max() > 1e-3
    found = jaxcam.explain(model, inputs, class_idx=3)
    np.testing.assert_allclose(found.cam_map, expected, rtol=1e-10, atol=1e-13)
    top = np.asarray(expected).max(spatial, keepdims=True)
    np.testing.assert_allclose(found.heatmap, expected / top, rtol=1e-10, atol=1e-13)

    moved = np.moveaxis(inputs, -1, 1)
    first = lambda x: jnp.tanh(jax.nn.relu(conv(x, kernel, FIRST[axes])).mean([a + 1 for a in spatial])) @ last
    found = jaxcam.explain(first, moved, class_idx=3)
    np.testing.assert_allclose(found.cam_map, expected, rtol=1e-10, atol=1e-13)
    guided = jaxcam.explain(first, moved, class_idx=3, method="guided_grad_cam")
    plain = jaxcam.explain(model, inputs, class_idx=3, method="guided_grad_cam")
    np.testing.assert_allclose(np.moveaxis(guided.gradient, 1, -1), plain.gradient, rtol=1e-10, atol=1e-13)
    assert np.abs(plain.gradient).max() > 1e-4


KERNEL, LAST, META = normal(1, 3, 3, 2, 4) / 3, normal(2, 4, 5), normal(3, 7, 4)
IMAGE, OTHER, FACTS = np.abs(normal(0, 3, 6, 5, 2)), np.abs(normal(6, 3, 6, 5, 2)), normal(4, 3, 7)


def encode(x):
    return jax.nn.relu(conv(x, KERNEL, STRINGS[2]))


def encode_grey(x):
    return jax.nn.relu(conv(x, KERNEL[:, :, :1], STRINGS[2]))


def test_a_picture_and_facts_about_it():
    # The facts scale the channels: the network's way from them goes beside the layer.
    model = lambda d: (encode(d["picture"]).mean((1, 2)) * jnp.tanh(d["facts"] @ META)) @ LAST
    inputs = {"facts": FACTS, "picture": IMAGE}
    head = lambda a, d: ((a.mean((0, 1)) * jnp.tanh(d["facts"] @ META)) @ LAST)[1]
    expected = by_hand(lambda d: encode(d["picture"][None])[0], head, inputs)
    assert np.asarray(expected).max() > 1e-3
    found = jaxcam.explain(model, inputs, class_idx=1)
    np.testing.assert_allclose(found.cam_map, expected, rtol=1e-10, atol=1e-13)
    assert found.heatmap.shape == (3, 6, 5)
    # Other facts, another map: they were not taken from another example.
    turned = jaxcam.explain(model, {"facts": FACTS[::-1], "picture": IMAGE}, class_idx=1)
    np.testing.assert_allclose(turned.cam_map[1], found.cam_map[1], rtol=1e-10, atol=1e-13)
    assert np.abs(turned.cam_map[0] - found.cam_map[0]).max() > 1e-3


def test_a_pair_has_a_map_for_each():
    distance = lambda pair: -((encode(pair[0]).mean((1, 2)) - encode(pair[1]).mean((1, 2))) ** 2).sum(1)
    model = jaxcam.adapt(distance, probability=None)
    found = jaxcam.explain(model, (IMAGE, OTHER))

    def head(which):
        mean = lambda a, x, i: (a if i == which else encode(x[None])[0]).mean((0, 1))
        means = lambda a, pair: [mean(a, x, i) for i, x in enumerate(pair)]
        return lambda a, pair: -((m := means(a, pair))[0] - m[1]) @ (m[0] - m[1])

    for i in (0, 1):
        expected = by_hand(lambda pair, i=i: encode(pair[i][None])[0], head(i), (IMAGE, OTHER))
        np.testing.assert_allclose(found.cam_map[i], expected, rtol=1e-10, atol=1e-13)
        only = jaxcam.explain(jaxcam.adapt(model, input=i), (IMAGE, OTHER))
        np.testing.assert_array_equal(only.heatmap, found.heatmap[i])
    assert max(np.asarray(c).max() for c in found.cam_map) > 1e-4
    in_dictionary = jaxcam.adapt(lambda d: distance(d["pair"]), probability=None)
    with_facts = jaxcam.explain(in_dictionary, {"pair": (IMAGE, OTHER), "id": np.arange(3)})
    assert with_facts.heatmap["id"] is None
    np.testing.assert_array_equal(with_facts.heatmap["pair"][1], found.heatmap[1])


@pytest.mark.parametrize("method", ["score_cam", "ablation_cam", "smooth_grad_cam_pp", "guided_backprop"])
@pytest.mark.sample(4)
def test_methods_that_run_the_model_keep_the_other_inputs(method):
    # One input at a time by a closure over the other, against both together.
    model = lambda d: (encode(d["picture"]).mean((1, 2)) * jnp.tanh(d["facts"] @ META)) @ LAST
    options = {"key": jax.random.key(3), "num_samples": 3} if method == "smooth_grad_cam_pp" else {}
    inputs = {"facts": FACTS[:1], "picture": IMAGE[:1]}
    together = jaxcam.explain(model, inputs, class_idx=1, method=method, **options)
    closed = jaxcam.explain(
        lambda x: model({"facts": FACTS[:1], "picture": x}), IMAGE[:1], class_idx=1, method=method, **options
    )
    np.testing.assert_allclose(together.cam_map, closed.cam_map, rtol=1e-9, atol=1e-13)
    assert np.abs(together.cam_map).max() > 1e-5


def test_integers_that_the_model_scales():
    pixels = (IMAGE / IMAGE.max() * 255).astype(np.uint8)
    scaled = lambda x: encode((x.astype(float) - 100) / 50).mean((1, 2)) @ LAST
    found = jaxcam.explain(scaled, pixels, class_idx=2)
    floats = jaxcam.explain(scaled, pixels.astype(float), class_idx=2)
    np.testing.assert_array_equal(found.cam_map, floats.cam_map)
    assert found.status.tolist() == [0, 0, 0]


def test_complex_numbers_as_two_channels():
    """As spectra and fields are: the way on that the refusal of complex inputs names."""
    kernel, out = drawn(60, 2, 4), drawn(61, 4, 3)
    features = lambda z: jax.nn.relu(jnp.abs(z) @ kernel)
    model = lambda z: features(z).mean((1, 2)) @ out
    net = jaxcam.adapt(model, apply=lambda model, x: model(jax.lax.complex(*jnp.split(x, 2, -1))))
    z = drawn(62, 2, 4, 5, 2) + 1j * drawn(63, 2, 4, 5, 2)
    found = jaxcam.explain(net, np.concatenate([z.real, z.imag], -1))
    weights = out[:, np.argmax(model(z), 1)].T / 20
    expected = np.maximum(np.einsum("nijk,nk->nij", features(z), weights), 0)
    assert expected.max() > 0
    np.testing.assert_allclose(found.cam_map, expected, rtol=1e-12)


@pytest.mark.usefixtures("unchecked")
def test_grey_pictures_whose_axis_of_channels_the_model_adds():
    # Their last axis, columns, would be taken for the channels, and the heatmap be [n, H].
    model = lambda x: encode_grey(x[..., None]).mean((1, 2)) @ LAST
    with pytest.raises(ValueError, match=r"must have an axis of channels, but <lambda> takes \[1, 6, 5\] and looks"):
        jaxcam.explain(model, IMAGE[..., 0], class_idx=1)
    volumes = lambda x: jax.nn.relu(conv(x[..., None], normal(1, 3, 3, 3, 1, 4), STRINGS[3])).mean((1, 2, 3)) @ LAST
    with pytest.raises(ValueError, match="must have an axis of channels"):
        jaxcam.explain(volumes, IMAGE)
    remedy = jaxcam.adapt(model, apply=lambda model, x: model(x[..., 0]))
    found = jaxcam.explain(remedy, IMAGE[..., :1], class_idx=1)
    expected = by_hand(lambda x: encode_grey(x[None])[0], lambda a, x: (a.mean((0, 1)) @ LAST)[1], IMAGE[..., :1])
    assert np.asarray(expected).max() > 1e-3
    np.testing.assert_allclose(found.cam_map, expected, rtol=1e-10, atol=1e-13)
    # Channels one by one are none of that: each is convolved, and no two of them together. They are no rows, either.
    each = lambda x: encode_grey(jnp.moveaxis(x, -1, 1).reshape(-1, 6, 5, 1)).reshape(-1, 2, 6, 5, 4)
    found = jaxcam.explain(lambda x: each(x).sum(1).mean((1, 2)) @ LAST, IMAGE, class_idx=1)
    expected = by_hand(lambda x: each(x[None])[0].sum(0), lambda a, x: (a.mean((0, 1)) @ LAST)[1], IMAGE)
    np.testing.assert_allclose(found.cam_map, expected, rtol=1e-10, atol=1e-13)


class OfFrames(nnx.Module):
    """A network of one clip [t, H, W, d] that returns [1, c]."""

    def __init__(self):
        self.conv = nnx.Conv(2, 4, (3, 3), param_dtype=jnp.float64, rngs=nnx.Rngs(0))

    def __call__(self, frames):
        return self.conv(frames).mean((1, 2)).mean(0, keepdims=True)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("options", [{}, {"target": lambda outputs, inputs: outputs[1]}])
def test_frames_given_as_a_batch_are_refused(options):
    # Of one frame they return one row, as for one example: what two of them return shows it.
    net = OfFrames()
    for model in (net, lambda x: net(x)):
        with pytest.raises(ValueError, match=r"must keep the axis n .*\[1, 4\] for two examples like float64\[1, 6"):
            jaxcam.explain(model, IMAGE, **options)
    one_at_a_time = lambda x: net(x.reshape(1, 6, 5, 2))  # `adapt` says that one example comes at a time
    assert jaxcam.explain(one_at_a_time, IMAGE, **options).heatmap.shape == (3, 6, 5)


def test_standardised_weights_are_no_statistics_of_a_batch():
    # Kernels [1, 1, d, k] and [2, 2, d, k] are summed over a first axis of one and of two, and no images are.
    kernels = jnp.asarray(normal(1, 1, 1, 2, 4)), jnp.asarray(normal(2, 2, 2, 4, 5))
    standard = lambda w: w - w.mean((0, 1, 2), keepdims=True)
    net = lambda x, a, b: conv(jax.nn.relu(conv(x, a, STRINGS[2])), b, STRINGS[2]).mean((1, 2))
    found = jaxcam.explain(lambda x: net(x, *map(standard, kernels)), IMAGE, class_idx=1)
    fixed = [np.asarray(w) - np.asarray(w).mean((0, 1, 2), keepdims=True) for w in kernels]
    np.testing.assert_allclose(found.value, net(IMAGE, *fixed)[:, 1], rtol=1e-10)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("model", "inputs", "options", "error", "message"),
    [
        (encode, IMAGE, {}, ValueError, r"must return logits \[n, c\] for inputs \[1, 6, 5, 2\], but returned \[1, 6"),
        (
            lambda x: encode(x).mean((1, 2)),
            IMAGE[..., 0],
            {},
            ValueError,
            r"(.|\n)*one channel an axis .*\.\.\., N",
        ),
        (
            lambda x: encode(x.astype(float)).mean((1, 2)),
            IMAGE > 0.5,
            {},
            ValueError,
            "inputs must have positions .* but are bool.*: bool is for masks, inputs.astype",
        ),
        (
            lambda d: encode(d["a"]).mean((1, 2)),
            {"a": IMAGE, "weights": IMAGE[..., 0]},
            {},
            ValueError,
            r"inputs: of several one, \[1, 6, 5\], goes into no layer .*adapt\(model, input=\.\.\.\)",
        ),
        (encode, IMAGE.astype(np.uint8), {}, ValueError, r"uint8\[1, 6, 5, 2\](.|\n)*pixels are to be divided by 255"),
        (lambda d: d["b"], {"a": IMAGE}, {}, ValueError, r"inputs \['a'\]: float64\[1, 6, .*: no 'b'\n\(see"),
        (IMAGE, encode, {}, TypeError, "model must be something that can be called"),
        (
            lambda x: x @ META,
            FACTS,
            {},
            ValueError,
            r"inputs must be \[n, \*spatial, d\].* came as \[3, 7\].*\.\.\., None",
        ),
        (lambda a, b: a, (IMAGE, FACTS), {}, ValueError, r"apply=lambda model, x: model\(\*x\)"),
        (lambda a, b: a, {"a": IMAGE, "b": FACTS}, {}, ValueError, r"apply=lambda model, x: model\(\*\*x\)"),
        (
            lambda x: jax.lax.transpose(x, (2, 0, 1)),
            IMAGE,
            {},
            ValueError,
            r"as apply=lambda model, x: jax\.vmap\(model\)\(x\) for a model of one example",
        ),
        (lambda d: d["a"], {"a": IMAGE, "b": FACTS[:2]}, {}, ValueError, "inputs must share their first axis n"),
        (lambda d: d, {"a": "text"}, {}, TypeError, "inputs must be an array .* but hold str"),
        (lambda x: x, IMAGE + 1j, {}, TypeError, r"must be real but .* complex128: give jnp\.concatenate"),
        (
            lambda x: encode((x.astype(float)) / 5).mean((1, 2)),
            IMAGE.astype(np.uint8),
            {"method": "score_cam"},
            TypeError,
            "must be floating point for method='score_cam', which changes them",
        ),
        (
            jaxcam.adapt(lambda d: encode(d["a"]).mean((1, 2)), input="c"),
            {"a": IMAGE, "b": FACTS},
            {},
            ValueError,
            r"input='c' must be one of the inputs, with positions, but they are a: float64\[1, 6, 5, 2\], b",
        ),
    ],
)
def test_documented_errors(model, inputs, options, error, message):
    with pytest.raises(error, match=message):
        jaxcam.explain(model, inputs, **options)
