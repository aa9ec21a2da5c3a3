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
# # Series, volumes, clips, captions and questions
#
# What is no picture, or more than one, is explained by the same call. `jaxcam.scenes` draws series, volumes, clips,
# captioned pictures and questions, and knows the truth about each: where a pattern is in time, which voxels are the
# solid, which of three figures travels, what a word names, what an answer rests on. The embedded networks are really
# trained on them (`python -m jaxcam train`), so that a map can be held against the truth.

# %%
import functools
import io

import jax
import numpy as np
from IPython.display import Image, Markdown, display
from PIL import Image as Pillow

import jaxcam
from jaxcam import models, pictures, scenes, tables

METHODS = ("grad_cam", "grad_cam_pp")


def show(picture, width=900):
    """As a JPEG: a notebook is to stay small."""
    picture = picture.convert("RGB")
    picture.thumbnail((width, 4000))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=65)
    display(Image(file.getvalue()))


def below_each_other(*drawn):
    """One picture of several."""
    page = Pillow.new("RGB", (max(one.width for one in drawn), sum(one.height for one in drawn)), "white")
    top = 0
    for one in drawn:
        page.paste(one, (0, top))
        top += one.height
    return page


def share_on(heat, truth):
    """Of the heat of every example, in percent."""
    axes = tuple(range(1, heat.ndim))
    return 100 * (heat * truth).sum(axes) / heat.sum(axes)


# %% [markdown]
# ## Series
#
# Three channels of 128 samples, with a short pattern in drift and noise: the class. `mini_tcn` is a temporal
# convolutional network; its last layer has 64 positions in time.

# %%
tcn = models.mini_tcn()
events = jax.device_get(scenes.many(scenes.series, 3, 200))
print(jaxcam.layers(tcn, events.values[:1]))

# %%
found = {method: jaxcam.explain(tcn, events.values, class_idx=events.class_idx, method=method) for method in METHODS}
truth = events.masks.any(1)
right = found["grad_cam"].class_idx == np.asarray(tcn(events.values)).argmax(-1)
print(f"{100 * right.mean():.1f} % of {len(truth)} series are classified rightly")
show(
    below_each_other(
        pictures.series(events.values[0], truth[0].astype(np.float32)),
        *(pictures.series(events.values[0], np.asarray(found[method].heatmap[0])) for method in METHODS),
    ),
    width=720,
)

# %% [markdown]
# Above the truth, below it Grad-CAM and Grad-CAM++. How much of the heat lies on the pattern, and how often its maximum
# does; `jaxcam.evaluate` has the same with intervals, and whether the map depends on the class at all:

# %%
rows = []
for method in METHODS:
    heat = np.asarray(found[method].heatmap)
    top = truth[np.arange(len(heat)), heat.argmax(1)]
    rows.append([method, f"{share_on(heat, truth).mean():.1f}", f"{100 * top.mean():.1f}"])
rows.append(["all alike", f"{100 * truth.mean():.1f}", f"{100 * truth.mean():.1f}"])
display(Markdown(tables.markdown(["", "heat on the pattern, %", "maximum on it, %"], rows)))

# %% [markdown]
# ## Volumes
#
# A solid among noise, with rods through it and specks around: a ball, a cone, a torus ... `mini_net3d` sees 24 x 24 x 24
# voxels; its map has 6 x 6 x 6 places. Slices through the hottest voxel, which `found.over` would choose as well; the
# truth first.

# %%
net3d = models.mini_net3d()
solids = jax.device_get(scenes.many(scenes.volume, 5, 16))
found = jaxcam.explain(net3d, solids.density, class_idx=solids.class_idx)
which = int(np.argmax(np.asarray(found.confidence)))
at = [int(place) for place in np.unravel_index(np.asarray(found.heatmap[which]).argmax(), found.heatmap[which].shape)]
heats = solids.masks[which].any(0).astype(np.float32), np.asarray(found.heatmap[which])
print(f"{net3d.class_names[int(solids.class_idx[which])]}, {100 * float(found.confidence[which]):.1f} %")
show(below_each_other(*(pictures.volume(solids.density[which], heat, at=at) for heat in heats)))

