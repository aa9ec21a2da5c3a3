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
# # What Grad-CAM++ does: `grad_cam_positive`, or a count of positions
#
# Grad-CAM++ was made so that small objects, and several of a kind, are as bright as a large one. Lerma and Lucas (2022)
# found that in practice it is Grad-CAM with the ReLU of the gradient, `grad_cam_positive` here. Both are right, in two limits of one formula. This
# notebook says which limit a head is in, with a network in which Grad-CAM++ provably finds what Grad-CAM loses, and with
# the networks at hand, where it mostly does not. Whether the formula is derived rightly is the subject of
# [derivation.ipynb](derivation.ipynb); equations have the paper's numbers.

# %%
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxcam
from jaxcam.verification import regime

jax.config.update("jax_enable_x64", True)
plt.rcParams.update(
    {
        "figure.dpi": 80,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11,
        "legend.frameon": False,
        "font.size": 10,
    }
)
BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#a0aec0"

# %% [markdown]
# ## 1. The two limits
#
# $S_k$ is the sum of channel $k$, $g$ the gradient of the logit. By (19), and by (10) for any score and head,
#
# $$\alpha = \frac{1}{2 + u},\qquad u = S_k\, g\quad\Big(\text{in general } u = \frac{S_k\, d_3}{d_2}\Big),\qquad
# w_k = \sum_{g > 0} \alpha\, g .$$
#
# **Theorem.** *(a) Where $0 \le u \le \varepsilon$, $\ \frac{1}{2 + \varepsilon} \le \alpha \le \frac12$, and $w_k$ is half the
# sum of $\mathrm{ReLU}(g)$, less at most the share $\frac{\varepsilon}{2 + \varepsilon} \le \varepsilon/2$ of it. (b) Where
# $u \ge M$, $\alpha g$ is $1/S_k$, less at most the share $\frac{2}{2 + M}$: a position counts, whatever its gradient, and $w_k$
# tends to the number of positions with $g > 0$, divided by $S_k$.*
#
# Proof: $1/(2+u)$ falls with $u$, and $\alpha g S_k = u/(2+u) = 1 - 2/(2+u)$ rises. ∎
#
# An object on which a channel is 1 has $S_k$ = its area, so that (b) gives it the weight 1 whatever its area: that is the
# $\alpha = 1/\text{area}$ of the paper's example (6). In (a) nothing of the kind happens. Between them lie two powers of ten:

# %%
u = np.logspace(-3, 4, 300)
fig, ax = plt.subplots(figsize=(7.4, 2.9))
ax.axvspan(1e-3, 0.2, color=BLUE, alpha=0.1, lw=0)
ax.axvspan(20, 1e4, color=ORANGE, alpha=0.12, lw=0)
ax.plot(u, 2 / (2 + u), color=BLUE, lw=2)
ax.plot(u, u / (2 + u), color=ORANGE, lw=2)
ax.text(1.3e-3, 0.5, "grad_cam_positive\n$\\alpha g ≈ g/2$", color=BLUE, va="center")
ax.text(60, 0.5, "a count of positions\n$\\alpha g ≈ 1/S_k$", color=ORANGE, va="center")
ax.set(xscale="log", ylim=(0, 1.08), xlim=(1e-3, 1e4), xlabel="$u = S_k\\, g$", ylabel="$\\alpha g$ / its limit")
ax.set_title("Within 9 % of a limit below 0.2 and above 20", loc="left")
plt.show()

# %% [markdown]
# ## 2. The paper's example, in both limits
#
# In Fig. 2 of the paper three channels are 1 on 15, 4 and 2 of 80 pixels, with a gradient of 1 there and 0 elsewhere (4);
# Grad-CAM then shows them with 1, 0.26 and 0.13 of the maximum (cut off after two digits), and the $\alpha$ of (6) with
# 1, 1 and 1. The $\alpha$ of (19) is another one. The example's head is $S_c = \gamma \sum \mathrm{ReLU}(A - ½)$, whose
# gradient is $\gamma$ on the objects; how large $\gamma$ is decides. The same with squares of side 20, 12 and 8 in a
# picture of 64 × 64:


# %%
def example_head(strength):
    """The gradient is `strength` where A = 1, and 0 where A = 0."""
    return lambda a: strength * jax.nn.relu(a - 0.5).sum()[None]


def one_channel_each(*masks):
    return jnp.stack(masks, -1).astype(float)


place = np.arange(80)
fig_2 = one_channel_each(*((place >= start) & (place < start + area) for start, area in ((0, 15), (30, 4), (60, 2))))
SIDES, CORNERS = (20, 12, 8), ((6, 6), (38, 34), (14, 46))
rows, columns = np.mgrid[:64, :64]
squares = one_channel_each(
    *(
        (rows >= y) & (rows < y + n) & (columns >= x) & (columns < x + n)
        for n, (y, x) in zip(SIDES, CORNERS, strict=True)
    )
)


def on_objects(method, head, a):
    """The map, and its value on each object, divided by the maximum."""
    cam_map = np.asarray(method(head, a, 0))
    cam_map = cam_map / cam_map.max()
    return cam_map, [float(cam_map[np.asarray(a[..., k]) > 0].mean()) for k in range(a.shape[-1])]


METHODS = {
    "Grad-CAM": jaxcam.grad_cam,
    "grad_cam_positive": jaxcam.methods.grad_cam_positive,
    "Grad-CAM++": jaxcam.grad_cam_pp,
}
for name, a in (("Fig. 2, areas 15, 4, 2 of 80", fig_2), ("squares, areas 400, 144, 64 of 4,096", squares)):
    positions = a[..., 0].size
    for label, strength in (("1/Z", 1 / positions), ("1", 1.0), ("50", 50.0)):
        shown = [on_objects(method, example_head(strength), a)[1] for method in METHODS.values()]
        texts = (f"{title} {', '.join(f'{v:.2f}' for v in each)}" for title, each in zip(METHODS, shown, strict=True))
        print(f"{name:<37} gradient {label:<4}" + "   ".join(texts))

# %%
fig, axes = plt.subplots(2, 3, figsize=(7.2, 5.0))
for line, (label, strength) in zip(axes, (("gradient 1/Z", 1 / 4096), ("gradient 1", 1.0)), strict=True):
    for ax, (title, method) in zip(line, METHODS.items(), strict=True):
        cam_map, values = on_objects(method, example_head(strength), squares)
        ax.imshow(cam_map, cmap="magma", vmin=0, vmax=1)
        for value, side, (y, x) in zip(values, SIDES, CORNERS, strict=True):
            ax.text(x + side / 2, y - 1.5, f"{value:.2f}", color="white", ha="center", va="bottom", fontsize=10)
        ax.set(xticks=[], yticks=[], title=title if strength < 1 else "")
    line[0].set_ylabel(label)
plt.tight_layout()
plt.show()

# %% [markdown]
# With a gradient of 1 the large objects are deep in limit (b), and the squares come out at 1, 0.99 and 0.97; those of Fig. 2
# are too small for it (1, 0.76, 0.57). Divided by the number of positions, as every gradient behind a mean is, Grad-CAM++ is
# `grad_cam_positive`, and that is Grad-CAM here. And behind global pooling itself there is no problem to be solved:

# %%


def pooled(a):
    return a.mean((0, 1)).sum()[None]


for title, method in METHODS.items():
    print(f"behind global pooling, {title:<19}", ", ".join(f"{v:.2f}" for v in on_objects(method, pooled, squares)[1]))

