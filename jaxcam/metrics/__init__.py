"""Metrics: what a heatmap is worth, as pure functions of arrays.

Of the confidences Y (on the image) and O (on its explanation map) of a data set, `[n]`, in **percent**:

    average_drop              mean of max(0, Y - O) / Y           Chattopadhay et al. 2018
    increase_in_confidence    share of O > Y                      Chattopadhay et al. 2018
    win, ties                 share of O_a > O_b, of O_a = O_b    Chattopadhay et al. 2018
    absolute_drop             mean of max(0, Y - O)
    drop_in_deletion          average drop on (1 - L) ∘ I         Jung and Oh 2021

`relative_drop` is the drop image by image, a fraction. The others are of one image, for `jax.vmap`. Of a heatmap L
`[H, W]` in [0, 1] and what is known to be there, a mask `[H, W]` or boxes `[m, 4]`, or with any other number of axes
(samples of a series, voxels; boxes are intervals `[m, 2]` then, or `[m, 6]`):

    localisation              internal / (box + external)         Chattopadhay et al. 2018
    iou                       of {L > max L / 2} and the mask
    heatmap_box, box_iou      the box of L, its IoU with boxes    Selvaraju et al. 2017
    pointing_game             whether max L lies on the mask      Zhang et al. 2018
    energy_pointing_game      sum of L inside / sum of L          Wang et al. 2020
    instance_recall           share of the objects with L >= max L / 2, by masks or boxes of each; its curve over
                              thresholds, and the heat of each object (`instance_heat`), whose mean is the curve's area

Of maps alone: `pearson`, `rank_correlation`, `coherency`, `complexity`, `adcc` (Poppi et al. 2021) and `sparsity`
(Gomez et al. 2022). Of a model: `deletion_curve`, `insertion_curve` and `area_under_curve` (Petsiuk et al. 2018),
`occlusion_curve` (Chattopadhay et al. 2018), `road` (Rong et al. 2022), `infidelity` and `max_sensitivity` (Yeh et al.
2019). Of two networks' maps: `emprt` (Hedström et al. 2024), by `discrete_entropy`. Of a whole data set's, in NumPy:
`max_box_acc` and `pxap` (Choe et al. 2020), to be compared with those of `centre_map`. Helpers: `box_mask`, `blurred`,
`blended`, `imputed`, `squares`.

**NaN means: does not count.** A metric of one image is NaN where it is undefined, and nowhere is a value put in its
place; a metric of a data set leaves such images out, and is NaN if none is left. Whoever averages counts the NaNs. The
rules:

- Y <= 0: `relative_drop` is NaN (nothing can fall), and the image counts neither for the drops that are relative to Y
  nor for wins and ties. `absolute_drop` and `increase_in_confidence` do count it. So Y may be any number that is better
  the higher it is, as a logit or a target's value: then a drop may be above 1, where O is negative.
- Y or O not finite: the image does not count.
- Ties, O_a = O_b: a win for neither, though they count: win(a, b) + win(b, a) + ties = 100.
- A heatmap that is zero everywhere, or has a NaN or an infinity, is no explanation and counts for no metric: NaN from
  all of them, zeros from `heatmap_box`, of which `box_iou` is NaN. So it wins nothing (an empty map would be the least
  complex of all). Metrics of Y and O do not see the map: give NaN for its O, as `evaluate` does.
- A constant heatmap: the correlations and `coherency` are NaN; all its pixels share the maximum.
- An empty mask, a box without area: NaN. In `box_mask` such a box adds nothing.
- Several pixels with the maximum: `pointing_game` is the fraction of them that hit.
- Several largest components in `heatmap_box`: the first in reading order. Equal pixels in the curves: reading order,
  but in `occlusion_curve` together.
- `adcc` is 0 where one of the three that it averages is 0.

Maps are not normalised here, and their range is not checked. Arrays are JAX's or NumPy's; the result has the type of
the inputs (the widest), and half precision is widened to float32 inside. Numbers such as `delta` are static under jit.
Everything but `heatmap_box`, which calls back to the host, and what is in NumPy stays on the device.
"""

from jaxcam.metrics.boxes import box_iou as box_iou
from jaxcam.metrics.boxes import box_mask as box_mask
from jaxcam.metrics.coherency import adcc as adcc
from jaxcam.metrics.coherency import coherency as coherency
from jaxcam.metrics.coherency import complexity as complexity
from jaxcam.metrics.coherency import pearson as pearson
from jaxcam.metrics.coherency import rank_correlation as rank_correlation
from jaxcam.metrics.coherency import sparsity as sparsity
from jaxcam.metrics.confidence import absolute_drop as absolute_drop
from jaxcam.metrics.confidence import average_drop as average_drop
from jaxcam.metrics.confidence import drop_in_deletion as drop_in_deletion
from jaxcam.metrics.confidence import increase_in_confidence as increase_in_confidence
from jaxcam.metrics.confidence import relative_drop as relative_drop
from jaxcam.metrics.confidence import ties as ties
from jaxcam.metrics.confidence import win as win
from jaxcam.metrics.curves import area_under_curve as area_under_curve
from jaxcam.metrics.curves import deletion_curve as deletion_curve
from jaxcam.metrics.curves import insertion_curve as insertion_curve
from jaxcam.metrics.curves import occlusion_curve as occlusion_curve
from jaxcam.metrics.faithful import infidelity as infidelity
from jaxcam.metrics.faithful import max_sensitivity as max_sensitivity
from jaxcam.metrics.faithful import squares as squares
from jaxcam.metrics.imputation import imputed as imputed
from jaxcam.metrics.imputation import road as road
from jaxcam.metrics.instances import instance_heat as instance_heat
from jaxcam.metrics.instances import instance_recall as instance_recall
from jaxcam.metrics.instances import instance_recall_curve as instance_recall_curve
from jaxcam.metrics.localisation import heatmap_box as heatmap_box
from jaxcam.metrics.localisation import iou as iou
from jaxcam.metrics.localisation import localisation as localisation
from jaxcam.metrics.masking import blended as blended
from jaxcam.metrics.masking import blurred as blurred
from jaxcam.metrics.pointing import energy_pointing_game as energy_pointing_game
from jaxcam.metrics.pointing import pointing_game as pointing_game
from jaxcam.metrics.randomised import discrete_entropy as discrete_entropy
from jaxcam.metrics.randomised import emprt as emprt
from jaxcam.metrics.thresholds import centre_map as centre_map
from jaxcam.metrics.thresholds import max_box_acc as max_box_acc
from jaxcam.metrics.thresholds import pxap as pxap

__all__ = [
    "absolute_drop",
    "adcc",
    "area_under_curve",
    "average_drop",
    "blended",
    "blurred",
    "box_iou",
    "box_mask",
    "centre_map",
    "coherency",
    "complexity",
    "deletion_curve",
    "discrete_entropy",
    "drop_in_deletion",
    "emprt",
    "energy_pointing_game",
    "heatmap_box",
    "imputed",
    "increase_in_confidence",
    "infidelity",
    "insertion_curve",
    "instance_heat",
    "instance_recall",
    "instance_recall_curve",
    "iou",
    "localisation",
    "max_box_acc",
    "max_sensitivity",
    "occlusion_curve",
    "pearson",
    "pointing_game",
    "pxap",
    "rank_correlation",
    "relative_drop",
    "road",
    "sparsity",
    "squares",
    "ties",
    "win",
]


def __dir__() -> list[str]:
    return __all__
