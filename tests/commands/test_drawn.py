"""`python -m jaxcam series`, `caption` ... as its user runs it: what is drawn, the figures of the table, the errors."""

import re

import jax
import numpy as np
import pytest
from as_typed import run
from PIL import Image

import jaxcam
from jaxcam import __main__ as command
from jaxcam import models, scenes
from jaxcam.commands import kinds


def by_hand(heat, truth):
    """The share of the heat on the truth, and whether the highest of it lies there or next to it, in NumPy."""
    reach = 15 / 224 * min(truth.shape)
    places = np.argwhere(truth)
    nearest = min(np.sqrt(((places - top) ** 2).sum(1)).min() for top in np.argwhere(heat == heat.max()))
    return 100 * heat[truth].sum() / heat.sum(), nearest <= reach


FIELDS = {"series": ("mini_tcn", "values"), "volume": ("mini_net3d", "density"), "clip": ("mini_c3d", "frames")}


@pytest.mark.parametrize(
    "kind", ["series", *(pytest.param(one, marks=pytest.mark.thorough) for one in FIELDS if one != "series")]
)
def test_the_table_says_how_much_heat_lies_on_the_truth(kind, tmp_path):
    place = tmp_path / "found.png"
    code, out, err = run(kind, "--seed", 2, "--method", "grad_cam", "--out", place)
    assert (code, err) == (0, "")
    name, field = FIELDS[kind]
    made, model = getattr(scenes, kind)(2), models.SEQUENCE_MODELS[name]()
    values = np.asarray(getattr(made, field))[None]
    confidence = np.asarray(jax.nn.softmax(model(values)))[0]
    found = jaxcam.explain(model, values, method="grad_cam")
    masks = np.asarray(made.masks)
    truth = masks[:, int(made.moving)] if kind == "clip" else masks.any(0)
    energy, hits = by_hand(np.asarray(found.heatmap[0], np.float64), truth)
    top = int(confidence.argmax())
    first, _, row = out.splitlines()
    true_name = model.class_names[int(made.class_idx)]
    assert f"{model.class_names[top]} {100 * confidence[top]:.1f} %, drawn as {true_name}" in first
    assert row.split() == ["Grad-CAM", f"{energy:.1f}", "%", "yes" if hits else "no", "ok"]
    with Image.open(place) as picture:
        assert np.asarray(picture.convert("L")).std() > 10


def test_a_class_is_explained_that_is_asked_for(tmp_path):
    place = tmp_path / "found.png"
    code, out, _ = run("series", "--class", "bump", "--method", "grad_cam", "--out", place)
    confidence = jax.nn.softmax(models.mini_tcn()(scenes.series(0).values[None]))[0]
    assert code == 0
    assert f"bump {100 * confidence[scenes.PATTERN_NAMES.index('bump')]:.1f} %" in out
    assert run("series", "-q", "--method", "grad_cam", "--out", place) == (0, "", "")


def test_the_commands_are_those_of_the_kinds():
    assert tuple(kinds.KINDS) == command._DRAWN
    assert all(tuple(kind.networks) for kind in kinds.KINDS.values())


@pytest.mark.parametrize("kind", ["volume", "clip"])
def test_a_style_is_that_of_the_pictures(kind):
    """What is cold stays as bright as it is in one style, and is darkened by another."""
    random = np.random.default_rng(0)
    size = {"volume": (9, 9, 9, 1), "clip": (3, 8, 8, 3)}[kind]
    values, heat = random.uniform(size=size).astype(np.float32), np.zeros(size[:-1], np.float32)
    bright = {}
    for style in ("grey", "plain"):
        cells = kinds.KINDS[kind].cells(values, heat, heat == 0, style)
        bright[style] = np.mean([np.asarray(cell.image, np.float64) for cell in cells])
    assert bright["plain"] < 0.8 * bright["grey"]


