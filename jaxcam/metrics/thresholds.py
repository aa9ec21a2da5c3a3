"""Localisation over all thresholds and a whole data set: MaxBoxAcc and PxAP, and the baseline that knows no picture.

A heatmap's threshold is a matter of taste; these take the best one for the data set, or all of them. In NumPy, on the
host. **Source**: Choe et al. 2020, "Evaluating weakly supervised object localization methods right".
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxcam.checks import check_integer, check_numbers
from jaxcam.metrics.boxes import check_boxes
from jaxcam.metrics.operands import check_all_floating, is_explanation_numpy

Heatmaps = Float[np.ndarray, "n H W"] | Float[Array, "n H W"]


def max_box_acc(
    heatmaps: Heatmaps,
    boxes: Sequence[np.ndarray],
    *,
    deltas: Sequence[float] = (0.3, 0.5, 0.7),
    num_thresholds: int = 100,
    largest: bool = False,
) -> Float[np.ndarray, " d"]:
    """MaxBoxAcc at each δ: max over thresholds τ of the share of pictures with IoU >= δ at τ, in percent.

    At τ the boxes of a heatmap are those around the components of {L > τ max L}, connected through sides and corners; a
    picture counts as found if any of these and any true box have that IoU. The mean over δ is MaxBoxAccV2.

    Args:
        heatmaps: L, not negative, `[n, H, W]`; those that are zero or not finite are left out.
        boxes: of each picture `[m, 4]`, x0, y0, x1, y1 in pixels, half-open. Those without area, or with NaN, are none;
            pictures without a box are left out.
        deltas: δ, in (0, 1], one or more.
        num_thresholds: τ = 0, 1 / num_thresholds, ..., below 1.
        largest: whether the component with the most pixels alone has a box: with deltas=(0.5,) the paper's first
            version, MaxBoxAcc.

    Returns:
        `[d]`, NaN where no picture counts. Higher is better; compare it with that of `centre_map`.

    Raises:
        ValueError: the shapes or numbers do not fit.

        TypeError: heatmaps are not floating point, or boxes or deltas no numbers.
    """
    check_all_floating(heatmaps=heatmaps)
    if heatmaps.ndim != 3 or len(boxes) != len(heatmaps):
        raise ValueError(
            f"heatmaps must be [n, H, W] and boxes n arrays [m, 4], but came as {list(heatmaps.shape)} and {len(boxes)}"
        )
    at_least = np.asarray(check_numbers("deltas", deltas, above=0, high=1))
    num = check_integer("num_thresholds", num_thresholds, low=1)
    best = [
        best_overlaps(heatmap, own, num, largest=largest)
        for heatmap, own in zip(np.asarray(heatmaps), map(_with_area, boxes), strict=True)
        if len(own) and is_explanation_numpy(heatmap)
    ]
    if not best:
        return np.full(len(at_least), np.nan)
    return 100 * (np.stack(best)[:, :, None] >= at_least).mean(0).max(0)


def pxap(heatmaps: Heatmaps, masks: Bool[np.ndarray, "n H W"] | Bool[Array, "n H W"]) -> float:
    """The pixels' average precision, in percent: the area under precision against recall over all thresholds.

    Σ_l P_l (R_l - R_(l-1)) over the values of all heatmaps from the highest down, where P and R are of the pixels of
    all pictures together. (The released code takes 1,000 thresholds, of which this is the limit.)

    Args:
        heatmaps: L in [0, 1], `[n, H, W]`: scales are compared across pictures. Those that are zero or not finite are
            left out.
        masks: where the object is, `[n, H, W]`.

    Returns:
        NaN where no pixel is in a mask. Higher is better.

    Raises:
        ValueError: the shapes differ, or are not `[n, H, W]`.

        TypeError: heatmaps are not floating point, or masks not bool.
    """
    check_all_floating(heatmaps=heatmaps)
    if not hasattr(masks, "dtype") or masks.dtype != bool:
        raise TypeError("masks must be a bool array [n, H, W]: use masks > 0")
    if heatmaps.ndim != 3:
        raise ValueError(f"heatmaps must be [n, H, W], but came as {list(heatmaps.shape)}: one is heatmap[None]")
    if masks.shape != heatmaps.shape:
        raise ValueError(f"masks must be {list(heatmaps.shape)} as heatmaps are, but came as {list(masks.shape)}")
    counted = [i for i, heatmap in enumerate(np.asarray(heatmaps)) if is_explanation_numpy(heatmap)]
    heat, inside = (np.asarray(each)[counted].reshape(-1) for each in (heatmaps, masks))
    # Equal values fall together: each value is a threshold once, the highest first.
    places = np.unique(-heat, return_inverse=True)[1]
    num = int(places.max(initial=-1)) + 1
    hits, misses = (np.bincount(places[which], minlength=num) for which in (inside, ~inside))
    return 100 * float(average_precision(hits, misses))


def average_precision(hits: np.ndarray, misses: np.ndarray) -> np.ndarray:
    """Σ_l P_l (R_l - R_(l-1)) of how many positions inside and outside have each value, `[..., values]`, highest first.

    NaN where none is inside.
    """
    inside, both = np.cumsum(hits, -1), np.cumsum(hits + misses, -1)
    total = inside[..., -1:] if inside.shape[-1] else np.zeros((*inside.shape[:-1], 1))
    precision = np.divide(inside, both, out=np.zeros(both.shape), where=both > 0)
    gained = np.divide(hits, total, out=np.full(hits.shape, np.nan), where=total > 0)
    return np.asarray((precision * gained).sum(-1) if inside.shape[-1] else np.full(inside.shape[:-1], np.nan))


def levels(heatmap: Float[np.ndarray, "H W"], mask: Bool[np.ndarray, "H W"], num: int) -> np.ndarray:
    """How many positions inside of the mask, and outside, have each of `num` levels of L in [0, 1], the highest first.

    `[2, num]` of whole numbers, which add up over pictures to what `average_precision` takes: `pxap` with its values
    rounded down to these.
    """
    places = num - 1 - np.clip(np.floor(heatmap * num), 0, num - 1).astype(int)
    return np.stack([np.bincount(places[which], minlength=num) for which in (mask, ~mask)])


def centre_map(size: tuple[int, int]) -> Float[Array, "H W"]:
    """A map that knows nothing of the picture: a Gaussian in the middle, a quarter of each side wide.

    What a method does not find better than this it has not found: objects stand in the middle of photographs.

    Raises:
        ValueError: size is not two positive integers.
    """
    if len(size) != 2:
        raise ValueError(f"size must be (H, W), but has {len(size)} numbers")
    squares = []
    for length in (check_integer("size", each, low=1) for each in size):
        places = (np.arange(length) + 0.5) / length - 0.5
        squares.append((4 * places) ** 2)
    found = np.exp(-0.5 * (squares[0][:, None] + squares[1][None]))
    return jnp.asarray(found / found.max(), jnp.result_type(float))


def _with_area(boxes: np.ndarray) -> np.ndarray:
    """Those of a picture's boxes `[m, 4]` that have an area."""
    corners = np.asarray(boxes)
    corners = corners if corners.size else np.zeros((0, 4))
    check_boxes(corners, num_axes=2)
    return corners[np.isfinite(corners).all(1) & (corners[:, 2:] > corners[:, :2]).all(1)]


