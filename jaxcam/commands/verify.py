"""`python -m jaxcam verify`: the derivation of Grad-CAM++ checked on the embedded networks, as tables."""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam import scenes, scores
from jaxcam.commands.parser import Parser, UsageError, checked_place, one_line, report
from jaxcam.files import replace_file
from jaxcam.models import EMBEDDED_MODELS, MODELS
from jaxcam.verification.report import Verification
from jaxcam.verification.verify import verify
from jaxcam.verification.wording import figure, percent

_USUAL = "mini_vgg,mini_resnet"  # where the closed form holds, which is no question for a transformer
_SCORES = ("exp", "softmax", "log_softmax")
_EPILOG = """\
Exit codes: 0, 2 for a wrong option. A network is looked at on a generated
scene, at its default layer, for the class that it predicts. Last comes a small
random head with GELU in the place of ReLU, where the closed form fails.

  python -m jaxcam verify --model mini_vgg --score softmax --seed 3

In Python, for any head: jaxcam.verify(head, activations, class_idx)"""


class _Case(NamedTuple):
    """What is verified, and what it is called."""

    name: str
    description: str
    head: Callable[[Array], Array]
    activations: Float[Array, "*spatial k"]
    class_idx: int


def run(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        names, target = _models(options.model), _target(options.json)
        score = _score(options.score)
        cases = [*_networks(names, options.seed), _smooth_head(options.seed)]
    except UsageError as error:
        report(one_line(error))
        return 2
    found: list[tuple[_Case, Verification]] = []
    for case in cases:
        found.append((case, _verified(case, score, options.seed)))
        print(f"{case.description}\n{'=' * 100}\n{found[-1][1]}\n", flush=True)
    if score != "softmax":
        found += [(case, _verified(case, "softmax", options.seed)) for case in cases[:-1]]
    print(_summary(found))
    if target is not None:
        entries = [{"head": case.description, **verification.to_dict()} for case, verification in found]
        try:
            replace_file(target, (json.dumps(entries, indent=2) + "\n").encode())
        except OSError as error:
            report(f"--json: {one_line(error)}")
            return 2
    return 0


def _verified(case: _Case, score: str, seed: int) -> Verification:
    return verify(case.head, case.activations, case.class_idx, score=score, seed=seed)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m jaxcam verify",
        description="Checks the derivation of Grad-CAM++ numerically and prints the figures.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = ", ".join(EMBEDDED_MODELS)
    parser.add_argument("--model", default=_USUAL, metavar="LIST", help=f"comma-separated, of {known} ({_USUAL})")
    parser.add_argument("--score", default="exp", metavar="NAME", help=f"{', '.join(_SCORES)} (exp)")
    parser.add_argument("--seed", type=_seed, default=0, help="of the scene and of the sampled elements (0)")
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file as well")
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 2**32 - 1, not {text!r}")
    return int(text)


def _models(listed: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in listed.split(",")))
    for name in names:
        if name not in EMBEDDED_MODELS:
            raise UsageError(
                f"--model: {name!r} has no built-in weights: use one or more of {', '.join(EMBEDDED_MODELS)}"
            )
    return names


def _score(name: str) -> str:
    if name == "logit":
        raise UsageError(
            "--score logit: the second and third derivatives of a ReLU network's logit are zero and alpha is 0/0: use "
            + ", ".join(_SCORES)
        )
    if name not in _SCORES:
        raise UsageError(f"--score: {name!r} is not known: use one of {', '.join(_SCORES)}")
    return name


def _target(file: str | None) -> Path | None:
    if file is None:
        return None
    return checked_place("--json", file, ())


def _networks(names: tuple[str, ...], seed: int) -> Iterator[_Case]:
    scene = scenes.scene(seed)
    for name in names:
        try:
            model = MODELS[name]()
        except (ValueError, OSError) as error:
            raise UsageError(one_line(error)) from None
        activations = model.features(model.preprocessing.normalise(scene.image[None]))
        logits = model.head(activations)[0]
        class_idx = int(logits.argmax())
        confidence = percent(round(1000 * float(scores.softmax(logits, class_idx))), 1000)
        yield _Case(
            name,
            f"{name} after {model.default_layer}, scene {seed}, class {model.class_names[class_idx]} ({confidence})",
            lambda a, model=model: model.head(a[None])[0],
            activations[0],
            class_idx,
        )


def _smooth_head(seed: int) -> _Case:
    """Random weights of the usual scale, activations as after a ReLU."""
    keys = jax.random.split(jax.random.key(seed), 3)
    activations = jax.nn.relu(jax.random.normal(keys[0], (4, 4, 16), jnp.float32))
    hidden = jax.random.normal(keys[1], (256, 32), jnp.float32) * (2 / 256) ** 0.5
    output = jax.random.normal(keys[2], (32, 6), jnp.float32) * (2 / 32) ** 0.5

    def head(a: Array) -> Array:
        return jax.nn.gelu(a.reshape(-1) @ hidden) @ output

    return _Case("gelu head", "random head 256-32-6 with GELU", head, activations, int(head(activations).argmax()))


def _summary(found: list[tuple[_Case, Verification]]) -> str:
    """A line for each verification."""
    lines = [["In short", "score", "linear", "alphas off by", "ill-cond.", "closed form", "3 tapes", "positive"]]
    for case, v in found:
        maps = (v.closed_form and v.closed_form.maps, v.nested_tapes.maps, v.grad_cam_positive)
        lines.append(
            [
                case.name,
                v.score,
                "proven" if v.piecewise_linear else "not proven",
                figure(v.closed_form_gap),
                percent(v.denominator.num_ill_conditioned, v.denominator.num_elements),
                *(figure(m.map_difference if m else None) for m in maps),
            ]
        )
    widths = (13, 13, 12, 15, 11, 13, 10, 12)
    rows = [
        "".join(text.ljust(w) if i < 3 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    return "\n".join(
        [
            *(row.rstrip() for row in rows),
            "  alphas off by: closed form against exact, where d1 > 0; ill-cond.: share of those alphas; last,",
            "  the largest difference from the map with exact alphas: with those of the closed form, of three",
            "  nested tapes, and the map of grad_cam_positive",
        ]
    )
