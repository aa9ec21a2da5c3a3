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
# # The derivation of Grad-CAM++, checked step by step
#
# Grad-CAM++ (Chattopadhay et al. 2018) weights every element of a layer's activations by a coefficient $\alpha$ that is
# made of second and third derivatives of the class score. The paper derives $\alpha$ in a few lines and then gives a
# closed form that needs only the gradient, and implementations compute the closed form.
#
# This notebook goes through the derivation one equation at a time. After each step stands a computation that confirms
# it, or shows how far it holds. It answers four questions:
#
# 1. Does $\alpha$ follow from the identity that it is derived from? (No. It is a definition.)
# 2. When is the closed form equal to the exact $\alpha$? (For piecewise linear heads, to the last digits; not for GELU.)
# 3. What do three nested gradient tapes compute instead? (Sums over rows of the Hessian.)
# 4. What do the exact derivatives cost?
#
# The numbers of the equations are those of `jaxcam.verify`'s report. Everything runs in float64.

# %%
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxcam

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
# ## The setting
#
# A network is cut at a layer: $A^k_{ij}$ are the activations there (position $i,j$, channel $k$), and the *head* takes
# them to the logits $S_c$. Throughout, $S_k = \sum_{ab} A^k_{ab}$ is the sum of a channel, and derivatives are taken
# with respect to single elements:
#
# $$d_1 = \frac{\partial Y}{\partial A^k_{ij}},\qquad d_2 = \frac{\partial^2 Y}{(\partial A^k_{ij})^2},\qquad
# d_3 = \frac{\partial^3 Y}{(\partial A^k_{ij})^3},\qquad g = \frac{\partial S_c}{\partial A^k_{ij}} .$$
#
# For the experiments we take random activations of shape 7 × 7 × 16, positive as after a ReLU, and a head with one
# hidden layer and random weights of the usual scale. The hidden layer's activation function is what we vary.

# %%
rng = np.random.default_rng(0)
A = jnp.asarray(np.maximum(rng.normal(size=(7, 7, 16)), 0))
W1 = jnp.asarray(rng.normal(size=(A.size, 64)) * (2 / A.size) ** 0.5)
W2 = jnp.asarray(rng.normal(size=(64, 10)) * (2 / 64) ** 0.5)
CLASS = 1


def head_with(activation):
    """Flatten, one hidden layer, ten logits."""
    return lambda a: activation(a.reshape(-1) @ W1) @ W2


heads = {"ReLU": head_with(jax.nn.relu), "SiLU": head_with(jax.nn.silu), "GELU": head_with(jax.nn.gelu)}


def exp_score(head):
    """Y = exp(S_c), divided by its value at A: that factor cancels from alpha."""
    offset = head(A)[CLASS]
    return lambda a: jnp.exp(head(a)[CLASS] - offset)


def off(found, reference):
    """|x - y| / max(|x|, |y|) for every element."""
    found, reference = np.asarray(found).reshape(-1), np.asarray(reference).reshape(-1)
    size = np.maximum(np.abs(found), np.abs(reference))
    return np.abs(found - reference)[size > 0] / size[size > 0]


# %% [markdown]
# ## 1. The identity (Eq. 1–3)
#
# CAM's networks end in global average pooling and a linear layer, so that their score is a weighted sum of the channels:
#
# $$Y = \sum_k w_k \sum_{ij} A^k_{ij} \tag{1}$$
#
# Grad-CAM++ keeps this form for every network, and makes the weights of the gradient's positive part,
#
# $$w_k = \sum_{ij} \alpha^k_{ij}\,\mathrm{ReLU}\big(d_1\big) \tag{2}$$
#
# The derivation drops the ReLU, puts (2) into (1) and asks for the $\alpha$ that make it an identity:
#
# $$Y = \sum_k \Big[\sum_{ab} \alpha^k_{ab}\, \frac{\partial Y}{\partial A^k_{ab}}\Big] \sum_{ij} A^k_{ij} \tag{3}$$
#
# This is one equation for thousands of unknowns. Let us see what the $\alpha$ that come out of the derivation make of it.

