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
# # The derivation of Grad-CAM++: when it holds, and when not
#
# Grad-CAM++ (Chattopadhay et al. 2018) weights every element of a layer's activations by a coefficient $\alpha$ that is
# made of second and third derivatives of the class score. The paper derives $\alpha$ in a few lines and then gives a
# closed form that needs only the gradient. Here every step stands beside a computation that confirms or limits it:
#
# 1. Does $\alpha$ follow from the identity that it is derived from? (Only for powers, one position in a channel.)
# 2. When is the closed form equal to the exact $\alpha$? (For piecewise linear heads, to the last digits; not for GELU.)
# 3. What do three nested gradient tapes compute instead? (Sums over rows of the Hessian.)
# 4. What do the exact derivatives cost, and why are they exact?
#
# What Grad-CAM++ *does* with its $\alpha$ is the subject of [regimes.ipynb](regimes.ipynb). Everything runs in float64.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxcam
from jaxcam.programs.operations import num_operations

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
BLUE, ORANGE, GREEN, GREY = "#2b6cb0", "#dd6b20", "#2f855a", "#a0aec0"

# %% [markdown]
# ## The setting, and the numbers of the equations
#
# $A^k_{ij}$ are the activations at a layer (position $i,j$, channel $k$), and the *head* takes them to the logits $S_c$.
# $S_k = \sum_{ab} A^k_{ab}$ is the sum of a channel, and derivatives are by single elements:
#
# $$d_1 = \frac{\partial Y}{\partial A^k_{ij}},\qquad d_2 = \frac{\partial^2 Y}{(\partial A^k_{ij})^2},\qquad
# d_3 = \frac{\partial^3 Y}{(\partial A^k_{ij})^3},\qquad g = \frac{\partial S_c}{\partial A^k_{ij}} .$$
#
# An equation's number is the paper's, here, in `jaxcam.verify` and in the docstrings. Two other counts are in use, and
# this is how they go together. Of the report behind this project we know these numbers only, and three slips: its 21
# takes a sum where (3) has the mean, its 23 lacks the 1/Z (both are positive factors, which normalising the map takes
# away), and its 3 has a slip in its indices. Its text was not at hand when this was written.

# %%
print(jaxcam.verification.concordance())

# %% [markdown]
# ## 1. From an identity to α (Eq. 1 to 10)
#
# CAM's networks end in pooling and a linear layer: (1) $Y = \sum_k w_k S_k$. Grad-CAM++ keeps this form and makes the
# weights by the ReLU of the gradient, (5) $w_k = \sum_{ij}\alpha^k_{ij}\,\mathrm{ReLU}(d_1)$. The derivation drops the ReLU and
# asks for the $\alpha$ that make an identity of
#
# $$Y = R,\qquad R = \sum_k W_k S_k,\qquad W_k = \sum_{ab} \alpha^k_{ab}\, \frac{\partial Y}{\partial A^k_{ab}} \tag{7}$$
#
# Differentiated by one element, and once more by the same element, this is said to be
#
# $$d_1 = W_k + S_k\, \alpha\, d_2 \tag{8}$$
# $$d_2 = 2\,\alpha\, d_2 + S_k\, \alpha\, d_3 \tag{9}$$
# $$\alpha = \frac{d_2}{2\, d_2 + S_k\, d_3} \tag{10}$$
#
# **The 2** counts one $\alpha d_2$ from $W_k$ and one from $S_k$, since $\partial S_k/\partial A^k_{ij} = 1$. The two sums
# in (10) have indices of their own: $S_k$ multiplies the $d_3$ of the element $i,j$. Packages that compute `sum(A * d3)`
# in its place are right only where $d_3$ is constant over a channel.
#
# **What is dropped.** $W_k$ was differentiated as if only the one term $\partial Y/\partial A^k_{ij}$ in it depended on
# $A^k_{ij}$. In full,
#
# $$\frac{\partial R}{\partial A^k_{ij}} = W_k + \sum_{k'} S_{k'} \sum_{ab} \Big[\alpha^{k'}_{ab}\,
# \frac{\partial^2 Y}{\partial A^{k'}_{ab}\,\partial A^k_{ij}} +
# \frac{\partial \alpha^{k'}_{ab}}{\partial A^k_{ij}}\,\frac{\partial Y}{\partial A^{k'}_{ab}}\Big],$$
#
# of which (8) keeps $W_k$ and one summand.
#
# ## 2. When it holds
#
# **Theorem.** *If (7) holds on an open set, $\alpha$ is constant there and $Y$ has no mixed partials, then (8), (9) and
# (10) hold there.* Proof: of the bracket only $\alpha\, d_2$ of the element itself is left, which is (8). Its derivative is
# $\alpha d_2$ from $W_k$, $\alpha d_2$ from $S_k$ and $S_k \alpha d_3$, which is (9), and (10) is (9) solved for $\alpha$. ∎
#
# **That is a small class.** Without mixed partials $Y = \sum_e \varphi_e(A_e)$. With one position in a channel (7) is
# $A\,\alpha\,\varphi' = \varphi + \text{const}$, so that $\varphi = C A^{p}$ and $\alpha = 1/p$. With several, the mixed
# derivative of (7) by two of them is $0 = \alpha_e \varphi_e'' + \alpha_f \varphi_f''$: for three positions and more all
# $\alpha\varphi''$ vanish, and what is left is linear, CAM's own model, for which (10) is 0/0. (Two positions allow
# the saddle $x^2 - y^2$ besides, with $\alpha = ½$.)
#
# **And nearly all there is.** *If, for one element, (7), (8) and (10) hold on an interval, then $\alpha$ is constant and
# $Y = C A^p$.* Proof: the derivative of (7) is $d_1 = \alpha d_1 + A\alpha d_2 + A\alpha' d_1$; less (8), $A\alpha' d_1 = 0$. ∎
#
# Four functions of a single element, where there is nothing to be mixed with:

# %%
CASES = {
    "A^3 at 2": (lambda x: x**3, 2.0),
    "exp(A) at 1/2": (jnp.exp, 0.5),
    "exp(A) at 20": (jnp.exp, 20.0),
    "A^2 + 1/A at 2": (lambda x: x**2 + 1 / x, 2.0),
}
print(f"{'Y':<16}{'α':>8}{'R / Y, by 7':>14}{'by 8, / d1':>13}{'by 9, / d2':>13}{'dR / d1':>10}")


def one_element(y, at):
    """alpha by 10, and the right-hand sides of 7, 8, 9 and of the derivative of 7, in shares of the left-hand sides."""
    first = jax.grad(y)
    second = jax.grad(first)
    third = jax.grad(second)

    def alpha(x):
        return second(x) / (2 * second(x) + x * third(x))

    a, d1, d2, d3 = (float(f(at)) for f in (alpha, first, second, third))
    slope = float(jax.grad(lambda x: x * alpha(x) * first(x))(at))
    return a, at * a * d1 / float(y(at)), (a * d1 + at * a * d2) / d1, (2 * a * d2 + at * a * d3) / d2, slope / d1


for name, (y, at) in CASES.items():
    found = one_element(y, at)
    print(f"{name:<16}" + "".join(f"{x:>{w}.2f}" for x, w in zip(found, (8, 14, 13, 13, 10), strict=True)))

# %% [markdown]
# The power fulfils everything. $e^A$ has no mixed partials either, and yet (7) gives 0.20 $Y$ and (8) 0.60 $d_1$, because
# its $\alpha = 1/(2 + A)$ moves with $A$; (9) holds, as $\alpha$ was defined by it. **Adding the derivative of α** (last
# column) does not repair that: it gives the true derivative of $R$, 0.52 $d_1$, and $R$ is not $Y$. Where $R$ is $Y$ it
# does: $A^2 + 1/A$ fulfils (7) with an $\alpha$ that moves, and what (8) lacks is that very term. So it is not a matter of
# terms left out: **(7) is no identity**, with the $\alpha$ of (10) or, in general, with any.
#
# For $Y = e^S$ with one element and $u = S_k g$, (7) gives $u/(2+u)$ of $Y$ and (8) gives $(1+u)/(2+u)$ of $d_1$:

