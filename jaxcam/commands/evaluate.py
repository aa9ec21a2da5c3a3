"""`python -m jaxcam evaluate FOLDER|scenes`: what the methods' maps are worth on a data set, as a table."""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxcam import scenes
from jaxcam.commands.networks import add_maps, add_network, add_quiet, default_name, network, tell_what_it_knows
from jaxcam.commands.parser import Parser, UsageError, checked_place, one_line, printable, report
from jaxcam.datasets.image_files import is_image_name
from jaxcam.evaluation.evaluate import DEFAULT_METRICS, evaluate
from jaxcam.evaluation.ledger import PUBLISHED
from jaxcam.evaluation.plan import GROUPS
from jaxcam.evaluation.protocol import Protocol
from jaxcam.evaluation.result import Evaluation
from jaxcam.files import read_regular, replace_file

_FORMATS: Mapping[str, Callable[[Evaluation], str]] = {
    ".txt": str,
    ".md": Evaluation.markdown,
    ".csv": Evaluation.csv,
    ".json": Evaluation.json,
}
_SHOWN_BAD = 10
_NUM = 1000
_ARGUMENTS = "methods|metrics|layer|annotations|classes|results|seed"
_EPILOG = """\
With --results a run that was ended goes on where it stopped when the same
command is given again. Several processes share one run: give the same command
to each with --coordinator HOST:PORT --num-processes N --process-id 0 to N-1.
Forward passes a picture by --metrics, for each method: confidence, deletion,
coherency and sanity 1, randomised 2, sensitivity 8, road 18, curves 66; for all
methods together infidelity 32; for the others none.
Exit codes: 0; 1 if a picture could not be read or a process was lost; 2 for a
wrong option, file or annotation.

  python -m jaxcam evaluate scenes --num 2000
  python -m jaxcam evaluate photos --model resnet50 --weights FILE \\
      --methods cam,grad_cam,grad_cam_pp --annotations boxes.json --class true
  python -m jaxcam evaluate photos --model resnet50 --weights imagenet \\
      --mask input --results resnet50.jsonl --out resnet50.md"""


