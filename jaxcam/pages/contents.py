"""The front door: a model and pictures in, a page with the maps of all classes out."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array
from PIL import Image

from jaxcam.checks import check_integer
from jaxcam.cuts.cut import network as network_of
from jaxcam.cuts.model import Adapted, adapted
from jaxcam.cuts.refusals import check_evaluates
from jaxcam.images.picture import SLACK, checked_picture, floats, opaque, to_pillow
from jaxcam.images.preprocessing import larger_view, read_for_views, view_of_picture
from jaxcam.images.reading import Reduced, read_reduced
from jaxcam.methods.method import Method
from jaxcam.pages.document import Page, document
from jaxcam.pages.evidence import Request, Seen, exhibit_of
from jaxcam.pictures.values import colours
from jaxcam.programs.specs import batch_of_one, without_batch
from jaxcam.types import Target

__all__ = ["page"]

_LONGEST = 448
_LONGEST_FRAME = 224
"""Pixels of the frames of a clip, of which there are many."""


def page(
    model: Any,
    inputs: Any,
    *,
    methods: str | Callable[..., Array] | Method | Sequence[Any] = ("grad_cam", "grad_cam_pp"),
    layer: str | int | Sequence[str | int] | None = None,
    class_idx: int | None = None,
    target: Target | None = None,
    words: Sequence[str] | None = None,
    top: int | None = None,
    title: str | None = None,
    network: str | None = None,
    size: int = _LONGEST,
    key: Array | None = None,
) -> Page:
    """A page to look at and play with: one HTML file with the maps of all classes, which needs nothing else.

        jaxcam.page(model, "cat.jpg").save("page.html")

    On it a class is searched, or pointed at, to see its map; methods and layers are chosen, and two classes laid
    against each other; a click on the picture lists the classes that have evidence there. The maps are signed
    (`methods.signed`). Where cells are shares of the logit the page says so: behind global average pooling with a
    linear layer, by a proof about the head and a count of the cells of every class.

    Args:
        model: as for `jaxcam.explain`, in evaluation mode.
        inputs: a picture as a path, a Pillow image or `[H, W, 3]` in [0, 1], or a list of these, for a model that has
            its preprocessing (`jaxcam.adapt(model, preprocessing=...)`); or what `explain` takes: pictures
            `[n, H, W, d]`, clips or volumes `[n, t, H, W, d]`.
        methods: one or several, as `explain(method=)` takes them, that make maps.
        layer: one or several, each with maps of its own on the page; None for the model's default.
        class_idx: the class that is shown first; None: the likeliest.
        target: for outputs of any structure: its scores are what is explained, in the place of classes.
        words: what the target's scores are called. They are read as a sentence, word by word.
        top: only so many of the likeliest classes. None: all whose maps fit into 4 MB for each picture, else the
            likeliest of them; the page says how many.
        title: at the top; None: what the picture is called, or how many there are.
        network: what the model is called; None: the name of its type.
        size: of the drawing's longer side, in pixels.
        key: for methods that draw random numbers; None: `jax.random.key(0)`.

    Returns:
        A `jaxcam.pages.Page`: `.save("page.html")`, `.html`, and itself in a notebook. What is on a page made of maps
        that you have already is a `jaxcam.pages.Exhibit`, and `jaxcam.pages.document` makes the page.

    Raises:
        TypeError, ValueError: what `explain` raises; inputs are neither pictures nor clips; a picture for a model
            without preprocessing; a method that makes no map; class_idx that the page does not hold; words without a
            target, or another number of them; top with a target.
        OSError: a picture cannot be read.
    """
    known = adapted(model)
    check_evaluates(known.state)
    several: list[Any] = [methods] if isinstance(methods, str | Method) or callable(methods) else list(methods)
    if not several:
        raise ValueError("methods must name at least one but is empty: leave it out for Grad-CAM and Grad-CAM++")
    layers: list[Any] = list(layer) if isinstance(layer, list | tuple) else [layer]
    if not layers:
        raise ValueError("layer must name at least one layer but is an empty list: leave it out for the default")
    if words is not None and target is None:
        raise ValueError("words must come with the target whose scores they name, but target is None")
    if target is not None and (top is not None or class_idx is not None):
        raise ValueError("target excludes class_idx and top: leave them out, or write the class into the target")
    if top is not None:
        check_integer("top", top, low=1)
    if class_idx is not None:
        check_integer("class_idx", class_idx)
    check_integer("size", size, low=32, high=2048)
    request = Request(several, layers, class_idx, target, words, top, key)
    seen = list(_examples(known, inputs, size, target))
    exhibits = [exhibit_of(known, each, request) for each in seen]
    names = [name for name in dict.fromkeys(each.layer for each in exhibits[0].maps) if name]
    masked = "the pixels" if seen[0].pixels is not None else "the model's input"
    facts = [
        known.name if network is None else network,
        *([f"layer{'s' * (len(names) > 1)} {', '.join(names)}"] if names else []),
    ]
    facts.append(f"explanation map E: {masked} times the map")
    own = seen[0].label if len(seen) == 1 else f"{len(seen)} pictures"
    return document(exhibits, title=own if title is None else title, facts=facts)


def _examples(known: Adapted, inputs: Any, size: int, target: Target | None) -> Iterator[Seen]:
    """Each picture or example of the inputs."""
    if isinstance(inputs, Tracer):
        raise TypeError("inputs must be concrete but are traced: make pages outside of jit")
    if isinstance(inputs, np.ndarray | jnp.ndarray) and not (inputs.ndim == 3 and known.preprocessing is not None):
        yield from _prepared(known, inputs, size, target)
        return
    listed: list[Any] = [*inputs] if isinstance(inputs, list | tuple) else [inputs]
    if not listed:
        raise ValueError("inputs must be at least one picture but are an empty list")
    for i, each in enumerate(listed):
        named = isinstance(each, str | os.PathLike)
        label = Path(each).name if named else "picture" if len(listed) == 1 else f"picture {i + 1}"
        yield _pictured(known, each, label, size)


def _pictured(known: Adapted, given: Any, label: str, size: int) -> Seen:
    """A picture as people have it, which the model's preprocessing makes its input of."""
    own = known.preprocessing
    if isinstance(given, str | os.PathLike):
        picture = read_reduced(given, None) if own is None else read_for_views(given, own, size)
    elif isinstance(given, Image.Image):
        picture = Reduced.whole(given)
    elif isinstance(given, np.ndarray | jnp.ndarray):
        picture = Reduced.whole(to_pillow(checked_picture(given, name="inputs")))
    else:
        raise TypeError(
            f"inputs must be pictures (paths, Pillow images, arrays) or an array [n, *spatial, d] but hold "
            f"{type(given).__name__}: of several inputs make a jaxcam.pages.Exhibit"
        )
    if own is None:
        raise ValueError(
            "inputs must be what the model takes, [n, H, W, d], as it has no preprocessing for pictures: give it one, "
            "jaxcam.adapt(model, preprocessing=...)"
        )
    if own.is_grey and picture.picture.mode not in ("L", "I;16", "I"):
        picture = picture._replace(picture=opaque(picture.picture).convert("L"))
    pixels, larger = view_of_picture(picture, own), larger_view(picture, own, size)
    return Seen(jnp.asarray(own.normalise(pixels[np.newaxis])), _sized(larger, size), pixels, label)