# %% [markdown]
# The gradient is then the same at every position, on objects and off them, and its mean knows nothing of areas. Grad-CAM
# loses small objects where the *gradient* is confined to them.
#
# ## 3. A network in which Grad-CAM++ provably finds what Grad-CAM loses
#
# Objects of some colours in a picture, a channel that is 1 on each colour, and the head above with the strength $\gamma$.
#
# **Theorem.** *Let an object count as found where the map is at least $t$ times its maximum. Grad-CAM and `grad_cam_positive`
# find exactly the objects of an area of at least $t$ times the largest, whatever $\gamma$ is. Grad-CAM++ finds
# every object of an area of at least $\frac{2t}{(1 - t)\,\gamma}$.* Proof: the first have weights in proportion to the
# area. The weights of Grad-CAM++ are $\frac{\gamma m}{2 + \gamma m} < 1$ for the area $m$, and at least $t$ from there on. ∎
#
# For $t = ½$ and $\gamma = 1$: every object of two pixels and more. A thousand pictures with objects of 2 to 400 pixels:

# %%
generator = np.random.default_rng(0)
areas = generator.integers(2, 21, (1000, 3)) * generator.integers(1, 21, (1000, 3))


def found(strength, areas, t=0.5):
    """Which objects each method finds, [method, picture, object]: the weights of `example_head`, whose maps they are."""
    plain = areas / 4096 * strength
    plus = strength * areas / (2 + strength * areas)
    return np.stack([w >= t * w.max(1, keepdims=True) for w in (plain, plus)])


head, own = example_head(1.0), np.asarray(jaxcam.grad_cam_pp_weights(example_head(1.0), squares, 0))
print(
    f"weights by the formula and by jaxcam: {np.abs(own - np.array([400, 144, 64]) / np.array([402, 146, 66])).max():.0e}"
)
strengths = np.logspace(-5, 1, 60)
shares = np.array([found(s, areas).mean((1, 2)) for s in strengths]) * 100
fig, ax = plt.subplots(figsize=(6.8, 2.9))
ax.plot(strengths, shares[:, 1], color=ORANGE, lw=2)
ax.plot(strengths, shares[:, 0], color=BLUE, lw=2)
ax.text(8, 93, "Grad-CAM++", color=ORANGE, ha="right")
ax.text(8, shares[0, 0] - 9, "Grad-CAM, grad_cam_positive", color=BLUE, ha="right")
ax.axvline(1 / 4096, color="black", lw=0.8, ls="--")
ax.text(1.2 / 4096, 20, "1/Z: behind a mean\nover the positions", fontsize=9)
ax.set(xscale="log", ylim=(0, 104), xlabel="gradient on the objects, $\\gamma$", ylabel="objects found, %")
ax.set_title("All objects are found only where the gradient is large", loc="left")
plt.show()
by_head = regime(head, squares, 0)
print(f"regime at γ = 1: {100 * by_head.counting:.0f} % of the weights count positions;", end=" ")
print(f"at 1/Z {100 * regime(example_head(1 / 4096), squares, 0).grad_cam_positive:.0f} % are grad_cam_positive")

# %% [markdown]
# ## 4. Which limit is a network in?
#
# Behind global average pooling and a linear layer, $g = w_k/Z$ and $u = S_k g = w_k\,\overline{A_k}$ is **channel $k$'s own
# share of the logit**; over all channels these shares add up to $S_c$ less its bias. A logit of 10 that is shared by hundreds of
# channels has a $u$ of about 0.1: `grad_cam_positive`. For $u > 20$ a single channel has to say more than all of the logit.
# In other heads $u$ is what $S_c$ would gain, to first order, if channel $k$ were gathered on this one position.
#
# `jaxcam.verification.regime` says it for a head and activations (and `jaxcam.verify` has it as a section). On the embedded
# networks, at two layers each, over eight scenes, for the predicted class:

# %%
NETWORKS = {
    "mini_vgg": (jaxcam.models.mini_vgg(), ["relu4", "relu6"]),
    "mini_resnet": (jaxcam.models.mini_resnet(), ["layer2", "layer3"]),
}


def head_of(model, layer):
    return lambda a: model.head(a[None], layer=layer)[0]


