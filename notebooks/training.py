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
# # Custom networks, from scratch to explained
#
# A small network is written here and trained, on handwritten digits and on drawn scenes, and its maps are watched while
# it learns. Maps are then part of the loss: every loss in a picture, with its formula and its number. A network that was
# trained on ImageNet learns two new classes from forty photographs, and is explained before and after. At the end stands
# what such losses were worth in experiments with ten seeds each.
#
# `pip install '.[notebooks,photographs]'` installs what is imported here.

# %%
import io
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from IPython.display import Image, display
from skimage import data as photographs
from skimage.feature import Cascade
from sklearn.datasets import load_digits

import jaxcam
from jaxcam import learning, maps, metrics, models, scenes


def show(page, width=800):
    buffer = io.BytesIO()
    page = page.resize((3 * width // 2, round(1.5 * width * page.height / page.width)))
    page.save(buffer, "JPEG", quality=62)
    display(Image(buffer.getvalue(), width=width))


# %% [markdown]
# ## A network of twenty lines
#
# A convolution, three residual blocks, the mean over the positions, one linear layer. Nothing in it is for jaxcam.


# %%
class Block(nnx.Module):
    def __init__(self, inputs, outputs, strides, rngs):
        self.conv1 = nnx.Conv(inputs, outputs, (3, 3), strides, rngs=rngs)
        self.conv2 = nnx.Conv(outputs, outputs, (3, 3), rngs=rngs)
        self.shortcut = nnx.Conv(inputs, outputs, (1, 1), strides, rngs=rngs)
        self.norm1, self.norm2 = (nnx.GroupNorm(outputs, num_groups=4, rngs=rngs) for _ in range(2))

    def __call__(self, x):
        y = self.norm2(self.conv2(nnx.relu(self.norm1(self.conv1(x)))))
        return nnx.relu(y + self.shortcut(x))


class Small(nnx.Module):
    def __init__(self, channels, num_classes, *, strides, rngs):
        self.conv = nnx.Conv(channels, 8, (3, 3), strides[0], rngs=rngs)
        self.block1 = Block(8, 8, 1, rngs)
        self.block2 = Block(8, 16, strides[1], rngs)
        self.block3 = Block(16, 32, 1, rngs)
        self.linear = nnx.Linear(32, num_classes, rngs=rngs)

    def __call__(self, x):
        x = self.block3(self.block2(self.block1(nnx.relu(self.conv(x)))))
        return self.linear(x.mean((1, 2)))


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def plain_loss(model, inputs, labels, masks):
    return cross_entropy(model(inputs), labels)


@nnx.jit(static_argnames="loss")
def step(model, optimizer, *batch, loss):
    value, gradient = nnx.value_and_grad(loss)(model, *batch)
    optimizer.update(model, gradient)
    return value


def train(model, examples, *, num_steps, loss=plain_loss, observer=None, rate=0.02):
    """The arrays of `examples` share their first axis; a batch is 32 of them."""
    optimizer = nnx.Optimizer(
        model, optax.adam(optax.warmup_cosine_decay_schedule(0, rate, num_steps // 10, num_steps)), wrt=nnx.Param
    )
    draw = np.random.default_rng(0)
    for i in range(num_steps):
        places = draw.integers(len(examples[0]), size=32)
        value = step(model, optimizer, *(each[places] for each in examples), loss=loss)
        if observer is not None:
            observer(i, jaxcam.adapt(model, class_names=NAMES), loss=value)


def accuracy(model, inputs, labels):
    found = jax.jit(lambda model, inputs: model(inputs).argmax(-1))(model, inputs)
    return float((np.asarray(found) == np.asarray(labels)).mean())


# %% [markdown]
# ## Handwritten digits
#
# 1,797 digits of 8 x 8 pixels, the last 360 of them for testing.

# %%
digits = load_digits()
grey, labels = (digits.images / 16).astype(np.float32)[..., None], digits.target
net = Small(1, 10, strides=(1, 1), rngs=nnx.Rngs(0))
before = accuracy(net, grey[-360:], labels[-360:])
train(net, (grey[:-360], labels[:-360], labels[:-360]), num_steps=300)
print(
    f"of 360 digits that were not trained on: {before:.1%} before, {accuracy(net, grey[-360:], labels[-360:]):.1%} after"
)

# %% [markdown]
# Where can it be explained? NNX records no names; `named` gives the layers those of the attributes.

# %%
named = jaxcam.named(net)
print(jaxcam.layers(named, grey[:1]))

# %% [markdown]
# The first ten digits of the test, each explained for what it is: what the network goes by lies on the strokes, and
# where one is missing that another digit has, as inside of the zero, there is heat as well.

# %%
tested = slice(len(grey) - 360, len(grey) - 350)
found = jaxcam.explain(named, grey[tested], class_idx=labels[tested])
large = np.kron(grey[tested], np.ones((1, 16, 16, 1), np.float32)).repeat(3, -1)
heats = [np.clip(maps.heatmap(one, (128, 128)), 0, 1) for one in found.cam_map]
cells = [
    jaxcam.Cell(jaxcam.overlay(picture, heat), f"{label}: {confidence:.1%}")
    for picture, heat, label, confidence in zip(large, heats, labels[tested], found.confidence, strict=True)
]
show(jaxcam.panel([jaxcam.Row("", cells[:5]), jaxcam.Row("", cells[5:])], headings=[""] * 5, cell_size=96))

# %% [markdown]
# ## Scenes, and the maps while they come to be
#
# Two of the ten figures of `jaxcam.scenes`, one in every picture of 32 x 32 pixels, in any colour, turned, before any
# background, with bars in front. The truth about every pixel is known, so that what the network looks at can be measured.
# A `learning.Observer` keeps the maps of fixed examples and the share of their energy on the figures; the training is
# the same bit for bit with it and without. The maps are Grad-CAM's of log p, that is of a class against the others: with
# two classes a network may tell the evidence for one by the logit of the other alone.

# %%
NAMES, SCORE = ("ring", "cross"), "log_softmax"
drawn = [
    scenes.batch(i, 600, size=32, class_idx=scenes.CLASS_NAMES.index(name), num_instances=1)
    for i, name in enumerate(NAMES)
]
pictures, figures = (
    np.stack(each, 1).reshape(1200, 32, 32, -1)
    for each in ([one.image for one in drawn], [one.masks.any(1) for one in drawn])
)
inputs, figures, classes = (pictures - 0.5) / 0.25, figures[..., 0], np.arange(1200) % 2
coarse = np.asarray(jax.vmap(lambda mask: maps.resized(mask, (8, 8)))(jnp.asarray(figures, jnp.float32)))
taught, unseen, shown = slice(0, 900), slice(900, 1200), slice(900, 904)

folder = tempfile.TemporaryDirectory()
observer = learning.Observer(
    f"{folder.name}/plain",
    inputs[shown],
    class_idx=classes[shown],
    masks=figures[shown],
    pictures=pictures[shown],
    every=50,
    score=SCORE,
)
net = Small(3, 2, strides=(2, 2), rngs=nnx.Rngs(0))
train(net, (inputs[taught], classes[taught], coarse[taught]), num_steps=301, observer=observer)
print(f"of 300 scenes that were not trained on: {accuracy(net, inputs[unseen], classes[unseen]):.1%}")
show(observer.sheet(num=4, num_steps=7, cell_size=80))

# %% [markdown]
# `jaxcam.save(observer.frames(), "maps.webp", fps=4)` is the same as an animation. The arrays are at hand:

# %%
for i, energy, loss in zip(observer.steps, observer.history("energy_inside"), observer.history("loss"), strict=True):
    print(f"step {i:3}: loss {loss:.3f}, energy on the figures {', '.join(f'{100 * e:3.0f} %' for e in energy)}")

# %% [markdown]
# ## The map as a part of the loss
#
# `learning.forward` gives logits and maps from one forward pass; the gradient by the parameters goes through the gradient
# that the map is made of. Here `learning.inside` is added, the share of the map's energy outside of the figure; all else
# is the same. (Of the logit's map it would have an easy way out: no positive evidence for the class, all of it against the
# other one. The map is zero then, and so is what lies outside of the figure.)


# %%
def guided_loss(model, inputs, labels, masks):
    logits, cam_maps = learning.forward(model, inputs, labels, score=SCORE)
    return cross_entropy(logits, labels) + jax.vmap(learning.inside)(cam_maps, masks).mean()


guided = Small(3, 2, strides=(2, 2), rngs=nnx.Rngs(0))
train(guided, (inputs[taught], classes[taught], coarse[taught]), num_steps=301, loss=guided_loss)


def energy(model):
    found = jaxcam.explain(model, inputs[unseen], class_idx=classes[unseen], score=SCORE)
    return np.asarray(jax.vmap(metrics.energy_pointing_game)(found.heatmap, figures[unseen]))


for title, model in {"cross-entropy": net, "and energy outside": guided}.items():
    right, shares = accuracy(model, inputs[unseen], classes[unseen]), energy(model)
    empty = np.isnan(shares)
    print(
        f"{title}: {right:.1%} right, {shares[~empty].mean():.1%} of the energy on the figures, {empty.sum()} empty maps"
    )

rows = [jaxcam.Row(NAMES[classes[i]], [jaxcam.Cell(pictures[i])]) for i in range(900, 904)]
for model in (net, guided):
    found = jaxcam.explain(model, inputs[shown], class_idx=classes[shown], score=SCORE)
    for row, picture, heat in zip(rows, pictures[shown], found.heatmap, strict=True):
        row.cells.append(jaxcam.Cell(jaxcam.overlay(picture, heat)))
show(jaxcam.panel(rows, headings=["Input", "Cross-entropy", "and energy\noutside"], cell_size=110), width=480)

# %% [markdown]
# This is one seed, and in these pictures nothing goes with the class but the figure. What the loss is worth where something
# else does, the experiments at the end say.
#
# ## The losses in pictures
#
# Every loss of `jaxcam.learning`, on one scene: what it compares, and its number.
#
# | loss | formula | source |
# |---|---|---|
# | `distillation(student, teacher, normalise=True)` | ‖L_s / max L_s − L_t / max L_t‖² | Grad-CAM++, Chattopadhay et al. 2018, without the maxima |
# | `inside(cam_map, mask)` | Σ L (1 − m) / Σ L | energy of Score-CAM, Wang et al. 2020 |
# | `right_reasons(gradient, mask)` | Σ ((1 - m) g)² | Ross et al. 2017 |
# | `agreement(first, second, transform=)` | mean of \|T(L₁) − L₂\|, both over their maximum | SEAM, Wang et al. 2020 |
# | `sparsity(cam_map)` | mean of L / max L | ADCC, Poppi et al. 2021 |
# | `attention_mining(score, image, cam_map)` | S(I*), I* = I − σ(ω (L − σ₀)) ∘ I | GAIN, Li et al. 2018 |

# %%
student, teacher = models.mini_vgg(), models.mini_resnet()
scene = scenes.scene(15, num_instances=2)
picture, class_idx = np.asarray(scene.image), int(scene.class_idx)
mask = np.asarray(scene.masks.any(0), np.float32)
image = teacher.preprocessing.normalise(jnp.asarray(picture))


def raw_map(model, image):
    """On the grid of 16 x 16 positions, whatever the model's."""
    return maps.resized(learning.forward(model, image[None], class_idx)[1][0], (16, 16))


def log_probabilities(image):
    return jax.nn.log_softmax(teacher(image[None])[0]).sum()


def logit(image):
    return teacher(image[None])[0, class_idx]


def mirror(x):
    return x[:, ::-1]


own, other = raw_map(teacher, image), raw_map(student, image)
mirrored = raw_map(teacher, mirror(image))
small_mask = maps.resized(jnp.asarray(mask), (16, 16))
gradient = jax.grad(log_probabilities)(image)
numbers = {
    "distillation": learning.distillation(other, own, normalise=True),
    "inside": learning.inside(own, small_mask),
    "right_reasons": learning.right_reasons(gradient, mask),
    "agreement": learning.agreement(own, mirrored, transform=mirror),
    "sparsity": learning.sparsity(own),
    "attention_mining": learning.attention_mining(logit, image, own),
}


def heat(cam_map, words, over=picture):
    return jaxcam.Cell(jaxcam.overlay(over, np.clip(maps.heatmap(cam_map, over.shape[:2]), 0, 1)), words)


def alone(values, words):
    """Numbers above zero, white where they are the largest."""
    grey = np.asarray(maps.resized(maps.normalised(jnp.asarray(values)), picture.shape[:2]))
    return jaxcam.Cell(np.clip(grey, 0, 1)[..., None].repeat(3, -1), words)


size = jnp.abs(gradient).sum(-1)
erased = learning.erased(image, own) * 0.25 + 0.5
shares = {name: maps.normalised(each) for name, each in {"own": own, "other": other, "mirrored": mirrored}.items()}
cells = {
    "distillation": [
        heat(other, "L of the student"),
        heat(own, "L of the teacher"),
        alone((shares["own"] - shares["other"]) ** 2, "squared difference"),
    ],
    "inside": [heat(own, "L"), alone(mask, "mask m"), alone(maps.normalised(own) * (1 - small_mask), "L (1 - m)")],
    "right_reasons": [alone(size, "|g|"), alone(mask, "mask m"), alone(size * (1 - mask), "(1 - m) |g|")],
    "agreement": [
        heat(own, "L of the picture"),
        heat(mirrored, "L of the mirrored one", over=picture[:, ::-1]),
        alone(jnp.abs(mirror(shares["own"]) - shares["mirrored"]), "difference"),
    ],
    "sparsity": [heat(own, "L"), alone(own, "L / max L"), jaxcam.Cell(None, "its mean")],
    "attention_mining": [
        jaxcam.Cell(picture, f"I: score {logit(image):.1f}"),
        heat(own, "L"),
        jaxcam.Cell(np.clip(erased, 0, 1), f"I*: score {numbers['attention_mining']:.1f}"),
    ],
}
rows = [jaxcam.Row(f"{name.replace('_', ' ')}\n{float(numbers[name]):.3g}", each) for name, each in cells.items()]
page = jaxcam.panel(rows, headings=[""] * 3, cell_size=110)
show(page, width=560)

# %% [markdown]
# ## Two new classes for a network of ImageNet
#
# EfficientNet-Lite0 knows 1,000 classes, and "face" is none of them. scikit-image has 200 pictures of 25 x 25 pixels from
# Labeled Faces in the Wild, a hundred faces and a hundred parts of the backgrounds. `fit_cam` fits a linear layer behind
# the global average pooling of the network's features, here to 40 of the pictures; 160 are left for testing.

# %%
crops = photographs.lfw_subset().astype(np.float32)[..., None].repeat(3, -1)
is_face = np.repeat([1, 0], 100)
order = np.random.default_rng(0).permutation(200)
few, rest = order[:40], order[40:]
imagenet = models.efficientnet_lite0("imagenet")
pairs = [(crops[i], int(is_face[i])) for i in few]
faces = learning.fit_cam(imagenet, pairs, class_names=["no face", "face"], decay=1e-2, show_progress=False)
print(faces.fit)


def predicted(model, pictures):
    inputs = np.stack([imagenet.preprocessing(picture) for picture in pictures])
    return np.concatenate(
        [
            np.asarray(jax.jit(lambda m, x: m(x).argmax(-1))(model, inputs[i : i + 40]))
            for i in range(0, len(inputs), 40)
        ]
    )


right = (predicted(faces, crops[rest]) == is_face[rest]).sum()
print(f"of the 160 others {right} are recognised: {right / 160:.1%}")

# %% [markdown]
# Before: what the network of ImageNet sees in a photograph, and where. After: where the fitted one sees a face. It was
# fitted to small grey crops that are a face or are none. Where the astronaut's face is, says the cascade of local binary
# patterns that comes with scikit-image. Her photograph as it is, then her head alone, and the head as the crops are, grey
# and of 25 x 25 pixels.

# %%
astronaut = photographs.astronaut() / np.float32(255)
head = astronaut[30:230, 125:325]
few_pixels = jaxcam.images.resize_and_crop(head.mean(-1, keepdims=True).repeat(3, -1), resize=25, crop=25)
cascade = Cascade(photographs.lbp_frontal_face_cascade_filename())
rows = []
for name, picture, sharp in (
    ("whole", astronaut, astronaut),
    ("head", head, head),
    ("head, 25 x 25", few_pixels, head),
):
    view, x = imagenet.preprocessing.view(picture), imagenet.preprocessing(picture)[None]
    old = jaxcam.explain(imagenet, x, method="cam")
    new = jaxcam.explain(faces, x, method="cam", class_idx=1)
    found = cascade.detect_multi_scale(
        imagenet.preprocessing.view(sharp), scale_factor=1.1, step_ratio=1, min_size=(30, 30), max_size=(150, 150)
    )
    box = max(found, key=lambda box: box["width"])
    corners = [box["c"], box["r"], box["c"] + box["width"], box["r"] + box["height"]]
    face = metrics.box_mask(jnp.asarray([corners], jnp.float32), view.shape[:2])
    before, after = (float(metrics.energy_pointing_game(each.heatmap[0], face)) for each in (old, new))
    print(
        f"{name}: her face is {float(face.mean()):.0%} of the picture, {before:.0%} of the heat before, {after:.0%} after"
    )
    said = imagenet.class_names[int(old.class_idx[0])]
    cells = [
        jaxcam.Cell(view),
        jaxcam.Cell(jaxcam.overlay(view, old.heatmap[0]), f"{said}\n{float(old.confidence[0]):.1%}"),
        jaxcam.Cell(jaxcam.overlay(view, new.heatmap[0]), f"face\n{float(new.confidence[0]):.1%}"),
    ]
    rows.append(jaxcam.Row(name, cells))
show(jaxcam.panel(rows, headings=["Input", "Before", "After: face"], cell_size=150), width=560)

# %% [markdown]
# On small grey crops the fitted network knows nearly every face, her head too once it is as small as they are, 93 %, and
# looks at the face. Of her head in full detail it is 28 % sure, of the whole photograph 9 %, with a map that is spread over
# everything: it learnt from forty blurred pictures what they have in common, and that is what it can be asked about.
#
# ## What maps in a loss are worth
#
# Three experiments with ten seeds each, paired, with 95 % intervals, by the scripts in
# [tests/benchmarks/experiments](../tests/benchmarks/learning.md); a small residual network, scenes of 32 x 32 pixels.
# Differences are bold where the interval excludes zero.
#
# **A student that is shown its teacher's maps**, 300 labelled scenes of three classes. The teacher is `mini_resnet`.
#
# | | error % | minus cross-entropy |
# |---|---:|---:|
# | cross-entropy | 34.0 | |
# | knowledge distillation | 38.9 | +4.9 [-1.1, +10.9] |
# | Grad-CAM maps | 28.7 | -5.3 [-10.8, +0.3] |
# | Grad-CAM++ maps | 28.1 | **-5.9 [-9.3, -2.4]** |
# | knowledge distillation + Grad-CAM++ maps | 29.5 | -4.5 [-9.1, +0.1] |
#
# **A tag in the corner that goes with the class** in training and not in the test: 400 scenes, of which a share is
# annotated with the figure's mask for `inside`.
#
# | | accuracy of the worst group % | minus plain | energy in the figure % | in the tag % |
# |---|---:|---:|---:|---:|
# | plain | 21.4 | | 11.8 | 13.7 |
# | 1 % annotated | 17.6 | -3.7 [-11.7, +4.3] | 23.9 | 4.4 |
# | 5 % annotated | 37.1 | **+15.7 [+7.5, +23.9]** | 39.2 | 3.2 |
# | 25 % annotated | 43.2 | **+21.9 [+10.2, +33.6]** | 39.1 | 3.6 |
#
# The map leaves the tag with four annotated pictures already, when the decision has not: a map inside of the figure is no
# evidence that nothing else is used.
#
# **Maps that move with the picture**, 240 labelled scenes of two classes and 720 without a label, every one with a turned or
# mirrored copy.
#
# | | error % | minus both views | empty maps % |
# |---|---:|---:|---:|
# | cross-entropy | 23.6 | +3.8 [-2.7, +10.3] | 0.2 |
# | cross-entropy of both views | 19.8 | | 0.1 |
# | and agreement of the logit's maps | 28.9 | +9.2 [-0.1, +18.5] | 76.5 |
# | and agreement of the maps of log p | 26.7 | +7.0 [-5.7, +19.6] | 14.2 |
# | and agreement of probabilities | 20.1 | +0.3 [-5.0, +5.6] | 0.2 |
#
# Agreement is not seen to help here. Maps agree when there are none, too, and with those of the logit most become empty.
