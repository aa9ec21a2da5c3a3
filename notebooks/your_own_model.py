# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own model
#
# JAX has no hooks, and jaxcam needs none: it reads the program of a model, cuts it at a layer, and differentiates what
# comes after. The same network is written here in Flax NNX, Flax Linen, Equinox and Keras, without a line of it
# for jaxcam, and explained by the same call. Then what else the call can do: layers, classes, methods, fine detail.
#
# `pip install '.[notebooks]'` installs what is imported here.

# %%
import io
import os

os.environ["KERAS_BACKEND"] = "jax"

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import keras
import numpy as np
from flax import nnx
from IPython.display import Image, display

import jaxcam

# %% [markdown]
# ## One network, four times
#
# The weights are those of the embedded `mini_resnet`, which knows ten drawn figures, with its batch norm folded into the
# convolutions: a convolution with stride 2, three residual blocks, global average pooling, one linear layer.

# %%
reference = jaxcam.models.fold_batch_norm(jaxcam.models.mini_resnet())
kernels = {
    ".".join(path[1:]): np.asarray(leaf[...])  # without "stages"
    for path, leaf in nnx.to_flat_state(nnx.state(reference, nnx.Param))
}
BLOCKS = {"layer1": (16, 16, 1), "layer2": (16, 32, 2), "layer3": (32, 64, 1)}
print(", ".join(f"{name} {list(value.shape)}" for name, value in kernels.items()))


# %%
class NNXBlock(nnx.Module):
    def __init__(self, inputs, outputs, strides, rngs):
        self.conv1 = nnx.Conv(inputs, outputs, (3, 3), strides, rngs=rngs)
        self.conv2 = nnx.Conv(outputs, outputs, (3, 3), rngs=rngs)
        self.shortcut = nnx.Conv(inputs, outputs, (1, 1), strides, use_bias=False, rngs=rngs)
        self.projects = (inputs, strides) != (outputs, 1)

    def __call__(self, x):
        y = self.conv2(nnx.relu(self.conv1(x)))
        return nnx.relu(y + (self.shortcut(x) if self.projects else x))


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 16, (3, 3), 2, rngs=rngs)
        self.blocks = nnx.Dict({name: NNXBlock(*sizes, rngs) for name, sizes in BLOCKS.items()})
        self.fc = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.conv1(x))
        for name in BLOCKS:
            x = self.blocks[name](x)
        return self.fc(x.mean((1, 2)))


in_nnx = NNXNet(nnx.Rngs(0))
for name, value in kernels.items():
    owner = in_nnx.blocks if name.startswith("layer") else in_nnx
    for part in name.split("."):
        owner = owner[part] if isinstance(owner, nnx.Dict) else getattr(owner, part)
    owner.set_value(jnp.asarray(value))


# %%
class LinenBlock(nn.Module):
    width: int
    strides: int
    projects: bool

    @nn.compact
    def __call__(self, x):
        y = nn.relu(nn.Conv(self.width, (3, 3), self.strides, name="conv1")(x))
        y = nn.Conv(self.width, (3, 3), name="conv2")(y)
        shortcut = nn.Conv(self.width, (1, 1), self.strides, use_bias=False, name="shortcut")
        return nn.relu(y + (shortcut(x) if self.projects else x))


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(16, (3, 3), 2, name="conv1")(x))
        for name, (inputs, width, strides) in BLOCKS.items():
            x = LinenBlock(width, strides, (inputs, strides) != (width, 1), name=name)(x)
        return nn.Dense(10, name="fc")(x.mean((1, 2)))


in_linen, params = LinenNet(), {}
for name, value in kernels.items():
    *path, last = name.split(".")
    place = params
    for part in path:
        place = place.setdefault(part, {})
    place[last] = jnp.asarray(value)