# %%
u = np.logspace(-2, 3, 200)
fig, ax = plt.subplots(figsize=(6.4, 2.9))
ax.axhline(1, color=GREEN, lw=2)
ax.plot(u, (1 + u) / (2 + u), color=BLUE, lw=2)
ax.plot(u, u / (2 + u), color=ORANGE, lw=2)
ax.text(0.011, 1.04, "$A^p$: both equations hold", color=GREEN)
ax.text(0.011, 0.66, "$e^S$: Eq. 8, share of $d_1$", color=BLUE)
ax.text(0.011, 0.2, "$e^S$: Eq. 7, share of $Y$", color=ORANGE)
ax.set(xscale="log", ylim=(-0.03, 1.18), xlabel="$u = S_k\\, g$", ylabel="right-hand / left-hand side")
ax.set_title("One element: exp fulfils neither until $u$ is large", loc="left")
plt.show()

# %% [markdown]
# ## 3. What is dropped on a network's head
#
# Random activations of 7 × 7 × 16, positive as after a ReLU, and a head with one hidden layer. For $e^{S_c}$ and a ReLU
# head everything has a closed form: $\partial^2 Y/\partial A_e\partial A_f = Y g_e g_f$, and $\alpha_f = 1/(2 + S_k g_f)$
# moves by $-g_f\alpha_f^2$ with every element of its channel. We look at what Grad-CAM++ uses, with the ReLU in the weights
# and at the elements with $g > 0$. `jaxcam.verify` finds the same by automatic differentiation, for any head.

# %%
rng = np.random.default_rng(0)
A = jnp.asarray(np.maximum(rng.normal(size=(7, 7, 16)), 0))
W1 = jnp.asarray(rng.normal(size=(A.size, 64)) * (2 / A.size) ** 0.5)
W2 = jnp.asarray(rng.normal(size=(64, 10)) * (2 / 64) ** 0.5)
CLASS = 1


def head_with(activation):
    """Flatten, one hidden layer, ten logits."""
    return lambda a: activation(a.reshape(-1) @ W1) @ W2


def exp_score(head):
    """Y = exp(S_c), divided by its value at A: that factor cancels from alpha."""
    offset = head(A)[CLASS]
    return lambda a: jnp.exp(head(a)[CLASS] - offset)


HEADS = {"ReLU": head_with(jax.nn.relu), "SiLU": head_with(jax.nn.silu), "GELU": head_with(jax.nn.gelu)}
report = jaxcam.verify(HEADS["ReLU"], A, CLASS, num_sampled=A.size)
g, S = np.asarray(jax.grad(lambda a: HEADS["ReLU"](a)[CLASS])(A)), np.asarray(A.sum((0, 1)))
alpha = 1 / (2 + S * g)
used = alpha * (g > 0)
W, slope = (used * g).sum((0, 1)), -(used**2 * g**2).sum((0, 1))  # of the bracket, and of alpha in it by any element
kept = W + S * alpha * g**2
dropped = {
    "mixed partials, own channel": S * g * (W - alpha * g),
    "mixed partials, other channels": g * ((S * W).sum() - S * W),
    "derivative of α": S * slope + 0 * g,
}
dropped["all of it"] = sum(dropped.values())
step_8, step_9 = report.first_step_used, report.second_step_used
by_verify = [step_8.same_channel, step_8.other_channels, step_8.alpha_derivative]
print("Eq. 8, |dropped| / |kept| where g > 0:   median   by verify   largest   larger than all that is kept")
for (name, term), ratio in zip(dropped.items(), [*by_verify, None], strict=True):
    ratios = np.abs(term / kept)[g > 0]
    own = f"{ratio.median:12.2f}" if ratio else " " * 12
    print(f"  {name:<36}{np.median(ratios):9.2f}{own}{ratios.max():10.2f}{100 * (ratios > 1).mean():12.0f} %")
print(f"R / Y by Eq. 7: {report.identity:.2f}; with the ReLU: {report.linear_model:.2f}")

# %%
TERMS = {"own channel": "same_channel", "other channels": "other_channels", "derivative of α": "alpha_derivative"}
fig, ax = plt.subplots(figsize=(6.4, 2.5))
for i, step in enumerate((step_8, step_9)):
    for j, name in enumerate(TERMS.values()):
        share = 100 * getattr(step, name).share_larger
        ax.barh(j + 0.38 * i, share, 0.34, color=(BLUE, ORANGE)[i])
        ax.text(
            share + 1, j + 0.38 * i, f"Eq. {8 + i}: {share:.0f} %", va="center", fontsize=9, color=(BLUE, ORANGE)[i]
        )
