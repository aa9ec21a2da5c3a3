"""The small network that the experiments train, and how: one compiled step for a loss, whatever is drawn or weighed.

It is `mini_resnet` at half its width, so a quarter of its parameters, with group norm in the place of batch norm: a
picture's map must not depend on the others of its batch. The loss is a function of the network, a batch and numbers;
arms and seeds that differ in these only share one compiled program.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxcam.images import Preprocessing
from jaxcam.learning import forward, inside
from jaxcam.maps import heatmap
from jaxcam.models.modules import GlobalAveragePool, ReLU, conv
from jaxcam.models.network import Network

BATCH = 32


class Residual(nnx.Module):
    """Two 3x3 convolutions, each behind it group norm, and a shortcut past both."""

    def __init__(self, inputs: int, outputs: int, *, strides: int = 1, rngs: nnx.Rngs) -> None:
        self.conv1, self.norm1 = conv(inputs, outputs, 3, strides=strides, rngs=rngs), norm(outputs, rngs)
        self.conv2, self.norm2 = conv(outputs, outputs, 3, rngs=rngs), norm(outputs, rngs)
        differs = (inputs, strides) != (outputs, 1)
        self.shortcut = conv(inputs, outputs, 1, strides=strides, rngs=rngs) if differs else None

    def __call__(self, x: Any) -> Any:
        residual = self.norm2(self.conv2(nnx.relu(self.norm1(self.conv1(x)))))
        return nnx.relu(residual + (x if self.shortcut is None else self.shortcut(x)))


def norm(channels: int, rngs: nnx.Rngs) -> nnx.GroupNorm:
    return nnx.GroupNorm(channels, num_groups=4, rngs=rngs)


class Student(Network):
    """`mini_resnet`'s stages with 8, 16 and 32 channels: 0.02 million parameters."""

    default_layer = "layer3"
    smallest_image = 4

    def __init__(self, class_names: tuple[str, ...], *, size: int = 64, seed: int) -> None:
        rngs = nnx.Rngs(seed)
        super().__init__(
            {
                "conv1": conv(3, 8, 3, strides=2, rngs=rngs), "norm1": norm(8, rngs), "relu": ReLU(),
                "layer1": Residual(8, 8, rngs=rngs),
                "layer2": Residual(8, 16, strides=2, rngs=rngs),
                "layer3": Residual(16, 32, rngs=rngs),
                "avgpool": GlobalAveragePool(), "fc": nnx.Linear(32, len(class_names), rngs=rngs),
            },
            class_names=class_names,
            preprocessing=Preprocessing(resize=size, crop=size, mean=(0.5,) * 3, std=(0.25,) * 3),
        )  # fmt: skip


def batches(seed: int, num: int, num_steps: int, size: int = BATCH) -> Iterator[np.ndarray]:
    """The places in the training set of every step's batch: each epoch in an order of its own, without a rest."""
    draw, waiting = np.random.default_rng(seed), np.zeros(0, int)
    for _ in range(num_steps):
        while len(waiting) < size:
            waiting = np.concatenate([waiting, draw.permutation(num)])
        yield waiting[:size]
        waiting = waiting[size:]


def trained(
    model: Student, loss: Callable[..., Any], data: Any, places: Iterator[Any], numbers: Any, *, rate: float, num: int
) -> Student:
    """The network after `num` steps of Adam down loss(model, data, places, numbers), with a cosine's learning rate."""
    structure, parameters = nnx.split(model)
    state = optimizer(rate, num).init(parameters)
    for at in places:
        parameters, state = step(structure, parameters, state, data, at, numbers, loss=loss, rate=rate, num=num)
    return nnx.merge(structure, parameters)


def optimizer(rate: float, num: int) -> optax.GradientTransformation:
    return optax.adamw(optax.warmup_cosine_decay_schedule(0.0, rate, num // 10, num), weight_decay=1e-3)


@partial(jax.jit, static_argnames=("loss", "rate", "num"), donate_argnames=("parameters", "state"))
def step(structure, parameters, state, data, places, numbers, *, loss, rate, num):
    gradient = jax.grad(lambda own: loss(nnx.merge(structure, own), data, places, numbers))(parameters)
    moves, state = optimizer(rate, num).update(gradient, state, parameters)
    return optax.apply_updates(parameters, moves), state


def cross_entropy(logits: Any, labels: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@partial(jax.jit, static_argnames="score")
def judged(model: Any, pictures: Any, labels: Any, regions: Any, *, score: str) -> tuple[Any, Any]:
    """Whether each picture is recognised, and the share of its Grad-CAM heatmap in each of its regions `[n, r, H, W]`.

    The share of a heatmap that is zero everywhere is NaN.
    """
    logits, cam_maps = forward(model, pictures, labels, score=score)

    def shares(cam_map: Any, regions: Any) -> Any:
        heat = heatmap(cam_map, regions.shape[1:])
        return jnp.where(heat.any(), 1 - jax.vmap(inside, (None, 0))(heat, regions), jnp.nan)

    return logits.argmax(-1) == labels, jax.vmap(shares)(cam_maps, regions)


def outcome(
    model: Student, pictures: Any, labels: Any, regions: Any, *, score: str = "logit", size: int = 200
) -> tuple[np.ndarray, np.ndarray]:
    """`judged`, a part of the pictures at a time."""
    given = pictures, labels, regions
    parts = [judged(model, *(x[i : i + size] for x in given), score=score) for i in range(0, len(labels), size)]
    right, shares = (np.concatenate([np.asarray(x) for x in each]) for each in zip(*parts, strict=True))
    return right, shares
