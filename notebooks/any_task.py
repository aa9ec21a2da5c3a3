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
# # Any task
#
# Series, volumes, clips, several inputs; classes, numbers, masks, boxes, embeddings: the same call, with a `target` where
# the outputs are no classes. Every recipe here is at most six lines, draws its picture with `found.over(inputs)`, and is
# checked against a map that is cut by hand: the network is written in two halves, `features` and `head`, the head is
# differentiated by `jax.grad`, and the map is what Grad-CAM's paper says. `explain` knows nothing of the halves.
#
# The networks are tiny and trained here in seconds, on generated data of which it is known where what counts is.

# %%
import io
import tempfile
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from IPython.display import Image, display

import jaxcam

random = np.random.default_rng(0)

# %% [markdown]
# ## What all recipes need
#
# Convolutions over any number of axes, a training loop, and the map by hand.


# %%
def conv(x, kernel, strides=1):
    """Over the axes between the first and the last, padded to the same size."""
    axes = "DHW"[5 - x.ndim :]
    dims = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    return jax.lax.conv_general_dilated(x, kernel, (strides,) * len(axes), "SAME", None, None, dims)


def kernels(*shapes):
    """Random ones, by He's rule."""
    made = [random.normal(size=shape) * (2 / np.prod(shape[:-1])) ** 0.5 for shape in shapes]
    return [jnp.asarray(kernel, jnp.float32) for kernel in made]


def fit(features, head, params, loss, data, steps=150, batch=32, rate=0.01):
    """Adam on random batches of data = (inputs, truths): the two halves with their parameters in them."""
    optimizer = optax.adam(rate)
    data = jax.tree.map(jnp.asarray, data)
    chosen = jnp.asarray(random.integers(0, len(data[0]), (steps, batch)))

    def lost(params, inputs, truths):
        return loss(head(params, features(params, inputs)), truths)

    def step(state, rows):
        params, memory = state
        value, gradient = jax.value_and_grad(lost)(params, *jax.tree.map(lambda leaf: leaf[rows], data))
        change, memory = optimizer.update(gradient, memory)
        return (optax.apply_updates(params, change), memory), value

    (params, _), losses = jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), chosen))(params)
    print(f"loss {losses[:5].mean():.3f} -> {losses[-5:].mean():.3f}")
    return partial(features, params), partial(head, params)


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


# %%
def by_hand(features, head, inputs, target=jnp.max):
    """Grad-CAM of each example: ReLU(sum_k w_k A_k), where w_k is the mean over the positions of the gradient by A_k."""

    @jax.jit
    def one(example):
        activations = features(example[None])[0]
        gradient = jax.grad(lambda a: target(jax.tree.map(lambda o: o[0], head(a[None]))))(activations)
        return jax.nn.relu(activations @ gradient.mean(tuple(range(gradient.ndim - 1))))

    return jnp.stack([one(example) for example in inputs])


def check(cam_map, expected):
    difference = float(jnp.abs(cam_map - expected).max() / jnp.abs(expected).max())
    assert cam_map.shape == expected.shape, (cam_map.shape, expected.shape)
    assert difference < 1e-5, difference
    print(f"largest difference from the map by hand: {difference:.0e} of its maximum")


def show(picture):
    buffer = io.BytesIO()
    picture.reduce(2).save(buffer, "JPEG", quality=72)
    display(Image(buffer.getvalue()))


# %% [markdown]
# ## Series: convolutions over time
#
# Noise, and in it a burst of one of three shapes at some time. Below the picture the truth.


# %%
def bursts(n, length=120, wide=20):
    series, kinds = random.normal(size=(n, length, 1)) / 4, random.integers(0, 3, n)
    t, starts = np.arange(wide), random.integers(0, length - wide, n)
    shapes = [np.sin(0.9 * t), np.where(t % 7 < 2, 1.5, 0), 2 * t / wide - 1]
    for one, kind, start in zip(series, kinds, starts, strict=True):
        one[start : start + wide, 0] += 1.5 * shapes[kind]
    return series.astype(np.float32), kinds, starts


def two_convolutions(params, x):
    return jax.nn.relu(conv(jax.nn.relu(conv(x, params[0], 2)), params[1]))


def pooled(params, a):
    """The mean over all positions, and one linear layer."""
    return a.mean(tuple(range(1, a.ndim - 1))) @ params[2]


series, kinds, starts = bursts(512)
burst = fit(two_convolutions, pooled, kernels((9, 1, 12), (9, 12, 16), (16, 3)), cross_entropy, (series, kinds))

# %%
features, head = burst
net = jaxcam.adapt(lambda x: head(features(x)), class_names=["sine", "pulses", "ramp"])
found = jaxcam.explain(net, series[:3])
show(found.over(series[:3]))
check(found.cam_map, by_hand(features, head, series[:3]))