# %%
class EquinoxBlock(eqx.Module):
    conv1: eqx.nn.Conv2d
    conv2: eqx.nn.Conv2d
    shortcut: eqx.nn.Conv2d | None

    def __call__(self, x):
        y = self.conv2(jax.nn.relu(self.conv1(x)))
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class EquinoxNet(eqx.Module):
    """For one image `[3, H, W]`, as is usual there."""

    conv1: eqx.nn.Conv2d
    blocks: list[EquinoxBlock]
    fc: eqx.nn.Linear

    def __call__(self, x):
        x = jax.nn.relu(self.conv1(x))
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean((1, 2)))


def equinox_conv(name, strides=1):
    kernel, bias = kernels[f"{name}.kernel"], kernels.get(f"{name}.bias")
    height, width, inputs, outputs = kernel.shape
    conv = eqx.nn.Conv2d(
        inputs, outputs, (height, width), strides, padding="SAME", use_bias=bias is not None, key=jax.random.key(0)
    )
    conv = eqx.tree_at(lambda c: c.weight, conv, jnp.asarray(kernel.transpose(3, 2, 0, 1)))
    return conv if bias is None else eqx.tree_at(lambda c: c.bias, conv, jnp.asarray(bias)[:, None, None])


linear = eqx.nn.Linear(64, 10, key=jax.random.key(0))
linear = eqx.tree_at(
    lambda layer: (layer.weight, layer.bias),
    linear,
    (jnp.asarray(kernels["fc.kernel"].T), jnp.asarray(kernels["fc.bias"])),
)
in_equinox = EquinoxNet(
    equinox_conv("conv1", 2),
    [
        EquinoxBlock(
            equinox_conv(f"{name}.conv1", strides),
            equinox_conv(f"{name}.conv2"),
            equinox_conv(f"{name}.shortcut", strides) if f"{name}.shortcut.kernel" in kernels else None,
        )
        for name, (_, _, strides) in BLOCKS.items()
    ],
    linear,
)


# %%
def keras_conv(name, strides=1):
    height, _, _, outputs = kernels[f"{name}.kernel"].shape
    bias = f"{name}.bias" in kernels
    return keras.layers.Conv2D(outputs, height, strides, padding="same", use_bias=bias, name=name.replace(".", "_"))


x = inputs = keras.Input((64, 64, 3))
x = keras.layers.ReLU()(keras_conv("conv1", 2)(x))
for name, (_, _, strides) in BLOCKS.items():
    y = keras.layers.ReLU()(keras_conv(f"{name}.conv1", strides)(x))
    y = keras_conv(f"{name}.conv2")(y)
    past = keras_conv(f"{name}.shortcut", strides)(x) if f"{name}.shortcut.kernel" in kernels else x
    x = keras.layers.ReLU(name=name)(keras.layers.Add()([y, past]))
in_keras = keras.Model(inputs, keras.layers.Dense(10, name="fc")(keras.layers.GlobalAveragePooling2D()(x)))
for name in {name.rpartition(".")[0] for name in kernels}:
    parts = [kernels[f"{name}.{part}"] for part in ("kernel", "bias") if f"{name}.{part}" in kernels]
    in_keras.get_layer(name.replace(".", "_")).set_weights(parts)

# %% [markdown]
# ## Three lines each
#
# A scene with figures of two classes, and its heatmap by each of the four. `explain` takes a model that is a pytree and
# can be called (NNX, Equinox), a Keras model, or what `adapt` makes of anything that is called in another way. It cuts
# at the last value with spatial axes that every path from input to logits passes through, here the output of the last
# block.

# %%
scene = jaxcam.scenes.pair(1, size=256)
picture = np.asarray(scene.image)
images = reference.preprocessing(picture)[None]
FIRST, SECOND = sorted({int(c) for c in scene.instance_classes if c >= 0})

# %%
# Flax NNX
found_nnx = jaxcam.explain(in_nnx, images, class_idx=FIRST)


# Flax Linen: parameters and a function of them
def apply(params, x):
    return in_linen.apply({"params": params}, x)


linen_net = jaxcam.adapt(params, apply=apply)
found_linen = jaxcam.explain(linen_net, images, class_idx=FIRST)