ax.set_yticks(
    np.arange(3) + 0.19, ["mixed partials,\nown channel", "mixed partials,\nother channels", "derivative of α"]
)
ax.set(xlim=(0, 118), xlabel="% of the elements with $g > 0$", xticks=[0, 25, 50, 75, 100])
ax.invert_yaxis()
ax.set_title("Where one dropped term outweighs all that is kept", loc="left")
plt.show()

# %% [markdown]
# Mixed partials with other channels alone outweigh what (8) keeps at nearly all elements, and in (9) every single term
# does so everywhere. In (8) the derivative of $\alpha$ is the least of it, since $g > 0$ keeps away from the pole of
# section 7. (Without the ReLU a few elements with $S_k g$ near $-2$ make every maximum arbitrary; `print(report)` shows both.)
#
# So (10) does not follow from (7): it is a *definition*. That does not make the method wrong. It does mean that no
# accuracy is won by "solving (7) better", and that a computation can only be asked whether it evaluates (10).
#
# Grad-CAM and CAM, by contrast, are one thing where (1) holds: (3) is then CAM's weight divided by $Z$.

# %%
resnet, picture = jaxcam.models.mini_resnet(), np.asarray(jaxcam.scenes.scene(0).image)
top = resnet.features(resnet.preprocessing.normalise(picture)[None])[0].astype(float)
grad_cam_w = jaxcam.grad_cam_weights(lambda a: resnet.head(a[None])[0], top, CLASS)
cam_w, Z = np.asarray(resnet.cam_kernel)[:, CLASS], top.shape[0] * top.shape[1]
print(f"mini_resnet: largest |Z x Grad-CAM's weight - CAM's| = {np.abs(Z * grad_cam_w - cam_w).max():.1e}, Z = {Z}")

# %% [markdown]
# ## 4. The derivatives, and kinks
#
# `jaxcam.elementwise_derivatives` gives the diagonals $d_2$, $d_3$ for any function, by two independent compositions,
# nested `jax.grad` and nested `jax.jvp`, or faster by taking the function apart (section 9). The report compares all of
# these with finite differences, which know nothing of automatic differentiation.

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
# **At a kink** there are two slopes, and one is taken; $d_2$ and $d_3$ are those of that branch. After a ReLU many
# activations are exactly 0, and where the head begins with a ReLU or max-pooling they sit on a kink:


# %%
def pooled(x):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2,), (2,), "VALID").sum()


for name, f, at in (
    ("jax.nn.relu(x) at 0", lambda x: jax.nn.relu(x).sum(), [0.0]),
    ("jnp.maximum(x, 0) at 0", lambda x: jnp.maximum(x, 0.0).sum(), [0.0]),
    ("jnp.abs(x) at 0", lambda x: jnp.abs(x).sum(), [0.0]),
    ("max-pooling of x = y = 0", pooled, [0.0, 0.0]),
):
    x, h = jnp.asarray(at), 1e-6
    sides = [[float((f(x.at[i].add(t)) - f(x)) / t) for i in range(x.size)] for t in (-h, h)]
    print(f"{name:<26} slopes left {sides[0]}, right {sides[1]}; taken: {jax.grad(f)(x).tolist()}")

vgg = jaxcam.models.mini_vgg()
activations = vgg.features(vgg.preprocessing.normalise(picture)[None])[0].astype(float)


def vgg_head(a):
    return vgg.head(a[None])[0]


def logit_of(element, step):
    """The predicted class's logit with one activation moved."""
    return vgg_head(activations.reshape(-1).at[element].add(step).reshape(activations.shape))[predicted]