# %%
f = exp_score(heads["ReLU"])
d1, d2, d3 = jaxcam.elementwise_derivatives(f, A)
alphas = jaxcam.exact_alphas(A, d2, d3)
sums = A.sum((0, 1))

with_relu = ((alphas * jax.nn.relu(d1)).sum((0, 1)) * sums).sum() / f(A)
without = ((alphas * d1).sum((0, 1)) * sums).sum() / f(A)
print(f"right-hand side of Eq. 1, with the weights of Eq. 2: {with_relu:8.2f} Y")
print(f"right-hand side of Eq. 3, without the ReLU:          {without:8.2f} Y")

# %% [markdown]
# An identity would give 1.00 in both lines. It does not hold, and there is no reason why it should: nothing in what
# follows uses the value of $Y$.

# %% [markdown]
# ## 2. From the identity to α (Eq. 4–6), and what is dropped on the way
#
# Differentiating (3) by $A^k_{ij}$, with $W_k$ for the bracket, the paper gets
#
# $$d_1 = W_k + S_k\, \alpha^k_{ij}\, d_2 \tag{4}$$
#
# and once more by the same element
#
# $$d_2 = 2\,\alpha^k_{ij}\, d_2 + S_k\, \alpha^k_{ij}\, d_3 \tag{5}$$
#
# which solved for $\alpha$ is
#
# $$\alpha^k_{ij} = \frac{d_2}{2\, d_2 + S_k\, d_3} \tag{6}$$
#
# Both steps treat $W_k$ as if only the one term $\partial Y / \partial A^k_{ij}$ in it depended on $A^k_{ij}$. In truth
# every $\partial Y/\partial A^{k'}_{ab}$ does, through the mixed partials, and so does every $\alpha$. In full, the
# right-hand side of (3) has the derivative
#
# $$W_k + \sum_{k'} S_{k'} \sum_{ab} \Big[\alpha^{k'}_{ab}\,
# \frac{\partial^2 Y}{\partial A^{k'}_{ab}\,\partial A^k_{ij}} +
# \frac{\partial \alpha^{k'}_{ab}}{\partial A^k_{ij}}\,\frac{\partial Y}{\partial A^{k'}_{ab}}\Big],$$
#
# of which (4) keeps $W_k$ and one summand. With 784 elements the full Hessian is small enough to look at.

# %%
hessian = jax.jit(jax.hessian(lambda x: f(x.reshape(A.shape))))(A.reshape(-1))
channel = np.arange(A.size) % 16
same = channel[:, None] == channel[None]
weighted = np.asarray(hessian) * np.asarray(alphas).reshape(-1)  # alpha of the column's element
flat_sums = np.asarray(sums)[channel]

W = np.asarray((alphas * d1).sum((0, 1)))[channel]
kept = W + flat_sums * np.diagonal(weighted)
own_channel = flat_sums * (np.where(same, weighted, 0).sum(1) - np.diagonal(weighted))
other_channels = (np.where(same, 0, weighted) * flat_sums).sum(1)

fig, ax = plt.subplots(figsize=(6.4, 3.1))
bins = np.logspace(-3, 2, 51)
ax.hist(np.abs(own_channel / kept), bins, histtype="step", lw=1.8, color=BLUE, label="within the channel")
ax.hist(np.abs(other_channels / kept), bins, histtype="step", lw=1.8, color=ORANGE, label="with other channels")
ax.axvline(1, color="black", lw=0.8, ls="--")
ax.set(xscale="log", xlabel="|dropped mixed partials| / |terms kept| in Eq. 4", ylabel="elements")
ax.set_title("What Eq. 4 drops is not small", loc="left")
ax.legend(loc="upper left")
plt.show()

# %% [markdown]
# To the right of the dashed line a dropped term is larger than all that is kept. `jaxcam.verify` works out the same for
# any head, and the derivative of $\alpha$ as well; here are its medians, and ours for comparison.

