"""The page of a model: its maps are the methods', and what it says of them is true of the network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from test_document import book_of

import jaxcam
from jaxcam.images import Preprocessing

RANDOM = np.random.default_rng(3)
KERNEL = RANDOM.normal(size=(2, 2, 3, 4)) / 2
WEIGHTS, BIAS = RANDOM.normal(size=(4, 3)), RANDOM.normal(size=3)
PLACES, HIDDEN = RANDOM.normal(size=(5 * 5 * 4, 3)) / 3, RANDOM.normal(size=(4, 4))
PICTURE = RANDOM.random((12, 10, 3)).astype(np.float32)
OWN = Preprocessing(resize=10, crop=10, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def activations(images):
    found = jax.lax.conv_general_dilated(
        images, KERNEL.astype(images.dtype), (2, 2), "VALID", None, None, ("NHWC", "HWIO", "NHWC")
    )
    return jax.ad_checkpoint.checkpoint_name(jax.nn.relu(found), "here")


HEADS = {
    "pooled": lambda a: a.mean((1, 2)) @ WEIGHTS.astype(a.dtype) + BIAS[np.newaxis].astype(a.dtype),
    "places": lambda a: a.reshape(len(a), -1) @ PLACES.astype(a.dtype) + BIAS[np.newaxis].astype(a.dtype),
    "hidden": lambda a: jax.nn.relu(a.mean((1, 2)) @ HIDDEN.astype(a.dtype)) @ WEIGHTS.astype(a.dtype),
}


def model(head="pooled"):
    return jaxcam.adapt(
        lambda images: HEADS[head](activations(images)), preprocessing=OWN, class_names=("cat", "dog", "cup")
    )


def mean_map(head, activations, class_idx):
    """CAM's scale: the mean of its cells is the logit less the bias."""
    places = activations.shape[0] * activations.shape[1]
    gradient = jax.grad(lambda a: head(a)[class_idx])(activations)
    return places * (gradient * activations).sum(-1)


@pytest.fixture(scope="module")
def pooled():
    return jaxcam.page(model(), PICTURE, layer="here", methods=["grad_cam", "grad_cam_pp", mean_map])


