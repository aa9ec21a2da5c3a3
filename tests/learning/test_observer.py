"""Maps of a training: nothing of it is changed by looking, what is kept is what `explain` makes, and it goes on."""

import itertools
import json

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from PIL import Image, ImageSequence

import jaxcam
from jaxcam import learning

RANDOM = np.random.default_rng(0)
PICTURES = RANDOM.normal(size=(4, 6, 5, 3)).astype(np.float32)
LABELS = np.array([0, 1, 1, 0])
MASKS = np.zeros((2, 6, 5), bool)
MASKS[:, :3] = True


class Network(nnx.Module):
    """With what an observer could disturb: statistics of batches, and a generator that drops."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(120, 2, rngs=rngs)

    def __call__(self, x):
        a = nnx.relu(self.norm(self.conv(x)))
        return self.last(self.drop(a.reshape(len(x), -1)))


@nnx.jit
def step(model, optimizer):
    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(PICTURES), LABELS).mean()

    value, gradient = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradient)
    return value


def trained(observer, num=5):
    """Every array of the network after some steps, random state included; and the losses."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        model = Network()
        model.train()
        optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
        losses, found = [], []
        for i in range(num):
            losses.append(float(step(model, optimizer)))
            found.append(observer(i, model, loss=losses[-1]) if observer else None)
        assert not model.drop.deterministic
        assert not model.norm.use_running_average
    state = [jax.random.key_data(v) if jax.dtypes.issubdtype(v.dtype, jax.dtypes.prng_key) else v
             for v in jax.tree.leaves(nnx.state((model, optimizer)))]  # fmt: skip
    return [np.asarray(v) for v in state], losses, found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps") / "of" / "this"
    observer = learning.Observer(folder, PICTURES[:2], every=2, class_idx=[0, 1], masks=MASKS)
    return folder, observer, *trained(observer)