# %%
report = jaxcam.verify(heads["ReLU"], A, CLASS, num_sampled=A.size)
for number, step in (("4", report.first_step), ("5", report.second_step)):
    print(
        f"Eq. {number}, dropped / kept (median): mixed partials of the channel {step.same_channel.median:6.2f}", end=""
    )
    print(f", with others {step.other_channels.median:6.2f}, derivative of alpha {step.alpha_derivative.median:8,.0f}")
own, others = (np.median(np.abs(dropped / kept)) for dropped in (own_channel, other_channels))
print(f"Eq. 4, by the Hessian above:           mixed partials of the channel {own:6.2f}, with others {others:6.2f}")

# %% [markdown]
# In Eq. 4 the dropped mixed partials are about as large as what is kept, in Eq. 5 many times larger. The derivative of
# $\alpha$ has no bound at all, because $\alpha$ has a pole (section 6).
#
# So (6) does not follow from (3). That does not make the method wrong: (6) is a definition of coefficients, and the maps
# are judged by what they show. But it means that no accuracy is lost or won by "solving (3) better", and that the only
# question left to a computation is whether it evaluates (6).
#
# Note the two sums in (6). $S_k$ runs over positions of its own, $a, b$, and multiplies the $d_3$ of the element $i,j$.
# Some packages compute `sum(A * d3)` in its place, which agrees only where $d_3$ is constant over a channel.

# %% [markdown]
# ## 3. The derivatives themselves
#
# $d_2$ and $d_3$ are diagonals of a Hessian and of a third-derivative tensor. `jaxcam.elementwise_derivatives` gives
# them for any function, by either of two independent compositions, nested `jax.grad` and nested `jax.jvp`; where it can
# prove that the function begins with a piecewise linear stage it takes that apart and needs far fewer passes
# (section 10).
# The report compares all of these, and finite differences, which know nothing of automatic differentiation.

# %%
for label, three in (
    ("nested grad against nested jvp", report.grad_and_jvp),
    ("taken apart against nested jvp", report.exact_and_nested),
    ("finite differences against exact", report.finite_differences.differences),
):
    errors = "  ".join(f"d{n} {d.largest:.1e}" for n, d in enumerate(three, 1))
    print(f"{label:<34}{errors}   ({three[0].num_elements} elements)")
print(f"elements where finite differences do not settle, mostly at kinks: {report.finite_differences.num_left_out}")

# %% [markdown]
# ## 4. The closed form for $Y = e^{S_c}$ (Eq. 8–13)
#
# With $Y = \exp(S_c)$ the chain rule gives
#
# $$d_1 = e^{S_c} g,\qquad d_2 = e^{S_c}\Big(g^2 + \frac{\partial^2 S_c}{(\partial A^k_{ij})^2}\Big) \tag{9, 10}$$
#
# If the head is built of ReLUs, max-pooling and linear layers, $S_c$ is piecewise linear, its second derivative is zero
# almost everywhere, and
#
# $$d_2 = e^{S_c} g^2,\qquad d_3 = e^{S_c} g^3,\qquad
# \alpha = \frac{g^2}{2 g^2 + S_k\, g^3} = \frac{1}{2 + S_k\, g} \tag{11–13}$$
#
# The last form has no 0/0 for small gradients and needs no added $\varepsilon$. With SiLU or GELU in place of ReLU the
# premise fails, and with it (11–13). How badly?

# %%
fig, axes = plt.subplots(1, 3, figsize=(10.2, 3.5), sharex=True, sharey=True)
for ax, (name, head) in zip(axes, heads.items(), strict=True):
    first, second, third = jaxcam.elementwise_derivatives(exp_score(head), A)
    exact = np.asarray(jaxcam.exact_alphas(A, second, third))
    gradient = jax.grad(lambda a, head=head: head(a)[CLASS])(A)
    closed = np.asarray(jaxcam.exp_alphas(A, gradient))
    positive = np.asarray(first) > 0
    difference = off(closed[positive], exact[positive])
    shown = (np.abs(exact) < 1) & (np.abs(closed) < 1)
    ax.plot([-1, 1], [-1, 1], color="black", lw=0.6, zorder=0)
    for chosen, colour, label in ((~positive, GREY, "$d_1 < 0$: not in the weights"), (positive, BLUE, "$d_1 > 0$")):
        ax.scatter(exact[chosen & shown], closed[chosen & shown], s=7, color=colour, alpha=0.7, lw=0, label=label)
    proven = jaxcam.is_piecewise_linear(head, A)
    ax.set_title(f"{name}: {'' if proven else 'not '}proven piecewise linear", loc="left")
    ax.set(xlabel="exact α", xlim=(-1, 1), ylim=(-1, 1), aspect="equal")
    worst, median = difference.max(), np.median(difference)
    print(f"{name}: closed form against exact, d1 > 0: median {median:.1e}, largest {worst:.1e}")