predicted = int(vgg_head(activations).argmax())
gradient = np.asarray(jax.grad(lambda a: vgg_head(a)[predicted])(activations)).reshape(-1)
zeros = np.flatnonzero(np.asarray(activations) == 0)
chosen = np.random.default_rng(0).choice(zeros, 256, replace=False)
both = jax.jit(jax.vmap(lambda e: [(logit_of(e, t) - logit_of(e, 0.0)) / t for t in (-1e-7, 1e-7)]))
left, right = (np.asarray(each) for each in both(jnp.asarray(chosen)))
kinks = np.abs(left - right) > 1e-5
takes_left, takes_right = (100 * (np.abs(gradient[chosen] - side)[kinks] < 1e-5).mean() for side in (left, right))
print(f"mini_vgg: {100 * zeros.size / activations.size:.0f} % of the activations are 0; of 256 of these", end="")
print(f" {100 * kinks.mean():.0f} % are kinks of the head")
print(
    f"  the left slope is taken at {takes_left:.0f} %, the right one at {takes_right:.0f} % (first of equals in a window)"
)

# %% [markdown]
# ## 5. The closed form for $Y = e^{S_c}$ (Eq. 12 to 19)
#
# The chain rule gives (13) $d_1 = e^{S} g$ and (14) $d_2 = e^{S}(g^2 + \partial^2 S_c/\partial A^2)$. If the head is built
# of ReLUs, max-pooling and linear layers, (15) and (16) say that $S_c$ has no second derivative almost everywhere, and
#
# $$d_2 = e^{S_c} g^2,\qquad d_3 = e^{S_c} g^3,\qquad
# \alpha = \frac{g^2}{2 g^2 + S_k\, g^3} = \frac{1}{2 + S_k\, g} \tag{17–19}$$
#
# The last form has no 0/0 for small gradients and needs no added $\varepsilon$. With SiLU or GELU the premise fails:


# %%
def off(found, reference):
    """|x - y| / max(|x|, |y|) for every element."""
    size = np.maximum(np.abs(found), np.abs(reference))
    return np.abs(found - reference)[size > 0] / size[size > 0]


fig, axes = plt.subplots(1, 3, figsize=(10.2, 3.4), sharex=True, sharey=True)
for ax, (name, head) in zip(axes, HEADS.items(), strict=True):
    d1, d2, d3 = jaxcam.elementwise_derivatives(exp_score(head), A)
    exact = np.asarray(jaxcam.exact_alphas(A, d2, d3))
    closed = np.asarray(jaxcam.exp_alphas(A, jax.grad(lambda a, head=head: head(a)[CLASS])(A)))
    positive = np.asarray(d1) > 0
    shown = positive & (np.abs(exact) < 1)
    ax.plot([-1, 1], [-1, 1], color="black", lw=0.6, zorder=0)
    ax.scatter(exact[shown], closed[shown], s=7, color=BLUE, alpha=0.7, lw=0)
    proven = jaxcam.is_piecewise_linear(head, A)
    ax.set_title(f"{name}: {'' if proven else 'not '}proven piecewise linear", loc="left")
    ax.set(xlabel="exact α", xlim=(-1, 1), ylim=(0, 0.6))
    differences = off(closed[positive], exact[positive])
    ax.text(-0.95, 0.54, f"off by {100 * np.median(differences):.0f} % (median)", color=ORANGE)
    outside, negative = (np.abs(exact) >= 1)[positive].mean(), (exact < 0)[positive].mean()
    print(f"{name}: {100 * negative:.0f} % of exact α negative, {100 * outside:.1f} % outside of the frame")
axes[0].set_ylabel("closed form 1 / (2 + $S_k$ g)")
plt.tight_layout()
plt.show()

# %% [markdown]
# This is why `grad_cam_pp(..., alphas="auto")` uses the closed form only for heads that are *proven* piecewise linear by
# reading their program, and the exact derivatives for all others.
#
# ## 6. Softmax, three nested tapes, and what they do to maps (Eq. 21 to 24)
#
# Along one element the logits move as $S + s\,t$ with slopes $s_j = \partial S_j/\partial A^k_{ij}$ (a piecewise linear
# head: (22) holds for every head, (23) and (24) presuppose it), and $\log \mathrm{softmax}(S + s t)_c = \log p_c + s_c t - K(t)$
# with the cumulant-generating function $K(t) = \log\sum_j p_j e^{s_j t}$. With mean $m$, variance $v$ and third central
# moment $\tau$ of the slopes under $p$, and $u = s_c - m$,
#
# $$d_1 = p_c\, u,\qquad d_2 = p_c\,(u^2 - v),\qquad d_3 = p_c\,(u^3 - 3uv - \tau). \tag{22–24}$$
#
# Three recipes are met in their place. *Powers*: $\alpha = d_1^2/(2d_1^2 + S_k d_1^3)$ with the softmax gradient, which is
# small, so that $\alpha ≈ ½$. *Three nested tapes*: the gradient of an array is that of its **sum**, so the second tape
# gives row sums of the Hessian. For exp these are $Y g G$ and $Y g G^2$ with $G = \sum_e g_e$: $\alpha = 1/(2 + S_k G)$, one
# number for a whole channel. *Tapes, α normalised* over all positions: that one number then cancels, and for exp **the
# weights are those of `grad_cam_positive`, exactly**. What matters is the map:


# %%
def variants(head, a, class_idx, score):
    """The weights of each recipe, those with exact alphas first."""

    def f(x):
        return jaxcam.scores.resolve(score)(head(x), class_idx)

    d1, d2, d3 = jaxcam.elementwise_derivatives(f, a)
    rows2 = jax.grad(lambda x: jax.grad(f)(x).sum())
    taped = jaxcam.exact_alphas(a, rows2(a), jax.grad(lambda x: rows2(x).sum())(a))
    found = {"exact": jaxcam.exact_alphas(a, d2, d3)}
    if score == "softmax":
        found["powers of the gradient"] = jaxcam.exp_alphas(a, d1)
    found["three tapes"] = taped
    found["three tapes, α normalised"] = taped / taped.sum((0, 1), keepdims=True)
    found["grad_cam_positive"] = jnp.ones_like(a) / (a.shape[0] * a.shape[1])
    return {name: (alphas * jax.nn.relu(d1)).sum((0, 1)) for name, alphas in found.items()}


def correlation(weights, reference, a):
    """Of the maps; None where the weights give none."""
    maps = [np.asarray(jax.nn.relu(a @ w)).reshape(-1) for w in (weights, reference)]
    return np.corrcoef(*maps)[0, 1] if maps[0].any() else None


SETTINGS = {
    "exp, ReLU head": (HEADS["ReLU"], A, CLASS, "exp"),
    "exp, GELU head": (HEADS["GELU"], A, CLASS, "exp"),
    "softmax, ReLU head": (HEADS["ReLU"], A, CLASS, "softmax"),
    "softmax, mini_vgg": (vgg_head, activations, int(np.argsort(vgg_head(activations))[-2]), "softmax"),
}
correlations = {}
for setting, arguments in SETTINGS.items():
    head, a, class_idx, score = arguments
    weights = jax.jit(lambda a, h=head, c=class_idx, s=score: variants(h, a, c, s))(a)
    weights = {name: np.asarray(w) for name, w in weights.items()}
    exact = weights["exact"]
    print(f"{setting} (class {class_idx})")
    for name, w in list(weights.items())[1:]:
        cosine = w @ exact / np.linalg.norm(w) / np.linalg.norm(exact)
        correlations[setting, name] = alike = correlation(w, exact, a)
        maps_are = "no map: all zero" if alike is None else f"maps correlate {alike:6.2f}"
        print(f"  {name:<28} cosine of the weights {cosine:6.2f}, {maps_are}")
    tapes, plain = weights["three tapes, α normalised"], weights["grad_cam_positive"]
    gap = np.abs(tapes - plain).max() / plain.max()
    print(f"  normalised tapes less grad_cam_positive: at most {gap:.0e} of the largest weight")

# %%
RECIPES = {"three tapes": ORANGE, "three tapes, α normalised": GREY, "grad_cam_positive": BLUE}
fig, ax = plt.subplots(figsize=(7.4, 2.8))
for i, setting in enumerate(SETTINGS):
    for j, (name, colour) in enumerate(RECIPES.items()):
        alike, y = correlations[setting, name], i + 0.2 * (j - 1)
        if alike is None:
            ax.text(-1, y, f"{name}: no map", color=colour, va="center", fontsize=9)
        ax.plot(np.nan if alike is None else alike, y, "o", ms=8, color=colour, label=name if i == 0 else None)
ax.axvline(1, color="black", lw=0.8, ls="--")
ax.set_yticks(range(len(SETTINGS)), SETTINGS)
ax.set(xlim=(-1.05, 1.05), ylim=(3.5, -0.5), xlabel="correlation with the map of exact α (1: the same map)")
ax.set_title("Recipes that stand in for exact α: their maps", loc="left")
ax.legend(bbox_to_anchor=(1, 1), loc="upper left", fontsize=9)
plt.show()