# %%
print(
    [f"{net.class_names[kind]} from {start} to {start + 19}" for kind, start in zip(kinds[:3], starts[:3], strict=True)]
)

# %% [markdown]
# An explanation shows itself: in a notebook as a table of small heatmaps, elsewhere as a few lines.

# %%
print(found)
found

# %% [markdown]
# ## Volumes: convolutions in three dimensions
#
# A ball or a cube somewhere in a noisy volume. Three slices go through the hottest voxel; blue marks show where the other
# two are. `jaxcam.pictures.montage` shows more slices of one axis.


# %%
def solids(n, size=16):
    places, kinds = random.integers(4, size - 4, (n, 3, 1, 1, 1)), random.integers(0, 2, n)
    away = np.abs(np.indices((size, size, size)) - places)
    ball, cube = (away**2).sum(1) <= 12, away.max(1) <= 3
    solid = np.where(kinds[:, None, None, None] == 0, ball, cube)
    return (solid + random.normal(size=solid.shape) / 4)[..., None].astype(np.float32), kinds, places[:, :, 0, 0, 0]


volumes, kinds, places = solids(128)
shapes = (3, 3, 3, 1, 8), (3, 3, 3, 8, 12), (12, 2)
solid = fit(two_convolutions, pooled, kernels(*shapes), cross_entropy, (volumes, kinds), steps=60, batch=12)

# %%
features, head = solid
net = jaxcam.adapt(lambda x: head(features(x)), class_names=["ball", "cube"])
found = jaxcam.explain(net, volumes[:2])
show(found.over(volumes[:2]))
check(found.cam_map, by_hand(features, head, volumes[:2]))

# %%
print([f"{net.class_names[kind]} at {place.tolist()}" for kind, place in zip(kinds[:2], places[:2], strict=True)])
show(jaxcam.pictures.montage(volumes[0], found.heatmap[0], num=8, columns=8, cell_size=72))

# %% [markdown]
# ## Clips, frame by frame
#
# A square wanders, and lights up in one of the frames, or in none. The network looks at each frame by itself, and takes the
# mean over time and place: the heatmap `[n, t, H, W]` says when as well as where.


# %%
def clips(n, frames=8, size=24):
    drawn, lit = random.normal(size=(n, frames, size, size)) / 8, random.integers(-frames, frames, n)
    ways, heights = random.integers(0, 2, n), random.integers(4, size - 8, n)
    for i in range(n):
        for t in range(frames):
            x = 2 * t if ways[i] == 0 else size - 6 - 2 * t
            drawn[i, t, heights[i] : heights[i] + 5, x : x + 5] += 3 if t == lit[i] else 0.6
    return drawn[..., None].astype(np.float32), lit, ways


def each_frame(params, x):
    """[n, t, H, W, d]: the same two convolutions for every frame."""
    return jax.vmap(partial(two_convolutions, params), 1, 1)(x)


def pooled_more(params, a):
    """A light in one frame is little of the mean."""
    return 10 * pooled(params, a)


movies, lit, ways = clips(192)
shapes = (3, 3, 1, 8), (3, 3, 8, 12), (12, 2)
light = fit(each_frame, pooled_more, kernels(*shapes), cross_entropy, (movies, (lit >= 0) * 1), steps=80, batch=12)
bright = movies[lit >= 0][:2]

# %%
features, head = light
net = jaxcam.adapt(lambda x: head(features(x)), class_names=["dark", "lit"])
found = jaxcam.explain(net, bright, class_idx=1)
show(found.over(bright, kind="clip"))
check(found.cam_map, by_hand(features, head, bright, lambda logits: logits[1]))

# %%
print("lit in frames", lit[lit >= 0][:2].tolist())

# %% [markdown]
# ## Clips, by convolutions over time
#
# Which way does it go? No single frame tells. `jaxcam.pictures.frames` makes the overlays of all frames, and `save` an
# animated WebP of them.

# %%
shapes = (3, 5, 5, 1, 8), (3, 3, 3, 8, 12), (12, 2)
motion = fit(two_convolutions, pooled, kernels(*shapes), cross_entropy, (movies, ways), steps=50, batch=10)

# %%
features, head = motion
net = jaxcam.adapt(lambda x: head(features(x)), class_names=["to the right", "to the left"])
found = jaxcam.explain(net, bright)
show(found.over(bright, kind="clip"))
check(found.cam_map, by_hand(features, head, bright))

# %%
path = Path(tempfile.mkdtemp()) / "clip.webp"
jaxcam.save(jaxcam.pictures.frames(bright[0], found.heatmap[0], size=120), path, fps=4)
display(Image(path.read_bytes(), format="webp", width=120))

# %% [markdown]
# ## Several inputs
#
# A series and a volume: the score is that the burst is a sine and the solid a cube. Each input that has positions has a
# heatmap of its own, made from the same forward pass.

