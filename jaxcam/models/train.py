"""Training of the embedded networks on generated inputs: `python -m jaxcam train`.

Every batch is drawn anew, so there is no data set to overfit; the run is a function of the seed and of the arithmetic
of the machine. The inputs that accuracy is measured on have another seed and are never trained on. What is learnt are
labels: of an input, or of each word of its caption, given those before it.
"""

import io
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key

from jaxcam import maps, scenes
from jaxcam.checks import check_integer
from jaxcam.files import replace_file
from jaxcam.models.answering import mini_vqa
from jaxcam.models.captioner import mini_captioner
from jaxcam.models.chain import Chain
from jaxcam.models.classifier import Classifier
from jaxcam.models.mini import mini_resnet, mini_vgg, mini_vit
from jaxcam.models.network import Network
from jaxcam.models.sequences import mini_c3d, mini_convlstm, mini_net3d, mini_tcn
from jaxcam.progress import progress
from jaxcam.scenes.questions import asked_again

DIMMED_SHARE = 0.4
"""The share of the training inputs that are dimmed; accuracy is measured on inputs as they are."""
UNSEEN_SEED = 20_000
"""The seed of the inputs for testing: training draws from other streams."""
_MORE_QUESTIONS = 7
_EVERY = 50  # steps between two checkpoints


class Drawn(NamedTuple):
    """A batch of generated inputs, of whatever kind."""

    inputs: Any
    """`[n, *spatial, d]`; or of networks that read words as well a dict of these, "image", and "words" `[n, l]`."""
    shown: Bool[Array, "n *spatial"]
    """Where the figures, patterns or solids are."""
    class_idx: Int[Array, "n *t"]
    """The label, or one for each word or question; -1 where there is none."""


Draw = Callable[..., Drawn]
"""`(key or seed, num, many=)`: the batch; with `many` as `scenes.many` draws it, in chunks."""


def _pictures(key: Any, num: int, *, many: bool = False) -> Drawn:
    drawn = scenes.batch(key, num)
    return Drawn(drawn.image, drawn.masks.any(1), drawn.class_idx)


def _several(draw: Callable[..., Any], key: Any, num: int, many: bool) -> Any:
    return scenes.many(draw, key, num) if many else jax.vmap(draw)(jax.random.split(key, num))


def _series(key: Any, num: int, *, many: bool = False) -> Drawn:
    drawn = _several(scenes.series, key, num, many)
    return Drawn(drawn.values, drawn.masks.any(1), drawn.class_idx)


def _volumes(key: Any, num: int, *, many: bool = False) -> Drawn:
    drawn = _several(scenes.volume, key, num, many)
    return Drawn(drawn.density, drawn.masks.any(1), drawn.class_idx)


def _clips(key: Any, num: int, *, many: bool = False) -> Drawn:
    drawn = _several(scenes.clip, key, num, many)
    return Drawn(drawn.frames, drawn.masks.any(2), drawn.class_idx)


def _captions(key: Any, num: int, *, many: bool = False) -> Drawn:
    drawn = _several(scenes.caption, key, num, many)
    after = drawn.words[:, 1:]
    inputs = {"image": drawn.image, "words": drawn.words}
    return Drawn(inputs, drawn.masks.any(1), jnp.where(after == scenes.PAD, -1, after))


def _questions(key: Any, num: int, *, many: bool = False) -> Drawn:
    drawn = _several(scenes.question, key, num, many)
    words, answer = drawn.words, drawn.answer
    if not many:  # to learn from more of them about each picture, which costs the most
        keys = jax.random.split(jax.random.fold_in(key, 2), num)
        more, answers = jax.vmap(lambda key, one: asked_again(key, one, _MORE_QUESTIONS))(keys, drawn)
        words, answer = jnp.concatenate([words[:, None], more], 1), jnp.concatenate([answer[:, None], answers], 1)
    return Drawn({"image": drawn.image, "words": words}, drawn.masks.any(1), answer)


class Recipe(NamedTuple):
    """How a network is trained."""

    create: Callable[..., Classifier]
    num_steps: int
    learning_rate: float
    draw: Draw = _pictures
    batch_size: int = 64
    weight_decay: float = 1e-3
    warm_up: int = 100
    """Steps in which the learning rate grows from 0."""
    longest: float | None = None
    """What longer gradients are shortened to; as they are where it is None."""
    begins_as: Callable[..., Classifier] | None = None
    """The embedded network that has learnt what this one begins with: see `_take_over`."""
    keeps: tuple[str, ...] = ()
    """Parts of what this one begins with that stay as they are."""
    stored: DTypeLike | None = None
    """What its parameters are rounded to in the file; as they are where it is None."""


