"""What the command draws, series, volumes, clips, captions, questions, and asks a network about it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxcam import scenes, targets
from jaxcam.commands.choices import class_index
from jaxcam.commands.parser import UsageError, one_line
from jaxcam.models import SEQUENCE_MODELS, WORD_MODELS
from jaxcam.models.chain import Chain
from jaxcam.models.reader import Reader
from jaxcam.pictures import Cell, series
from jaxcam.pictures.captions import word_cells
from jaxcam.pictures.slices import clip_cells, volume_cells

CURVE, SLICE, FRAME = 480, 160, 80
"""Cells of series, volumes and clips, in points."""

Values = Float[np.ndarray, "*grid d"]
Heat = Float[np.ndarray, "*maps"]
Truth = Bool[np.ndarray, "*maps"]
"""Both `[*grid]`, or `[m, *grid]` of m scores."""


class Wanted(NamedTuple):
    """What the command was asked for, in words; None: what the network finds likeliest, or what is drawn."""

    class_name: str | None
    words: str | None


class Asked(NamedTuple):
    """An input, and what is explained of it: one score, or m of them."""

    inputs: Any
    """A batch of one."""
    values: Values
    """What is seen, to draw the maps over."""
    truth: Truth
    """What each score is about; nothing where it is about nothing, or nobody knows."""
    title: str
    class_idx: int | None = None
    target: Callable[..., Any] | None = None
    scores: tuple[str, ...] = ()
    """What m scores are called."""
    notes: tuple[str, ...] = ()
    """And what is said of each."""


class Kind(NamedTuple):
    """What can be drawn, and how it is shown."""

    draw: Callable[..., Any]
    inputs: Callable[[Any], Any]
    """Of what is drawn what a network is given: a batch of one."""
    networks: tuple[str, ...]
    ask: Callable[[Any, Any, Wanted], Asked]
    """About what is drawn, for a network: raises UsageError where it cannot be asked that."""
    cells: Callable[[Values, Heat, Truth, str], list[Cell]]
    """In a style of overlays."""
    side: int
    """Of a cell, in points: its longer one."""
    headings: tuple[str, ...] = ()
    """None where they are those of the scores."""
    methods: tuple[str, ...] = ("grad_cam", "grad_cam_pp")
    style: str | None = None
    """The only one, where there is one."""
    moves: bool = False
    of_classes: bool = True
    """Whether a class can be chosen."""
    of_words: str | None = None
    """What words can be given, if any."""


def _asked_of_class(
    drawn: Any, model: Any, wanted: Wanted, *, seen_in: str, truth: Callable[[Any], Bool[np.ndarray, "*grid"]]
) -> Asked:
    seen = getattr(drawn, seen_in)
    names = model.class_names
    chosen = None if wanted.class_name is None else class_index(wanted.class_name, names)
    confidence = np.asarray(jax.nn.softmax(model(seen[None]))[0])
    chosen = int(confidence.argmax()) if chosen is None else chosen
    title = f"{names[chosen]} {100 * confidence[chosen]:.1f} %, drawn as {names[int(drawn.class_idx)]}"
    return Asked(seen[None], seen, truth(drawn), title, class_idx=chosen)


def _encoded(words: str, length: int) -> Int[np.ndarray, " l"]:
    if not words.strip():
        raise UsageError("--words must be words but is empty: leave it out for those that are drawn")
    try:
        return scenes.encode(words, length=length)
    except ValueError as error:
        raise UsageError(f"--words: {one_line(error)}") from None


def said(logits: Float[jax.Array, "t c"], inputs: Mapping[str, Any]) -> Float[jax.Array, " t"]:
    """Log p of every word of a caption, given those before it."""
    return targets.tokens(inputs["words"][1:], ignore=scenes.PAD)(logits, inputs)


def _asked_of_caption(drawn: Any, model: Any, wanted: Wanted) -> Asked:
    image = drawn.image[None]
    if wanted.words is None:
        words = np.asarray(model.caption(image))
    else:
        inside = _encoded(wanted.words, len(drawn.words) - 2)
        words = np.full_like(drawn.words[None], scenes.PAD)
        told = [scenes.START, *inside[inside != scenes.PAD], scenes.END]
        words[0, : len(told)] = told
    inputs = {"image": image, "words": words}
    after = words[0, 1:]
    num = int((after != scenes.PAD).sum())
    chances = np.exp(np.asarray(jax.jit(jax.vmap(said))(model(inputs), inputs)[0]))
    # Of a word at the place where the true sentence has another one nobody can say what it is about.
    truth = drawn.word_masks[1:] & (after == drawn.words[1:])[:, None, None]
    true = scenes.decode(drawn.words)
    is_true = (words[0] == drawn.words).all()
    return Asked(
        inputs,
        drawn.image,
        truth[:num],
        f"{scenes.decode(words[0])}{', as it is drawn' if is_true else f'; drawn as {true}'}",
        target=lambda logits, x: said(logits, x)[:num],
        scores=tuple(scenes.VOCABULARY[i] for i in after[:num]),
        notes=tuple(f"p = {100 * chance:.1f} %" for chance in chances[:num]),
    )


def _asked_of_question(drawn: Any, model: Any, wanted: Wanted) -> Asked:
    words = drawn.words if wanted.words is None else _encoded(wanted.words, len(drawn.words))
    inputs = {"image": drawn.image[None], "words": words[None]}
    names = model.class_names
    chosen = None if wanted.class_name is None else class_index(wanted.class_name, names)
    confidence = np.asarray(jax.nn.softmax(model(inputs))[0])
    chosen = int(confidence.argmax()) if chosen is None else chosen
    other = int(np.where(np.arange(len(confidence)) == chosen, -1, confidence).argmax())
    is_drawn = (words == drawn.words).all()
    true = f", in truth {names[int(drawn.answer)]}" if is_drawn else ""
    return Asked(
        inputs,
        drawn.image,
        np.stack(2 * [drawn.evidence & is_drawn]),
        f"{scenes.decode(words)} {names[chosen]} {100 * confidence[chosen]:.1f} %{true}",
        target=lambda logits, x: jnp.stack([logits[chosen], logits[chosen] - logits[other]]),
        scores=(names[chosen], f"{names[chosen]}, not {names[other]}"),
        notes=(f"{100 * confidence[chosen]:.1f} %", f"{names[other]} {100 * confidence[other]:.1f} %"),
    )


def _cells_of_series(values: Values, heat: Heat, truth: Truth, style: str) -> list[Cell]:
    del truth, style
    return [Cell(series(values, heat, width=CURVE))]


def _cells_of_volume(values: Values, heat: Heat, truth: Truth, style: str) -> list[Cell]:
    # The same slices for every method: through what the label is about, near its middle, which may be a torus's hole.
    places = np.argwhere(truth)
    nearest = np.square(places - places.mean(0)).sum(1).argmin()
    return volume_cells(values, heat, longest=2 * SLICE, at=places[nearest].tolist(), style=style)


def _cells_of_clip(values: Values, heat: Heat, truth: Truth, style: str) -> list[Cell]:
    del truth
    return [Cell(cell.image) for cell in clip_cells(values, heat, longest=2 * FRAME, num=len(values), style=style)]


def _cells_of_scores(values: Values, heat: Heat, truth: Truth, style: str, *, side: int) -> list[Cell]:
    del truth
    return word_cells(values, heat, longest=2 * side, style=style)


def _one(drawn: Any, *, seen_in: str) -> Any:
    return getattr(drawn, seen_in)[None]


def _one_with_words(drawn: Any) -> dict[str, Any]:
    return {"image": drawn.image[None], "words": drawn.words[None]}


def _everything(drawn: Any) -> Bool[np.ndarray, "*grid"]:
    return drawn.masks.any(0)


def _what_travels(drawn: Any) -> Bool[np.ndarray, "t h w"]:
    return drawn.masks[:, int(drawn.moving)]


KINDS: Mapping[str, Kind] = {
    "series": Kind(
        draw=scenes.series,
        inputs=partial(_one, seen_in="values"),
        networks=("mini_tcn",),
        ask=partial(_asked_of_class, seen_in="values", truth=_everything),
        cells=_cells_of_series,
        side=CURVE,
        headings=("time",),
        style="plain",  # the heat is the ground of the curve
    ),
    "volume": Kind(
        draw=scenes.volume,
        inputs=partial(_one, seen_in="density"),
        networks=("mini_net3d",),
        ask=partial(_asked_of_class, seen_in="density", truth=_everything),
        cells=_cells_of_volume,
        side=SLICE,
        headings=("across z", "across y", "across x"),
    ),
    "clip": Kind(
        draw=scenes.clip,
        inputs=partial(_one, seen_in="frames"),
        networks=("mini_c3d", "mini_convlstm"),
        ask=partial(_asked_of_class, seen_in="frames", truth=_what_travels),
        cells=_cells_of_clip,
        side=FRAME,
        headings=tuple(f"frame {i}" for i in range(8)),
        moves=True,
    ),
    "caption": Kind(
        draw=scenes.caption,
        inputs=_one_with_words,
        networks=("mini_captioner",),
        ask=_asked_of_caption,
        cells=partial(_cells_of_scores, side=FRAME),
        side=FRAME,
        methods=("grad_cam", "hires_cam"),
        of_classes=False,
        of_words="this sentence instead of the network's own",
    ),
    "question": Kind(
        draw=scenes.question,
        inputs=_one_with_words,
        networks=("mini_vqa",),
        ask=_asked_of_question,
        cells=partial(_cells_of_scores, side=SLICE),
        side=SLICE,
        methods=("grad_cam", "hires_cam"),
        of_words="this question instead of the drawn one",
    ),
}
"""By the command's name."""

NETWORKS: Mapping[str, Callable[[], Chain | Reader]] = {**SEQUENCE_MODELS, **WORD_MODELS}
"""Those that are asked, by name."""
