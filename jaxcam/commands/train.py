"""`python -m jaxcam train`: trains the embedded networks on generated inputs, as those in the package were."""

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path

from jaxcam.commands.parser import Parser, report
from jaxcam.files import replace_file
from jaxcam.models import weights
from jaxcam.models.train import RECIPES, UNSEEN_SEED, are_right, top_1, train

_EPILOG = """\
Writes NAME.safetensors and training.json (with the accuracy on 2,000 unseen
inputs; what is said of other networks stays) to the folder. A run that was
stopped goes on from NAME.part when it is started again.
  python -m jaxcam train mini_c3d --out weights"""


def run(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = Parser(
        prog="python -m jaxcam train",
        description="Trains the embedded networks on generated inputs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(RECIPES)} (default: all)")
    parser.add_argument("--out", default=".", metavar="FOLDER", help="where to write (the current folder)")
    parser.add_argument("--seed", type=int, default=0, help="of parameters and inputs (0)")
    parser.add_argument("--steps", type=int, metavar="N", help="fewer or more training steps than the recipe's")
    options = parser.parse_args(arguments)
    folder = Path(options.out)
    unknown = [name for name in options.names if name not in RECIPES]
    if unknown or not folder.is_dir() or (options.steps is not None and options.steps < 1) or options.seed < 0:
        report(
            f"{unknown[0]!r} is not one of {', '.join(RECIPES)}"
            if unknown
            else f"--out: there is no folder {options.out!r}"
            if not folder.is_dir()
            else "--steps must be at least 1 and --seed at least 0"
        )
        return 2
    path = folder / "training.json"
    try:
        records = dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except (OSError, ValueError, TypeError):
        report(f"--out: {str(path)!r} has no records of trainings: move it away, what is said of other networks stays")
        return 2
    for name in options.names or RECIPES:
        start, recipe = time.monotonic(), RECIPES[name]
        checkpoint = folder / f"{name}.part"
        try:
            model = train(name, seed=options.seed, num_steps=options.steps, checkpoint=checkpoint)
        except ValueError as error:
            report(f"--out: {error}")
            return 2
        seconds = time.monotonic() - start
        file = folder / f"{name}.safetensors"
        weights.save(model, file, dtype=recipe.stored)
        right = are_right(recipe.create(file), draw=recipe.draw)  # as it is stored
        shares = {"top_1": top_1(right)}
        if right.ndim > 1:
            shares["words"] = float(right.mean())
        records[name] = {
            "seed": options.seed,
            "steps": options.steps or recipe.num_steps,
            "batch_size": recipe.batch_size,
            "parameters": weights.size_of(model),
            "unseen_scenes": {"seed": UNSEEN_SEED, "num": len(right), **shares},
            "seconds": round(seconds),
            "versions": {package: version(package) for package in ("jax", "flax", "optax")},
        }
        told = ", ".join(f"{what.replace('_', '-')} {100 * share:.2f} %" for what, share in shares.items())
        print(f"{name}: {told} on {len(right):,} unseen inputs, trained in {seconds:.0f} s")
        replace_file(path, (json.dumps(records, indent=2) + "\n").encode())
    return 0