def gradients(model, layer, pictures):
    """A, S_k g, g of the predicted class's logit, picture by picture: for exp and a piecewise linear head u = S_k g."""
    activations = model.features(model.preprocessing.normalise(pictures), layer=layer)
    head = head_of(model, layer)
    g = jax.vmap(lambda a: jax.grad(lambda x: head(x).max())(a))(activations)
    return activations, activations.sum((1, 2), keepdims=True) * g, g


def maps_of(weights, activations):
    maps = np.maximum(np.einsum("nijk,nk->nij", activations, weights), 0).reshape(len(weights), -1)
    return maps / maps.max(1, keepdims=True)


def histogram(ax, title, u, g):
    """What the elements with each u add to the weights; returns that."""
    positive = g > 0
    added = np.where(positive, g / np.where(positive, 2 + u, 1), 0)
    share = 100 * added / added.sum((1, 2, 3), keepdims=True) / len(g)
    low, high = share[u < 0.2].sum(), share[u > 20].sum()
    ax.axvspan(bins[0], 0.2, color=BLUE, alpha=0.1, lw=0)
    ax.axvspan(20, bins[-1], color=ORANGE, alpha=0.12, lw=0)
    ax.hist(u[positive], bins, weights=share[positive], color="#4a5568")
    ax.set(xscale="log", xlim=(bins[0], bins[-1]), yticks=[])
    ax.set_title(f"{title}: {low:.0f} / {100 - low - high:.0f} / {high:.0f} %", loc="left")
    return added


def shown(model, layer, pictures):
    compiled = jax.jit(lambda pictures: gradients(model, layer, pictures))
    return [np.asarray(each) for each in compiled(pictures)]


pictures = jnp.stack([jaxcam.scenes.scene(seed).image for seed in range(8)])
fig, axes = plt.subplots(2, 2, figsize=(8.4, 4.6), sharex=True)
bins = np.logspace(-4, 2.5, 53)
for line, (name, (model, layers)) in zip(axes, NETWORKS.items(), strict=True):
    for ax, layer in zip(line, layers, strict=True):
        activations, u, g = shown(model, layer, pictures)
        added = histogram(ax, f"{name}, {layer}", u, g)
        plus, plain = (maps_of(each.sum((1, 2)), activations) for each in (added, g * (g > 0)))
        alike = np.median([np.corrcoef(*pair)[0, 1] for pair in zip(plus, plain, strict=True)])
        apart = np.median(np.abs(plus - plain).max(1))
        print(f"{name + ', ' + layer:<20} largest u {u.max():5.1f}; ", end="")
        print(f"maps of Grad-CAM++ and of grad_cam_positive correlate {alike:.3f}, differ by at most {apart:.2f}")
for ax in axes[-1]:
    ax.set_xlabel("$u = S_k\\, g$, weighted by what it adds to the weights")
plt.tight_layout()
plt.show()

# %% [markdown]
# In the titles: the shares of the weights below 0.2, between, and above 20. **Counting hardly occurs.** Much of the weights
# lies between the limits, where Grad-CAM++ dampens the strongest channels, by up to $2/(2 + u)$. That changes the map less
# than the weights: where $u$ is about the same all over the channels that matter, a common factor cancels.
#
# The same of pretrained networks, each at its default layer, on four photographs; this cell needs the weights and
# pictures of a folder that the environment names.

# %%
PRETRAINED = {
    "resnet20": ("resnet20_cifar10", "cifar10"),
    "resnet56": ("resnet56_cifar10", "cifar10"),
    "squeezenet1_0": ("squeezenet1_0", "imagenet"),
    "squeezenet1_1": ("squeezenet1_1", "imagenet"),
    "resnet18": ("resnet18_pqf_bnstats.fp16", "imagenet"),
    "resnet50": ("resnet50_pqf_large_bnstats.fp16", "imagenet"),
}
DATA = os.environ.get("JAXCAM_DATA")
if DATA is None:
    print("JAXCAM_DATA names no folder: no histograms of pretrained networks")