axes[0].set_ylabel("closed form 1 / (2 + $S_k$ g)")
axes[0].legend(loc="upper left", handletextpad=0.1, fontsize=9)
plt.tight_layout()
plt.show()

# %% [markdown]
# For the ReLU head the two agree to rounding. For SiLU and GELU the closed form is a number of its own: it stays between
# 0 and ½ wherever the gradient is positive, while the exact $\alpha$ can be negative or larger than 1 (points outside
# the frame are not drawn). This is why `jaxcam.grad_cam_pp(..., alphas="auto")` uses the closed form only for heads that
# are *proven* piecewise linear by reading their program, and the exact derivatives for all others.

# %% [markdown]
# ## 5. Softmax
#
# The paper also suggests $Y = \mathrm{softmax}(S)_c$. Its closed form is not (13) with another gradient. Along one
# element the logits move as $S + s\,t$ with slopes $s_j = \partial S_j / \partial A^k_{ij}$, and
# $\log \mathrm{softmax}(S + s t)_c = \log p_c + s_c t - K(t)$ with $K(t) = \log \sum_j p_j e^{s_j t}$, the
# cumulant-generating function of the slopes under the probabilities $p$. Its derivatives at 0 are the mean $m$, the
# variance $v$ and the third central moment $\tau$, and with $u = s_c - m$
#
# $$d_1 = p_c\, u,\qquad d_2 = p_c\,(u^2 - v),\qquad d_3 = p_c\,(u^3 - 3uv - \tau).$$
#
# A common shortcut puts the softmax gradient into the closed form for exp, as $\alpha = d_1^2 / (2 d_1^2 + S_k d_1^3)$.

# %%
head = heads["ReLU"]


def probability(a):
    return jax.nn.softmax(head(a))[CLASS]


first, second, third = jaxcam.elementwise_derivatives(probability, A)
exact = np.asarray(jaxcam.exact_alphas(A, second, third))
jacobian = jax.jacrev(head)(A)
closed = np.asarray(jaxcam.softmax_alphas(A, jacobian, jax.nn.softmax(head(A)), CLASS))
shortcut = np.asarray(jaxcam.exp_alphas(A, first))
positive = np.asarray(first) > 0

fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.5), sharex=True, sharey=True)
for ax, found, title in ((axes[0], closed, "closed form from u, v, τ"), (axes[1], shortcut, "powers of the gradient")):
    shown = positive & (np.abs(exact) < 1.5)
    ax.plot([-1.5, 1.5], [-1.5, 1.5], color="black", lw=0.6, zorder=0)
    ax.scatter(exact[shown], found[shown], s=7, color=BLUE, alpha=0.7, lw=0)
    ax.set(xlabel="exact α", xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal")
    ax.set_title(title, loc="left")
    print(f"{title}, d1 > 0: median {np.median(off(found[positive], exact[positive])):.1e}")
axes[0].set_ylabel("formula")
plt.tight_layout()
plt.show()

# %% [markdown]
# The cumulants give the exact value. The shortcut gives almost ½ everywhere, because the softmax gradient is small:
# with it Grad-CAM++ silently turns into a plain sum of positive gradients.

# %% [markdown]
# ## 6. Where the denominator crosses zero
#
# Equation (6) has a pole where $S_k d_3 = -2 d_2$. For exp and a piecewise linear head that is $S_k g = -2$: with
# activations after a ReLU ($S_k \ge 0$) it needs $g < 0$, and such elements do not enter the weights. For other scores and
# heads nothing keeps elements with a positive gradient away from the pole.

# %%
gradient = np.asarray(jax.grad(lambda a: heads["ReLU"](a)[CLASS])(A))
fig, axes = plt.subplots(1, 2, figsize=(10.2, 3.4))
ax, x = axes[0], np.linspace(-6, 6, 1201)
for branch in (x[x < -2.05], x[x > -1.95]):
    ax.plot(branch, 1 / (2 + branch), color="black", lw=0.6, zorder=0)
for chosen, colour in ((gradient < 0, GREY), (gradient > 0, BLUE)):
    ax.scatter((np.asarray(sums) * gradient)[chosen], np.asarray(alphas)[chosen], s=9, color=colour, lw=0, alpha=0.7)
ax.axvline(-2, color=ORANGE, lw=1, ls="--")
ax.text(-2.15, 2.6, "pole", color=ORANGE, ha="right")
ax.text(1.2, 0.9, "$g > 0$: between 0 and ½", color=BLUE)
ax.text(-5.8, 0.9, "$g < 0$", color="#718096")
ax.set(xlim=(-6, 6), ylim=(-3, 3), xlabel="$S_k\\, g$", ylabel="exact α")
ax.set_title("exp, ReLU head: α = 1 / (2 + $S_k$ g)", loc="left")

ax, bins = axes[1], np.linspace(-6, 6, 61)
settings = {
    "exp, ReLU": (exp_score(heads["ReLU"]), BLUE),
    "exp, GELU": (exp_score(heads["GELU"]), ORANGE),
    "softmax, ReLU": (probability, "#2f855a"),
}
for name, (score, colour) in settings.items():
    first, second, third = (np.asarray(d) for d in jaxcam.elementwise_derivatives(score, A))
    positive = first > 0
    ratio = (np.asarray(sums) * third / (2 * second))[positive]
    ax.hist(np.clip(ratio, -6, 6), bins, histtype="step", lw=1.6, color=colour, label=name)
    bad = np.asarray(jaxcam.alphas.ill_conditioned(A, second, third))[positive].mean()
    print(f"{name:<14} alphas beyond or on the pole, among elements with d1 > 0: {100 * bad:4.1f} %")
ax.axvline(-1, color="black", lw=0.9, ls="--")
ax.set(xlabel="$S_k d_3 / 2 d_2$ where $d_1 > 0$ (ends: beyond)", ylabel="elements")
ax.set_title("left of −1 the denominator has changed sign", loc="left")
ax.legend(loc="upper left")
plt.tight_layout()
plt.show()

# %% [markdown]
# An element left of the dashed line has a negative $\alpha$: a positive gradient then lowers the weight of its channel.
# `jaxcam.explain` reports this as the status `ILL_CONDITIONED` when more than 1 % of the weights come from such elements,
# instead of hiding it behind an $\varepsilon$.

# %% [markdown]
# ## 7. Three nested tapes
#
# A recipe often seen nests three gradient tapes: gradient of $Y$, gradient of that gradient, and once more. But the
# gradient of an array is the gradient of its *sum*. The second tape gives the row sums of the Hessian,
# $\sum_{e'} \partial^2 Y / \partial A_e \partial A_{e'}$, and the third the sums over two indices. For exp and a
# piecewise linear head, with $G = \sum_e g_e$ over the whole layer, they are $Y g_e G$ and $Y g_e G^2$, so that
#
# $$\alpha_\text{tapes} = \frac{1}{2 + S_k\, G},$$
#
# the same at every position of a channel, whatever the gradient there is.

# %%
tape1 = jax.grad(f)
tape2 = jax.grad(lambda a: tape1(a).sum())
tape3 = jax.grad(lambda a: tape2(a).sum())
taped = np.asarray(jaxcam.exact_alphas(A, tape2(A), tape3(A)))
formula = 1 / (2 + np.asarray(sums) * gradient.sum())
print(f"largest difference from 1 / (2 + S_k G): {np.abs(taped - formula).max():.1e}")

fig, ax = plt.subplots(figsize=(6.4, 3))
of_channel = [np.asarray(values)[..., 4].reshape(-1) for values in (gradient, alphas, taped)]
by_gradient = np.argsort(of_channel[0])
chosen = by_gradient[of_channel[0][by_gradient] > 0]
for values, colour, label in ((of_channel[1], BLUE, "exact"), (of_channel[2], ORANGE, "three nested tapes")):
    ax.plot(values[chosen], ".", color=colour, label=label)
ax.axhline(0, color="black", lw=0.6)
ax.set(xlabel="positions of one channel with $d_1 > 0$, by rising gradient", ylabel="α", ylim=(None, 0.6))
ax.set_title("Row sums of the Hessian do not see the position", loc="left")
ax.legend(loc="lower left", bbox_to_anchor=(0, 0.2))
plt.show()
print(f"alphas off by (median, d1 > 0): {report.nested_tapes.alphas.median:.2f}")

# %% [markdown]
# ## 8. What α does: Grad-CAM++ and the mean of positive gradients
#
# With (13), an element adds $\alpha g = g / (2 + S_k g)$ to its channel's weight: $g/2$ where $S_k g$ is small, and at
# most $1/S_k$ where it is large. So Grad-CAM++ is a sum of positive gradients that saturates, the sooner the more active
# the channel is. Lerma and Lucas (2022) observed that in practice the mean of the positive gradients gives nearly the
# same maps. On the embedded network `mini_vgg`, whose head is not just pooling:

# %%
model = jaxcam.models.mini_vgg()
picture = np.asarray(jaxcam.scenes.pair(13).image)  # 64 x 64 pixels, the size that the network sees
activations = model.features(model.preprocessing.normalise(picture)[None])[0]


def vgg_head(a):
    return model.head(a[None])[0]


predicted = int(vgg_head(activations).argmax())

vgg_report = jaxcam.verify(vgg_head, activations, predicted)
gradient = jax.grad(lambda a: vgg_head(a)[predicted])(activations)
plain = jaxcam.maps.weighted_map(jax.nn.relu(gradient).mean((0, 1)), activations)
maps = {
    "Grad-CAM++": jaxcam.grad_cam_pp(vgg_head, activations, predicted),
    "mean of positive gradients": plain,
    "Grad-CAM": jaxcam.grad_cam(vgg_head, activations, predicted),
}
fig, axes = plt.subplots(1, 4, figsize=(9, 2.6))
axes[0].imshow(picture)
axes[0].set_title(f"explained: {model.class_names[predicted]}", loc="left")
for ax, (name, cam_map) in zip(axes[1:], maps.items(), strict=True):
    ax.imshow(jaxcam.overlay(picture, jaxcam.maps.heatmap(cam_map, picture.shape[:2])))
    ax.set_title(name, loc="left")
for ax in axes:
    ax.axis("off")
plt.tight_layout()
plt.show()
found = vgg_report.mean_of_positive_gradients
print(f"mean of positive gradients against Grad-CAM++: cosine of the weights {found.weights_cosine:.3f}, ", end="")
print(f"correlation of the maps {found.map_correlation:.3f}, largest difference {found.map_difference:.3f}")

# %% [markdown]
# ## 9. The whole report
#
# All of the above for the head at hand, in one call. The figures are attributes of the report, `.to_dict()` goes into
# JSON, and `python -m jaxcam verify` prints such tables for the embedded networks.

# %%
print(vgg_report)

# %% [markdown]
# ## 10. What exact derivatives cost
#
# $d_2$ and $d_3$ of a general function take one pass for every element: for VGG-16's last convolution that is 100,352
# passes. Two facts make it cheap and leave it exact. Where $Y = \text{outer} \circ \text{inner}$ and inner is piecewise
# linear with $m$ outputs (1 for $\exp(S_c)$, the number of classes for softmax), $m$ reverse passes give inner's
# Jacobian, and only outer has higher derivatives. And where a head begins with pooling, all elements of a channel share
# one direction. `method="auto"` finds both by reading the program; `method="jvp"` takes the general path.


# %%
def seconds(score, a, method):
    """The best of three runs of the compiled derivatives."""
    compiled = jax.jit(lambda a: jaxcam.elementwise_derivatives(score, a, method=method))
    jax.block_until_ready(compiled(a))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(compiled(a))
        times.append(time.perf_counter() - start)
    return min(times)


def problem(num_positions, num_classes, softmax):
    """A ReLU head on activations [num_positions, 16], and its score."""
    generator = np.random.default_rng(1)
    a = jnp.asarray(np.abs(generator.normal(size=(num_positions, 16))))
    w1 = jnp.asarray(generator.normal(size=(a.size, 128)) / a.size**0.5)
    w2 = jnp.asarray(generator.normal(size=(128, num_classes)) / 128**0.5)

    def score(a):
        logits = jax.nn.relu(a.reshape(-1) @ w1) @ w2
        return jax.nn.softmax(logits)[0] if softmax else jnp.exp(logits[0])

    return score, a


positions, classes = (16, 32, 64, 128, 256), (4, 16, 64, 256, 512)
curves = {}
for name, softmax in (("exp", False), ("softmax, 10 classes", True)):
    for method in ("jvp", "auto"):
        curves[name, method] = [seconds(*problem(n, 10, softmax), method) for n in positions]
by_classes = {m: [seconds(*problem(64, c, True), m) for c in classes] for m in ("jvp", "auto")}

# %%
WAYS = {"jvp": ("--", "a pass for each element"), "auto": ("-", "taken apart")}
fig, axes = plt.subplots(1, 2, figsize=(10.2, 3.6))
elements = 16 * np.array(positions)
for (name, method), times in curves.items():
    colour, (line, way) = BLUE if name == "exp" else ORANGE, WAYS[method]
    axes[0].plot(elements, 1e3 * np.array(times), "o", ls=line, ms=4, lw=1.4, color=colour, label=f"{name}: {way}")
for method, times in by_classes.items():
    line, way = WAYS[method]
    axes[1].plot(classes, 1e3 * np.array(times), "o", ls=line, ms=4, lw=1.4, color=ORANGE, label=way)
for ax, ticks, label in (
    (axes[0], elements, "elements of the activations"),
    (axes[1], classes, "classes (softmax, 1,024 elements)"),
):
    ax.set(xscale="log", yscale="log", xlabel=label, ylabel="milliseconds")
    ax.set_xticks(ticks, [f"{n:,}" for n in ticks])
    ax.minorticks_off()
    ax.set_ylim(top=(60 if ax is axes[0] else 5) * ax.get_ylim()[1])
    ax.legend(fontsize=9, loc="upper left", labelspacing=0.25)
axes[0].set_title("time for d₁, d₂, d₃ of every element", loc="left")
axes[1].set_title("the same by the number of classes", loc="left")
plt.tight_layout()
plt.show()
for name in ("exp", "softmax, 10 classes"):
    ratio = curves[name, "jvp"][-1] / curves[name, "auto"][-1]
    print(f"{name}: {elements[-1]:,} elements, general path / taken apart = {ratio:,.0f}")

# %% [markdown]
# The general path grows with the square of the number of elements (as many passes as elements, each through a matrix
# that grows with them), the other with the number of elements alone. With the number of classes the Jacobian grows in
# proportion, and `"auto"` takes the general path again as soon as that is the cheaper one.
#
# ## What to take from this
#
# - $\alpha$ is a definition. Eq. 3 does not hold with it, and what the derivation drops is as large as what it keeps, or
#   larger.
# - For $\exp(S_c)$ and a head that is piecewise linear the closed form $1/(2 + S_k g)$ is exact, and always between 0 and
#   ½ where it counts. `jaxcam` uses it only where that is proven.
# - With GELU or SiLU in the head, and with softmax, the exact $\alpha$ can change sign. The closed form hides that; the
#   status of an explanation shows it.
# - Three nested tapes compute another quantity.
# - Exact derivatives are affordable: look at `jaxcam.elementwise_derivatives`.