def test_the_maps_are_the_signed_ones_and_their_cells_give_the_logits(pooled):
    (exhibit,) = pooled.exhibits
    a = np.asarray(jax.jit(activations)(OWN(PICTURE)[None]))[0].astype(np.float64)
    grad_cam, plus_plus, means = exhibit.maps
    expected = np.einsum("ijk,kc->cij", a, WEIGHTS) / a[..., 0].size  # of pooling and a linear layer, by hand
    np.testing.assert_allclose(grad_cam.values, expected, rtol=1e-5, atol=1e-6)
    assert (grad_cam.values < 0).any()
    logits = expected.sum((1, 2)) + BIAS
    np.testing.assert_allclose(exhibit.value, logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(exhibit.confidence, np.exp(logits) / np.exp(logits).sum(), rtol=1e-5)
    np.testing.assert_allclose(grad_cam.bias, BIAS, rtol=1e-6)
    assert (grad_cam.share, plus_plus.share, means.share) == (1, None, 1 / a[..., 0].size)
    assert exhibit.start == logits.argmax()
    assert (grad_cam.title, grad_cam.layer, exhibit.names) == ("Grad-CAM", "here", ("cat", "dog", "cup"))
    assert [each["share"] for each in book_of(pooled)["exhibits"][0]["maps"]] == [1, None, 1 / a[..., 0].size]


def test_on_e_is_the_confidence_on_the_dimmed_pixels(pooled):
    (exhibit,) = pooled.exhibits
    seen, c = OWN.view(PICTURE), exhibit.start
    positive = np.maximum(exhibit.maps[0].values[c], 0)
    small = Image.fromarray((positive / positive.max()).astype(np.float32))
    heat = np.asarray(small.resize((10, 10), Image.Resampling.BILINEAR))
    logits = np.asarray(model()(jnp.asarray(OWN.normalise(seen * heat[..., np.newaxis]))[None]))[0]
    expected = np.exp(logits[c]) / np.exp(logits).sum()
    assert exhibit.maps[0].on_e[c] == pytest.approx(expected, rel=1e-4)
    assert len(exhibit.maps[0].on_e) == 3


@pytest.mark.parametrize(("head", "shares"), [("places", [None, 1.0]), ("hidden", [None, None])])
@pytest.mark.sample(2)
def test_cells_are_no_shares_where_they_do_not_add_up(head, shares):
    shown = jaxcam.page(model(head), PICTURE, layer="here", methods=["grad_cam", "hires_cam"], title="mine")
    assert [maps.share for maps in shown.exhibits[0].maps] == shares
    assert shown.title == "mine"


@pytest.mark.thorough
def test_scores_of_a_target_read_as_words():
    inputs = OWN(PICTURE)[None]
    target = lambda outputs, inputs: outputs["all"][:2] - outputs["all"][2]
    told = jaxcam.adapt(lambda images: {"all": HEADS["pooled"](activations(images))}, preprocessing=OWN)
    words = ("two", "<hearts>")
    shown = jaxcam.page(told, inputs, layer="here", methods="grad_cam", target=target, words=words)
    (exhibit,) = shown.exhibits
    logits = np.asarray(model()(jnp.asarray(inputs)))[0]
    np.testing.assert_allclose(exhibit.value, logits[:2] - logits[2], rtol=1e-5)
    assert (exhibit.names, exhibit.in_order, exhibit.confidence, exhibit.start) == (words, True, None, 0)
    assert exhibit.maps[0].share == 1  # differences of logits are linear too
    np.testing.assert_allclose(exhibit.maps[0].bias, BIAS[:2] - BIAS[2], rtol=1e-6)
    # The inputs were normalised from pixels: these are what is drawn.
    assert np.abs(exhibit.picture[0].mean((0, 1)) - OWN.view(PICTURE).mean((0, 1))).max() < 0.02


def test_only_the_likeliest_and_one_that_is_shown_first():
    shown = jaxcam.page(model(), Image.fromarray(np.uint8(255 * PICTURE)), layer="here", methods="grad_cam", top=2)
    (exhibit,) = shown.exhibits
    assert (len(exhibit.names), exhibit.num_classes) == (2, 3)
    assert exhibit.confidence[0] >= exhibit.confidence[1]
    missing = ({"cat", "dog", "cup"} - set(exhibit.names)).pop()
    at = ("cat", "dog", "cup").index(missing)
    with pytest.raises(ValueError, match=f"class_idx={at} is not among the 2 likeliest of 3"):
        jaxcam.page(model(), PICTURE, layer="here", methods="grad_cam", top=2, class_idx=at)


@pytest.mark.parametrize(
    ("inputs", "options", "error", "message"),
    [
        (PICTURE, {"methods": []}, ValueError, "methods must name at least one"),
        (PICTURE, {"methods": "gradcam"}, ValueError, "method='gradcam' is not known"),
        (PICTURE, {"methods": "guided_backprop"}, ValueError, "methods must make maps but 'guided_backprop'"),
        (PICTURE, {"layer": []}, ValueError, "layer must name at least one"),
        (PICTURE, {"words": ["a"]}, ValueError, "words must come with the target"),
        (PICTURE, {"target": lambda o, i: o, "top": 2}, ValueError, "target excludes class_idx and top"),
        (PICTURE, {"target": lambda o, i: o, "words": ["a"]}, ValueError, "words must be one for each of the 3 scores"),
        (PICTURE, {"class_idx": 3}, ValueError, "class_idx=3 is out of range"),
        (PICTURE, {"top": 0}, ValueError, "top must be at least 1"),
        (PICTURE, {"size": 3}, ValueError, "size must be at least 32"),
        ([], {}, ValueError, "at least one picture"),
        ({"a": PICTURE}, {}, TypeError, "inputs must be pictures"),
        ("nothing.jpg", {}, FileNotFoundError, "nothing.jpg"),
        (PICTURE[0], {}, ValueError, r"inputs must be pictures \[n, H, W, d\]"),
        (PICTURE[None, None, None], {}, ValueError, r"inputs must be pictures \[n, H, W, d\]"),
    ],
)
def test_bad_input(inputs, options, error, message, unchecked):
    with pytest.raises(error, match=message):
        jaxcam.page(model(), inputs, **{"layer": "here", "methods": "grad_cam"} | options)


def test_pictures_need_preprocessing():
    bare = jaxcam.adapt(lambda images: HEADS["pooled"](activations(images)))
    with pytest.raises(ValueError, match="no preprocessing for pictures"):
        jaxcam.page(bare, Image.new("RGB", (10, 10)))
    with pytest.raises(ValueError, match="of series draw"):
        jaxcam.page(bare, PICTURE)


@pytest.mark.thorough
def test_clips_and_volumes_go_frame_by_frame():
    kernel = RANDOM.normal(size=(1, 2, 2, 1, 4)).astype(np.float32)

    def net(volumes):
        found = jax.lax.conv_general_dilated(
            volumes, kernel, (1, 2, 2), "VALID", None, None, ("NDHWC", "DHWIO", "NDHWC")
        )
        return jax.nn.relu(found).mean((1, 2, 3)) @ WEIGHTS.astype(np.float32)

    volumes = RANDOM.random((2, 3, 6, 4, 1)).astype(np.float32)
    shown = jaxcam.page(net, volumes, methods="grad_cam", size=60)
    first, second = shown.exhibits
    assert (shown.title, first.label, first.frame_name) == ("2 pictures", "volume 1", "Slice")
    assert first.maps[0].values.shape == (3, 3, 3, 2)
    assert first.maps[0].layer == "convolution 0"
    assert first.names == ("class 0", "class 1", "class 2")
    assert first.picture.shape == (3, 60, 40, 3)
    assert np.abs(first.maps[0].values - second.maps[0].values).max() > 1e-3
    # Without pixels E is the input times the map.
    c = first.start
    positive = np.maximum(first.maps[0].values[c], 0)
    heat = jaxcam.maps.resized(jnp.asarray(positive / positive.max()), (3, 6, 4))
    logits = np.asarray(net(jnp.asarray(volumes[:1] * np.asarray(heat)[..., np.newaxis])))[0]
    assert first.maps[0].on_e[c] == pytest.approx(np.exp(logits[c]) / np.exp(logits).sum(), rel=1e-4)


@pytest.mark.thorough
def test_channels_are_where_the_program_has_them():
    net = lambda images: HEADS["pooled"](activations(images.transpose(0, 2, 3, 1)))
    inputs = RANDOM.random((1, 3, 12, 6)).astype(np.float32)
    shown = jaxcam.page(net, inputs, methods="grad_cam", layer="here", size=36)
    assert shown.exhibits[0].picture.shape == (1, 36, 18, 3)
    np.testing.assert_allclose(shown.exhibits[0].picture[0].mean((0, 1)), inputs[0].mean((1, 2)), atol=0.02)