# Equinox: one image at a time, channels first, which the program shows
first = images.transpose(0, 3, 1, 2)
equinox_net = jaxcam.adapt(in_equinox, apply=lambda model, x: jax.vmap(model)(x))
found_equinox = jaxcam.explain(equinox_net, first, class_idx=FIRST)

# Keras
found_keras = jaxcam.explain(in_keras, images, class_idx=FIRST)

expected = jaxcam.explain(reference, images, class_idx=FIRST)
for name, found in {"NNX": found_nnx, "Linen": found_linen, "Equinox": found_equinox, "Keras": found_keras}.items():
    difference = float(jnp.abs(found.heatmap - expected.heatmap).max())
    assert difference < 1e-5, name
    print(f"{name:8} largest difference from the embedded network's heatmap: {difference:.1e}")

# %% [markdown]
# ## Layers
#
# Where a network can be cut: by the names that JAX recorded. Linen and Keras name every layer; Equinox the kind of
# layer, and the occurrences are numbered.

# %%
print(jaxcam.layers(linen_net, images))

# %% [markdown]
# NNX records no names, so only the convolutions can be told apart, by position (`layer=-1`, the last). `named` returns a
# copy that does: every submodule tags what it returns with its path.

# %%
tagged = jaxcam.named(in_nnx)
print(jaxcam.layers(tagged, images))

# %% [markdown]
# `split` gives the two halves as functions, for whatever else one wants to do at a layer. "Everything flows through"
# means that nothing passes by: then the compiled head contains nothing of what comes before. At the other layers a skip
# connection does, and the head computes it from the images.

# %%
features, head = jaxcam.split(tagged, "blocks.layer2.conv1", images)
activations = features(tagged, images)
print(activations.shape, float(jnp.abs(head(tagged, activations, images) - tagged(images)).max()))

# %% [markdown]
# ## Telling classes apart, and fine detail
#
# Two classes are in the scene. Grad-CAM finds the region of each. Guided backpropagation shows fine structure, but
# hardly depends on the class. Their product, guided Grad-CAM, has both.

# %%
SIDE = 180


def show(rows, headings, title=""):
    buffer = io.BytesIO()
    jaxcam.panel(rows, headings=headings, title=title, cell_size=SIDE / 2).save(buffer, "JPEG", quality=66)
    display(Image(buffer.getvalue(), width=min(1000, 150 * (1 + len(headings)))))


def view_of(model, picture):
    own = model.preprocessing
    return jaxcam.images.Preprocessing(resize=round(own.resize * SIDE / own.crop), crop=SIDE).view(picture)


def overlaid(view, cam_map):
    return jaxcam.overlay(view, np.clip(jaxcam.maps.heatmap(cam_map, view.shape[:2]), 0, 1))


def two_classes(model, names, picture, images, classes):
    view, rows = view_of(reference if model is tagged else model, picture), []
    for class_idx in classes:
        region = jaxcam.explain(model, images, method="grad_cam", class_idx=class_idx)
        fine = jaxcam.explain(model, images, method="guided_backprop", class_idx=class_idx)
        both = jaxcam.explain(model, images, method="guided_grad_cam", class_idx=class_idx)
        pictures = [view, overlaid(view, region.cam_map[0])]
        pictures += [jaxcam.gradient_picture(g.gradient[0]) for g in (fine, both)]
        rows.append(
            jaxcam.Row(f"{names[class_idx]}\n{float(region.confidence[0]):.1%}", [jaxcam.Cell(p) for p in pictures])
        )
    show(rows, ["Input", "Grad-CAM", "Guided\nbackprop", "Guided\nGrad-CAM"])


two_classes(tagged, reference.class_names, picture, images, (FIRST, SECOND))

# %% [markdown]
# With `JAXCAM_DATA` set to a folder with ResNet-50's weights and the photograph of a dog and a cat, the same on a
# photograph (that picture is not part of this notebook).

