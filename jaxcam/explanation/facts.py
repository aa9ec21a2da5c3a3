"""What is read off an explanation to be shown: the class, figure and status of its first maps, and their heatmaps.

Contract: nothing raises, whatever the fields hold (traced arrays, NaN, what a tree was mapped to): where there are no
numbers to be had there is None. Of a large batch no more is fetched from the device than is shown.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer

from jaxcam.tables import printable

__all__ = ["AXES", "Fact", "concrete", "facts_of", "heatmaps_of", "left_out", "told_of"]

NUM_EXAMPLES, NUM_MAPS = 4, 4
AXES = {1: "t", 2: "H, W", 3: "D, H, W"}
"""The positions of heatmaps, by how many axes they have."""


class Fact(NamedTuple):
    """What is said of one map."""

    name: str
    """Of its class, or which of the scores it is."""
    figure: str
    """The confidence, or the value where there is none."""
    status: str
    """Empty where all is well."""
    place: tuple[int, ...]
    """`[i, *m]`."""

    @property
    def words(self) -> str:
        """On one line."""
        return " · ".join(part for part in (self.name, self.figure, self.status) if part)


def facts_of(explanation: Any, status_of: Callable[[int], str], num: int = NUM_EXAMPLES) -> list[list[Fact]] | None:
    """Of the first examples what is said of their first maps; None where there are no numbers, or no examples."""
    read = [concrete(getattr(explanation, name)) for name in ("class_idx", "value", "confidence", "status")]
    if any(
        each is None or each.size == 0 or each.shape != getattr(read[0], "shape", None) or not each.ndim
        for each in read
    ):
        return None
    chosen, values, confidences, statuses = (np.asarray(each) for each in read)
    names: Sequence[str] = explanation.class_names
    facts: list[list[Fact]] = []
    for i in range(min(num, len(chosen))):
        places = [(i, *m) for m in itertools.islice(np.ndindex(chosen.shape[1:]), NUM_MAPS)]
        facts.append([])
        for place in places:
            index, confidence, value = int(chosen[place]), float(confidences[place]), float(values[place])
            status = status_of(int(statuses[place]))
            unnamed = f"class {index}" if not math.isnan(confidence) else f"score {index}" if chosen.max() > 0 else ""
            name = printable(names[index]) if 0 <= index < len(names) else unnamed
            figure = (
                f"value {value:.4g}"
                if math.isnan(confidence)
                else "< 0.1 %"
                if 0 < confidence < 0.0005
                else f"{100 * confidence:.1f} %"
            )
            facts[-1].append(Fact(name, figure, "" if status == "ok" else status, place))
    return facts


def left_out(explanation: Any, num: int = NUM_EXAMPLES) -> list[str]:
    """What is not shown."""
    chosen = concrete(explanation.class_idx)
    if chosen is None or chosen.ndim == 0:
        return []
    num_maps = math.prod(chosen.shape[1:])
    notes = [f"the first {num} of {len(chosen)} examples"] if len(chosen) > num else []
    return notes + ([f"the first {NUM_MAPS} of {num_maps} maps of each"] if num_maps > NUM_MAPS else [])


def heatmaps_of(explanation: Any, facts: list[list[Fact]]) -> list[tuple[str, np.ndarray]] | None:
    """The first heatmaps of the inputs that have some, by their places in these; None without numbers."""
    found: list[tuple[str, np.ndarray]] = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(explanation.heatmap):
        # A large batch stays where it is: only what is shown is fetched.
        heat = concrete(leaf, len(facts))
        depth = len(facts[0][0].place)
        if heat is None or np.shape(leaf)[:depth] != np.shape(explanation.class_idx) or heat.ndim - depth not in AXES:
            return None
        found.append((jax.tree_util.keystr(path), heat))
    return found or None


def concrete(value: Any, num: int | None = None) -> np.ndarray | None:
    """The numbers of an array, or its first ones; None of what has none here: traced, deleted, or on other hosts."""
    if isinstance(value, Tracer) or not isinstance(value, np.ndarray | jax.Array):
        return None
    try:
        found = np.asarray(value if num is None else value[:num])
        return found if found.dtype.kind in "iuf" else found.astype(np.float64)
    except Exception:  # whatever JAX and NumPy say of arrays that have no numbers here
        return None


def told_of(value: Any) -> str:
    """Kind and shape of an array, and of the leaves of what is none."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {told_of(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "(" + ", ".join(map(told_of, value)) + ")"
    return type(value).__name__
