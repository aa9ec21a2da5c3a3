"""The networks of captions and questions: word by word written out, through the scan, decoded, and explained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import drawn, network
from test_sequences import convolved, normed, relu

import jaxcam
from jaxcam import models, scenes, targets
from jaxcam.models import train, weights

NAMES = ("mini_captioner", "mini_vqa")
CAPTIONS = ("two red hearts", "a star")
QUESTIONS = ("what colour is the ring?", "how many discs?")
LENGTH = 6


def marked(sentence):
    """Start, its words, end, pads."""
    row = [scenes.START, *scenes.encode(sentence).tolist(), scenes.END]
    return row + [scenes.PAD] * (LENGTH - len(row))


WORDS = {
    "mini_captioner": np.array([marked(sentence) for sentence in CAPTIONS], np.int32),
    "mini_vqa": np.stack([scenes.encode(sentence, length=LENGTH) for sentence in QUESTIONS]),
}


def created(name):
    return network(models.WORD_MODELS[name], dtype=np.float64)


def inputs(name):
    return {"image": np.random.default_rng(1).uniform(size=(2, 16, 20, 3)), "words": WORDS[name]}


# Written out, one step after the other, for NumPy or to be differentiated; of one picture.


def features(model, image):
    s, x = model.sight.stages, (image[None] - 0.5) / 0.25
    for i in range(1, 6):
        x = relu(normed(convolved(x, s[f"conv{i}"]), s[f"bn{i}"]))
        if i == 2:
            n, h, w, k = x.shape
            x = x.reshape(n, h // 2, 2, w // 2, 2, k).max((2, 4))
    return x[0]


def linear(x, layer, xp):
    bias = xp.asarray(layer.bias[...])
    return x @ xp.asarray(layer.kernel[...]) + bias.reshape((1,) * (x.ndim - 1) + bias.shape)


def softmax(x, xp=np):
    return xp.exp(x) / xp.exp(x).sum()


def states(model, a, words, xp=np):
    """The hidden state after every word `[l, k]`, from features `[i, j, k]`."""
    sigmoid = lambda x: 1 / (1 + xp.exp(-x))
    h, w, _ = a.shape
    where = [[(2 * j + 1) / w - 1, (2 * i + 1) / h - 1] for i in range(h) for j in range(w)]
    look, hidden, cell, found = model.attention, xp.zeros(96), xp.zeros(96), []
    at = linear(xp.asarray(where), look.where, xp)
    keys = (linear(a.reshape(h * w, -1), look.key, xp) + at[:, :64]).reshape(h * w, 4, 16)
    values = (linear(a.reshape(h * w, -1), look.value, xp) + at[:, 64:]).reshape(h * w, 4, 24)
    for word in words:
        if word != scenes.PAD:
            x = xp.asarray(model.embedding[...])[word]
            query = linear(xp.concatenate([x, hidden]), look.query, xp).reshape(4, -1)
            scores = [keys[:, head] @ query[head] / 4 for head in range(4)]  # the root of 16
            means = [softmax(scores[head], xp) @ values[:, head] for head in range(4)]
            amounts = [16 * sigmoid(scores[head] + look.bias[...][head]).mean() for head in range(4)]
            gates = linear(xp.concatenate([x, *means, xp.stack(amounts), hidden]), model.gates, xp)
            i, f, o, g = (gates[at : at + 96] for at in range(0, 384, 96))
            cell = sigmoid(f + 1) * cell + sigmoid(i) * xp.tanh(g)
            hidden = sigmoid(o) * xp.tanh(cell)
        found.append(hidden)
    return xp.stack(found)


def outputs(model, a, words, xp=np):
    if isinstance(model, models.MiniCaptioner):
        return linear(states(model, a, words[:-1], xp), model.fc, xp)
    return linear(xp.maximum(linear(states(model, a, words, xp)[-1], model.fc1, xp), 0), model.fc2, xp)


@pytest.mark.parametrize("name", NAMES)
def test_networks_are_their_layers(name, tmp_path):
    model, given = created(name), inputs(name)
    found = jax.jit(lambda model, x: model(x))(model, given)
    expected = [outputs(model, features(model, x), words) for x, words in zip(*given.values(), strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)
    assert len(model.class_names) == found.shape[-1]
    weights.save(model, tmp_path / "w.safetensors")
    again = models.WORD_MODELS[name](tmp_path / "w.safetensors", dtype=np.float64)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert again.class_names == model.class_names


def test_several_questions_about_a_picture_are_one_by_one():
    model, given = created("mini_vqa"), inputs("mini_vqa")
    own, other = given["words"], given["words"][::-1]
    cases = [{**given, "words": words} for words in (np.stack([own, other], 1), own, other)]
    together, *alone = jax.jit(lambda model, cases: [model(case) for case in cases])(model, cases)
    np.testing.assert_allclose(together, np.stack(alone, 1), rtol=1e-12)
    assert np.abs(together[:, 0] - together[:, 1]).max() > 1e-3


def test_teacher_forcing_is_step_by_step():
    model, given = created("mini_captioner"), inputs("mini_captioner")

    @jax.jit
    def both(model, given):
        seen, words = model.attention.seen(model.look(given["image"])), given["words"]
        follow = jax.vmap(lambda seen, state, word: model.following(seen)(state, word))
        state, stepped = jax.vmap(lambda _: model.begin())(words), []
        for t in range(LENGTH - 1):
            state, logits = follow(seen, state, words[:, t])
            stepped.append(logits)
        return model(given), jnp.stack(stepped, 1)

    forced, stepped = both(model, given)
    there = given["words"][:, :-1] != scenes.PAD
    np.testing.assert_allclose(forced[there], stepped[there], rtol=1e-10, atol=1e-11)
    assert there.sum() == 5 + 4


def test_sentences_are_those_of_their_words():
    model, images = created("mini_captioner"), inputs("mini_captioner")["image"]
    greedy, beams = model.caption(images, length=5), model.captions(images, width=3, length=5)
    np.testing.assert_array_equal(model.captions(images, width=1, length=5).words[:, 0], greedy)
    assert (np.diff(beams.log_probability, axis=1) < 0).all()
    for i, image in enumerate(images):
        a, words = features(model, image), [scenes.START]
        while len(words) < 5:
            over = words[-1] in (scenes.END, scenes.PAD)
            words.append(scenes.PAD if over else int(linear(states(model, a, words), model.fc, np)[-1].argmax()))
        assert greedy[i].tolist() == words
        for told, value in zip(np.asarray(beams.words[i]), beams.log_probability[i], strict=True):
            logits, expected = outputs(model, a, told), 0
            for t, word in enumerate(told[1:]):
                expected += np.log(softmax(logits[t]))[word]
                if word in (scenes.END, scenes.PAD):
                    break
            np.testing.assert_allclose(value, expected, rtol=1e-9)


@pytest.mark.thorough
def test_gradients_through_the_scan_are_those_of_the_words_written_out():
    model, given = created("mini_captioner"), inputs("mini_captioner")
    words, along = given["words"][0], drawn(2, LENGTH - 1, len(scenes.VOCABULARY))

    def scanned(model, image):
        return (model({"image": image[None], "words": words[None]})[0] * along).sum()

    def written_out(model, image):
        return (outputs(model, model.look(image[None])[0], words, jnp) * along).sum()

    found, expected = jax.jit(lambda *x: [jax.grad(f, (0, 1))(*x) for f in (scanned, written_out)])(
        model, given["image"][0]
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)
    assert np.abs(found[1]).max() > 1e-2


def grad_cams(model, given, scores):
    """Grad-CAM of every score `[n, m, i, j]` and the scores `[n, m]`, by the Jacobian of the words written out."""

    @jax.jit
    def both(everything):
        found = []
        for a, words in zip(everything, given["words"], strict=True):
            function = lambda a, words=words: 2 * (scores(outputs(model, a, words, jnp), words),)
            found.append(jax.jacrev(function, has_aux=True)(a))
        return found

    everything = [features(model, image) for image in given["image"]]
    jacobians, values = zip(*both(everything), strict=True)
    maps = [np.einsum("ijk,mk->mij", a, j.mean((1, 2))) for a, j in zip(everything, jacobians, strict=True)]
    return np.maximum(maps, 0), np.stack(values)


def said(logits, x):
    return targets.tokens(x["words"][1:], ignore=scenes.PAD)(logits, x)


@pytest.mark.thorough
def test_all_words_at_once_are_one_by_one():
    model, given = created("mini_captioner"), inputs("mini_captioner")
    found = jaxcam.explain(model, given, target=said)

    def by_hand(logits, words):
        steps = [
            jax.nn.log_softmax(logits[t])[word] if word else 0.0 * logits[0, 0] for t, word in enumerate(words[1:])
        ]
        return jnp.stack(steps)

    cam_maps, values = grad_cams(model, given, by_hand)
    np.testing.assert_allclose(found.cam_map, cam_maps, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(found.value, values, rtol=1e-9)
    assert found.heatmap.shape == (2, 5, 16, 20)
    named = given["words"][:, 1:] != scenes.PAD
    np.testing.assert_array_equal(np.asarray(found.status) == jaxcam.Status.ZERO_GRADIENT, ~named)
    assert cam_maps[named].max((1, 2)).min() > 1e-6
    alone = jaxcam.explain(model, given, target=lambda logits, x: said(logits, x)[2])
    np.testing.assert_allclose(alone.cam_map, found.cam_map[:, 2], rtol=1e-9, atol=1e-13)


@pytest.mark.thorough
def test_why_this_answer_and_not_that_one():
    model, given = created("mini_vqa"), inputs("mini_vqa")
    red, blue = (scenes.ANSWERS.index(name) for name in ("red", "blue"))
    cam_maps, values = grad_cams(model, given, lambda logits, _: jnp.stack([logits[red], logits[red] - logits[blue]]))
    one = jaxcam.explain(model, given, class_idx=red)
    both = jaxcam.explain(model, given, target=targets.contrast(red, blue))
    for i, found in enumerate((one, both)):
        np.testing.assert_allclose(found.cam_map, cam_maps[:, i], rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(found.value, values[:, i], rtol=1e-9)
    assert np.abs(cam_maps[:, 0] - cam_maps[:, 1]).max() > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_default_layer_is_found_without_the_networks_word(name):
    model, given = created(name), inputs(name)
    for net in (model, lambda x: model(x)):
        (default,) = (row for row in jaxcam.layers(net, given) if row.default)
        assert (default.layer, default.grid) == ("relu5", "4x5")


@pytest.mark.thorough
@pytest.mark.usefixtures("unchecked")
def test_words_that_are_none():
    model, given = created("mini_vqa"), inputs("mini_vqa")
    for change, error, message in (
        (
            {"words": given["words"][0]},
            ValueError,
            r"words must be \[n, l\] or \[n, q, l\], as many rows as the 2 pictures, but are \[6\]",
        ),
        ({"words": given["words"].astype(float)}, TypeError, "words must be integers, as of scenes.encode, .* float64"),
        ({"words": given["words"] + 60}, ValueError, r"words must be ids from 0 to \d+ but reach from 60"),
        ({"image": given["image"][..., :2]}, ValueError, r"pictures must be \[n, H, W, 3\]"),
        ({"image": given["image"][:, :3]}, ValueError, "pictures are too small"),
    ):
        with pytest.raises(error, match=message):
            model({**given, **change})
    with pytest.raises(TypeError, match=r"inputs must be .*words.* but are \['image'\]"):
        model({"image": given["image"]})
    # What is not known until the program runs is told by its status.
    wrong = given["words"].copy()
    wrong[0, 1], wrong[1, 1] = -1, 999
    found = jaxcam.explain(model, {**given, "words": wrong}, class_idx=1)
    assert found.status.tolist() == 2 * [jaxcam.Status.NOT_FINITE]


def test_labels_that_are_none_do_not_count():
    logits = drawn(0, 2, 3, 4)
    labels = np.array([[1, 3, -1], [2, -1, -1]])
    expected = -np.mean([np.log(softmax(logits[n, t]))[labels[n, t]] for n, t in ((0, 0), (0, 1), (1, 0))])
    np.testing.assert_allclose(train._cross_entropy(jnp.asarray(logits), jnp.asarray(labels)), expected, rtol=1e-12)


def test_a_caption_is_right_when_all_its_words_are():
    model = created("mini_captioner")
    given = jax.tree.map(lambda x: np.repeat(x[:1], 3, 0), inputs("mini_captioner"))
    logits = np.asarray(jax.jit(lambda model, x: model(x))(model, given))
    truth = logits.argmax(-1)
    truth[1, 2] = (truth[1, 2] + 1) % logits.shape[-1]
    truth[2, 3:] = -1
    draw = lambda key, num, many: train.Drawn(given, np.ones((3, 16, 20), bool), truth)
    right = train.are_right(model, num=3, draw=draw)
    assert right.data[:2].tolist() == [5 * [True], [True] * 2 + [False] + [True] * 2]
    assert right.mask.tolist() == [5 * [False], 5 * [False], [False] * 3 + [True] * 2]
    assert train.accuracy(model, num=3, draw=draw) == pytest.approx(2 / 3)


@pytest.mark.thorough
def test_training_begins_with_the_convolutions_of_pictures():
    model, other = models.mini_vqa(None), models.mini_vgg()
    before = np.asarray(model.sight.stages["conv5"].kernel[...])
    train._take_over(model, other)
    for name in ("conv1", "bn1", "conv4", "bn4"):
        for a, b in zip(*(jax.tree.leaves(net.stages[name]) for net in (model.sight, other)), strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(model.sight.stages["conv5"].kernel[...], before)


@pytest.mark.thorough
def test_training_begins_with_all_that_another_reader_knows():
    model, other = models.mini_vqa(None), created("mini_captioner")
    before = np.asarray(model.fc1.kernel[...])
    train._take_over(model, other)
    for name in ("sight", "attention", "embedding", "gates"):
        for a, b in zip(*(jax.tree.leaves(getattr(net, name)) for net in (model, other)), strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(model.fc1.kernel[...], before)