# %% [markdown]
# ## 7. Where the denominator crosses zero
#
# (10) has a pole where $S_k d_3 = -2 d_2$. For exp and a piecewise linear head that is $S_k g = -2$, which needs $g < 0$
# after a ReLU, and such elements do not enter the weights. For other scores and heads nothing keeps elements with a
# positive gradient away from it; beyond it $\alpha$ is negative, and a positive gradient lowers its channel's weight.

# %%
scores = {
    "exp, ReLU": exp_score(HEADS["ReLU"]),
    "exp, GELU": exp_score(HEADS["GELU"]),
    "softmax, ReLU": lambda a: jax.nn.softmax(HEADS["ReLU"](a))[CLASS],
}
shares = {}
for name, score in scores.items():
    d1, d2, d3 = jaxcam.elementwise_derivatives(score, A)
    shares[name] = 100 * np.asarray(jaxcam.alphas.ill_conditioned(A, d2, d3))[np.asarray(d1) > 0].mean()
fig, ax = plt.subplots(figsize=(6.4, 1.7))
ax.barh(list(shares), list(shares.values()), 0.6, color=[BLUE, ORANGE, ORANGE])
for i, share in enumerate(shares.values()):
    ax.text(share + 1, i, f"{share:.0f} %", va="center")
ax.set(xlim=(0, 100), xlabel="% of the elements with $d_1 > 0$")
ax.invert_yaxis()
ax.set_title("α is negative or on its pole", loc="left")
plt.show()

# %% [markdown]
# `jaxcam.explain` reports this as the status `ILL_CONDITIONED` when more than 1 % of the weights come from such elements,
# instead of hiding it behind an $\varepsilon$.
#
# ## 8. Cheat sheet
#
# For a head that is piecewise linear along the element, with slope $g$ (of softmax: $u$, $v$, $\tau$ as above):
#
# | $Y$ | $d_1$ | $d_2$ | $d_3$ | $\alpha$ | 0/0 where |
# |---|---|---|---|---|---|
# | $e^{S}$ | $e^S g$ | $e^S g^2$ | $e^S g^3$ | $1/(2 + S_k g)$ | $g = 0$ |
# | softmax | $p u$ | $p(u^2 - v)$ | $p(u^3 - 3uv - \tau)$ | $\frac{u^2 - v}{2(u^2 - v) + S_k(u^3 - 3uv - \tau)}$ | all slopes are equal |
# | log-softmax | $u$ | $-v$ | $-\tau$ | $v/(2v + S_k\tau)$, of no class | all slopes are equal |
# | $S^p$ | $pS^{p-1}g$ | $p(p-1)S^{p-2}g^2$ | $p(p-1)(p-2)S^{p-3}g^3$ | $1/(2 + (p-2)\,S_k g/S)$ | $p = 1$, or $g = 0$ |
# | $S$ | $g$ | 0 | 0 | 0/0 | everywhere: refused |

# %%
slopes, logits, channel_sum, p = np.array([0.7, -0.4, 1.1]), np.array([1.3, 0.2, 0.9]), 1.7, 2.6
q = np.exp(logits) / np.exp(logits).sum()
m = q @ slopes
du, v, tau, s, S0 = slopes[0] - m, q @ (slopes - m) ** 2, q @ (slopes - m) ** 3, slopes[0], logits[0]
SHEET = {
    "exp": (lambda z: jnp.exp(z[0]), np.exp(S0) * s ** np.arange(1, 4)),
    "softmax": (lambda z: jax.nn.softmax(z)[0], q[0] * np.array([du, du**2 - v, du**3 - 3 * du * v - tau])),
    "log-softmax": (lambda z: jax.nn.log_softmax(z)[0], np.array([du, -v, -tau])),
    "power": (
        lambda z: z[0] ** p,
        np.array(
            [p * S0 ** (p - 1) * s, p * (p - 1) * S0 ** (p - 2) * s**2, p * (p - 1) * (p - 2) * S0 ** (p - 3) * s**3]
        ),
    ),
    "logit": (lambda z: z[0], np.array([s, 0, 0])),
}
for name, (score, sheet) in SHEET.items():
    exact = jaxcam.elementwise_derivatives(lambda t, score=score: score(logits + slopes * t[0]), jnp.zeros(1))
    gap = max(abs(float(d[0]) - d_sheet) for d, d_sheet in zip(exact, sheet, strict=True))
    denominator = 2 * sheet[1] + channel_sum * sheet[2]
    print(f"{name:<12} the sheet is off by {gap:.0e};  α = {sheet[1] / denominator if denominator else np.nan:.4f}")

