"""What a network looks at while it is trained: maps and metrics of fixed examples, every so many steps, on disk.

    observer.json        what is observed: a hash of the examples, the method, its options
    step_00000300.npz    the arrays of one step, written whole or not at all

Contract: to observe changes nothing of the training, bit for bit: the model's arrays are read and nothing of it is
kept. A training that goes on goes on with the same folder; a step that is observed again takes the old one's place.
"""

import io
import json
import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int
from PIL import Image

from jaxcam.checks import check_integer
from jaxcam.cuts.refusals import in_training
from jaxcam.datasets.fingerprint import content
from jaxcam.explanation.arguments import inputs_of
from jaxcam.explanation.explain import explain
from jaxcam.explanation.explanation import Explanation, Status
from jaxcam.files import replace_file
from jaxcam.learning.losses import inside
from jaxcam.pictures.charts import series
from jaxcam.pictures.overlays import overlay
from jaxcam.pictures.page import redrawn
from jaxcam.pictures.panels import Cell, Row, panel
from jaxcam.pictures.values import colours
from jaxcam.programs.hashes import code_hash
from jaxcam.tables import shown

_HEADER = "observer.json"
_FILE = re.compile(r"step_(\d{8,})\.npz")
_FIELDS = ("heatmap", "cam_map", "class_idx", "value", "confidence", "status")
_METRIC = "metric."
_AXES = {1: "t", 2: "H, W", 3: "D, H, W"}