def test_training_is_the_same_bit_for_bit(run):
    _, _, observed, losses, _ = run
    unobserved, other_losses, _ = trained(None)
    assert losses == other_losses
    assert losses[-1] != losses[0]
    for one, other in zip(observed, unobserved, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_kept_is_what_explain_makes(run):
    folder, observer, _, losses, found = run
    assert observer.steps == [0, 2, 4]
    assert [each is not None for each in found] == [True, False, True, False, True]
    shown = [each for each in found if each is not None]
    for name in ("heatmap", "cam_map", "confidence", "status"):
        np.testing.assert_array_equal(observer.history(name), np.stack([getattr(each, name) for each in shown]))
    np.testing.assert_array_equal(observer.history("loss"), losses[::2])
    heat = observer.history("heatmap").astype(float)
    assert heat.max() > 0.5
    np.testing.assert_allclose(
        observer.history("energy_inside"), (heat * MASKS).sum((2, 3)) / heat.sum((2, 3)), rtol=1e-5
    )
    assert np.abs(np.diff(heat, axis=0)).max() > 0  # the map does move
    assert sorted(path.name for path in folder.iterdir()) == [
        "observer.json", "step_00000000.npz", "step_00000002.npz", "step_00000004.npz",
    ]  # fmt: skip


def test_a_training_goes_on_in_the_same_folder_and_only_with_the_same_examples(run):
    folder, observer, *_ = run
    options = {"every": 1, "class_idx": [0, 1], "masks": MASKS}
    again = learning.Observer(folder, PICTURES[:2], **options)
    assert again.steps == observer.steps
    np.testing.assert_array_equal(again.history("loss"), observer.history("loss"))
    for changed in ({"class_idx": [1, 1]}, {"masks": ~MASKS}, {"method": "grad_cam_pp"}):
        with pytest.raises(ValueError, match="holds others"):
            learning.Observer(folder, PICTURES[:2], **options | changed)
    with pytest.raises(ValueError, match=r"holds others \(examples\)"):
        learning.Observer(folder, PICTURES[2:], **options)


def test_contact_sheet_and_film(run, tmp_path):
    _, observer, *_ = run
    whole, less = observer.sheet(), observer.sheet(num_steps=2, num=1)
    assert whole.width > less.width
    assert whole.height > less.height
    jaxcam.save(observer.frames(), tmp_path / "maps.webp", fps=4)
    with Image.open(tmp_path / "maps.webp") as film:
        pictures = [np.asarray(frame.convert("RGB"), int) for frame in ImageSequence.Iterator(film)]
    assert len(pictures) == 3
    assert all(np.abs(a - b).max() > 100 for a, b in itertools.pairwise(pictures))
    # Each heatmap over its picture, drawn from its lowest to its highest number.
    rows = []
    for i, picture in enumerate(PICTURES[:2]):
        seen = ((picture - picture.min()) / (picture.max() - picture.min())).astype(np.float32)
        heats, shares = observer.history("heatmap")[:, i], 100 * observer.history("confidence")[:, i]
        words = [
            "" if status == 0 else "\n" + jaxcam.Status(int(status)).name.lower().replace("_", " ")
            for status in observer.history("status")[:, i]
        ]
        captions = [f"class {i}\n{share:.1f} %{word}" for share, word in zip(shares, words, strict=True)]
        large = Image.fromarray(np.uint8(np.rint(255 * seen))).resize((160, 192), Image.Resampling.BICUBIC)
        overlays = [jaxcam.overlay(np.asarray(large) / 255, heat) for heat in heats]
        cells = [jaxcam.pictures.Cell(*each) for each in zip(overlays, captions, strict=True)]
        rows.append(jaxcam.pictures.Row(str(i), cells))
    expected = jaxcam.panel(rows, headings=["step 0", "step 2", "step 4"], cell_size=96)
    assert np.abs(np.asarray(whole, int) - np.asarray(expected, int)).max() <= 1


def test_series_and_volumes_are_drawn(tmp_path):
    for name, shape in (("series", (2, 12, 3)), ("volume", (2, 3, 4, 5, 1))):
        inputs = RANDOM.normal(size=shape)
        kernel, last = RANDOM.normal(size=(shape[-1], 4)), RANDOM.normal(size=(4, 3))
        model = lambda x, k=kernel, w=last: jax.nn.relu(x @ k).mean(tuple(range(1, x.ndim - 1))) @ w
        observer = learning.Observer(tmp_path / name, inputs)
        observer(0, model)
        assert observer.history("heatmap").shape == (1, *shape[:-1])
        assert np.asarray(observer.sheet()).std() > 10
        assert len(observer.frames()) == 1


def test_bad_input(run, tmp_path, unchecked):
    folder, observer, *_ = run
    model = Network()
    model.eval()
    with pytest.raises(ValueError, match="every must be at least 1"):
        learning.Observer(tmp_path, PICTURES, every=0)
    with pytest.raises(ValueError, match=r"masks must be of the 4 examples but are \[2, 6, 5\]"):
        learning.Observer(tmp_path, PICTURES, masks=MASKS)
    with pytest.raises(ValueError, match=r"loss must be a single number but is float32\[4\]"):
        observer(0, model, loss=np.zeros(4, np.float32))
    with pytest.raises(TypeError, match="outside of jit"):
        jax.jit(lambda x: observer(0, model, loss=x))(1.0)
    with pytest.raises(ValueError, match="nothing was observed yet"):
        learning.Observer(tmp_path / "new", PICTURES).sheet()
    with pytest.raises(ValueError, match=r"name must be one of heatmap, .*loss but is 'accuracy'"):
        observer.history("accuracy")
    other = learning.Observer(tmp_path / "other", PICTURES[:2], masks=MASKS[:, :4])
    with pytest.raises(ValueError, match=r"masks must be \[2, 6, 5\]"):
        trained(other, 1)
    (folder / "step_00000002.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="is damaged"):
        observer.history("loss")
    (folder / "observer.json").write_text(json.dumps([]))
    with pytest.raises(ValueError, match="holds others"):
        learning.Observer(folder, PICTURES[:2])
