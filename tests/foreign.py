"""One network in every framework, filled with the same parameters, so that all give the same logits.

    stem    convolution with stride 2, batch norm, ReLU
    first   x -> relu(x + norm2(conv2(relu(norm1(conv1(x)))))): conv1 in groups, conv2 dilated
    down    convolution, ReLU: no batch norm
    second  as first
    head    dropout (evaluation), global average pooling, dense

Images are `[n, 12, 11, 3]`, logits `[n, 5]`. `plain` is the definition, a function of the parameters alone; the others
say the same in the way that users of the framework would.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

CLASSES = 5
EPSILON = 1e-5
# Name: kernel [height, width, channels in one group, channels out], groups, dilation, stride.
CONVOLUTIONS = {
    "stem": ((3, 3, 3, 8), 1, 1, 2),
    "first.conv1": ((3, 3, 4, 8), 2, 1, 1),
    "first.conv2": ((3, 3, 8, 8), 1, 2, 1),
    "down": ((3, 3, 8, 12), 1, 1, 1),
    "second.conv1": ((3, 3, 4, 12), 3, 1, 1),
    "second.conv2": ((3, 3, 12, 12), 1, 2, 1),
}
NORMS = {"stem_norm": 8, "first.norm1": 8, "first.norm2": 8, "second.norm1": 12, "second.norm2": 12}


def example(seed: int = 0, n: int = 2) -> jax.Array:
    """Images."""
    return jnp.asarray(np.random.default_rng(100 + seed).normal(size=(n, 12, 11, 3)))


def parameters(seed: int = 0) -> dict[str, np.ndarray]:
    """Kernels and biases, scales, offsets, means and variances, as float64."""
    random = np.random.default_rng(seed)
    p = {}
    for name, (shape, *_) in CONVOLUTIONS.items():
        p[f"{name}.kernel"] = random.normal(size=shape) * (2 / np.prod(shape[:3])) ** 0.5
        p[f"{name}.bias"] = 0.1 * random.normal(size=shape[3])
    for name, size in NORMS.items():
        p[f"{name}.scale"] = random.uniform(0.5, 1.5, size)
        p[f"{name}.offset"] = 0.2 * random.normal(size=size)
        p[f"{name}.mean"] = 0.3 * random.normal(size=size)
        p[f"{name}.var"] = random.uniform(0.5, 2, size)
    p["head.kernel"] = random.normal(size=(12, CLASSES))
    p["head.bias"] = random.normal(size=CLASSES)
    return p


# A plain function of the parameters: no names but the tags of the two blocks.


def convolution(p, name, x):
    _, groups, dilation, stride = CONVOLUTIONS[name]
    kernel, bias = jnp.asarray(p[f"{name}.kernel"]), jnp.asarray(p[f"{name}.bias"])
    y = jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    return y + bias[None, None, None]


def norm(p, name, x):
    scale, offset, mean, var = (jnp.asarray(p[f"{name}.{part}"]) for part in ("scale", "offset", "mean", "var"))
    factor = scale / jnp.sqrt(var + EPSILON)
    return x * factor[None, None, None] + (offset - mean * factor)[None, None, None]


def block(p, name, x):
    y = jax.nn.relu(norm(p, f"{name}.norm1", convolution(p, f"{name}.conv1", x)))
    return jax.nn.relu(x + norm(p, f"{name}.norm2", convolution(p, f"{name}.conv2", y)))


def plain(p, x):
    x = jax.nn.relu(norm(p, "stem_norm", convolution(p, "stem", x)))
    x = checkpoint_name(block(p, "first", x), "first")
    x = jax.nn.relu(convolution(p, "down", x))
    x = checkpoint_name(block(p, "second", x), "second")
    return x.mean((1, 2)) @ jnp.asarray(p["head.kernel"]) + jnp.asarray(p["head.bias"])[None]


def by_hand(p, x, moved=None):
    """All values of `plain` by their names, with `moved[name]` added to each: what gradients are checked with."""
    values = {}

    def value(name, x):
        values[name] = x if moved is None or name not in moved else x + moved[name]
        return values[name]

    def block(name, x):
        y = value(f"{name}.conv1", convolution(p, f"{name}.conv1", x))
        y = value(f"{name}.relu", jnp.maximum(value(f"{name}.norm1", norm(p, f"{name}.norm1", y)), 0))
        y = value(f"{name}.conv2", convolution(p, f"{name}.conv2", y))
        return value(name, jnp.maximum(x + value(f"{name}.norm2", norm(p, f"{name}.norm2", y)), 0))

    x = value("stem_norm", norm(p, "stem_norm", value("stem", convolution(p, "stem", x))))
    x = block("first", value("stem_relu", jnp.maximum(x, 0)))
    x = block("second", value("down_relu", jnp.maximum(value("down", convolution(p, "down", x)), 0)))
    values["logits"] = x.mean((1, 2)) @ jnp.asarray(p["head.kernel"]) + jnp.asarray(p["head.bias"])[None]
    return values


# Flax NNX: no names but with jaxcam.named.


def nnx_model(p, dtype=np.float64):
    from flax import nnx

    rngs = nnx.Rngs(0)

    def conv(name):
        (height, width, channels, out), groups, dilation, stride = CONVOLUTIONS[name]
        layer = nnx.Conv(
            channels * groups,
            out,
            (height, width),
            strides=stride,
            kernel_dilation=dilation,
            feature_group_count=groups,
            param_dtype=dtype,
            rngs=rngs,
        )
        layer.kernel[...], layer.bias[...] = (jnp.asarray(p[f"{name}.{part}"], dtype) for part in ("kernel", "bias"))
        return layer

    def batch_norm(name):
        layer = nnx.BatchNorm(
            NORMS[name], use_running_average=True, epsilon=EPSILON, param_dtype=dtype, dtype=dtype, rngs=rngs
        )
        for part, variable in (
            ("scale", layer.scale),
            ("offset", layer.bias),
            ("mean", layer.mean),
            ("var", layer.var),
        ):
            variable.set_value(jnp.asarray(p[f"{name}.{part}"], dtype))
        return layer

    class Block(nnx.Module):
        def __init__(self, name):
            self.conv1, self.conv2 = conv(f"{name}.conv1"), conv(f"{name}.conv2")
            self.norm1, self.norm2 = batch_norm(f"{name}.norm1"), batch_norm(f"{name}.norm2")

        def __call__(self, x):
            y = nnx.relu(self.norm1(self.conv1(x)))
            return nnx.relu(x + self.norm2(self.conv2(y)))

    class Net(nnx.Module):
        def __init__(self):
            self.stem, self.stem_norm = conv("stem"), batch_norm("stem_norm")
            self.first, self.down, self.second = Block("first"), conv("down"), Block("second")
            self.dropout = nnx.Dropout(0.5, deterministic=True, rngs=rngs)
            self.head = nnx.Linear(12, CLASSES, param_dtype=dtype, rngs=rngs)
            self.head.kernel[...], self.head.bias[...] = (
                jnp.asarray(p[f"head.{part}"], dtype) for part in ("kernel", "bias")
            )

        def __call__(self, x):
            x = self.first(nnx.relu(self.stem_norm(self.stem(x))))
            x = self.second(nnx.relu(self.down(x)))
            return self.head(self.dropout(x).mean((1, 2)))

    return Net()


# Flax Linen: every module is a scope.


def linen_model(p, dtype=np.float64):
    """The module and its variables."""
    import flax.linen as nn

    def conv(name, around):
        (height, width, _, out), groups, dilation, stride = CONVOLUTIONS[name]
        return nn.Conv(
            out,
            (height, width),
            strides=stride,
            kernel_dilation=dilation,
            feature_group_count=groups,
            name=name.removeprefix(around),
        )

    def batch_norm(name, around):
        return nn.BatchNorm(use_running_average=True, epsilon=EPSILON, name=name.removeprefix(around))

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            around = f"{self.name}."
            y = nn.relu(batch_norm(f"{around}norm1", around)(conv(f"{around}conv1", around)(x)))
            return nn.relu(x + batch_norm(f"{around}norm2", around)(conv(f"{around}conv2", around)(y)))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(batch_norm("stem_norm", "")(conv("stem", "")(x)))
            x = nn.relu(conv("down", "")(Block(name="first")(x)))
            x = nn.Dropout(0.5, deterministic=True)(Block(name="second")(x))
            return nn.Dense(CLASSES, name="head")(x.mean((1, 2)))

    variables = {"params": {}, "batch_stats": {}}
    parts = {"offset": ("params", "bias"), "mean": ("batch_stats", "mean"), "var": ("batch_stats", "var")}
    for key, value in p.items():
        *path, part = key.split(".")
        collection, part = parts.get(part, ("params", part))
        here = variables[collection]
        for name in path:
            here = here.setdefault(name, {})
        here[part] = jnp.asarray(value, dtype)
    return Net(), variables


# Equinox: one image, channels first. Users batch it with jax.vmap.


def equinox_model(p, dtype=np.float64):
    import equinox as eqx

    key = jax.random.key(0)

    def conv(name):
        (height, width, channels, out), groups, dilation, stride = CONVOLUTIONS[name]
        layer = eqx.nn.Conv2d(
            channels * groups, out, (height, width), stride, "SAME", dilation, groups, dtype=dtype, key=key
        )
        kernel = jnp.asarray(p[f"{name}.kernel"], dtype).transpose(3, 2, 0, 1)
        bias = jnp.asarray(p[f"{name}.bias"], dtype)[:, None, None]
        return eqx.tree_at(lambda c: (c.weight, c.bias), layer, (kernel, bias))

    class BatchNorm(eqx.Module):
        """In evaluation; eqx.nn.BatchNorm hands a state through the network besides."""

        scale: jax.Array
        offset: jax.Array
        mean: jax.Array
        var: jax.Array

        def __init__(self, name):
            parts = (jnp.asarray(p[f"{name}.{part}"], dtype) for part in ("scale", "offset", "mean", "var"))
            self.scale, self.offset, self.mean, self.var = parts

        def __call__(self, x):
            over = lambda v: v[:, None, None]
            return (x - over(self.mean)) * over(self.scale / jnp.sqrt(self.var + EPSILON)) + over(self.offset)

    class Block(eqx.Module):
        conv1: eqx.nn.Conv2d
        conv2: eqx.nn.Conv2d
        norm1: BatchNorm
        norm2: BatchNorm

        def __init__(self, name):
            self.conv1, self.conv2 = conv(f"{name}.conv1"), conv(f"{name}.conv2")
            self.norm1, self.norm2 = BatchNorm(f"{name}.norm1"), BatchNorm(f"{name}.norm2")

        def __call__(self, x):
            y = jax.nn.relu(self.norm1(self.conv1(x)))
            return jax.nn.relu(x + self.norm2(self.conv2(y)))

    class Net(eqx.Module):
        stem: eqx.nn.Conv2d
        stem_norm: BatchNorm
        first: Block
        down: eqx.nn.Conv2d
        second: Block
        dropout: eqx.nn.Dropout
        head: eqx.nn.Linear

        def __init__(self):
            self.stem, self.stem_norm = conv("stem"), BatchNorm("stem_norm")
            self.first, self.down, self.second = Block("first"), conv("down"), Block("second")
            self.dropout = eqx.nn.Dropout(0.5, inference=True)
            head = eqx.nn.Linear(12, CLASSES, dtype=dtype, key=key)
            parts = jnp.asarray(p["head.kernel"].T, dtype), jnp.asarray(p["head.bias"], dtype)
            self.head = eqx.tree_at(lambda d: (d.weight, d.bias), head, parts)

        def __call__(self, x):
            x = self.first(jax.nn.relu(self.stem_norm(self.stem(x))))
            x = self.dropout(self.second(jax.nn.relu(self.down(x))))
            return self.head(x.mean((1, 2)))

    return Net()


# Keras 3 on the JAX backend: every layer is a scope.


def keras_model(p, dtype="float64"):
    import keras

    layers = keras.layers

    def conv(name, x):
        (height, width, _, out), groups, dilation, stride = CONVOLUTIONS[name]
        flat = name.replace(".", "_")
        options = {"strides": stride, "padding": "same", "dilation_rate": dilation, "groups": groups, "dtype": dtype}
        return layers.Conv2D(out, (height, width), name=flat, **options)(x)

    def batch_norm(name, x):
        return layers.BatchNormalization(epsilon=EPSILON, name=name.replace(".", "_"), dtype=dtype)(x)

    def relu(name, x):
        return layers.ReLU(name=name, dtype=dtype)(x)

    def block(name, x):
        y = relu(f"{name}_relu", batch_norm(f"{name}.norm1", conv(f"{name}.conv1", x)))
        y = batch_norm(f"{name}.norm2", conv(f"{name}.conv2", y))
        return relu(name, layers.Add(name=f"{name}_add", dtype=dtype)([x, y]))

    images = keras.Input((12, 11, 3), dtype=dtype)
    x = relu("stem_relu", batch_norm("stem_norm", conv("stem", images)))
    x = relu("down_relu", conv("down", block("first", x)))
    x = layers.Dropout(0.5, dtype=dtype)(block("second", x))
    x = layers.GlobalAveragePooling2D(dtype=dtype)(x)
    model = keras.Model(images, layers.Dense(CLASSES, name="head", dtype=dtype)(x), dtype=dtype)
    for layer in model.layers:
        for weight in layer.weights:
            *_, part = weight.path.split("/")
            part = {"gamma": "scale", "beta": "offset", "moving_mean": "mean", "moving_variance": "var"}.get(part, part)
            names = [key for key in p if key.replace(".", "_") == f"{layer.name}_{part}"]
            if names:
                weight.assign(p[names[0]])
    return model


# Haiku: a pure function, with its parameters and its state.


def haiku_model(p, dtype=np.float64):
    """The transformed function, its parameters and state."""
    import haiku as hk

    def conv(name, x):
        (height, width, _, out), groups, dilation, stride = CONVOLUTIONS[name]
        flat = name.replace(".", "_")
        return hk.Conv2D(out, (height, width), stride, dilation, feature_group_count=groups, name=flat)(x)

    def batch_norm(name, x):
        flat = name.replace(".", "_")
        return hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.9, eps=EPSILON, name=flat)(
            x, is_training=False
        )

    def block(name, x):
        y = jax.nn.relu(batch_norm(f"{name}.norm1", conv(f"{name}.conv1", x)))
        return jax.nn.relu(x + batch_norm(f"{name}.norm2", conv(f"{name}.conv2", y)))

    def network(x):
        x = block("first", jax.nn.relu(batch_norm("stem_norm", conv("stem", x))))
        x = block("second", jax.nn.relu(conv("down", x)))
        return hk.Linear(CLASSES, name="head")(x.mean((1, 2)))

    params, state = {}, {}
    for key, value in p.items():
        module, _, part = key.rpartition(".")
        module, array = module.replace(".", "_"), jnp.asarray(value, dtype)
        over = array[None, None, None]
        if part in ("mean", "var"):
            average = {"hidden": over, "average": over, "counter": jnp.zeros((), np.int32)}
            state[f"{module}/~/{part}_ema"] = average
        else:
            part = {"kernel": "w", "bias": "b"}.get(part, part)
            params.setdefault(module, {})[part] = over if part in ("scale", "offset") else array
    return hk.without_apply_rng(hk.transform_with_state(network)), params, state