_CLIPS = Recipe(mini_c3d, 1000, 3e-3, draw=_clips, batch_size=16, longest=1.0, begins_as=mini_resnet, keeps=("stages",))
RECIPES = {
    "mini_vgg": Recipe(mini_vgg, num_steps=2600, learning_rate=4e-3),
    "mini_resnet": Recipe(mini_resnet, num_steps=2600, learning_rate=5e-3),
    "mini_vit": Recipe(mini_vit, num_steps=2600, learning_rate=2e-3, weight_decay=0.02, warm_up=300, longest=1.0),
    "mini_tcn": Recipe(mini_tcn, num_steps=1500, learning_rate=5e-3, draw=_series),
    "mini_net3d": Recipe(mini_net3d, num_steps=4500, learning_rate=4e-3, draw=_volumes, batch_size=16),
    "mini_c3d": _CLIPS,
    "mini_convlstm": _CLIPS._replace(create=mini_convlstm, num_steps=1200),
    "mini_captioner": Recipe(
        mini_captioner,
        num_steps=4000,
        learning_rate=2e-3,
        draw=_captions,
        longest=1.0,
        begins_as=mini_vgg,
        stored=np.float16,
    ),
    "mini_vqa": Recipe(
        mini_vqa,
        num_steps=5000,
        learning_rate=2e-3,
        draw=_questions,
        longest=1.0,
        begins_as=mini_captioner,
        keeps=("sight",),
        stored=np.float16,
    ),
}


