"""The guide's recipes for logs of a training, run as they stand there and read back."""

import io
import re
import struct
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from PIL import Image

import jaxcam

pytestmark = pytest.mark.parity

GUIDE = Path(__file__).parents[2] / "notebooks" / "reference" / "pages" / "guide.md"
BLOCKS = re.findall(r"```python(?: no-run)?\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the block that imports a package, after that which trains with maps; its names."""
    monkeypatch.chdir(tmp_path)

    def names_of(package):
        names = {"jax": jax, "jaxcam": jaxcam, "nnx": nnx, "optax": optax}
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), jax.enable_x64(False):
            for word in ("def step_with_maps", f"import {package}\n"):
                (block,) = [block for block in BLOCKS if word in block]
                # The same steps by fewer of them: every one of the recipes is then a step that is observed.
                exec(compile(block.replace("range(21)", "range(11)"), str(GUIDE), "exec"), names)
        return names

    return names_of


def pages(names):
    """What the observer kept of each step, over the pictures: numbers of its own records, drawn anew."""
    observer, pictures = names["observer"], names["pictures"][:4]
    assert observer.steps == [0, 10]
    history = {
        name: observer.history(name) for name in ("heatmap", "cam_map", "class_idx", "value", "confidence", "status")
    }
    for i in range(2):
        found = jaxcam.Explanation(**{name: values[i] for name, values in history.items()})
        yield np.asarray(found.with_names(names["student"].class_names).over(pictures))


def records(data):
    """Of a file of TensorBoard: length, check, bytes, check."""
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        yield data[12 : 12 + size]
        data = data[16 + size :]


def test_tensorboard(run):
    event = pytest.importorskip("tensorboardX.proto.event_pb2")
    names = run("SummaryWriter")
    (file,) = Path("runs/maps").iterdir()
    events = [event.Event.FromString(record) for record in records(file.read_bytes())]
    values = [(one.step, value) for one in events for value in one.summary.value]
    losses = {step: value.simple_value for step, value in values if value.tag == "loss"}
    assert losses == {0: names["observer"].history("loss")[0], 10: names["observer"].history("loss")[1]}
    assert losses[0] != losses[10]
    shown = [Image.open(io.BytesIO(value.image.encoded_image_string)) for _, value in values if value.tag == "maps"]
    for image, expected in zip(shown, pages(names), strict=True):
        np.testing.assert_array_equal(np.asarray(image), expected)


@pytest.mark.filterwarnings("ignore")  # of wandb's own
def test_weights_and_biases(run, monkeypatch):
    pytest.importorskip("wandb")
    for name, value in {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "HOME": str(Path.cwd())}.items():
        monkeypatch.setenv(name, value)
    names = run("wandb")
    # It numbers the files by the steps that it has finished: both are of step 0.
    files = [*Path("wandb").glob("offline-run-*/files/media/images/maps_*.png")]
    images = [np.asarray(Image.open(file)) for file in files]
    assert len(images) == 2
    for expected in pages(names):
        assert sum(np.array_equal(image, expected) for image in images) == 1
