"""The heatmaps of a step against what is known to be there: boxes and masks of the class that was explained."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from jaxcam.datasets.examples import View
from jaxcam.evaluation import hosts
from jaxcam.evaluation.block import Block, Truth, compared_blocks
from jaxcam.evaluation.protocol import Protocol
from jaxcam.metrics.localisation import heatmap_boxes_numpy

_HIT = 0.5  # Selvaraju et al. 2017, section 4.1, as in the ILSVRC localisation task


def against_truth(mesh: Mesh, protocol: Protocol, views: Sequence[View | None], block: Block) -> dict[str, jax.Array]:
    """`[n, m]` for each metric of localisation; NaN where no box or mask of the class is known.

    The class is known only when the devices are done, so boxes are chosen on the host. The heatmaps stay on the
    devices, but for the box around their largest component, which SciPy finds.
    """
    classes = hosts.own(block.class_idx)
    chosen = [_of_class(view, int(c)) for view, c in zip(views, classes, strict=True)]
    size = block.heatmaps.shape[-2:]
    boxes, masks = np.zeros((len(views), *size), bool), np.zeros((len(views), *size), bool)
    for i, (view, own) in enumerate(zip(views, chosen, strict=True)):
        if view is not None and own.size:
            boxes[i] = union(view.boxes[own], size)
            if view.masks is not None:
                masks[i] = view.masks[own].any(0)
    truth = Truth(hosts.sharded(mesh, boxes), hosts.sharded(mesh, masks))
    values = dict(compared_blocks(mesh, protocol, block.heatmaps, truth))
    overlap = _overlap(protocol, views, chosen, block)
    hit = np.where(np.isnan(overlap), np.nan, overlap >= _HIT).astype(np.float32)
    return values | {"box_iou": hosts.sharded(mesh, overlap), "localised": hosts.sharded(mesh, hit)}


def union(boxes: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """`metrics.box_mask` on the host: the pixels whose centre is in one of the boxes, bool `[H, W]`."""
    y, x = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    rows = (boxes[:, 1, None] <= y) & (y < boxes[:, 3, None])
    columns = (boxes[:, 0, None] <= x) & (x < boxes[:, 2, None])
    return np.asarray((rows[:, :, None] & columns[:, None, :]).any(0))


def overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """`metrics.box_iou` on the host: `[m]`."""
    across = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    both = np.clip(across, 0, None).prod(1)
    either = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - both
    # A heatmap's box without area is that of an empty map.
    has_area = (box[2:] > box[:2]).all() & (either > 0)
    return np.divide(both, either, out=np.full(len(boxes), np.nan), where=has_area)


def _of_class(view: View | None, class_idx: int) -> np.ndarray:
    """The numbers of the boxes of this class."""
    if view is None or view.image is None or class_idx < 0:
        return np.zeros(0, np.int64)
    return np.flatnonzero(view.box_classes == class_idx)


def _overlap(protocol: Protocol, views: Sequence[View | None], chosen: list[np.ndarray], block: Block) -> np.ndarray:
    """`[n, m]`: the IoU of a heatmap's box with that box of the class which it fits best."""
    overlap = np.full((len(views), block.heatmaps.shape[1]), np.nan, np.float32)
    known = [i for i, own in enumerate(chosen) if own.size]
    if known:
        found = heatmap_boxes_numpy(hosts.own(block.heatmaps)[known], protocol.box_fraction)
        for i, of_methods in zip(known, found, strict=True):
            view = views[i]
            assert view is not None
            overlap[i] = [overlaps(box, view.boxes[chosen[i]]).max() for box in of_methods]
    return overlap