# %% [markdown]
# ## Clips
#
# Three figures; one travels, the others stand or tremble. The label is the class of the one that travels, and no single
# frame says which that is. Two networks see the frames with the layers of `mini_resnet`: `mini_c3d` then has 3-D
# convolutions, `mini_convlstm` a ConvLSTM in a scan over the frames.

# %%
clips = jax.device_get(scenes.many(scenes.clip, 11, 100))
networks = {"mini_c3d": models.mini_c3d(), "mini_convlstm": models.mini_convlstm()}
order = np.arange(len(clips.moving))
moving = clips.masks[order, :, clips.moving]  # [n, t, h, w]
standing = clips.masks.any(2) & ~moving
found = {name: jaxcam.explain(net, clips.frames, class_idx=clips.class_idx) for name, net in networks.items()}
for name, net in networks.items():
    right = np.asarray(net(clips.frames)).argmax(-1) == clips.class_idx
    print(f"{name}: {100 * right.mean():.0f} % of {len(right)} clips")
show(
    below_each_other(
        pictures.clip(clips.frames[0], moving[0].astype(np.float32)),
        *(pictures.clip(clips.frames[0], np.asarray(found[name].heatmap[0])) for name in networks),
    )
)

# %% [markdown]
# Above the truth, below it the maps of the two networks. Both are about the figure that travels, and not about those that
# stand. But frame by frame they are not *on* it: what tells it apart is that it is elsewhere in other frames, and the heat
# lies along its path.

# %%
rows = []
for name in networks:
    heat = np.asarray(found[name].heatmap)
    path = np.broadcast_to(moving.any(1, keepdims=True), heat.shape)
    shares = [share_on(heat, where).mean() for where in (moving, path, standing)]
    rows.append([name, *(f"{share:.1f}" for share in shares)])
areas = [100 * where.mean() for where in (moving, path, standing)]
rows.append(["share of the clip", *(f"{area:.1f}" for area in areas)])
header = ["Grad-CAM, % of the heat", "on the moving figure", "where it passes in any frame", "on the standing ones"]
display(Markdown(tables.markdown(header, rows)))

# %% [markdown]
# ### One step of the ConvLSTM, and all of them
#
# `jaxcam.layers` lists the steps of the scan: `scan[:]` is the hidden state after every frame, `scan[7]` the one after the
# last. A step is differentiated through all later ones. Each step's map alone, for the first clip:

# %%
net = networks["mini_convlstm"]
one = clips.frames[:1]
print([row.layer for row in jaxcam.layers(net, one) if str(row.layer).startswith("scan")])
steps = [jaxcam.explain(net, one, class_idx=clips.class_idx[:1], layer=f"scan[{t}]") for t in range(8)]
raw = np.stack([np.asarray(step.cam_map[0]).reshape(8, 8) for step in steps])
print("highest value of each step's map:", np.round(raw.max((1, 2)), 3))

# %% [markdown]
# ### Which heads are piecewise linear
#
# Behind the pooling a linear layer is left, and the closed form of Grad-CAM++ is exact. Before the gates of the LSTM it is
# not: `is_piecewise_linear` says so, and Grad-CAM++ then takes the derivatives themselves, or says what they would cost.

# %%
for name, layer in (
    ("mini_c3d", "relu5"),
    ("mini_c3d", "layer3"),
    ("mini_convlstm", "lstm"),
    ("mini_convlstm", "relu4"),
):
    net = networks[name]
    head = functools.partial(lambda a, net, layer: net.head(a[None], layer=layer)[0], net=net, layer=layer)
    shape = jax.eval_shape(functools.partial(net.features, layer=layer), one).shape[1:]
    linear = jaxcam.is_piecewise_linear(head, jax.ShapeDtypeStruct(shape, np.float32))
    print(f"{name}, behind {layer}: {'piecewise linear' if linear else 'not'}")