def best_overlaps(heatmap: np.ndarray, boxes: np.ndarray, num: int, *, largest: bool = False) -> np.ndarray:
    """The best IoU of a box of the heatmap and a true one at each threshold, as in `max_box_acc`: `[num]`."""
    from scipy import ndimage  # here, since it takes as long to import as all of jaxcam

    best = np.zeros(num)
    top = heatmap.max()
    if not top > 0 or not len(boxes):
        return best
    for i in range(num):
        labels: np.ndarray = ndimage.label(heatmap > top * i / num, np.ones((3, 3)))[0]  # pyright: ignore[reportAssignmentType, reportIndexIssue]
        slices = [part for part in ndimage.find_objects(labels) if part is not None]
        if largest:
            slices = [slices[int(np.bincount(labels.ravel())[1:].argmax())]]
        found = np.asarray([[x.start, y.start, x.stop, y.stop] for y, x in slices], np.float64)[:, None]
        across = np.minimum(found[..., 2:], boxes[None, :, 2:]) - np.maximum(found[..., :2], boxes[None, :, :2])
        both = np.clip(across, 0, None).prod(-1)
        areas = (found[..., 2:] - found[..., :2]).prod(-1) + (boxes[:, 2:] - boxes[:, :2]).prod(-1)
        best[i] = (both / (areas - both)).max()
    return best