# %%
(of_series, head_of_series), (of_volume, head_of_volume) = burst, solid
both = {"series": series[:2], "volume": volumes[:2]}


def score(x):
    return head_of_series(of_series(x["series"]))[:, 0] + head_of_volume(of_volume(x["volume"]))[:, 1]


# %%
found = jaxcam.explain(jaxcam.adapt(score, probability=None), both)
show(found.over(both, num=1))
check(found.cam_map["series"], by_hand(of_series, head_of_series, both["series"], lambda logits: logits[0]))
check(found.cam_map["volume"], by_hand(of_volume, head_of_volume, both["volume"], lambda logits: logits[1]))

# %% [markdown]
# ## Pictures: binary, multi-label, regression, embeddings
#
# Pictures with a disc, a square, both or none. One network learns whether there is a disc, whether there is a square, and
# how large the disc is: three numbers from the same features.


# %%
def pictures(n, size=32):
    there, places = random.random((n, 2)) < 0.6, random.integers(7, size - 7, (n, 2, 2))
    y, x = np.indices((size, size))
    away = np.abs(np.stack([y - places[..., :1, None], x - places[..., 1:, None]]))
    radii = random.integers(3, 7, (n, 1, 1))
    shapes = np.stack([(away[:, :, 0] ** 2).sum(0) <= radii**2, away[:, :, 1].max(0) <= 4], -1)
    masks = shapes & there[:, None, None, :]
    drawn = random.random((n, size, size, 3)) / 4 + masks @ np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    return np.clip(drawn, 0, 1).astype(np.float32), masks, there, places


def three_losses(outputs, truths):
    there, area = truths
    return optax.sigmoid_binary_cross_entropy(outputs[:, :2], there).mean() + ((outputs[:, 2] - area) ** 2).mean()


images, masks, there, places = pictures(256)
truths = there.astype(np.float32), masks[..., 0].mean((1, 2), dtype=np.float32) * 10
shapes = (5, 5, 3, 12), (5, 5, 12, 16), (16, 3)
features, head = fit(two_convolutions, pooled, kernels(*shapes), three_losses, (images, truths), batch=16)
two = images[there.all(1)][:2]

# %% [markdown]
# **Binary**, one logit: the class and its opposite, and the confidence a sigmoid.

# %%
net = jaxcam.adapt(lambda x: head(features(x))[:, :1], class_names=["no disc", "disc"])
found = jaxcam.explain(net, two, class_idx=1)
show(found.over(two))
check(found.cam_map, by_hand(features, head, two, lambda outputs: outputs[0]))

# %% [markdown]
# **Multi-label**: a sigmoid for each class, seen at the model's end; `class_idx="all"` explains them all.

# %%
net = jaxcam.adapt(lambda x: jax.nn.sigmoid(head(features(x))[:, :2]), class_names=["disc", "square"])
found = jaxcam.explain(net, two, class_idx="all")
show(found.over(two))
check(found.cam_map[:, 0], by_hand(features, head, two, lambda outputs: outputs[0]))
check(found.cam_map[:, 1], by_hand(features, head, two, lambda outputs: outputs[1]))

# %% [markdown]
# **Regression**: what makes the number large.

# %%
net = jaxcam.adapt(lambda x: head(features(x)), probability=None)
found = jaxcam.explain(net, two, target=jaxcam.targets.output(2))
show(found.over(two))
check(found.cam_map, by_hand(features, head, two, lambda outputs: outputs[2]))


# %% [markdown]
# **Embeddings**: what makes a picture similar to another one, here to one with a disc and nothing else. (What all pictures
# have in common is subtracted: without that all are alike.)


# %%
def embed(a):
    return a.mean((1, 2)) - usual


usual = features(images).mean((0, 1, 2))
alone = embed(features(images[(there == [True, False]).all(1)][:1]))[0]

# %%
likeness = jaxcam.targets.similarity(alone)
found = jaxcam.explain(lambda x: embed(features(x)), two, target=likeness)
show(found.over(two))
check(found.cam_map, by_hand(features, embed, two, lambda embedding: likeness(embedding, None)))

# %% [markdown]
# ## Segmentation: a U-Net
#
# Down, up again, and past it all a skip connection. What is explained is the sum of a class's logits over a region, here
# over what the network itself says is the disc. The default layer is the last value that a convolution over neighbours
# follows.


# %%
def down_and_up(params, x):
    fine = jax.nn.relu(conv(x, params[0]))
    coarse = jax.nn.relu(conv(fine, params[1], 2))
    wide = jax.image.resize(coarse, (len(x), *fine.shape[1:3], coarse.shape[-1]), "nearest")
    return jax.nn.relu(conv(jnp.concatenate([fine, wide], -1), params[2]))


def of_pixels(params, a):
    return jax.nn.relu(conv(a, params[3])) @ params[4]