else:
    with np.load(f"{DATA}/images/cifar10/cifar10_test_200.npz") as file:
        small = next(file[name] for name in file.files if file[name].ndim == 4)[:4].astype(np.float32) / 255
    large = [jaxcam.read_image(path) for path in sorted(Path(f"{DATA}/images/imagenet_val").iterdir())[:4]]
    fig, axes = plt.subplots(2, 3, figsize=(8.4, 3.8), sharex=True)
    for ax, (name, (file, kind)) in zip(axes.flat, PRETRAINED.items(), strict=True):
        model = getattr(jaxcam.models, name)(f"{DATA}/weights/{file}.safetensors")
        views = np.stack([model.preprocessing.view(each) for each in (small if kind == "cifar10" else large)])
        _, u, g = shown(model, model.default_layer, views)
        histogram(ax, name, u, g)
    plt.tight_layout()
    plt.show()

# %% [markdown]
# All networks at hand in figures, by `python tests/benchmarks/regimes.py` (8 pictures each, of
# ResNet-18 and -50 four; medians and means over them). Where hundreds of channels share the logit, as behind the pooling
# of ResNet-50, it is the first limit; last come the maps of Grad-CAM++ against those of `grad_cam_positive`:
#
# | network, layer | median u | largest u | weights with u < 0.2, % | to 20 | above | correlation | largest difference |
# |---|---|---|---|---|---|---|---|
# | mini_vgg, relu4 | 0.31 | 29 | 14 | 86 | 0 | 0.925 | 0.21 |
# | mini_vgg, relu6 | 0.2 | 2.2 | 35 | 65 | 0 | 0.999 | 0.05 |
# | mini_resnet, layer2 | 0.052 | 6.7 | 23 | 77 | 0 | 0.998 | 0.09 |
# | mini_resnet, layer3 | 0.3 | 0.97 | 23 | 77 | 0 | 1.000 | 0.01 |
# | resnet20, layer2 | 2.6 | 72 | 2 | 95 | 3 | 0.904 | 0.19 |
# | resnet20, layer3 | 0.5 | 4.4 | 12 | 88 | 0 | 0.997 | 0.08 |
# | resnet56, layer3 | 0.29 | 4.7 | 20 | 80 | 0 | 0.996 | 0.10 |
# | squeezenet1_0, features.12 | 0.41 | 7 | 34 | 66 | 0 | 0.980 | 0.16 |
# | squeezenet1_1, features.12 | 0.027 | 1.8 | 77 | 23 | 0 | 0.996 | 0.09 |
# | resnet18, layer4 | 0.038 | 2.3 | 66 | 34 | 0 | 0.999 | 0.03 |
# | resnet50, layer4 | 0.005 | 0.96 | 91 | 9 | 0 | 1.000 | 0.02 |
#
# ## 5. The report
#
# For a head of your own, in one line:

# %%
model = NETWORKS["mini_vgg"][0]
a = model.features(model.preprocessing.normalise(pictures[:1]), layer="relu6")[0]
head = head_of(model, "relu6")
found_here = regime(head, a, int(head(a).argmax()))
print(found_here)
print()
print(found_here.sentence)
low, high = found_here.alpha_bounds
print(f"All α of elements with a positive gradient lie in [{low:.3f}, {high:.3f}].")

# %% [markdown]
# ## What to take from this
#
# - $\alpha = 1/(2 + u)$: below $u = 0.2$ Grad-CAM++ is `grad_cam_positive`, above 20 a count of positions. Which of them does
#   not depend on the method, but on how much a channel has to say, $S_k g$.
# - What it was made for, small objects as bright as large ones, is what the second limit does, provably; it needs a
#   gradient that is confined to the objects *and* large. Behind pooling, where gradients have a 1/Z in them and are the
#   same everywhere, it neither happens nor is needed.
# - On the networks here, at their default layers, the maps are those of `grad_cam_positive` to a correlation of 0.98 and
#   more. Compare with it before an effect is put down to second and third derivatives.