def _prepared(known: Adapted, inputs: Any, size: int, target: Target | None) -> Iterator[Seen]:
    """Each example of a batch as the model takes it."""
    if inputs.ndim not in (4, 5) or len(inputs) == 0:
        raise ValueError(
            f"inputs must be pictures [n, H, W, d], or clips or volumes [n, t, H, W, d], but are {list(inputs.shape)}: "
            "of series draw found.over(inputs)"
        )
    # Which axis has the channels the model's program says: volumes may have three slices.
    batch = batch_of_one(inputs)
    aimed = known.hoist(batch) if target is None else known.aim(target, batch)[0]
    axis = network_of(aimed, without_batch(batch)).channel_axis
    num_channels = inputs.shape[1 if axis == 0 else -1]
    kind = "picture" if inputs.ndim == 4 else "clip" if num_channels == 3 else "volume"
    for i in range(len(inputs)):
        one = jnp.asarray(inputs[i : i + 1])
        label = kind if len(inputs) == 1 else f"{kind} {i + 1}"
        own, pixels = known.preprocessing, None
        if own is not None and one.ndim == 4 and axis == -1 and num_channels == len(own.mean):
            told = np.asarray(own.denormalise(np.asarray(one, np.float32)))[0]
            if told.min() >= -SLACK and told.max() <= 1 + SLACK:
                pixels = np.clip(told, 0, 1)
        laid = np.moveaxis(np.asarray(one[0]), axis, -1) if pixels is None else pixels
        view = colours(laid, "H, W" if laid.ndim == 3 else "t, H, W", name="inputs")
        frames = view if view.ndim == 4 else view[np.newaxis]
        longest = size if len(frames) == 1 else min(size, _LONGEST_FRAME)
        drawn = np.stack([_sized(frame, longest) for frame in frames])
        frame_name = "Slice" if kind == "volume" else "Frame"
        yield Seen(one, drawn if laid.ndim == 4 else drawn[0], pixels, label, frame_name)


def _sized(picture: np.ndarray, longest: int) -> np.ndarray:
    """With a longer side of that many pixels."""
    height, width = picture.shape[:2]
    factor = longest / max(height, width)
    wanted = max(1, round(width * factor)), max(1, round(height * factor))
    if wanted == (width, height):
        return picture
    coloured = to_pillow(np.broadcast_to(picture, (height, width, 3)).astype(np.float32))
    return floats(coloured.resize(wanted, Image.Resampling.BICUBIC if factor > 1 else Image.Resampling.LANCZOS))