def run(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        out = _out(options.out, options.results)
        _start_processes(options)
        is_drawn = options.dataset == "scenes"
        name = options.model or default_name(for_photographs=not is_drawn)
        model, dataset, classes = network(name, options.weights), _dataset(options), _classes(options.classes)
        # Where there are annotations their classes are compared with those of the network.
        has_truth = options.annotations is not None or classes is not None
        if not options.quiet and (is_drawn or not has_truth) and _is_there(dataset):
            tell_what_it_knows(name, model, drawn=is_drawn)
        found = evaluate(
            model,
            dataset,
            methods=None if options.methods is None else [method.strip() for method in options.methods.split(",")],
            metrics="all" if options.metrics == "all" else [group.strip() for group in options.metrics.split(",")],
            protocol=_protocol(options),
            annotations=options.annotations,
            classes=classes,
            layer=options.layer,
            results=options.results,
            batch_size=options.batch_size,
            num_workers=options.workers,
            num_resamples=options.resamples,
            seed=options.seed,
            show_progress=not options.quiet,
        )
    except (UsageError, ValueError, TypeError, OSError) as error:
        # `evaluate` names its arguments, which are the options without dashes.
        message = one_line(error).replace("with classes=", "with --classes FILE, in JSON: ")
        report(re.sub(rf"^({_ARGUMENTS})\b", r"--\1", message))
        return 2
    except RuntimeError as error:
        report(one_line(error))
        if jax.process_count() > 1:
            # JAX would wait for the lost process at the end, and then abort.
            sys.stderr.flush()
            os._exit(1)
        return 1
    if jax.process_index():
        return 0
    if out is None or not options.quiet:
        print(found.table)
    if out is not None:
        try:
            replace_file(out, _FORMATS[out.suffix.lower()](found).encode())
        except OSError as error:
            report(f"--out: {one_line(error)}")
            return 2
    for _, image, reason in found.bad_images[:_SHOWN_BAD]:
        report(f"{printable(image)}: {printable(reason)}")
    if len(found.bad_images) > _SHOWN_BAD:
        report(f"and {len(found.bad_images) - _SHOWN_BAD} more; --results keeps the list")
    return 1 if found.bad_images else 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m jaxcam evaluate",
        description="What heatmaps are worth on a data set: average drop, increase, localisation ...",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("dataset", metavar="FOLDER|scenes", help='a folder of pictures, or "scenes" for generated ones')
    add_network(parser)
    add_maps(parser, "Grad-CAM and Grad-CAM++")
    add("--metrics", default=",".join(DEFAULT_METRICS), metavar="LIST", help=f"all, or some of {', '.join(GROUPS)}")
    add("--annotations", metavar="FILE", help="classes and boxes: JSON, COCO JSON, or a folder of PASCAL VOC XML")
    add(
        "--classes",
        metavar="FILE",
        help="JSON object: class names of the annotations to names or numbers of the network",
    )
    protocol = parser.add_argument_group("protocol")
    add = protocol.add_argument
    known = [entry.name for entry in PUBLISHED]
    add("--protocol", choices=known, metavar="NAME", help=f"a published one instead: {', '.join(known)}")
    add("--confidence", choices=("probability", "logit"))
    add("--mask", choices=("pixels", "input"), help="mask before or after normalising (pixels)")
    add("--baseline", choices=("black", "mean", "blur"), help="what a mask shows (black on pixels, mean on the input)")
    add("--class", dest="class_idx", choices=("predicted", "true"))
    add("--normalisation", choices=("max", "min_max", "min_max_twice"))
    add("--resize", choices=("linear", "nearest", "cubic"))
    generated = parser.add_argument_group("scenes")
    add = generated.add_argument
    add("--num", type=_whole(1), metavar="N", help=f"how many ({_NUM})")
    add(
        "--instances",
        type=_whole(1, scenes.MAX_INSTANCES),
        metavar="N",
        help=f"figures in each, 1 to {scenes.MAX_INSTANCES}; random by default",
    )
    add("--pairs", action="store_true", help="two classes in each")
    running = parser.add_argument_group("running")
    add = running.add_argument
    add("--results", metavar="FILE", help="a line of JSON for every picture as it comes; a run goes on from it")
    add("--out", metavar="FILE", help="the table as .md, .csv, .json or .txt")
    add("--batch-size", type=_whole(1), default=8, metavar="N", help="pictures at a time on each device (8)")
    add("--workers", type=_whole(0), metavar="N", help="threads that decode; by default one a core, at most 4")
    add("--resamples", type=_whole(0), default=1000, metavar="N", help="of the bootstrap (1000); 0 for no intervals")
    add("--seed", type=_whole(0), default=0, metavar="N", help="of scenes, random methods and the bootstrap (0)")
    add("--coordinator", metavar="HOST:PORT", help="of process 0, for runs of several processes")
    add("--num-processes", type=_whole(1), metavar="N")
    add("--process-id", type=_whole(0), metavar="N")
    add_quiet(parser)
    return parser


def _whole(low: int, high: int | None = None) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not text.isdecimal() or int(text) < low or (high is not None and int(text) > high):
            to = "" if high is None else f" to {high}"
            raise argparse.ArgumentTypeError(f"must be a whole number from {low}{to}, not {text!r}")
        return int(text)

    return whole


def _out(file: str | None, results: str | None) -> Path | None:
    if file is None:
        return None
    path = checked_place("--out", file, _FORMATS)
    if results is not None and path.resolve() == Path(results).resolve():
        raise UsageError(f"--out and --results are the same file, {file!r}: choose another name for one of them")
    return path


def _is_there(dataset: Any) -> bool:
    """Whether there are pictures: what is wrong with a data set is said alone."""
    return not isinstance(dataset, str) or any(is_image_name(path.name) for path in Path(dataset).rglob("*"))


def _start_processes(options: argparse.Namespace) -> None:
    given = [options.coordinator, options.num_processes, options.process_id]
    if all(value is None for value in given):
        return
    if any(value is None for value in given):
        raise UsageError("--coordinator, --num-processes and --process-id belong together: give all three")
    if options.process_id >= options.num_processes:
        raise UsageError(
            f"--process-id must be below --num-processes {options.num_processes}, not {options.process_id}"
        )
    try:
        jax.distributed.initialize(options.coordinator, options.num_processes, options.process_id)
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"--coordinator: the processes did not find each other ({one_line(error)})") from None


def _dataset(options: argparse.Namespace) -> Any:
    if options.dataset != "scenes":
        if options.pairs or options.num is not None or options.instances is not None:
            raise UsageError("--num, --instances and --pairs are for scenes: leave them out for a folder")
        return options.dataset
    if options.annotations or options.classes:
        raise UsageError("--annotations and --classes are for folders: what is in a scene is known")
    if options.pairs and options.instances:
        raise UsageError("--instances is for scenes of one class: leave --pairs out")
    kind = "pair" if options.pairs else "scene"
    return scenes.Dataset(options.num or _NUM, seed=options.seed, num_instances=options.instances, kind=kind)


def _protocol(options: argparse.Namespace) -> Protocol:
    names = ("confidence", "mask", "baseline", "class_idx", "normalisation", "resize")
    given: dict[str, Any] = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.protocol is not None:
        if given:
            raise UsageError(
                f"--protocol {options.protocol} says the {next(iter(given))} already: leave one of the two out"
            )
        return next(entry.protocol for entry in PUBLISHED if entry.name == options.protocol)
    if options.mask == "input" and options.baseline == "black":
        raise UsageError(
            "--baseline black is for --mask pixels: on the normalised input zero is the mean colour; leave it out"
        )
    given.setdefault("baseline", "mean" if options.mask == "input" else "black")
    return Protocol(**given)


def _classes(file: str | None) -> dict[str, int | str] | None:
    if file is None:
        return None
    try:
        found = json.loads(read_regular(Path(file)))
    except OSError as error:
        raise UsageError(f"--classes: {file!r} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--classes: {file!r} is not JSON ({one_line(error)})") from None
    if not isinstance(found, dict):
        raise UsageError(f'--classes: {file!r} must hold an object, as {{"dog": 207}}')
    return found