def train(
    name: str, *, seed: int = 0, num_steps: int | None = None, checkpoint: str | os.PathLike[str] | None = None
) -> Classifier:
    """A network of RECIPES, trained with AdamW under a warm-up and cosine schedule.

    Args:
        name: "mini_vgg", "mini_resnet", "mini_tcn" ...: one of RECIPES.
        seed: of the initial parameters and of the inputs.
        num_steps: the recipe's unless given.
        checkpoint: a file that what has been learnt is kept in, from time to time: a run that was stopped goes on from
            it, to the same network. It is gone when the run ends.

    Raises:
        ValueError: an unknown name, num_steps < 1, or the checkpoint is of another run.
    """
    if name not in RECIPES:
        raise ValueError(f"name={name!r} is not one of {', '.join(map(repr, RECIPES))}")
    recipe = RECIPES[name]
    steps = check_integer("num_steps", recipe.num_steps if num_steps is None else num_steps, low=1)
    model = recipe.create(None, seed=seed)
    taken = set() if recipe.begins_as is None else _take_over(model, recipe.begins_as())
    kept = {path for path in taken if path[0] in recipe.keeps}
    model.train()
    for path, module in nnx.iter_modules(model):
        if isinstance(module, nnx.BatchNorm) and (*path, "mean") in kept:
            module.eval()
    schedule = optax.warmup_cosine_decay_schedule(0.0, recipe.learning_rate, min(recipe.warm_up, steps // 2), steps)
    rule = optax.adamw(schedule, weight_decay=recipe.weight_decay)
    if recipe.longest is not None:
        rule = optax.chain(optax.clip_by_global_norm(recipe.longest), rule)
    learnt = nnx.All(nnx.Param, lambda path, _: tuple(path) not in kept)
    optimizer = nnx.Optimizer(model, rule, wrt=learnt)
    keys = jax.random.split(jax.random.key(seed), steps)
    run = f"{name}, seed {seed}, {steps} steps"
    start = 0 if checkpoint is None else _resumed(Path(checkpoint), run, model, optimizer)
    for i, key in enumerate(progress(keys[start:], total=steps, label=f"train {name}", done=start), start=start + 1):
        _step(model, optimizer, key, recipe=recipe)
        if checkpoint is not None and i % _EVERY == 0:
            _keep(Path(checkpoint), run, i, model, optimizer)
    if checkpoint is not None:
        Path(checkpoint).unlink(missing_ok=True)
    model.eval()
    return model


def accuracy(model: Classifier, *, num: int = 2000, draw: Draw = _pictures) -> float:
    """The share of unseen inputs that are classified rightly; of captions those with every word right."""
    return top_1(are_right(model, num=num, draw=draw))


def are_right(model: Classifier, *, num: int = 2000, draw: Draw = _pictures) -> Bool[np.ma.MaskedArray, "n *t"]:
    """Whether the labels of unseen inputs, `draw`n from UNSEEN_SEED, are the likeliest; masked where there is none."""
    drawn = draw(UNSEEN_SEED, num, many=True)
    # 250 at a time: the activations of 2,000 pictures at once would need gigabytes.
    predicted = [
        _logits(model, jax.tree.map(lambda x, start=start: x[start : start + 250], drawn.inputs)).argmax(-1)
        for start in range(0, num, 250)
    ]
    labels = np.asarray(drawn.class_idx)
    return np.ma.masked_array(np.concatenate(predicted) == labels, labels < 0)


def top_1(right: Bool[np.ma.MaskedArray, "n *t"]) -> float:
    """The share of inputs of which every label is right.

    A caption whose every word is right, given the true ones before it, is the one that is decoded greedily.
    """
    return float(right.reshape(len(right), -1).all(1).mean())


def dimmed(drawn: Drawn, key: Key[Array, ""]) -> Any:
    """The inputs, of which a share is dimmed as explanation maps E = L ∘ I are: smoothly, the figures least.

    Where there are words beside the pictures these stay as they are.

    A network that has never seen black has no opinion of E that means anything: one trained without this called nearly
    every E a heart.

    Args:
        drawn: a batch.
        key: of the choice of inputs and of the masks.
    """
    num, *grid = drawn.shown.shape
    choice_key, noise_key, light_key = jax.random.split(key, 3)
    noise = jax.random.uniform(noise_key, (num, *(5 for _ in grid)), jnp.float32)
    background = jnp.clip(4 * jax.image.resize(noise, (num, *grid), "linear") - 1.5, 0, 1)
    coarse = jax.image.resize(drawn.shown.astype(jnp.float32), (num, *(size // 4 for size in grid)), "linear")
    figures = jnp.clip(2 * jax.image.resize(coarse, (num, *grid), "linear"), 0, 1)
    ones = (num, *(1 for _ in grid))
    light = jax.random.uniform(light_key, ones, jnp.float32, minval=0.5)
    mask = jnp.maximum(background, light * figures)
    chosen = jax.random.bernoulli(choice_key, jnp.float32(DIMMED_SHARE), ones)
    light = jnp.where(chosen, mask, 1)
    if isinstance(drawn.inputs, Mapping):
        return {**drawn.inputs, "image": maps.explanation_map(drawn.inputs["image"], light)}
    return maps.explanation_map(drawn.inputs, light)


def _take_over(model: Any, other: Any) -> set[tuple[Any, ...]]:
    """Gives a network the parameters of the same name and shape of another, and returns where they are.

    Of a network of pictures those of its features, which go to what the network sees with: itself, or its `sight`.
    """
    into, layers = model, None
    if isinstance(other, Chain):
        into = getattr(model, "sight", model)
        layers = other.layers[: other.layers.index(other.default_layer) + 1]
    own, given = (dict(nnx.to_flat_state(nnx.state(each))) for each in (into, other))
    same = [path for path in own if path in given and own[path].shape == given[path].shape]
    same = [path for path in same if layers is None or path[1] in layers]
    nnx.update(into, nnx.from_flat_state([(path, given[path]) for path in same]))
    return {path if into is model else ("sight", *path) for path in same}


def _normalised(model: Any, inputs: Any) -> Any:
    return model.preprocessing.normalise(inputs) if isinstance(model, Network) else inputs


@jax.jit
def _logits(model: Any, inputs: Any) -> Float[Array, "n *t c"]:
    return model(_normalised(model, inputs))


@nnx.jit(static_argnames="recipe")
def _step(model: Any, optimizer: nnx.Optimizer, key: Key[Array, ""], *, recipe: Recipe) -> None:
    drawn = recipe.draw(key, recipe.batch_size)
    inputs = _normalised(model, dimmed(drawn, jax.random.fold_in(key, 1)))

    def loss(model: Any) -> Float[Array, ""]:
        return _cross_entropy(model(inputs), drawn.class_idx)

    optimizer.update(model, nnx.grad(loss, argnums=nnx.DiffState(0, optimizer.wrt))(model))


def _cross_entropy(logits: Float[Array, "n *t c"], labels: Int[Array, "n *t"]) -> Float[Array, ""]:
    """The mean over the labels that there are."""
    each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return each.mean(where=labels >= 0)


def _keep(path: Path, run: str, step: int, *modules: Any) -> None:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(modules))]
    file = io.BytesIO()
    np.savez(file, *leaves, run=np.asarray(run), step=np.asarray(step))
    replace_file(path, file.getvalue())


def _resumed(path: Path, run: str, *modules: Any) -> int:
    """Takes the parameters from a checkpoint, if there is one; returns the number of steps that were made."""
    if not path.exists():
        return 0
    try:
        with np.load(io.BytesIO(path.read_bytes())) as file:  # a damaged one would be left open
            kept = dict(file)
        of, step, leaves = str(kept["run"]), int(kept["step"]), [kept[f"arr_{i}"] for i in range(len(kept) - 2)]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"checkpoint must be what a training has kept, but {str(path)!r} is not: remove it") from error
    if of != run:
        raise ValueError(f"checkpoint must be of {run} but {str(path)!r} is of {of}: remove it first")
    old, structure = jax.tree.flatten(nnx.state(modules))
    if [leaf.shape for leaf in old] != [leaf.shape for leaf in leaves]:
        raise ValueError(f"checkpoint must be of this network, but {str(path)!r} has other parameters: remove it first")
    leaves = [jnp.asarray(new, leaf.dtype) for new, leaf in zip(leaves, old, strict=True)]
    nnx.update(modules, jax.tree.unflatten(structure, leaves))
    return step