labels = np.where(masks[..., 1], 2, np.where(masks[..., 0], 1, 0))
shapes = (3, 3, 3, 8), (5, 5, 8, 12), (3, 3, 20, 12), (3, 3, 12, 12), (12, 3)
features, head = fit(down_and_up, of_pixels, kernels(*shapes), cross_entropy, (images, labels), steps=50, batch=10)

# %%
one, disc = two[:1], head(features(two[:1])).argmax(-1)[0] == 1
region = jaxcam.targets.region(1, disc)
found = jaxcam.explain(lambda x: head(features(x)), one, target=region)
show(found.over(one))
check(found.cam_map, by_hand(features, head, one, lambda logits: region(logits, None)))

# %% [markdown]
# ## Detection
#
# A grid of 8 by 8 cells, each with a box and scores of two classes; `of` makes a list of boxes and probabilities of them.
# What is explained is the box that is meant: the one with the largest product of score and overlap with a reference, here
# the true box of the square.
#
# This target reads one place, and Grad-CAM's weights are means of the gradient over *all* places: what they weigh is
# then added up wherever a channel is active, on the disc as well. HiResCAM takes each position's own gradient. A target
# that looks at a place asks for it (or for LayerCAM).


# %%
def to_cells(params, x):
    return jax.nn.relu(conv(jax.nn.relu(conv(x, params[0], 2)), params[1], 2))


def of_cells(params, a):
    """Boxes (x0, y0, x1, y1) about the middles of the cells, and scores, which are low at first."""
    raw = jax.nn.relu(conv(a, params[2])) @ params[3] / 3
    middles = jnp.stack(jnp.meshgrid(*[jnp.arange(2, 32, 4.0)] * 2), -1) + 2 * jnp.tanh(raw[..., :2])
    halves = 5 * jnp.exp(jnp.tanh(raw[..., 2:4]))
    return jnp.concatenate([middles - halves, middles + halves], -1), raw[..., 4:] - 3


def listed(outputs):
    """Boxes [b, 4] and their probabilities [b, c]."""
    return outputs[0].reshape(-1, 4), jax.nn.sigmoid(outputs[1]).reshape(-1, 2)


def box_loss(outputs, truths):
    (boxes, scores), (at, true_boxes) = outputs, truths
    wrong = jnp.abs(boxes - true_boxes).mean(-1) * at.max(-1)
    return 20 * optax.sigmoid_binary_cross_entropy(scores, at).mean() + wrong.mean()


at, true_boxes = np.zeros((len(images), 8, 8, 2), np.float32), np.zeros((len(images), 8, 8, 4), np.float32)
for i, k in np.argwhere(there & masks.any((1, 2))):
    (y, x), rows, columns = places[i, k] // 4, *(np.flatnonzero(masks[i, ..., k].any(axis)) for axis in (1, 0))
    at[i, y, x, k], true_boxes[i, y, x] = 1, (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
shapes, truths = ((5, 5, 3, 12), (5, 5, 12, 16), (3, 3, 16, 16), (16, 6)), (at, true_boxes)
features, head = fit(to_cells, of_cells, kernels(*shapes), box_loss, (images, truths), steps=150, batch=16, rate=0.005)
squares = [boxes[cells[..., 1] > 0][0] for boxes, cells in zip(true_boxes[there.all(1)], at[there.all(1)], strict=True)]

# %%
box = jaxcam.targets.best_box(1, squares[0], of=listed)
found = jaxcam.explain(lambda x: head(features(x)), one, target=box, method="hires_cam")
show(found.over(one))
print(f"score times overlap {found.value[0]:.2f}; the square's true box {squares[0].tolist()}")

# %%
found = jaxcam.explain(lambda x: head(features(x)), one, target=box)
show(found.over(one))
check(found.cam_map, by_hand(features, head, one, lambda outputs: box(outputs, None)))

# %% [markdown]
# How much of the heat lies in the square, a twelfth of the picture, for twelve pictures? A target may read the inputs: here
# each picture comes with the box that is meant in it.

# %%
twelve, inside = images[there.all(1)][:12], masks[there.all(1)][:12, ..., 1]
net = jaxcam.adapt(lambda x: head(features(x["picture"])), input="picture")


def own(outputs, inputs):
    return jaxcam.targets.best_box(1, inputs["box"], of=listed)(outputs, inputs)


for method in ("grad_cam", "hires_cam", "layer_cam"):
    found = jaxcam.explain(net, {"picture": twelve, "box": np.stack(squares[:12])}, target=own, method=method)
    share = (found.heatmap * inside).sum((1, 2)) / jnp.maximum(found.heatmap.sum((1, 2)), 1e-9)
    print(f"{method}: {share.mean():.2f} inside; {(found.status == jaxcam.Status.ZERO_MAP).sum()} maps are empty")