# %% [markdown]
# ## 9. What exact derivatives cost, and why they are exact
#
# In general $d_2$ and $d_3$ take a pass for every element. But let $Y = \text{outer} \circ \text{inner}$ with inner
# piecewise linear and $m$ outputs. Away from kinks $\text{inner}(A + t e) = \text{inner}(A) + t J_e$ for small $t$, *exactly*,
# so that $d_n = D^n\text{outer}[J_e, \dots, J_e]$: $m$ reverse passes give every column $J_e$ of the Jacobian, and only
# outer is differentiated further. A **fold** before it, as pooling, lets an element reach a single value $z$, with slope
# $c$: then $d_n = c^n\, \partial^n/\partial z^n$, and all positions of a channel share one **direction**. Nothing is
# neglected in either step; `method="auto"` finds both by reading the program. Operations, counted in the programs:


# %%
def cost(num_positions, num_classes, softmax, method):
    """Operations of d1, d2, d3 of a ReLU head on [num_positions, 16], in multiples of the forward pass."""
    a, w1, w2 = jnp.zeros((num_positions, 16)), jnp.ones((16 * num_positions, 128)), jnp.ones((128, num_classes))

    def score(a):
        z = jax.nn.relu(a.reshape(-1) @ w1) @ w2
        return jax.nn.softmax(z)[0] if softmax else jnp.exp(z[0])

    exact = jax.make_jaxpr(lambda a: jaxcam.elementwise_derivatives(score, a, method=method))(a)
    return num_operations(exact.jaxpr) / num_operations(jax.make_jaxpr(score)(a).jaxpr)


positions = np.array([16, 64, 256, 1024])
LINES = {
    "a pass for each element": (1, False, "jvp", GREY),
    "softmax of 100 classes, taken apart": (100, True, "auto", ORANGE),
    "softmax of 10 classes, taken apart": (10, True, "auto", BLUE),
    "exp, taken apart": (1, False, "auto", GREEN),
}
fig, ax = plt.subplots(figsize=(8, 3))
for name, (classes, softmax, method, colour) in LINES.items():
    costs = [cost(n, classes, softmax, method) for n in positions]
    ax.plot(16 * positions, costs, "o-", color=colour, lw=1.6, ms=4)
    ax.text(16 * positions[-1] * 1.2, costs[-1], f"{name}: × {costs[-1]:,.0f}", color=colour, va="center", fontsize=9)
ax.set(xscale="log", yscale="log", xlabel="elements of the activations", ylabel="× the forward pass", xlim=(200, 6e5))
ax.set_xticks(16 * positions, [f"{16 * n:,}" for n in positions])
ax.minorticks_off()
ax.set_title("d₁, d₂, d₃ of every element", loc="left")
plt.show()

# %% [markdown]
# ## 10. The whole report
#
# All of the above for the head at hand, in one call. The figures are attributes of the report, `.to_dict()` goes into
# JSON, and `python -m jaxcam verify` prints such tables for the embedded networks.

# %%
print(jaxcam.verify(vgg_head, activations, predicted))

# %% [markdown]
# ## What to take from this
#
# - $\alpha$ is a definition. Eq. 7 is no identity, and what the derivation drops outweighs what it keeps at most elements.
#   It holds for powers, with one position in a channel.
# - For $\exp(S_c)$ and a piecewise linear head the closed form $1/(2 + S_k g)$ is exact, and between 0 and ½ where it
#   counts. `jaxcam` uses it only where that is proven. With GELU or SiLU, and with softmax, the exact $\alpha$ can change
#   sign; the closed form hides that, and the status of an explanation shows it.
# - Three nested tapes compute another quantity; normalised and with exp, they are `grad_cam_positive`.
