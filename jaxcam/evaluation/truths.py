"""The heatmaps of a step against what is known to be there: boxes and masks of the class that was explained.

Where only masks are known, what is compared with the boxes otherwise is compared with these. With a target all boxes
and masks of an example count, whatever their class.
"""

from collections.abc import Sequence, Set

import jax
import numpy as np
from jax.sharding import Mesh

from jaxcam.datasets.examples import View
from jaxcam.evaluation import hosts
from jaxcam.evaluation.block import Block, Truth, compared_blocks
from jaxcam.evaluation.protocol import Protocol
from jaxcam.evaluation.tallies import TALLIES, pixels, reached
from jaxcam.metrics.localisation import heatmap_boxes_numpy

_HIT = 0.5  # Selvaraju et al. 2017, section 4.1, as in the ILSVRC localisation task


def against_truth(mesh: Mesh, protocol: Protocol, views: Sequence[View | None], block: Block) -> dict[str, jax.Array]:
    """`[n, m]` for each metric of localisation; NaN where no box or mask of the class is known.

    The class is known only when the devices are done, so boxes are chosen on the host. The heatmaps stay on the
    devices, but for the box around their largest component, which SciPy finds.
    """
    classes = hosts.own(block.class_idx)
    any_class = protocol.confidence == "target"
    chosen = [_of_class(view, None if any_class else int(c)) for view, c in zip(views, classes, strict=True)]
    size = block.heatmaps.shape[2:]
    boxes, masks = np.zeros((len(views), *size), bool), np.zeros((len(views), *size), bool)
    for i, (view, own) in enumerate(zip(views, chosen, strict=True)):
        if view is not None and own.size:
            if view.masks is not None:
                masks[i] = view.masks[own].any(0)
            boxes[i] = union(view.boxes[own], size) if len(view.boxes) else masks[i]
    truth = Truth(hosts.sharded(mesh, boxes), hosts.sharded(mesh, masks))
    values = dict(compared_blocks(mesh, protocol, block.heatmaps, truth))
    overlap = _overlap(protocol, views, chosen, block)
    hit = np.where(np.isnan(overlap), np.nan, overlap >= _HIT).astype(np.float32)
    found = {"box_iou": overlap, "localised": hit, **_instances(protocol, views, chosen, block)}
    return values | {name: hosts.sharded(mesh, each) for name, each in found.items()}


def tallies_of(protocol: Protocol, views: Sequence[View | None], block: Block, keys: Set[str]) -> dict[str, np.ndarray]:
    """By metric `[n, m, c]` of `tallies`, on the host; NaN where no box or mask of the class is known."""
    n, m = len(views), block.heatmaps.shape[1]  # of this process
    found = {key: np.full((n, m, TALLIES[key].length), np.nan, np.float32) for key in TALLIES if key in keys}
    if found:
        any_class = protocol.confidence == "target"
        heatmaps, classes = hosts.own(block.heatmaps), hosts.own(block.class_idx)
        for i, (view, c) in enumerate(zip(views, classes, strict=True)):
            own = _of_class(view, None if any_class else int(c))
            if view is None or not own.size:
                continue
            if "max_box_acc" in found and _has_boxes(view):
                found["max_box_acc"][i] = [reached(heatmap, view.boxes[own]) for heatmap in heatmaps[i]]
            if "pxap" in found and view.masks is not None and view.masks[own].any():
                mask = np.asarray(view.masks[own].any(0))
                found["pxap"][i] = [pixels(heatmap, mask) for heatmap in heatmaps[i]]
    return found


