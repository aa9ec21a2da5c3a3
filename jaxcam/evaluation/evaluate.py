"""A model and a data set in, a table of what each method's maps are worth out."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array

from jaxcam import scenes
from jaxcam.checks import check_integer
from jaxcam.cuts.cut import cuts, network
from jaxcam.cuts.model import Adapted, adapted, name_of
from jaxcam.cuts.refusals import check_evaluates
from jaxcam.datasets.examples import is_path
from jaxcam.datasets.sources import Source, source_of
from jaxcam.evaluation import hosts
from jaxcam.evaluation.journal import Journal
from jaxcam.evaluation.measures import Column, columns_of
from jaxcam.evaluation.plan import GROUPS, OF_PICTURES, Plan, passes_of
from jaxcam.evaluation.protocol import Protocol, differences, protocol_for
from jaxcam.evaluation.requests import Methods, affordable, requests_of
from jaxcam.evaluation.result import Evaluation, table_of
from jaxcam.evaluation.run import Job, steps
from jaxcam.evaluation.statistics import Statistics
from jaxcam.evaluation.table import Table
from jaxcam.explanation.arguments import check_alone
from jaxcam.explanation.feed import Feed, fed
from jaxcam.methods.method import METHODS, Bound
from jaxcam.programs.hashes import array_hash, code_hash, program_hash
from jaxcam.programs.specs import spec_of, specs_of
from jaxcam.programs.watched import Watched
from jaxcam.progress import Progress
from jaxcam.tables import printable
from jaxcam.types import Target
from jaxcam.version import __version__

DEFAULT_METHODS = ("grad_cam", "grad_cam_pp")
DEFAULT_METRICS = ("confidence", "localisation", "shape")


def evaluate(
    model: Any,
    dataset: str | os.PathLike[str] | Iterable[Any],
    *,
    methods: Methods | None = None,
    target: Target | None = None,
    metrics: str | Sequence[str] = DEFAULT_METRICS,
    protocol: Protocol | None = None,
    annotations: str | os.PathLike[str] | None = None,
    classes: Mapping[str, int | str] | None = None,
    layer: str | int | None = None,
    results: str | os.PathLike[str] | None = None,
    batch_size: int = 8,
    num_workers: int | None = None,
    mesh: Mesh | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    show_progress: bool = True,
) -> Evaluation:
    """What the maps of each method are worth on a data set of any size.

    Every picture is forwarded once for all methods, and their explanation maps in one more batch. Pictures are shared
    out among the devices of the mesh, each of which works on one block of `batch_size` at a time: the figures are the
    same on one device, on eight, and on several hosts (`jax.distributed.initialize` first, then the same call in every
    process). Image files are decoded by threads meanwhile. Memory does not grow with the number of pictures.

    A model that knows its preprocessing is given pictures. Any other is given inputs as it takes them, called pictures
    here as well: series, volumes, clips, pictures that are normalised, or several inputs together, of which the one
    that has the heatmap is masked. (`jaxcam.adapt(lambda inputs: model(inputs))` knows no preprocessing.)

    Args:
        model: as for `explain`: an image network in evaluation mode that knows its preprocessing, or
            `jaxcam.adapt(model, preprocessing=...)`; pictures are channels last all the same. Or any other model, for
            inputs that are prepared for it.
        dataset: a folder of pictures; a sequence or any iterable of pictures `[H, W, 3]` in [0, 1] (grey ones `[H, W]`
            or `[H, W, 1]` where the preprocessing has one mean; rounded to 8 bits, as in files), paths, pairs
            (picture or path, label) or `jaxcam.Example`s; or generated ones, `jaxcam.scenes.Dataset(1000)`.
            For a model without preprocessing the same of inputs: an array `[n, *spatial, d]`, or arrays
            `[*spatial, d]`, dictionaries of several arrays, pairs (input, label) or `jaxcam.Example`s, with masks on
            the input's grid where they are known. All have the shapes of the first.
        methods: names from `jaxcam.methods.METHODS`, with options as "grad_cam_pp:alphas=exact", or functions as for
            `explain`; or a dictionary from the names of the rows to these, or to dictionaries as `{"method":
            "grad_cam_pp", "alphas": "exact"}`. By default Grad-CAM and Grad-CAM++, the latter where it costs at
            most 50 forward passes; above the table it is said where it is left out.
        target: for outputs of any structure, what is explained instead of a class: a function `(outputs, inputs)` of
            one example to one number, as for `explain`. Its value takes the place of the confidence, on the input and
            on the explanation map (of which it sees the masked input too): see `Protocol.confidence` for what drop,
            increase and win mean where it is negative. All boxes and masks of an example are what it should look at.
            What differs from example to example, as a region, may be one of several inputs that the model leaves out.
        metrics: groups of metrics, or "all". "confidence" (average drop, increase, win; one forward pass for each
            method), "localisation" (where boxes or masks are known), "thresholds" (the same of pictures, with the
            threshold that is best for all of them, MaxBoxAccV2, or with every one, PxAP; no pass), "instances"
            (instance recall: whether each of several objects is found; see `Evaluation.split`), "shape" (complexity,
            sparsity), "deletion" (one more pass each), "coherency" (with ADCC), "curves" (insertion and deletion:
            2 (num_steps + 1) passes each), "road" (of pictures: 18 passes each, and pixels are filled in), "infidelity"
            (num_squares passes for all methods together), "sensitivity" (max-sensitivity: num_noises maps each),
            "sanity" (correlation with the maps when the weights behind the layer are shuffled), "randomised" (the same
            with the weights before it, from the bottom up, and eMPRT, with all of them; two maps each).
            See `jaxcam.metrics`. Those of "confidence" are always there. The line of progress says how many passes a
            picture takes.
        protocol: what is measured in detail; by default that of the Grad-CAM++ paper, for prepared inputs with
            mask="input" and baseline="zero", with a target confidence="target".
        annotations: classes and boxes of a folder's pictures: JSON of our own (a list of `{"file", "label",
            "boxes"}`), COCO JSON, or a folder of PASCAL VOC XML. Pictures that it does not name are left out.
        classes: what the annotations' class names are in the model: indices or names of it. Names that are the same in
            `model.class_names` need not be given.
        layer: as for `explain`.
        results: a file to which a line of JSON for every picture is written as it comes. A run that was ended goes on
            there when it is called again in the same way, and a complete one is only read. Until the end its name
            has ".part" added. What would change the figures is compared first: the model's arrays and program, the
            methods, the protocol, the target,
            the data set's names, truths, pixels (in a list) and file sizes. Of an iterable
            without a length the pictures are not known; give it a `description`, a dictionary of what it is.
        batch_size: pictures that a device works on at a time.
        num_workers: threads that decode image files; by default one for each core up to four, 0 for none.
        mesh: the devices; all of them by default, those of all hosts.
        num_resamples: of the paired bootstrap for the 95 % intervals of means; 0 for none. Shares, of what is yes or no
            for a picture, have Wilson's, and McNemar's exact test (`Evaluation.mcnemar`).
        seed: of the bootstrap, and of methods that draw random numbers: of the same ones for every picture, so that
            figures depend neither on a picture's place nor on batch_size.
        show_progress: whether a line on standard error tells how far it is.

    Returns:
        An `Evaluation`; `print` it. A picture that cannot be read is counted and listed, and does not stop the run.

    Raises:
        ValueError: an unknown method, metric, layer or annotation; no pictures; a protocol of something else; several
            inputs with positions, or a target with several scores; a results file of another evaluation.
        TypeError: an argument of the wrong kind, or preprocessing is missing for image files.
        RuntimeError: a process of several was lost (start them all again, with the same `results`), or a device is out
            of memory.

    **Source**: the metrics' papers are in `jaxcam.metrics`; the bootstrap: Hanley and MacGibbon 2006; shares:
    `jaxcam.evaluation.shares`.
    """
    known = adapted(model)
    check_evaluates(known.state)
    is_prepared = known.preprocessing is None
    if is_prepared and (is_path(dataset) or annotations is not None or isinstance(dataset, scenes.Dataset)):
        raise TypeError(
            f"preprocessing of {known.name} must be known for pictures, but is not: say what the model expects of its "
            "input with jaxcam.adapt(model, preprocessing=jaxcam.images.Preprocessing(resize=256, crop=224, mean=..., "
            "std=...))"
        )
    if target is not None:
        check_alone(target, None, None)
    protocol = protocol_for(protocol, is_prepared=is_prepared, has_target=target is not None)
    groups = _checked_groups(metrics)
    is_all = groups == GROUPS
    requests, left_out = requests_of(DEFAULT_METHODS if methods is None else methods, layer), dict[str, str]()
    check_integer("batch_size", batch_size, low=1)
    check_integer("num_resamples", num_resamples, low=0)
    check_integer("seed", seed, low=0, high=2**32 - 1)
    names = known.class_names
    source = source_of(dataset, annotations=annotations, classes=classes, class_names=names, is_prepared=is_prepared)
    mesh = hosts.mesh_of(mesh)
    feed = fed(known, source, target)
    known, example, preprocessing = feed.model, feed.example, known.preprocessing
    groups = _of_grid(groups, jax.tree.leaves(example)[feed.main].ndim - 1)
    if methods is None:
        requests, left_out = affordable(requests, known, example)
    arrays = jax.tree.leaves(known)
    truths = source.knows
    in_place = [name for name in ("localisation", "thresholds", "instances") if name in groups]
    if in_place and not is_all and groups != DEFAULT_METRICS and not truths:
        raise ValueError(
            f'metrics: "{in_place[0]}" needs to know where things are, and no box or mask is known: give annotations=, '
            "or jaxcam.Example(image, label=..., boxes=...); of a series jaxcam.Example(series, label=..., masks=...)"
        )
    if protocol.class_idx == "true" and not source.may_have_labels:
        raise ValueError(
            'protocol: class_idx="true" explains the true class, and no label is known: give pairs (input, label), '
            'jaxcam.Example(input, label=...) or annotations=, or explain the class_idx="predicted"'
        )
    columns = columns_of(groups, protocol, truths)
    plan = Plan(tuple(requests.values()), protocol, preprocessing, groups, feed.channel_axis, feed.main)

    def logits_of(model: Adapted, inputs: Any) -> Array:
        whole, leaves = network(model, specs_of(inputs), main=feed.main), jax.tree.leaves(inputs)
        return whole.given(leaves)(leaves[feed.main])

    if protocol.confidence == "probability" and network(known, example, main=feed.main).probability is None:
        raise ValueError(
            f'protocol: the outputs of {known.name} are no probabilities: use jaxcam.Protocol(confidence="logit"), or '
            "say what makes them with jaxcam.adapt(model, probability=...), or what is explained with target="
        )
    logits = jax.eval_shape(logits_of, known, example)
    header = {
        "jaxcam_evaluation": 1,
        "version": __version__,
        "model": {
            "name": known.name,
            "sha256": array_hash(arrays),
            "program": program_hash(logits_of, known, example),
        },
        "layer": layer,
        "grid": None if known.grid is None else _grid_hash(feed, layer),
        "target": None if target is None else _target_name(target),
        "methods": list(requests),
        "requests": [_described(request.method, logits) for request in requests.values()],
        "metrics": [column.key for column in columns],
        "protocol": protocol.to_dict(),
        "preprocessing": None if preprocessing is None else preprocessing.to_dict(),
        "inputs": {
            jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}"
            for path, leaf in jax.tree_util.tree_flatten_with_path(example)[0]
        },
        "dataset": {name: value for name, value in source.description.items() if name != "path"},
        "batch_size": batch_size,
        "seed": seed,
    }
    on_devices = jax.tree.unflatten(jax.tree.structure(known), hosts.replicated(mesh, arrays))
    job = Job(mesh, plan, on_devices, columns, source, feed.form, feed.like, batch_size, num_workers, seed)
    journal = _journal(results, header)
    done = set(hosts.from_first(lambda: sorted(journal.done) if journal else []))
    is_complete = hosts.from_first(lambda: bool(journal and journal.is_complete))
    if is_complete and source.length not in (None, len(done)):
        raise ValueError(
            f"results: {os.fspath(results or '')!r} has {len(done)} of {source.length} pictures, though it is "
            "complete: it was changed by hand; remove it"
        )
    try:
        if not is_complete:
            _run(job, journal, done, show_progress=show_progress)
        facts = _facts(header, protocol, source) | {f"without {row}": reason for row, reason in left_out.items()}
        options = {"num_resamples": num_resamples, "seed": seed}
        return _result(header, journal, tuple(requests), columns, facts, options)
    except BaseException:
        if journal:
            journal.close()
        raise


def _run(job: Job, journal: Journal | None, done: set[int], *, show_progress: bool) -> None:
    """Everything that is not done yet, into the journal of the first process."""
    length = job.source.length
    finished = len(done)

    def kept() -> str:
        if journal is None:
            return "Start all processes again in the same way: with results= they go on where they stopped."
        return f"{len(journal.done)} pictures are in the results file: start all processes again in the same way."

    with hosts.lost_processes_told(kept):
        passes = passes_of(job.plan.protocol, job.plan.groups, len(job.plan.requests))
        label = f"evaluate ({passes:,} forward passes each)"
        bar = Progress(total=length, done=finished, label=label, shown=show_progress and journal is not None)
        with bar:
            for records in steps(job, done):
                if journal is not None:
                    journal.append(records)
                finished += len(records)
                bar.update(finished)
    if finished == 0:
        raise ValueError("dataset: there is no picture in it")
    if journal is not None:
        journal.finish()


def _result(
    header: dict[str, Any],
    journal: Journal | None,
    names: tuple[str, ...],
    columns: tuple[Column, ...],
    facts: dict[str, str],
    options: dict[str, int],
) -> Evaluation:
    """The table, made from the results file in the first process and told to the others."""
    noun = "example" if header["preprocessing"] is None else "image"

    def made() -> dict[str, Any]:
        assert journal is not None
        table, bad = table_of(journal, names, columns, facts, noun=noun, **options)
        return {"statistics": table.statistics.to_lists(), "bad": bad}

    if jax.process_count() == 1:
        assert journal is not None
        table, bad = table_of(journal, names, columns, facts, noun=noun, **options)
    else:
        told = hosts.from_first(made)
        bad = [(int(i), name, error) for i, name, error in told["bad"]]
        table = Table(names, columns, Statistics.of_lists(told["statistics"]), facts, len(bad), noun)
    if bad and not table.statistics.images:
        raise ValueError(f"dataset: none of its {len(bad)} {noun}s can be used; {printable(': '.join(bad[0][1:]))}")
    return Evaluation(header, table, bad, journal)


def _journal(results: str | os.PathLike[str] | None, header: dict[str, Any]) -> Journal | None:
    """The results file, in the first process only."""
    told = hosts.from_first(lambda: header)
    unlike = differences(told, header)
    if unlike:
        raise ValueError(f"process {jax.process_index()} was given something else than process 0: {unlike}")
    journal: list[Journal] = []

    def opened() -> bool:
        path = None if results is None else Path(results)
        if results is not None and not os.fspath(results):
            raise ValueError("results is an empty path: give the name of a file, or leave it out")
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise ValueError(f"results must be a file in an existing folder, not {os.fspath(path)!r}")
        journal.append(Journal(path, header))
        return True

    hosts.from_first(opened)
    return journal[0] if journal else None


_TOLD = {
    **{name: name.replace("_", " ") for name in ("num", "seed", "num_instances", "size", "annotations")},
    "num_files_without_annotation": "left out as not annotated",
    "num_annotations_without_content": "left out as annotated with nothing",
    "num_files_missing": "annotated but not there",
    "num_images_with_boxes_but_no_masks": "with boxes but no masks",
    "unknown_class_names": "unknown class names",
}
"""What of a data set's description stands above the table where it is not zero, and in which words."""


def _facts(header: dict[str, Any], protocol: Protocol, source: Source) -> dict[str, str]:
    """What stands above the table."""
    data = source.description
    told = ", ".join(f"{words} {data[name]}" for name, words in _TOLD.items() if data.get(name) not in (None, 0, {}))
    where = data.get("path") or data["kind"]
    return {
        "model": header["model"]["name"] + ("" if header["layer"] is None else f" at layer {header['layer']}"),
        "data": where + (f" ({told})" if told else ""),
        "protocol": protocol.told(is_prepared=header["preprocessing"] is None),
        **({} if header["target"] is None else {"target": header["target"].rpartition(" ")[0]}),
    }


def _checked_groups(metrics: Any) -> tuple[str, ...]:
    if isinstance(metrics, str | list | tuple) and metrics in ("all", ["all"], ("all",)):
        return GROUPS
    listed = [metrics] if isinstance(metrics, str) else metrics
    if not isinstance(listed, Sequence):
        raise TypeError(f'metrics must be "all" or a list of groups, not {metrics!r}')
    for name in listed:
        if name not in GROUPS:
            raise ValueError(f'metrics: {name!r} is not known: use "all", or some of {", ".join(map(repr, GROUPS))}')
    return tuple(group for group in GROUPS if group in listed or group == "confidence")


def _of_grid(groups: tuple[str, ...], num_axes: int) -> tuple[str, ...]:
    """Without those that are of pictures, where the inputs are none; named, they are refused."""
    if num_axes == 2:
        return groups
    missing = [group for group in groups if group in OF_PICTURES]
    if missing and groups != GROUPS:
        raise ValueError(
            f'metrics: "{missing[0]}" is of pictures, with two axes of positions, but these inputs have {num_axes}: '
            "leave it out"
        )
    return tuple(group for group in groups if group not in missing)


def _described(method: Bound, logits: jax.ShapeDtypeStruct) -> dict[str, Any]:
    """A method with its options, for JSON; a score of the user's own by its program, other functions by their code."""
    options = {name: _named(value) if callable(value) else value for name, value in method.options}
    score = method.score
    if callable(score):
        class_idx = jax.ShapeDtypeStruct((), jnp.int32)
        name = getattr(score.function if isinstance(score, Watched) else score, "__name__", "own score")
        score = f"{name} {program_hash(score, logits, class_idx)}"
    is_ours = METHODS.get(method.name) is method.method
    name = method.name if is_ours else f"{method.name} {code_hash(method.method.function)}"
    return {"method": name, **options, "score": score}


def _grid_hash(feed: Feed, layer: Any) -> str:
    known = feed.model
    assert known.grid is not None
    (cut,) = cuts(known, feed.example, (layer,), main=feed.main)
    return program_hash(known.grid, spec_of(cut.halves.layer.aval))


def _target_name(target: Target) -> str:
    """A target for the table, and a hash of it: of what it computes, the program's is another part of the header."""
    name = getattr(target, "__qualname__", type(target).__name__).split(".<locals>")[0]
    return f"{name} {code_hash(target)}"


def _named(function: Any) -> str:
    function = function.function if isinstance(function, Watched) else function
    return f"{name_of(function)} {code_hash(function)}"
