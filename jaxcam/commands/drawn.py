"""`python -m jaxcam series|volume|clip|caption|question`: one is drawn, and explained beside the truth about it."""

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path
from textwrap import indent
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from jaxcam import metrics, tables
from jaxcam.commands.choices import Choice, choose
from jaxcam.commands.kinds import FRAME, KINDS, NETWORKS, Asked, Heat, Kind, Values, Wanted
from jaxcam.commands.networks import add_maps, add_quiet, by_options
from jaxcam.commands.parser import Parser, UsageError, checked_place, known, one_line, report
from jaxcam.evaluation.protocol import Protocol
from jaxcam.explanation.explain import explain
from jaxcam.explanation.explanation import Status
from jaxcam.methods.method import bind
from jaxcam.models.chain import Chain
from jaxcam.models.reader import Reader
from jaxcam.pictures import Cell, Row, frames, panel, save
from jaxcam.pictures.overlays import STYLES
from jaxcam.progress import Progress, silent

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_FPS = 6


class Shown(NamedTuple):
    """A method's maps of a drawn input: one, or one for each score."""

    choice: Choice
    heatmap: Heat
    energy: list[float | None]
    """Of each map the share of the heat on what it is about; None where that is nothing."""
    hits: list[bool | None]
    """Whether its maximum lies there or next to it."""
    status: list[Status]


def run(arguments: list[str]) -> int:
    """Runs the command, of which the kind is the first argument; returns its exit code."""
    kind, *rest = arguments
    shown = KINDS[kind]
    options = _parser(kind, shown).parse_args(rest)
    name = options.model or shown.networks[0]
    try:
        place = checked_place("--out", Path(options.out), _SUFFIXES)
        model = NETWORKS[name]()
        choices = choose(options.methods, model, shown.methods)
        drawn = jax.device_get(shown.draw(options.seed))
        asked = shown.ask(drawn, model, Wanted(options.class_name, options.words))
    except UsageError as error:
        report(one_line(error))
        return 2
    bar = Progress(total=len(choices), label="explain")
    with silent() if options.quiet else contextlib.nullcontext(), bar:
        try:
            found = []
            for choice in choices:
                found.append(_explained(model, asked, choice, layer=options.layer))
                bar.update(len(found))
        except (ValueError, TypeError) as error:
            report(by_options(error, name))
            return 2
    layer = model.default_layer if options.layer is None else options.layer
    about = f"{kind} {options.seed}, by {name}, layer {layer}"
    try:
        style = shown.style or options.style
        _save(place, shown, asked, found, title=f"{asked.title}\n{about}", style=style, dark=options.dark)
    except (ValueError, OSError) as error:
        report(f"--out: {one_line(error)}")
        return 2
    if not options.quiet:
        print(f"{about} -> {place}: {asked.title}\n" + indent(_table(asked, found), "  "))
    return 0


def _explained(model: Chain | Reader, asked: Asked, choice: Choice, *, layer: str | int | None) -> Shown:
    bound = bind(choice.method, choice.options, draws=True)
    found = explain(
        model,
        asked.inputs,
        class_idx=asked.class_idx,
        target=asked.target,
        method=choice.method,
        layer=layer if bound.takes_layer else None,
        key=jax.random.key(0) if bound.takes_key else None,
        **choice.options,
    )
    heat, energy, hits = np.asarray(found.heatmap[0]), [], []
    for one, truth in zip(*_by_score(asked, heat, asked.truth), strict=True):
        about = bool(truth.any())
        reach = Protocol().tolerance * min(truth.shape)
        energy.append(float(metrics.energy_pointing_game(one, truth)) if about else None)
        hits.append(bool(metrics.pointing_game(one, truth, tolerance=reach)) if about else None)
    return Shown(choice, heat, energy, hits, [Status(int(status)) for status in np.ravel(found.status[0])])


def _by_score(asked: Asked, *values: np.ndarray) -> list[np.ndarray]:
    """Each with an axis of scores in front."""
    return list(values) if asked.scores else [value[None] for value in values]