# %% [markdown]
# ### Guided Grad-CAM
#
# The guided gradient by the pixels of every frame, times the heat: what moves is drawn with its edges.

# %%
guided = jaxcam.explain(networks["mini_c3d"], one, class_idx=clips.class_idx[:1], method="guided_grad_cam")
gradient = np.asarray(guided.gradient[0])
scale = np.percentile(np.abs(gradient), 99.5)
show(
    pictures.panel(
        [
            jaxcam.Row("frames", [jaxcam.Cell(one[0, t]) for t in range(8)]),
            jaxcam.Row(
                "Guided\nGrad-CAM", [jaxcam.Cell(0.5 + 0.5 * np.clip(gradient[t] / scale, -1, 1)) for t in range(8)]
            ),
        ],
        headings=[f"frame {t}" for t in range(8)],
        colormap=None,
        cell_size=80,
    )
)

# %% [markdown]
# ## Captions
#
# `mini_captioner` tells a picture in a sentence: convolutions, then an LSTM in a scan, which attends to the picture's
# places before every word. `targets.tokens` scores every word, log p given those before it, and one call explains them
# all from one forward pass. The sentence may be the network's own.

# %%
captioner = models.mini_captioner()
told = jax.device_get(scenes.many(scenes.caption, 7, 100))
own = np.asarray(captioner.caption(told.image))
print(f"{100 * (own == told.words).all(1).mean():.0f} % of {len(own)} sentences are right to the last word")
print("drawn:", scenes.decode(told.words[0]))
best = captioner.captions(told.image[:1], width=3)
for words, log_p in zip(best.words[0], best.log_probability[0], strict=True):
    print(f"{100 * np.exp(float(log_p)):5.1f} %  {scenes.decode(words)}")


# %%
def said(logits, x):
    """log p of each word after the start."""
    return jaxcam.targets.tokens(x["words"][1:], ignore=scenes.PAD)(logits, x)


captioned = {"image": told.image, "words": told.words}
word_maps = {
    method: jaxcam.explain(captioner, captioned, target=said, method=method) for method in ("grad_cam", "hires_cam")
}
longest = int((told.words != scenes.PAD).sum(1).argmax())
words = [scenes.VOCABULARY[i] for i in told.words[longest, 1:] if i != scenes.PAD]
heats = {"the truth": told.word_masks[longest, 1:].astype(np.float32)}
heats |= {method: found.heatmap[longest] for method, found in word_maps.items()}
larger = np.clip(jax.image.resize(told.image[longest], (144, 144, 3), "cubic"), 0, 1)
rows = [
    jaxcam.Row(name, [jaxcam.Cell(jaxcam.overlay(larger, heat[i])) for i in range(len(words))])
    for name, heat in heats.items()
]
show(
    jaxcam.panel(rows, headings=words, lead=jaxcam.Cell(told.image[longest]), cell_size=72),
    width=1000,
)

# %% [markdown]
# In the first row what each word names ("a", "left", "of" name nothing), then Grad-CAM and HiResCAM. Grad-CAM
# averages a channel's gradient over all places; the network reads one place by attention and cares little for that
# channel elsewhere, so that the average speaks of the wrong places. HiResCAM multiplies place by place:

# %%
naming = told.word_masks[:, 1:].any((2, 3))
truths = told.word_masks[:, 1:][naming]
others = (told.masks.any(1)[:, None] & ~told.word_masks[:, 1:])[naming]
rows = []
for method, found in word_maps.items():
    heat = np.asarray(found.heatmap)[naming]
    alive = heat.max((1, 2)) > 0
    heat, own_place, other_place = heat[alive], truths[alive], others[alive]
    top = own_place.reshape(len(heat), -1)[np.arange(len(heat)), heat.reshape(len(heat), -1).argmax(1)]
    shares = [share_on(heat, where).mean() for where in (own_place, other_place)]
    rows.append([method, str(len(heat)), *(f"{share:.1f}" for share in shares), f"{100 * top.mean():.1f}"])