# %%
data = os.environ.get("JAXCAM_DATA")
if data:
    from pathlib import Path

    photograph = next(Path(data).rglob("both.png"), None)
    checkpoint = next(iter(sorted(Path(data).rglob("resnet50*.safetensors"))), None)
    if photograph and checkpoint:
        resnet, animals = jaxcam.models.resnet50(checkpoint), jaxcam.read_image(photograph)
        named_classes = [resnet.class_names.index(name) for name in ("bull mastiff", "tiger cat")]
        two_classes(resnet, resnet.class_names, animals, resnet.preprocessing(animals)[None], named_classes)

# %% [markdown]
# `guided` is a transformation like `jax.jit`: the function with the same values, whose ReLUs (and leaky ReLU, SiLU, GELU
# ...) pass back only positive gradients where their input was positive. The network is not touched.


# %%
def logit(x):
    return tagged(x[None])[0, FIRST]


ordinary = jax.grad(logit)(images[0])
guided = jax.grad(jaxcam.guided(logit))(images[0])
print(f"same value: {float(logit(images[0])) == float(jaxcam.guided(logit)(images[0]))}")
print(f"largest difference of the gradients: {float(jnp.abs(ordinary - guided).max()):.2f}")

# %% [markdown]
# ## Every method
#
# `jaxcam.methods` lists them with their papers. Ablation-CAM and Score-CAM run the network once for every channel;
# SmoothGrad-CAM++ draws noise, and wants a key.

# %%
for name, method in jaxcam.methods.METHODS.items():
    print(f"{name:19} {method.title:23} {method.source}")

# %%
network, view = jaxcam.models.mini_vgg(), view_of(reference, picture)
regions = [
    name
    for name, method in jaxcam.methods.METHODS.items()
    if not name.startswith("guided") and name != "cam" and not method.needs_attention
]
rows = []
for class_idx in (FIRST, SECOND):
    cells = []
    for name in regions:
        key = jax.random.key(0) if name == "smooth_grad_cam_pp" else None
        found = jaxcam.explain(network, images, method=name, class_idx=class_idx, key=key)
        status = jaxcam.Status(int(found.status[0]))
        cells.append(
            jaxcam.Cell(overlaid(view, found.cam_map[0]), "" if status == 0 else status.name.lower().replace("_", " "))
        )
    rows.append((network.class_names[class_idx], cells))
half = (len(regions) + 1) // 2
for part in (slice(0, half), slice(half, None)):
    titles = [
        jaxcam.methods.METHODS[name].title.replace("SmoothGrad-", "SmoothGrad-\n").replace("Counter", "Counter-\n")
        for name in regions[part]
    ]
    show([jaxcam.Row(name, cells[part]) for name, cells in rows], titles)

# %% [markdown]
# Two rows of the same network, `mini_vgg`. Eigen-CAM knows no class. The counterfactual map shows what speaks against
# one: mostly the other figure.
#
# ## All classes and several layers at once
#
# `class_idx="all"` and `top=k` explain many classes from one forward pass, and a list of layers is explained from one as
# well; their heatmaps are fused.

# %%
everything = jaxcam.explain(tagged, images, class_idx="all", method="grad_cam")
print("heatmaps:", everything.heatmap.shape, "confidences:", np.asarray(everything.confidence[0]).round(3))
likeliest = jaxcam.explain(tagged, images, top=2)
print([reference.class_names[c] for c in likeliest.class_idx[0]])

# %%
stages = ["conv1", "blocks.layer1", "blocks.layer2", "blocks.layer3"]
fused = jaxcam.explain(tagged, images, method="layer_cam", layer=stages, class_idx=FIRST)
cells = [jaxcam.Cell(overlaid(view, cam_map[0])) for cam_map in fused.cam_map]
cells.append(jaxcam.Cell(jaxcam.overlay(view, fused.heatmap[0])))
show([jaxcam.Row(reference.class_names[FIRST], cells)], [*stages, "fused by max"], title="LayerCAM")
