"""Training of the embedded networks on generated scenes: `python -m jaxcam train`.

Every batch is drawn anew, so there is no data set to overfit; the run is a function of the seed and of the arithmetic
of the machine. The scenes that accuracy is measured on have another seed and are never trained on.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from jaxcam import maps, scenes
from jaxcam.checks import check_integer
from jaxcam.models.mini import mini_resnet, mini_vgg, mini_vit
from jaxcam.models.network import Network
from jaxcam.progress import progress

DIMMED_SHARE = 0.4
"""The share of the training pictures that are dimmed; accuracy is measured on pictures as they are."""
UNSEEN_SEED = 20_000
"""The seed of the scenes for testing: training draws from other streams."""


class Recipe(NamedTuple):
    """How a network is trained."""

    create: Callable[..., Network]
    num_steps: int
    learning_rate: float
    batch_size: int = 64
    weight_decay: float = 1e-3
    warm_up: int = 100
    """Steps in which the learning rate grows from 0."""
    longest: float | None = None
    """What longer gradients are shortened to; as they are where it is None."""


RECIPES = {
    "mini_vgg": Recipe(mini_vgg, num_steps=2600, learning_rate=4e-3),
    "mini_resnet": Recipe(mini_resnet, num_steps=2600, learning_rate=5e-3),
    "mini_vit": Recipe(mini_vit, num_steps=2600, learning_rate=2e-3, weight_decay=0.02, warm_up=300, longest=1.0),
}


def train(name: str, *, seed: int = 0, num_steps: int | None = None) -> Network:
    """A network of RECIPES, trained with AdamW under a warm-up and cosine schedule.

    Args:
        name: "mini_vgg", "mini_resnet" or "mini_vit".
        seed: of the initial parameters and of the scenes.
        num_steps: the recipe's unless given.

    Raises:
        ValueError: an unknown name, or num_steps < 1.
    """
    if name not in RECIPES:
        raise ValueError(f"name={name!r} is not one of {', '.join(map(repr, RECIPES))}")
    recipe = RECIPES[name]
    steps = check_integer("num_steps", recipe.num_steps if num_steps is None else num_steps, low=1)
    model = recipe.create(None, seed=seed)
    model.train()
    schedule = optax.warmup_cosine_decay_schedule(0.0, recipe.learning_rate, min(recipe.warm_up, steps // 2), steps)
    rule = optax.adamw(schedule, weight_decay=recipe.weight_decay)
    if recipe.longest is not None:
        rule = optax.chain(optax.clip_by_global_norm(recipe.longest), rule)
    optimizer = nnx.Optimizer(model, rule, wrt=nnx.Param)
    keys = jax.random.split(jax.random.key(seed), steps)
    for key in progress(keys, total=steps, label=f"train {name}"):
        _step(model, optimizer, key, batch_size=recipe.batch_size)
    model.eval()
    return model


def accuracy(model: Network, *, num: int = 2000, seed: int = UNSEEN_SEED) -> float:
    """Top-1 accuracy, between 0 and 1, on the scenes `scenes.batch(seed, num)`."""
    drawn = scenes.batch(seed, num)
    # In chunks: the activations of thousands of images at once would need gigabytes.
    predicted = [_logits(model, drawn.image[start : start + 250]).argmax(-1) for start in range(0, num, 250)]
    return float(np.mean(np.concatenate(predicted) == np.asarray(drawn.class_idx)))


def dimmed(drawn: scenes.Scene, key: Array) -> Float[Array, "n H W 3"]:
    """The pictures, of which a share is dimmed as explanation maps E = L ∘ I are: smoothly, the figures least.

    A network that has never seen black has no opinion of E that means anything: one trained without this called nearly
    every E a heart.

    Args:
        drawn: a batch of scenes.
        key: of the choice of pictures and of the masks.
    """
    num, height, width, _ = drawn.image.shape
    choice_key, noise_key, light_key = jax.random.split(key, 3)
    noise = jax.image.resize(jax.random.uniform(noise_key, (num, 5, 5), jnp.float32), (num, height, width), "linear")
    background = jnp.clip(4 * noise - 1.5, 0, 1)
    coarse = jax.image.resize(drawn.masks.any(1).astype(jnp.float32), (num, height // 4, width // 4), "linear")
    figures = jnp.clip(2 * jax.image.resize(coarse, (num, height, width), "linear"), 0, 1)
    light = jax.random.uniform(light_key, (num, 1, 1), jnp.float32, minval=0.5)
    mask = jnp.maximum(background, light * figures)
    chosen = jax.random.bernoulli(choice_key, jnp.float32(DIMMED_SHARE), (num, 1, 1))
    return maps.explanation_map(drawn.image, jnp.where(chosen, mask, 1))


@jax.jit
def _logits(model: Network, pictures: Float[Array, "n H W 3"]) -> Float[Array, "n c"]:
    return model(model.preprocessing.normalise(pictures))


@nnx.jit(static_argnames="batch_size")
def _step(model: Network, optimizer: nnx.Optimizer, key: Array, *, batch_size: int) -> None:
    drawn = scenes.batch(key, batch_size)
    images = model.preprocessing.normalise(dimmed(drawn, jax.random.fold_in(key, 1)))

    def loss(model: Network) -> Float[Array, ""]:
        return optax.softmax_cross_entropy_with_integer_labels(model(images), drawn.class_idx).mean()

    optimizer.update(model, nnx.grad(loss)(model))
