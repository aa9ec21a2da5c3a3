"""Small heads for the tests, with what the methods need: several spatial axes, kinks, cross terms."""

import dataclasses
import importlib
import re
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

import jaxcam


def drawn(seed: int, *shape: int) -> np.ndarray:
    """Normal numbers for NumPy to calculate with: each operation on a JAX array is a program to compile."""
    return np.random.default_rng(seed).normal(size=shape)


def normal(seed: int, *shape: int, dtype=np.float64) -> jax.Array:
    return jnp.asarray(drawn(seed, *shape), dtype)


def positive(seed: int, *shape: int, dtype=np.float64) -> jax.Array:
    return jnp.asarray(np.abs(np.random.default_rng(seed).normal(size=shape)), dtype)


def _scaled(seed: int, size: int, width: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(size, width)) / size**0.5)


def network(create, *, seed: int = 0, dtype=np.float32, **options):
    """A network as `create(None)` makes one, with parameters and batch-norm statistics that do something.

    Traced only: each initialiser of a kernel of another shape would be a program of its own.
    """
    from flax import nnx

    structure, state = nnx.split(nnx.eval_shape(lambda: create(None, **options)))
    random = np.random.default_rng(seed)
    for path, leaf in nnx.to_flat_state(state):
        if path[-1] == "kernel":
            values = random.normal(size=leaf.shape) * (2 / np.prod(leaf.shape[:-1])) ** 0.5
        elif path[-1] in ("scale", "var"):
            values = random.uniform(0.5, 1.5, leaf.shape)
        else:
            values = random.normal(size=leaf.shape) / 5
        leaf.set_value(jnp.asarray(values, dtype))
    return nnx.merge(structure, state)


def relu_head(spatial: tuple[int, ...], k: int, c: int, *, seed: int = 0, width: int = 7):
    """Flatten, a hidden ReLU layer, logits: piecewise linear, with a gradient that differs at every position."""
    size = int(np.prod(spatial)) * k
    w1, b1 = _scaled(seed, size, width), normal(seed + 1, width)
    w2, b2 = normal(seed + 2, width, c), normal(seed + 3, c)

    def head(a):
        hidden = jax.nn.relu(a.reshape(-1) @ w1.astype(a.dtype) + b1.astype(a.dtype))
        return hidden @ w2.astype(a.dtype) + b2.astype(a.dtype)

    return head


def smooth_head(spatial: tuple[int, ...], k: int, c: int, *, seed: int = 0, activation=jnp.tanh, width: int = 7):
    """The same with a smooth activation: the closed forms do not hold."""
    size = int(np.prod(spatial)) * k
    w1, w2 = _scaled(seed, size, width), normal(seed + 2, width, c)
    return lambda a: activation(a.reshape(-1) @ w1) @ w2


def gap_head(kernel: jax.Array):
    """Global average pooling and a linear layer without bias."""
    return lambda a: a.mean(tuple(range(a.ndim - 1))) @ kernel


def cut_model(features, head):
    """A model of one image that is cut between these: features(x) -> A, head(A, x) -> logits."""

    def network(images):
        assert len(images) == 1  # a model that takes one of several is refused
        a = checkpoint_name(features(images[0])[None], "here")
        return head(a[0], images[0])[None]

    return dataclasses.replace(jaxcam.adapt(network), default_layer="here")


def brute_force(f):
    """`(a, *others) -> (d1, d2, d3)` of f by a, by full Hessians and third-derivative tensors, and their diagonals.

    Nothing shared with jaxcam, and compiled once.
    """

    @jax.jit
    def tensors(a, *others):
        flat, x = lambda x: f(x.reshape(a.shape), *others), a.reshape(-1)
        return jax.grad(flat)(x), jax.hessian(flat)(x), jax.jacfwd(jax.hessian(flat))(x)

    def derivatives(a, *others):
        d1, hessian, third = (np.asarray(d) for d in tensors(a, *others))
        return tuple(d.reshape(a.shape) for d in (d1, np.diagonal(hessian), np.einsum("iii->i", third)))

    return derivatives


def imported_torchvision():
    """The torchvision package. Its models and transforms are pure Python and work beside any build of torch."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # A compiled part that does not fit this torch stops the import at each operator that it would have declared.
        for _ in range(40):
            try:
                package = importlib.import_module("torchvision")
                break
            except RuntimeError as error:
                missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
                if missing is None:
                    raise
                torch.library.define(f"torchvision::{missing.group(1)}", "(Tensor x) -> Tensor")
                for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                    del sys.modules[name]
        importlib.import_module("torchvision.transforms")
    return package
