"""`fit_cam`: the linear classifier that CAM needs, fitted where a network has none."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcam.checks import check_integer, check_number
from jaxcam.cuts.cut import Cut, cuts
from jaxcam.cuts.layers import LayerName
from jaxcam.cuts.model import adapted
from jaxcam.cuts.refusals import check_evaluates
from jaxcam.cuts.split import check_layer
from jaxcam.datasets.examples import UNKNOWN, is_path
from jaxcam.datasets.sources import source_of
from jaxcam.explanation.feed import Feed, fed
from jaxcam.images.preprocessing import Preprocessing
from jaxcam.learning import logistic
from jaxcam.learning.cam_network import CAMFit, CAMNetwork
from jaxcam.learning.features_file import UNREADABLE
from jaxcam.learning.pooled import Pooled, pooled
from jaxcam.programs.hashes import array_hash, program_hash
from jaxcam.progress import Progress
from jaxcam.version import __version__

_MANY_FREE = 4096
"""Standard errors need a matrix of this side at most (128 MiB), unless they are asked for."""
_LEFT_OUT = {"num_unlabelled": UNKNOWN, "num_unreadable": UNREADABLE}


def fit_cam(
    model: Any,
    dataset: Any,
    *,
    layer: LayerName = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    decay: float = 1e-3,
    annotations: str | os.PathLike[str] | None = None,
    classes: Mapping[Any, Any] | None = None,
    features: str | os.PathLike[str] | None = None,
    batch_size: int = 16,
    num_folds: int = 5,
    standard_errors: bool | None = None,
    max_steps: int = 2000,
    num_workers: int | None = None,
    show_progress: bool = True,
) -> CAMNetwork:
    """A network that CAM applies to, of any model's features: only the linear layer behind the pooling is fitted.

    The activations A of the layer are pooled to x = mean over the positions, once for every example, and multinomial
    logistic regression with weight decay is fitted to x by L-BFGS, in float64:

        S = Wᵀ x + b,   mean over the examples of (log Σ_c exp S_c - S_y) + decay / 2 · ||W||²  as small as possible.

    Args:
        model: in evaluation mode, as for `explain`: pictures go through its preprocessing, other inputs are given as it
            takes them, with any number of spatial axes. Its outputs are not used, but by the default of `layer`.
        dataset: as for `evaluate`, with the true classes of the new task: pairs (picture or path, label) or
            `jaxcam.Example`s; or a folder with `annotations`.
        layer: whose activations are pooled; None for the model's default. Of a transformer the tokens of patches.
        num_classes: c; by default that of class_names, or as many as the labels tell.
        class_names: of the new task; by default the model's own where their number fits.
        decay: of W, above 0, in the units of the mean loss: scikit-learn's C is 1 / (n · decay). b is not decayed.
        annotations: as for `evaluate`.
        classes: as for `evaluate`.
        features: a file in which x is kept, 4 k bytes an example. A run that was ended goes on there; with the complete
            file other values of decay take no time. Features of another model, layer or data set are refused; of an
            iterable without a length the examples are not known, but by its `description`, a dictionary of what it is.
        batch_size: examples that go through the network at a time.
        num_folds: of the cross-validation for `CAMFit.held_out`; 0 for none.
        standard_errors: whether they are computed; by default where that takes a matrix of at most 4096 x 4096,
            (k + 1) (c - 1) being its side.
        max_steps: of L-BFGS.
        num_workers: threads that decode image files.
        show_progress: whether a line on standard error tells how far it is.

    Returns:
        A `CAMNetwork`; its `fit` has accuracies and standard errors. x is in memory, in float64 while it is fitted.

    Raises:
        ValueError: no true class is known, there are fewer than two classes, one has no example, or an argument is out
            of range; no such layer; a file with other features.
        TypeError: an argument is of the wrong kind.

    Warns:
        RuntimeWarning: the optimum was not reached in max_steps.

    **Source**: Zhou et al. 2016 (CAM), section 2.1: networks without global average pooling are given it, and a linear
    layer, which is trained.
    """
    known = adapted(model)
    check_evaluates(known.state)
    layer = check_layer(layer)
    decay = check_number("decay", decay, above=0, hint=": without any there may be no optimum")
    for name, value, low in (("batch_size", batch_size, 1), ("num_folds", num_folds, 0), ("max_steps", max_steps, 1)):
        check_integer(name, value, low=low)
    if num_folds == 1:
        raise ValueError("num_folds must be 0 for none, or 2 or more, but is 1")
    names = _names(class_names, num_classes)
    is_prepared = known.preprocessing is None
    if is_prepared and (is_path(dataset) or annotations is not None):
        raise TypeError(
            f"preprocessing of {known.name} must be known for image files, but is not: say what the model expects with "
            "jaxcam.adapt(model, preprocessing=jaxcam.images.Preprocessing(resize=256, crop=224, mean=..., std=...))"
        )
    of_files = known.class_names if names is None and annotations is not None else names or ()
    options: dict[str, Any] = {"annotations": annotations, "classes": classes, "class_names": of_files}
    source = source_of(dataset, is_prepared=is_prepared, **options)
    if not source.may_have_labels:
        raise ValueError(
            "dataset must have true classes but none is known: give pairs (picture, label), jaxcam.Example(picture, "
            "label=...) or annotations="
        )
    feed = fed(known, source, None)
    (cut,) = cuts(feed.model, feed.example, (layer,), main=feed.main)
    header = _header(cut, feed, known.preprocessing, source.description, batch_size)
    found = pooled(
        cut,
        feed,
        source,
        preprocessing=known.preprocessing,
        header=header,
        path=None if features is None else _path(features),
        batch_size=batch_size,
        num_workers=num_workers,
        show_progress=show_progress,
    )
    x, labels = _labelled(found)
    num_classes = _checked_classes(labels, len(names) if names is not None else num_classes)
    fit, kernel, bias = _fitted(
        x, labels, num_classes, decay=decay, max_steps=max_steps, num_folds=min(num_folds, len(labels)),
        with_errors=standard_errors, show_progress=show_progress,
    )  # fmt: skip
    left_out: dict[str, Any] = {name: int((found.labels == why).sum()) for name, why in _LEFT_OUT.items()}
    if names is None:
        fits = len(known.class_names) == num_classes
        names = known.class_names if fits else tuple(f"class {i}" for i in range(num_classes))
    return CAMNetwork(
        feed.model,
        jnp.asarray(kernel.astype(x.dtype)),
        jnp.asarray(bias.astype(x.dtype)),
        layer=layer,
        main=feed.main,
        class_names=names,
        fit=CAMFit(**fit, **left_out),
    )


def _fitted(
    x: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    decay: float,
    max_steps: int,
    num_folds: int,
    with_errors: bool | None,
    show_progress: bool,
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """The optimum, and what `CAMFit` says of it."""
    search: dict[str, Any] = {"num_classes": num_classes, "decay": decay, "max_steps": max_steps}
    with Progress(total=None, label="fit_cam: L-BFGS", shown=show_progress, counts=False):
        best = logistic.optimum(x, labels, **search)
        if not best.converged:
            warnings.warn(
                f"fit_cam did not reach the optimum in max_steps={max_steps} (the slope left is {best.gradient:.1g}): "
                "give more steps, or a larger decay",
                RuntimeWarning,
                stacklevel=3,
            )
        held_out = None
        if num_folds > 1:
            held_out = logistic.held_out_accuracy(x, labels, best, num_folds=num_folds, **search)
        errors: tuple[Any, Any] = (None, None)
        if with_errors or (with_errors is None and logistic.num_free(x.shape[1], num_classes) <= _MANY_FREE):
            errors = logistic.standard_errors(best, x, decay=decay)
    right = logistic.probabilities(best, x).argmax(1) == labels
    fit = {
        "accuracy": float(right.mean()),
        "held_out": held_out,
        "loss": best.loss,
        "num_examples": len(labels),
        "decay": decay,
        "steps": best.steps,
        "converged": best.converged,
        "kernel_error": errors[0],
        "bias_error": errors[1],
    }
    return fit, best.kernel, best.bias


def _names(class_names: Any, num_classes: int | None) -> tuple[str, ...] | None:
    if num_classes is not None:
        check_integer("num_classes", num_classes, low=2)
    if class_names is None:
        return None
    if isinstance(class_names, str) or not isinstance(class_names, Sequence):
        raise TypeError(f"class_names must be a sequence of names, in the order of the classes, but is {class_names!r}")
    if len(class_names) != (num_classes or len(class_names)):
        raise ValueError(f"class_names must have num_classes={num_classes} names but has {len(class_names)}")
    return tuple(map(str, class_names))


def _labelled(found: Pooled) -> tuple[np.ndarray, np.ndarray]:
    """The features of the examples that have any, and a true class."""
    if not len(found.labels):
        raise ValueError("dataset: there is no example in it")
    kept = found.labels >= 0
    if not kept.any():
        what = f"none of its examples can be read; {found.error}" if found.error else "no example has a true class"
        raise ValueError(f"dataset: {what}")
    x = found.x[kept]
    if not np.isfinite(x).all():
        wrong = int(np.flatnonzero(kept)[~np.isfinite(x).all(1)][0])
        raise ValueError(f"the features of example {wrong} must be finite but hold NaN or infinity: look at the model")
    return x, found.labels[kept]


def _checked_classes(labels: np.ndarray, num_classes: int | None) -> int:
    """How many classes there are, each with an example: the bias of a class without one has no optimum."""
    count = int(labels.max()) + 1 if num_classes is None else num_classes
    if labels.max() >= count:
        raise ValueError(f"num_classes must be above all labels but is {count}, and there is a label {labels.max()}")
    if count < 2:
        raise ValueError("dataset must have two classes or more but all labels are 0")
    # Of more classes than examples one of the first is missing: a label may be a billion by mistake.
    missing = np.setdiff1d(np.arange(min(count, len(labels) + 1)), labels)
    if len(missing):
        raise ValueError(
            f"dataset must have an example of each of the {count} classes but has none of {missing[:5].tolist()}: "
            "number the classes from 0 on, without gaps"
        )
    return count


def _header(
    cut: Cut, feed: Feed, form: Preprocessing | None, described: Mapping[str, Any], batch_size: int
) -> dict[str, Any]:
    """What the features depend on, as JSON can hold it."""

    def activations(cut: Cut, *leaves: Array) -> Array:
        return cut.given(leaves).features(leaves[feed.main])[0]

    return {
        "jaxcam_features": 1,
        "version": __version__,
        "parameters": array_hash(jax.tree.leaves(feed.model)),
        "program": program_hash(activations, cut, *jax.tree.leaves(feed.example)),
        "preprocessing": None if form is None else form.to_dict(),
        "dataset": {name: value for name, value in described.items() if name != "path"},
        "batch_size": batch_size,
    }


def _path(features: Any) -> Path:
    if not is_path(features):
        raise TypeError(f"features must be a path but is {type(features).__name__}")
    path = Path(features)
    if not os.fspath(features) or path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"features must be a file in an existing folder but is {os.fspath(features)!r}")
    return path
