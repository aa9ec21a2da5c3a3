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
# # One picture, several networks
#
# The same picture through every network at hand, a row each: Grad-CAM, Grad-CAM++, CAM where the network ends in global
# average pooling, and the explanation maps E = L ∘ I, the picture dimmed wherever the heatmap L is low. Under a map
# stands the status if there is something to say, under an E how confident the network still is when it sees only E.
#
# As it stands the notebook runs on the two convolutional networks in the package, which know the figures of
# `jaxcam.scenes`, with a generated scene, and on EfficientNet-Lite0, trained on ImageNet (from the package index, the extra
# `photographs`), with a photograph: scikit-image's cat, by Stéfan van der Walt, without rights reserved (CC0). With
#
#     JAXCAM_WEIGHTS=folder JAXCAM_PICTURE=photo.jpg jupyter execute --inplace notebooks/architectures.ipynb
#
# it runs on every ImageNet checkpoint in that folder whose file name begins with the name of an architecture, such as
# `resnet50.safetensors`, `vgg16.pth` or `efficientnet_b0-ra.safetensors`.

# %%
import io
import os
from importlib.resources import files
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from IPython.display import Image, display

import jaxcam
from jaxcam import models

# %% [markdown]
# ## The networks and the pictures

# %%
folder, photograph = os.environ.get("JAXCAM_WEIGHTS"), os.environ.get("JAXCAM_PICTURE")


def architecture_of(path):
    """The longest name of an architecture that the file's name begins with."""
    return max((name for name in models.MODELS if path.name.startswith(name)), key=len, default=None)


def networks():
    """By name: the embedded ones and one with real weights, or those of the folder that know ImageNet's classes."""
    if folder is None:
        small = {"mini_vgg": models.mini_vgg(), "mini_resnet": models.mini_resnet()}
        return {**small, "efficientnet_lite0": models.efficientnet_lite0("imagenet")}
    found = {}
    for path in sorted(Path(folder).glob("*")):
        if path.suffix in (".safetensors", ".pth") and (name := architecture_of(path)) is not None:
            model = models.MODELS[name](path)
            if len(model.class_names) == 1000:
                found[path.stem] = model
            else:
                print(f"{path.name} is left out: it has {len(model.class_names)} classes")
    if not found:
        raise SystemExit(f"JAXCAM_WEIGHTS: no checkpoint in {folder!r} is named after an ImageNet architecture")
    return found


if (folder is None) != (photograph is None):
    raise SystemExit("set both JAXCAM_WEIGHTS and JAXCAM_PICTURE, or neither")
NETWORKS = networks()
drawn = jaxcam.scenes.pair(1, size=256)
IN_THE_SCENE = sorted({int(c) for c in drawn.instance_classes if c >= 0})
SCENE, PHOTOGRAPH = np.asarray(drawn.image), jaxcam.read_image(photograph or files("skimage") / "data" / "chelsea.png")
PICTURES = {name: PHOTOGRAPH if len(model.class_names) == 1000 else SCENE for name, model in NETWORKS.items()}
for name, model in NETWORKS.items():
    size = sum(leaf.size for leaf in jax.tree.leaves(model))
    print(f"{name}: {size:,} parameters, {len(model.class_names)} classes, explained after {model.default_layer}")

# %% [markdown]
# ## A row each
#
# `explain` gives the heatmaps of a batch in one compiled call. Here the batch is one picture, and the class is the
# likeliest one according to the network of that row, so that rows may explain different classes.

# %%
TITLES = {"grad_cam": "Grad-CAM", "grad_cam_pp": "Grad-CAM++", "cam": "CAM"}
SIDE = 190


@jax.jit
def probabilities(model, pictures):
    return jax.nn.softmax(model(model.preprocessing.normalise(pictures)))


def large_view(model, picture):
    """What the network sees, in more pixels than the 64 of the embedded ones."""
    own = model.preprocessing
    enlarged = jaxcam.images.Preprocessing(resize=round(own.resize * SIDE / own.crop), crop=SIDE)
    return enlarged.view(picture)


def row(name, model, picture, class_idx=None, layer=None, methods=TITLES):
    """The cells of one network: a map by each method, and E of Grad-CAM and Grad-CAM++."""
    seen = model.preprocessing.view(picture)
    images, view = model.preprocessing.normalise(seen)[None], large_view(model, picture)
    before = np.asarray(probabilities(model, seen[None]))[0]
    top = int(before.argmax()) if class_idx is None else class_idx
    cells, explanations = [], []
    for method in methods:
        if method == "cam" and model.cam_layer is None:
            cells.append(jaxcam.Cell(None, "does not apply"))
            continue
        found = jaxcam.explain(model, images, method=method, class_idx=top, layer=layer)
        heat = np.clip(jaxcam.maps.heatmap(found.cam_map[0], (SIDE, SIDE)), 0, 1)
        status = jaxcam.Status(int(found.status[0]))
        cells.append(jaxcam.Cell(jaxcam.overlay(view, heat), "" if status == jaxcam.Status.OK else status.name.lower()))
        if method != "cam":
            e = jaxcam.explanation_map(jnp.asarray(seen)[None], found.heatmap)
            on_e = float(probabilities(model, e)[0, top])
            explanations.append(jaxcam.Cell(jaxcam.explanation_map(view, heat), f"{on_e:.1%} on E"))
    return jaxcam.Row(
        f"{name}\n{model.class_names[top]}\n{before[top]:.1%}", [jaxcam.Cell(view), *cells, *explanations]
    )