def _save(place: Path, kind: Kind, asked: Asked, found: Sequence[Shown], *, title: str, style: str, dark: bool) -> None:
    """The picture; of a clip as .webp one that moves."""
    heats = [asked.truth.astype(np.float32), *(each.heatmap for each in found)]
    if kind.moves and place.suffix.lower() == ".webp":
        save(_moving(asked.values, heats, style), place, fps=_FPS)
        return
    rows = []
    for each, heat in zip([None, *found], heats, strict=True):
        cells = kind.cells(asked.values, heat, asked.truth, style)
        facts = [] if each is None else [_inside(energy) for energy in each.energy]
        if asked.scores:  # below each of them
            below = asked.notes if each is None else facts
            cells = [Cell(cell.image, text) for cell, text in zip(cells, below, strict=True)]
        truth = "the truth" if asked.truth.any() else "no truth is known"
        name = f"drawn\n{truth}" if each is None else each.choice.title
        rows.append(Row(name if asked.scores or each is None else f"{name}\n{facts[0]}", cells))
    whole = panel(
        rows,
        headings=asked.scores or kind.headings,
        title=title,
        lead=Cell(asked.values) if asked.scores else None,
        style=style,
        cell_size=kind.side,
        dark=dark,
    )
    save(whole, place)


def _inside(energy: float | None) -> str:
    return "" if energy is None else f"{100 * energy:.0f} % inside"


def _moving(values: Values, heats: Sequence[Heat], style: str) -> list[Image.Image]:
    """The frames with each heat, side by side."""
    lanes = [frames(values, heat, size=4 * FRAME, style=style) for heat in heats]
    width, height = lanes[0][0].size
    pages = []
    for together in zip(*lanes, strict=True):
        page = Image.new("RGB", (width * len(together), height))
        for i, frame in enumerate(together):
            page.paste(frame, (i * width, 0))
        pages.append(page)
    return pages


def _table(asked: Asked, found: Sequence[Shown]) -> str:
    lines = []
    for i, score in enumerate(asked.scores or ("",)):
        for each in found:
            energy, hits = each.energy[i], each.hits[i]
            figures = ["-", "-"] if energy is None else [f"{100 * energy:.1f} %", "yes" if hits else "no"]
            lines.append([score, each.choice.title, *figures, each.status[i].words or "ok"])
    header = ["", "method", "heat on the truth", "maximum there", "status"]
    if asked.scores:
        return tables.text(header, lines, left=(0, 1, 4))
    return tables.text(header[1:], [line[1:] for line in lines], left=(0, 3))


def _parser(kind: str, shown: Kind) -> Parser:
    parser = Parser(
        prog=f"python -m jaxcam {kind}",
        description="Draws one, explains what a network saw of it, and shows the truth beside it.",
        epilog=f"  python -m jaxcam {kind} --seed 7 --methods grad_cam,grad_cam_positive",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--seed", type=_seed, default=0, metavar="N", help="which one is drawn (0)")
    networks = ", ".join(shown.networks)
    add("--model", type=known("network", shown.networks), metavar="NAME", help=f"{networks} (the first)")
    add_maps(parser, ",".join(shown.methods))
    parser.set_defaults(class_name=None, words=None)
    if shown.of_classes:
        told = "this class (the likeliest): an index, a name, or part of it"
        add("--class", dest="class_name", metavar="CLASS", help=told)
    if shown.of_words is not None:
        add("--words", metavar="TEXT", help=shown.of_words)
    moving = "; .webp moves" if shown.moves else ""
    add("--out", default=f"{kind}.png", metavar="FILE", help=f"the picture ({kind}.png{moving})")
    if shown.style is None:
        add("--style", choices=STYLES, default=STYLES[0], metavar="NAME", help="grey (this), colour or plain")
    add("--dark", action="store_true", help="on a dark ground")
    add_quiet(parser)
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, below 2^32, not {text!r}")
    return int(text)