class Observer:
    """Maps and metrics of fixed examples, every so many steps of a training.

    Example:
        >>> observer = learning.Observer("runs/maps", pictures, class_idx=labels, masks=masks, every=100)
        >>> for i in range(3000):
        ...     loss = step(student, optimizer, *next(batches))
        ...     observer(i, student, loss=loss)
        >>> jaxcam.save(observer.sheet(), "maps.png")
        >>> jaxcam.save(observer.frames(), "maps.webp", fps=4)  # how the map came to be
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        inputs: Any,
        *,
        every: int = 100,
        class_idx: int | Sequence[int] | Int[np.ndarray, " n"] | Int[Array, " n"] | None = None,
        masks: Bool[np.ndarray, "n *spatial"] | Float[np.ndarray, "n *spatial"] | Array | None = None,
        pictures: Float[np.ndarray, "n *spatial d"] | Float[Array, "n *spatial d"] | None = None,
        **options: Any,
    ) -> None:
        """Begins, or goes on with what the folder holds.

        Args:
            folder: where the arrays are kept; made if it is not there.
            inputs: the fixed examples `[n, *spatial, d]`, as the model takes them.
            every: so many steps; step 0 is observed.
            class_idx: what is explained: one class, `[n]`, or None for what the model predicts at that step.
            masks: `[n, *spatial]` on the inputs' positions, where the network should look: the share of the heatmap's
                energy in them is recorded.
            pictures: `[n, *spatial, d]`: what the heatmaps are drawn over; the inputs themselves by default.
            **options: of `explain`: method, layer, score and others.

        Raises:
            ValueError: the folder holds the observations of other examples; masks or pictures do not fit the inputs.
            TypeError: inputs are no arrays, or an argument is of the wrong kind.
        """
        self.folder, self.every = Path(folder), check_integer("every", every, low=1)
        inputs = jax.device_get(inputs_of(inputs))
        self._inputs, self._class_idx, self._options = inputs, class_idx, options
        num = len(jax.tree.leaves(inputs)[0])
        self._masks = None if masks is None else np.asarray(masks)
        drawn = pictures if pictures is not None else inputs
        self._pictures = np.asarray(drawn) if hasattr(drawn, "shape") else None
        for name, value in (("masks", self._masks), ("pictures", self._pictures)):
            if value is not None and len(value) != num:
                raise ValueError(f"{name} must be of the {num} examples but are {list(value.shape)}")
        header = {
            "jaxcam_observer": 1,
            "examples": content(jax.tree.leaves(inputs)),
            "class_idx": None if class_idx is None else np.asarray(class_idx).tolist(),
            "masks": None if self._masks is None else content([self._masks]),
            "options": {name: code_hash(value) for name, value in sorted(options.items())},
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check(header)

    def __call__(self, step: int, model: Any, **metrics: Any) -> Explanation | None:
        """Records the maps of the model, where it is the turn of this step; to be called outside of `jit`.

        Args:
            step: its number, from 0.
            model: as it is after the step. Of an nnx.Module in training mode a copy in evaluation mode is explained.
            **metrics: numbers to go with the step, as loss=...

        Returns:
            What was recorded, or None where it is not the step's turn.

        Raises:
            ValueError: a metric is no single number, several inputs have heatmaps, or the masks have other positions.
            TypeError: the model or a metric is traced.
        """
        check_integer("step", step, low=0)
        if step % self.every:
            return None
        # A traced number has no value here: the observer stands beside the compiled step, not in it.
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((model, metrics))):
            raise TypeError("model must have concrete arrays but they are traced: call the observer outside of jit")
        numbers = {name: np.asarray(jax.device_get(value)) for name, value in metrics.items()}
        for name, value in numbers.items():
            if value.shape != () or value.dtype.kind not in "iufb":
                raise ValueError(
                    f"{name} must be a single number but is {value.dtype}{list(value.shape)}: take its mean"
                )
        if in_training(model):
            model = nnx.clone(model)  # whose flags are its own: those of the one that is trained stay as they are
            model.eval()
        found = explain(model, self._inputs, class_idx=self._class_idx, **self._options)
        if len(jax.tree.leaves((found.heatmap, found.cam_map))) != 2:
            raise ValueError(
                "inputs must have one heatmap, of one layer, but have several: say which input with "
                "jaxcam.adapt(model, input=...), and leave out layers but one"
            )
        arrays = {name: np.asarray(jax.device_get(getattr(found, name))) for name in _FIELDS}
        if self._masks is not None:
            arrays["energy_inside"] = self._energy(arrays["heatmap"])
        known = dict(enumerate(found.class_names))
        arrays["class_name"] = np.asarray([known.get(int(c), f"class {c}") for c in arrays["class_idx"]])
        arrays |= {_METRIC + name: value for name, value in numbers.items()}
        buffer = io.BytesIO()
        write: Any = np.savez_compressed
        write(buffer, **arrays)
        replace_file(self.folder / f"step_{step:08d}.npz", buffer.getvalue())
        return found

    @property
    def steps(self) -> list[int]:
        """The steps that were observed, in their order."""
        matched = (_FILE.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in matched if match)

    def history(self, name: str) -> np.ndarray:
        """One thing over all observed steps, `[s, ...]`.

        Args:
            name: a field of `Explanation` ("heatmap", "cam_map", "class_idx", "value", "confidence", "status"),
                "energy_inside" (where masks are given; NaN for an empty map), or a metric, NaN where it was not given.

        Raises:
            ValueError: nothing was observed, there is nothing of that name, or a file is damaged.
        """
        found = self._records()
        if name in found[0][1]:
            return np.stack([record[name] for _, record in found])
        metric = _METRIC + name
        if not any(metric in record for _, record in found):
            known = dict.fromkeys(key.removeprefix(_METRIC) for _, record in found for key in record)
            raise ValueError(f"name must be one of {', '.join(known)} but is {name!r}")
        return np.asarray([record.get(metric, np.nan) for _, record in found], float)

    def sheet(self, *, num: int = 8, num_steps: int = 8, cell_size: int | float = 96) -> Image.Image:
        """A contact sheet: a row for each example, a column for each of some steps at even distances.

        Args:
            num: at most so many examples.
            num_steps: at most so many steps, the first and the last among them.
            cell_size: the longer side of every picture, in points, at least 48.

        Raises:
            ValueError: nothing was observed, or pictures are needed to draw over.
        """
        found = self._records()
        num_steps = check_integer("num_steps", num_steps, low=1)
        places = np.rint(np.linspace(0, len(found) - 1, min(num_steps, len(found)))).astype(int)
        chosen = [found[i] for i in (places if num_steps > 1 else [len(found) - 1])]
        rows = [
            Row(str(i), [self._cell(i, record, found[-1][1], cell_size) for _, record in chosen])
            for i in range(min(check_integer("num", num, low=1), len(found[0][1]["heatmap"])))
        ]
        style = _style(found[0][1])
        return panel(rows, headings=[f"step {step}" for step, _ in chosen], style=style, cell_size=cell_size)

    def frames(self, *, num: int = 6, cell_size: int | float = 120) -> list[Image.Image]:
        """A picture for each observed step, of one size: `jaxcam.save(observer.frames(), "maps.webp")` moves.

        Args:
            num: at most so many examples, side by side.
            cell_size: as for `sheet`.

        Raises:
            ValueError: as for `sheet`.
        """
        found = self._records()
        num = min(check_integer("num", num, low=1), len(found[0][1]["heatmap"]))
        pages = []
        for step, record in found:
            metrics = [f"{k.removeprefix(_METRIC)} {float(v):.4g}" for k, v in record.items() if k.startswith(_METRIC)]
            title = f"step {step}" + ("\n" + ", ".join(metrics) if metrics else "")
            cells = [self._cell(i, record, found[-1][1], cell_size) for i in range(num)]
            style = _style(record)
            pages.append(panel([Row("", cells)], headings=[""] * num, title=title, style=style, cell_size=cell_size))
        # Captions take one line or two: the largest frame's size for all.
        size = max(page.width for page in pages), max(page.height for page in pages)
        whole = [Image.new("RGB", size, "white") for _ in pages]
        for frame, page in zip(whole, pages, strict=True):
            frame.paste(page, (0, 0))
        return whole

    def _cell(self, i: int, record: dict[str, np.ndarray], last: dict[str, np.ndarray], cell_size: int | float) -> Cell:
        """The heatmap of an example over it; of a volume or clip the slice that is the hottest at the last step."""
        heat, drawn = record["heatmap"][i], self._pictures
        if drawn is None:
            raise ValueError(
                "pictures must be given to draw over where inputs are several: Observer(..., pictures=...)"
            )
        heat = np.clip(np.nan_to_num(heat.astype(np.float32)), 0, 1)
        status = int(record["status"][i])
        confidence = float(record["confidence"][i])
        figure = f"{float(record['value'][i]):.3g}" if np.isnan(confidence) else f"{100 * confidence:.1f} %"
        words = "" if status == Status.OK else "\n" + Status(status).words
        caption = f"{record['class_name'][i]}\n{figure}{words}"
        if heat.ndim == 1:
            return Cell(series(drawn[i], heat, width=240), caption)
        view = colours(drawn[i], _AXES[heat.ndim], name="pictures")
        if heat.ndim == 3:
            at = int(np.unravel_index(last["heatmap"][i].argmax(), heat.shape)[0])
            view, heat = view[at], heat[at]
        return Cell(overlay(redrawn(view, round(2 * cell_size)), heat), caption)

    def _energy(self, heatmap: np.ndarray) -> np.ndarray:
        assert self._masks is not None
        if self._masks.shape != heatmap.shape:
            raise ValueError(
                f"masks must be {list(heatmap.shape)}, on the inputs' positions, but are {list(self._masks.shape)}"
            )
        outside = np.asarray(jax.jit(jax.vmap(inside))(heatmap, self._masks))
        axes = tuple(range(1, heatmap.ndim))
        return np.where(heatmap.sum(axes) > 0, 1 - outside, np.nan)

    def _records(self) -> list[tuple[int, dict[str, np.ndarray]]]:
        found = []
        for step in self.steps:
            path = self.folder / f"step_{step:08d}.npz"
            try:
                with np.load(path, allow_pickle=False) as file:
                    found.append((step, dict(file)))
            except (zipfile.BadZipFile, ValueError, EOFError) as error:
                raise ValueError(f"folder: {os.fspath(path)!r} is damaged ({error}): remove it") from None
        if not found:
            raise ValueError(f"folder: nothing was observed yet in {os.fspath(self.folder)!r}: call the observer first")
        return found

    def _check(self, header: dict[str, Any]) -> None:
        """Writes the header, or compares it with the one that is there."""
        path = self.folder / _HEADER
        if not path.exists():
            if self.steps:
                raise ValueError(f"folder: {os.fspath(self.folder)!r} has steps but no {_HEADER}: choose another one")
            replace_file(path, json.dumps(header).encode())
            return
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            there = None
        unlike = [name for name in header if not isinstance(there, dict) or there.get(name) != header[name]]
        if unlike:
            raise ValueError(
                f"folder must be empty or hold observations of the same examples in the same way, but "
                f"{shown(os.fspath(self.folder), 200)} holds others ({', '.join(unlike)}): choose another one"
            )


def _style(record: dict[str, np.ndarray]) -> str:
    """How the colour bar is drawn: behind the curve of a series the colours are pure."""
    return "plain" if record["heatmap"].ndim == 2 else "grey"