HEADINGS = ["Input", *TITLES.values(), "E, Grad-CAM", "E, Grad-CAM++"]


def show(rows, headings=HEADINGS, title=""):
    """A panel, as a JPEG: notebooks with photographs in PNG are large."""
    buffer = io.BytesIO()
    jaxcam.panel(rows, headings=headings, title=title, cell_size=SIDE / 2).save(buffer, "JPEG", quality=60)
    display(Image(buffer.getvalue(), width=1000))


show([row(name, model, PICTURES[name]) for name, model in NETWORKS.items()])

# %% [markdown]
# CAM and Grad-CAM are identical wherever both apply, up to a positive factor and Grad-CAM's ReLU: behind global average
# pooling the gradient of a logit is the linear layer's weight divided by the number of positions, and normalisation takes
# that factor away. Grad-CAM++ discards negative gradients: channels that speak against the class no longer take anything
# away, and its maps are wider. That is the positive part's doing, not that of its alphas: `grad_cam_positive`,
# which has none, gives nearly the same maps here ([regimes.ipynb](regimes.ipynb)).
#
# ## The other class
#
# There are two kinds of figures in the scene. Each network now explains the one that it finds less likely; of the
# photograph, the class that comes second.

# %%
rows, others = [], {}
for name, model in NETWORKS.items():
    p = np.asarray(probabilities(model, model.preprocessing.view(PICTURES[name])[None]))[0]
    candidates = IN_THE_SCENE if PICTURES[name] is SCENE else np.argsort(-p)[:2]
    others[name] = int(min(candidates, key=p.__getitem__))
    rows.append(row(name, model, PICTURES[name], class_idx=others[name]))
show(rows)

# %% [markdown]
# Look at the row of `mini_vgg`: Grad-CAM of the crescent lies on the crescent, Grad-CAM++ of the crescent lies on the heart
# as well. What speaks against a crescent there is the heart, by the gradients below zero; Grad-CAM++ discards these, and
# what the two classes have in common is left. How much of the heat lies in the boxes of which figure, and how sure the
# network is of the crescent on E:

# %%
if folder is None:
    boxes = [np.asarray(drawn.boxes)[np.asarray(drawn.instance_classes) == c] / 256 for c in IN_THE_SCENE]
    for name in ("mini_vgg", "mini_resnet"):
        model, c = NETWORKS[name], others[name]
        seen = model.preprocessing.view(SCENE)
        for method in ("grad_cam", "grad_cam_pp", "grad_cam_positive"):
            images = model.preprocessing.normalise(seen)[None]
            found = jaxcam.explain(model, images, method=method, class_idx=c)
            heat = found.heatmap[0]
            inside = [jaxcam.metrics.box_mask(jnp.asarray(each * heat.shape[0]), heat.shape) for each in boxes]
            shares = [float(jaxcam.metrics.energy_pointing_game(heat, mask)) for mask in inside]
            e = jaxcam.explanation_map(jnp.asarray(seen)[None], found.heatmap)
            told = ", ".join(
                f"{share:.0%} on the {model.class_names[i]}" for i, share in zip(IN_THE_SCENE, shares, strict=True)
            )
            on_e = float(probabilities(model, e)[0, c])
            print(f"{name:11}  {model.class_names[c]} by {method:17}  {told}; {on_e:.0%} sure on E")

# %% [markdown]
# ## Several of one kind
#
# Where the gradient is confined to the objects, a channel that sees a small one gets a small weight, by Grad-CAM's mean
# and by a sum alike: sum and mean differ by a constant factor, which normalisation takes away. Grad-CAM++ was made to count
# positions instead, which it does where $S_k g$ is large; behind pooling and in these networks it is not
# ([regimes.ipynb](regimes.ipynb)). In this scene the difference is small: `mini_resnet` finds all three fish, the third one
# faintly, and `mini_vgg` hardly sees the third, by either method. One scene shows no more than that.

# %%
if folder is None:
    many = np.asarray(jaxcam.scenes.scene(7, num_instances=3, size=256).image)
    show([row(name, NETWORKS[name], many) for name in ("mini_vgg", "mini_resnet")])

# %% [markdown]
# ## Other layers
#
# `layer` names where the network is cut; `model.layers` lists the names. Early layers see edges, in fine grids; the
# default is the last layer with a grid. Here `mini_resnet`, or the last network of your folder.

# %%
name = "mini_resnet" if folder is None else list(NETWORKS)[-1]
model = NETWORKS[name]
candidates = [f"layer{i}" for i in (1, 2, 3, 4) if any(own.startswith(f"layer{i}") for own in model.layers)]
candidates = candidates or [own for own in model.layers if own.startswith("features.")][2::5]
methods = ("grad_cam", "grad_cam_pp")
show(
    [row(f"{name}, {layer}", model, PICTURES[name], layer=layer, methods=methods) for layer in candidates],
    headings=[heading for heading in HEADINGS if heading != "CAM"],
)