def union(boxes: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """`metrics.box_mask` on the host: the positions whose centre is in one of the boxes, bool `[*size]`.

    Of boxes `[m, t, 4]` those of each frame, in it.
    """
    if boxes.ndim == 3:
        return np.stack([union(boxes[:, frame], size[1:]) for frame in range(size[0])])
    inside = np.zeros(size, bool)
    # The first centre i + 1/2 at a corner or beyond it. x comes first in a box and last among the axes.
    corners = np.ceil(boxes.reshape(len(boxes), 2, -1)[:, :, ::-1].astype(np.float64) - 0.5).clip(0).astype(int)
    for low, high in corners:
        inside[tuple(map(slice, low, high))] = True
    return inside


def overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """`metrics.box_iou` on the host: `[m]`."""
    half = len(box) // 2
    across = np.minimum(box[half:], boxes[:, half:]) - np.maximum(box[:half], boxes[:, :half])
    both = np.clip(across, 0, None).prod(1)
    either = (box[half:] - box[:half]).prod() + (boxes[:, half:] - boxes[:, :half]).prod(1) - both
    # A heatmap's box without area is that of an empty map.
    has_area = (box[half:] > box[:half]).all() & (either > 0)
    return np.divide(both, either, out=np.full(len(boxes), np.nan), where=has_area)


def _of_class(view: View | None, class_idx: int | None) -> np.ndarray:
    """The numbers of the boxes or masks of this class, or of all."""
    if view is None or view.image is None or (class_idx is not None and class_idx < 0):
        return np.zeros(0, np.int64)
    return np.arange(len(view.box_classes)) if class_idx is None else np.flatnonzero(view.box_classes == class_idx)


def _overlap(protocol: Protocol, views: Sequence[View | None], chosen: list[np.ndarray], block: Block) -> np.ndarray:
    """`[n, m]`: the IoU of a heatmap's box with that box of the class which it fits best."""
    overlap = np.full((len(views), block.heatmaps.shape[1]), np.nan, np.float32)
    # Boxes that change from frame to frame are no box of the whole clip.
    known = [i for i, (view, own) in enumerate(zip(views, chosen, strict=True)) if own.size and _has_boxes(view)]
    if known:
        heatmaps = hosts.own(block.heatmaps)[known]
        found = heatmap_boxes_numpy(heatmaps, protocol.box_fraction, num_axes=heatmaps.ndim - 2)
        for i, of_methods in zip(known, found, strict=True):
            view = views[i]
            assert view is not None
            overlap[i] = [overlaps(box, view.boxes[chosen[i]]).max() for box in of_methods]
    return overlap


def _instances(
    protocol: Protocol, views: Sequence[View | None], chosen: list[np.ndarray], block: Block
) -> dict[str, np.ndarray]:
    """`metrics.instance_recall`, the mean `instance_heat` and the number of instances, `[n, m]` each.

    Here and not on the devices, since no two pictures need have the same number, and each would be compiled.
    """
    n, (m, *size) = len(views), block.heatmaps.shape[1:]  # of this process
    recall, heat, number = np.full((3, n, m), np.nan, np.float32)
    each = [_each_of(view, own, tuple(size)) for view, own in zip(views, chosen, strict=True)]
    if any(each):
        heatmaps = hosts.own(block.heatmaps)
        for i, instances in enumerate(each):
            if instances:
                tops = heatmaps[i].reshape(m, -1).max(1)
                hottest = np.stack([heatmaps[i][:, instance].max(1) for instance in instances], 1)
                shares = hottest / np.where(tops > 0, tops, np.nan)[:, None]  # an empty map counts for no metric
                recall[i] = (shares >= np.float32(protocol.recall_threshold)).mean(1)
                heat[i], number[i] = shares.mean(1), len(instances)
    return {"recall": recall, "instance_heat": heat, "instances": number}


def _each_of(view: View | None, own: np.ndarray, size: tuple[int, ...]) -> list[np.ndarray]:
    """The positions of each object that has any, by its box or, where only these are known, its mask."""
    if view is None or not own.size:
        return []
    if _has_boxes(view):
        masks = [union(view.boxes[[i]], size) for i in own]
    else:
        masks = [] if view.masks is None else list(view.masks[own])
    return [mask for mask in masks if mask.any()]


def _has_boxes(view: View | None) -> bool:
    return view is not None and len(view.boxes) > 0 and view.boxes.ndim == 2