@pytest.mark.parametrize(
    ("name", "told", "shapes"),
    [
        ("mini_tcn", "[128, 3]", (128, 3)),
        pytest.param(
            "mini_vqa",
            "image [64, 64, 3], words [9]",
            {"image": (64, 64, 3), "words": (9,)},
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_layers_of_their_networks_are_listed(name, told, shapes):
    code, out, err = run("layers", "--model", name)
    assert (code, err) == (0, "")
    create = {**models.SEQUENCE_MODELS, **models.WORD_MODELS}[name]
    zeros = lambda shape: np.zeros((1, *shape), np.float32 if len(shape) > 1 else np.int32)
    inputs = zeros(shapes) if isinstance(shapes, tuple) else {key: zeros(shape) for key, shape in shapes.items()}
    assert out == f"{name}, {told}\n{jaxcam.layers(create(), inputs)}\n"
    code, _, err = run("layers", "--model", name, "--weights", "some.safetensors")
    assert (code, err) == (2, f"jaxcam: --weights: {name} brings its own: leave them out\n")


def test_slices_of_a_torus_meet_it():
    """Those through its middle would meet its hole."""
    ring = np.zeros((9, 9, 9), bool)
    ring[4, 2:7, 2:7] = True
    ring[4, 3:6, 3:6] = False
    cells = kinds._cells_of_volume(np.zeros((9, 9, 9, 1), np.float32), np.zeros((9, 9, 9), np.float32), ring, "grey")
    place = [int(cell.caption.split("=")[1]) for cell in cells]
    assert ring[tuple(place)]


@pytest.mark.thorough
def test_a_clip_moves(tmp_path):
    place = tmp_path / "found.webp"
    assert run("clip", "-q", "--method", "grad_cam", "--out", place)[0] == 0
    frames = np.asarray(scenes.clip(0).frames)
    with Image.open(place) as picture:
        assert picture.n_frames == len(frames)
        picture.seek(3)
        shown = np.asarray(picture.convert("RGB"), np.float64) / 255
    side = shown.shape[0]
    assert shown.shape == (side, 2 * side, 3)  # the truth, and the map
    hot = np.abs(shown[:, :side] - shown[:, :side].mean(-1, keepdims=True)).sum(-1) > 0.2  # the rest is grey
    wide = np.repeat(
        np.repeat(np.asarray(scenes.clip(0).masks)[3, int(scenes.clip(0).moving)], side // 64, 0), side // 64, 1
    )
    assert hot[wide].mean() > 0.8  # all but the contours
    assert hot[~wide].mean() < 0.1


def rows_of(out):
    """The table's lines: what a score is called, method, heat on the truth, whether the maximum is there."""
    lines = [re.split(r" {2,}", line.strip()) for line in out.splitlines()[2:]]
    assert all(line[-1] == "ok" for line in lines)
    return [line[:-1] for line in lines]


@pytest.mark.thorough
@pytest.mark.parametrize("words", [None, "a striped arrow above two red fish"])
def test_every_word_of_a_caption_is_held_against_what_it_names(words, tmp_path):
    """Seed 7 is "a striped arrow left of three purple fish"."""
    place = tmp_path / "found.png"
    options = () if words is None else ("--words", words)
    code, out, err = run("caption", "--seed", 7, "--methods", "hires_cam", "--out", place, *options)
    assert (code, err) == (0, "")
    made, model = jax.device_get(scenes.caption(7)), models.mini_captioner()
    told = model.caption(made.image[None])[0] if words is None else np.array(
        [scenes.START, *scenes.encode(words), scenes.END, scenes.PAD], np.int32
    )  # fmt: skip
    assert f"by mini_captioner, layer relu5 -> {place}: {scenes.decode(told)}" in out
    assert ("as it is drawn" in out) == (words is None)
    found = jaxcam.explain(
        model,
        {"image": made.image[None], "words": told[None]},
        target=lambda logits, x: jaxcam.targets.tokens(x["words"][1:], ignore=scenes.PAD)(logits, x),
        method="hires_cam",
    )
    expected = []
    for t, word in enumerate(told[1:]):
        if word == scenes.PAD:
            continue
        figures = ["-", "-"]
        if made.names[t + 1].any() and word == made.words[t + 1]:
            energy, hits = by_hand(np.asarray(found.heatmap[0, t], np.float64), made.masks[made.names[t + 1]].any(0))
            figures = [f"{energy:.1f} %", "yes" if hits else "no"]
        expected.append([scenes.VOCABULARY[word], "HiResCAM", *figures])
    assert rows_of(out) == expected
    assert sum(row[2] != "-" for row in expected) == (5 if words is None else 2)


@pytest.mark.thorough
def test_an_answer_is_held_against_what_it_rests_on(tmp_path):
    code, out, err = run("question", "--seed", 4, "--methods", "hires_cam", "--out", tmp_path / "found.png")
    assert (code, err) == (0, "")
    made, model = jax.device_get(scenes.question(4)), models.mini_vqa()
    given = {"image": made.image[None], "words": made.words[None]}
    confidence = np.asarray(jax.nn.softmax(model(given)))[0]
    other, top = confidence.argsort()[-2:]
    answers = scenes.ANSWERS
    title = f"{scenes.decode(made.words)} {answers[top]} {100 * confidence[top]:.1f} %, in truth {answers[made.answer]}"
    assert title in out.splitlines()[0]
    for row, name, target in zip(
        rows_of(out),
        (answers[top], f"{answers[top]}, not {answers[other]}"),
        (int(top), jaxcam.targets.contrast(int(top), int(other))),
        strict=True,
    ):
        asked = {"class_idx": target} if isinstance(target, int) else {"target": target}
        found = jaxcam.explain(model, given, method="hires_cam", **asked)
        evidence = made.masks[made.rests_on].any(0)
        energy, hits = by_hand(np.asarray(found.heatmap[0], np.float64), evidence)
        assert row == [name, "HiResCAM", f"{energy:.1f} %", "yes" if hits else "no"]


@pytest.mark.thorough
def test_a_question_of_ones_own_has_no_truth(tmp_path):
    given = ("question", "--seed", 4, "--method", "grad_cam", "--out", tmp_path / "found.png")
    code, out, _ = run(*given, "--words", "how many discs?", "--class", "three")
    assert code == 0
    assert "how many discs? three" in out
    assert "truth" not in out.splitlines()[0]
    assert [row[2:] for row in rows_of(out)] == [["-", "-"], ["-", "-"]]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("series", "--seed", "-1"), "argument --seed: must be a whole number from 0, below 2^32, not '-1'"),
        (("series", "--class", "hart"), "--class 'hart' is no class of this network"),
        (("series", "--model", "mini_net3d"), "there is no network 'mini_net3d'"),
        (("series", "--methods", "gradcam"), "--methods: "),
        (("volume", "--out", "a.gif"), "--out must end in one of .png, .jpg, .jpeg, .webp, not 'a.gif'"),
        (
            ("series", "--layer", "block9", "--method", "grad_cam"),
            "--layer='block9' .*: see python -m jaxcam layers --model mini_tcn$",
        ),
        pytest.param(
            ("caption", "--words", "two blue foxes"),
            "--words: sentence must be made of words of .* has 'foxes': use a two .* arrows",
            marks=pytest.mark.thorough,  # a picture is drawn first
        ),
        pytest.param(
            ("caption", "--words", "a " * 9),
            "--words: length must be at least 9 but is 8: the sentence has 9 words",
            marks=pytest.mark.thorough,
        ),
        pytest.param(("question", "--words", " "), "--words must be words but is empty", marks=pytest.mark.thorough),
        (("question", "--class", "pink"), "--class 'pink' is no class of this network"),
        (("serie",), "there is no file or command 'serie', did you mean series?"),
    ],
)
def test_one_line_says_what_is_wrong(arguments, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert re.search(told if ".*" in told else re.escape(told), err)
    assert list(tmp_path.iterdir()) == []


def test_help_fits_a_screen():
    for kind in kinds.KINDS:
        code, out, _ = run(kind, "--help")
        assert code == 0
        assert len(out.splitlines()) <= 24
        assert max(map(len, out.splitlines())) <= 80