areas = [100 * where.mean() for where in (truths, others)]
rows.append(["all alike", "", *(f"{area:.1f}" for area in areas), f"{areas[0]:.1f}"])
header = ["words that name figures", "maps", "heat on these, %", "on other figures, %", "maximum on these, %"]
display(Markdown(tables.markdown(header, rows)))

# %% [markdown]
# Grad-CAM++ is not among them: behind the layer are the gates of an LSTM and the softmax of attention, no piecewise
# linear head, and its exact derivatives would be taken element by element. `explain` says so before it spends the time:

# %%
try:
    jaxcam.explain(captioner, jax.tree.map(lambda x: x[:1], captioned), target=said, method="grad_cam_pp")
except ValueError as refusal:
    print(refusal)

# %% [markdown]
# ## Questions
#
# `mini_vqa` reads a question with the same eyes, and answers: a colour, a number, a figure, yes or no. Why this answer is
# one map, and why this one rather than the next best is another (`targets.contrast`). The truth is what the answer rests
# on: the figure whose colour is asked, all those that are counted, both that are compared.

# %%
vqa = models.mini_vqa()
asked = jax.device_get(scenes.many(scenes.question, 2, 200))
questioned = {"image": asked.image, "words": asked.words}
logits = np.asarray(vqa(questioned))
right = logits.argmax(-1) == asked.answer
blind = np.asarray(vqa({**questioned, "image": np.roll(asked.image, 1, 0)})).argmax(-1) == asked.answer
print(f"{100 * right.mean():.1f} % of {len(right)} answers are right; with another picture {100 * blind.mean():.1f} %")

# %%
rival = np.where(np.arange(logits.shape[1]) == asked.answer[:, None], -np.inf, logits).argmax(1)


def answers(logits, x):
    """The true answer, and the true one rather than its strongest rival."""
    return jax.numpy.stack([logits[x["answer"]], logits[x["answer"]] - logits[x["rival"]]])


answering = jaxcam.adapt(vqa, input="image")
explained = {
    method: jaxcam.explain(
        answering, {**questioned, "answer": asked.answer, "rival": rival}, target=answers, method=method
    )
    for method in ("grad_cam", "hires_cam")
}
pages = []
for kind, name in enumerate(scenes.QUESTION_KINDS):
    i = int(np.flatnonzero(right & (asked.kind == kind))[0])
    answer, other = (scenes.ANSWERS[int(each[i])] for each in (asked.answer, rival))
    print(f"{name}: {scenes.decode(asked.words[i])} {answer}")
    heats = [asked.evidence[i].astype(np.float32), *np.asarray(explained["hires_cam"].heatmap[i])]
    pages.append(
        pictures.caption(asked.image[i], np.stack(heats), ["truth", answer, f"{answer}, not {other}"], cell_size=110)
    )
show(below_each_other(*pages), width=640)

# %%
rows = []
for method, found in explained.items():
    for j, name in enumerate(("answer", "answer, not rival")):
        heat = np.asarray(found.heatmap[:, j])
        alive = heat.max((1, 2)) > 0
        by_kind = [
            share_on(heat[alive & (asked.kind == kind)], asked.evidence[alive & (asked.kind == kind)]).mean()
            for kind in range(len(scenes.QUESTION_KINDS))
        ]
        rows.append([f"{method}, {name}", *(f"{share:.1f}" for share in by_kind)])
by_kind = [100 * asked.evidence[asked.kind == kind].mean() for kind in range(len(scenes.QUESTION_KINDS))]
rows.append(["all alike", *(f"{share:.1f}" for share in by_kind)])
display(Markdown(tables.markdown(["heat on what the answer rests on, %", *scenes.QUESTION_KINDS], rows)))

# %% [markdown]
# The figures of 2,000 inputs each, with intervals, a shuffled head, and captions of pictures in which the object of a
# word is painted over, stand in [the measured
# tables](../tests/benchmarks/README.md#series-volumes-and-clips-against-their-truth). `python -m jaxcam series`, `volume`,
# `clip`, `caption` and `question` draw one input, explain it and show the truth beside it.
