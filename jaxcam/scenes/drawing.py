"""Generated pictures with known truth: what is in them, where, and which pixels of it can be seen.

Contract: every function is pure and deterministic from its key; `scene` and `pair` may be jitted, vmapped and
called with traced classes. All random numbers are drawn before anything is rasterised and do not depend on
the size, so a key gives the same picture at 64 pixels (training) and at 384 (display). They are float32 and
int32 by name: other types draw other numbers, and defaults depend on jax_enable_x64. Colour, background,
place and turn are drawn independently of the class, so nothing but the outline tells the class.

Every instance keeps at least half of its figure in sight (at 64 pixels and more; below, rounding to whole
pixels may cost a little); the rest may be hidden behind other instances and bars or cut off by the border.
Clutter in the background (sticks, dots, arcs) is thin and small, and never one of the classes.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from jaxcam.checks import check_integer
from jaxcam.scenes.accepted import MAX_SIZE, MIN_SIZE, checked_classes, checked_int, checked_key
from jaxcam.scenes.figures import CLASS_NAMES
from jaxcam.scenes.layout import layout
from jaxcam.scenes.paint import paint, tight_boxes
from jaxcam.scenes.parts import MAX_INSTANCES

CHUNK = 64  # scenes drawn at once at 64 pixels


class Scene(NamedTuple):
    """A picture and the truth about it; a batch has one more leading axis on every field.

    Attributes:
        image: `[h, w, 3]`, float32 in [0, 1].
        class_idx: `[]`, int32: the class of the first instance.
        instance_classes: `[m]`, int32: the class of every instance, -1 where there is none.
        boxes: `[m, 4]`, int32: x0, y0, x1, y1 in pixels, half-open, tight around the mask; zeros where there
            is none.
        masks: `[m, h, w]`, bool: the visible pixels of every instance.
    """

    image: Float[Array, "*batch h w 3"]
    class_idx: Int[Array, "*batch"]
    instance_classes: Int[Array, "*batch m"]
    boxes: Int[Array, "*batch m 4"]
    masks: Bool[Array, "*batch m h w"]


class _Contents(NamedTuple):
    """What a scene is to show, before anything about its looks is drawn."""

    key: Array
    class_idx: Int[Array, "*batch m"]
    present: Bool[Array, "*batch m"]


@jax.jit
def scene_contents(key: Array, class_idx: Array | None, num_instances: Array | None) -> _Contents:
    """What a scene shows: instances of one class."""
    class_key, number_key, layout_key = jax.random.split(key, 3)
    if class_idx is None:
        class_idx = jax.random.randint(class_key, (), 0, len(CLASS_NAMES), jnp.int32)
    if num_instances is None:
        num_instances = jax.random.randint(number_key, (), 1, MAX_INSTANCES + 1, jnp.int32)
    present = jnp.arange(MAX_INSTANCES, dtype=jnp.int32) < num_instances
    return _Contents(layout_key, jnp.full((MAX_INSTANCES,), class_idx, jnp.int32), present)


@jax.jit
def pair_contents(key: Array, classes: Array | None) -> _Contents:
    """What a pair shows: instances of two classes."""
    class_key, number_key, layout_key = jax.random.split(key, 3)
    if classes is None:
        lowest = jnp.array([0, 1], jnp.int32)
        first, step = jax.random.randint(class_key, (2,), lowest, len(CLASS_NAMES), jnp.int32)
        classes = jnp.stack([first, (first + step) % len(CLASS_NAMES)])
    twice = jax.random.bernoulli(number_key, jnp.float32(0.5), (2,))
    present = jnp.stack([jnp.array(True), twice[0], jnp.array(True), twice[1]])
    return _Contents(layout_key, jnp.repeat(classes, 2), present)


@partial(jax.jit, static_argnames="one")
def contents_at(
    index: Array, key: Array, given: tuple[Array | None, ...], *, one: Callable[..., _Contents]
) -> _Contents:
    """What the scenes of the keys fold_in(key, index) show: by `one`, `scene_contents` or `pair_contents`."""
    return jax.vmap(lambda i: one(jax.random.fold_in(key, i), *given))(index)


# The expensive programs know only the contents, so that scenes and pairs of one size compile once.
@partial(jax.jit, static_argnames="size")
def _draw(contents: _Contents, size: int) -> Scene:
    image, masks = paint(layout(*contents), size)
    return Scene(
        image=image,
        class_idx=contents.class_idx[0],
        instance_classes=jnp.where(contents.present, contents.class_idx, -1),
        boxes=tight_boxes(masks),
        masks=masks,
    )


@partial(jax.jit, static_argnames=("size", "chunk"))
def draw_chunks(contents: _Contents, size: int, chunk: int) -> Scene:
    """The scenes with these contents, so many at a time."""
    chunks = jax.tree.map(lambda leaf: leaf.reshape(-1, chunk, *leaf.shape[1:]), contents)
    drawn = jax.lax.map(jax.vmap(partial(_draw, size=size)), chunks)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), drawn)


def scene(
    key: Key[Array, ""] | UInt32[Array, "2"] | int,
    *,
    size: int = 64,
    class_idx: Int[Array, ""] | int | None = None,
    num_instances: Int[Array, ""] | int | None = None,
) -> Scene:
    """A picture with one to four instances of one class.

    Args:
        key: a random key, or a seed.
        size: the side of the picture in pixels, static.
        class_idx: index into `CLASS_NAMES`; random by default. May be traced (the range is then not checked).
        num_instances: from 1 to `MAX_INSTANCES`; random by default. May be traced, likewise.

    Returns:
        A `Scene` whose first `num_instances` slots are filled.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: size, class_idx or num_instances is out of range.
    """
    check_integer("size", size, low=MIN_SIZE, high=MAX_SIZE)
    class_idx = checked_int(class_idx, "class_idx", 0, len(CLASS_NAMES) - 1)
    num_instances = checked_int(num_instances, "num_instances", 1, MAX_INSTANCES)
    return _draw(scene_contents(checked_key(key), class_idx, num_instances), int(size))


def pair(
    key: Key[Array, ""] | UInt32[Array, "2"] | int,
    *,
    size: int = 64,
    classes: tuple[Int[Array, ""] | int, Int[Array, ""] | int] | None = None,
) -> Scene:
    """A picture with two classes, one or two instances of each: the "dog and cat" case.

    Args:
        key: a random key, or a seed.
        size: the side of the picture in pixels, static.
        classes: two different indices into `CLASS_NAMES`; random by default. May be traced (then not
            checked).

    Returns:
        A `Scene` whose slots 0 and 1 hold the first class and slots 2 and 3 the second; 0 and 2 are always
        filled.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: size or a class is out of range, or the two classes are the same.
    """
    check_integer("size", size, low=MIN_SIZE, high=MAX_SIZE)
    return _draw(pair_contents(checked_key(key), checked_classes(classes)), int(size))


def batch(
    seed_or_key: Key[Array, ""] | UInt32[Array, "2"] | int,
    num: int,
    *,
    size: int = 64,
    kind: Literal["scene", "pair"] = "scene",
    class_idx: Int[Array, ""] | int | None = None,
    num_instances: Int[Array, ""] | int | None = None,
    classes: tuple[Int[Array, ""] | int, Int[Array, ""] | int] | None = None,
) -> Scene:
    """Many scenes, stacked: scene i is the one of `jax.random.fold_in(key, i)` and does not depend on `num`.

    Drawn in chunks inside one compiled program: of all scenes only the result is held (for a moment twice),
    never the layers it is painted from. Bit for bit the same for every `num`; against the same scene drawn alone,
    colours agree up to float32 rounding.

    Args:
        seed_or_key: a seed, or a random key.
        num: how many scenes, static.
        size: the side of the pictures in pixels, static.
        kind: "scene" or "pair".
        class_idx: for scenes: the class of all of them; random by default.
        num_instances: for scenes: the number of instances in all of them; random by default.
        classes: for pairs: the classes of all of them; random by default.

    Returns:
        A `Scene` with a leading axis of length `num` on every field.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range, or belongs to the other kind.
    """
    check_integer("size", size, low=MIN_SIZE, high=MAX_SIZE)
    check_integer("num", num, low=1)
    key = checked_key(seed_or_key, "seed_or_key")
    if kind == "scene":
        if classes is not None:
            raise ValueError('classes belongs to kind="pair"; for scenes of one class give class_idx')
        given = (
            checked_int(class_idx, "class_idx", 0, len(CLASS_NAMES) - 1),
            checked_int(num_instances, "num_instances", 1, MAX_INSTANCES),
        )
        one = scene_contents
    elif kind == "pair":
        if class_idx is not None or num_instances is not None:
            raise ValueError('class_idx and num_instances belong to kind="scene"; for pairs give classes')
        given = (checked_classes(classes),)
        one = pair_contents
    else:
        raise ValueError(f'kind must be "scene" or "pair"; got {kind!r}')

    # The chunk never depends on num: another chunk would round differently.
    chunk = max(1, CHUNK * 64 * 64 // size**2)
    index = jnp.arange(-(-num // chunk) * chunk, dtype=jnp.uint32)
    drawn = draw_chunks(contents_at(index, key, given, one=one), int(size), chunk)
    return jax.tree.map(lambda leaf: leaf[:num], drawn)
