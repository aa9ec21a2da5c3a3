"""`python -m jaxcam series|volume|clip`: a drawn input of that kind, explained beside the truth about it."""

import argparse
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from jaxcam import metrics, scenes, tables
from jaxcam.commands.choices import Choice, choose, class_index
from jaxcam.commands.networks import add_maps, add_quiet
from jaxcam.commands.parser import Parser, UsageError, checked_place, known, one_line, report
from jaxcam.evaluation.protocol import Protocol
from jaxcam.explanation.explain import explain
from jaxcam.explanation.explanation import Status
from jaxcam.methods.method import bind
from jaxcam.models import SEQUENCE_MODELS
from jaxcam.models.chain import Chain
from jaxcam.pictures import Cell, Row, frames, panel, save, series
from jaxcam.pictures.overlays import STYLES
from jaxcam.pictures.slices import clip_cells, volume_cells
from jaxcam.progress import Progress, silent

_METHODS = ("grad_cam", "grad_cam_pp")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_CURVE, _SLICE, _FRAME = 480, 160, 80
_FPS = 6

Values = Float[np.ndarray, "*grid d"]
Heat = Float[np.ndarray, "*grid"]


class Kind(NamedTuple):
    """What can be drawn, and how it is shown."""

    draw: Callable[..., Any]
    values: str
    """The field of what is drawn that a network sees."""
    networks: tuple[str, ...]
    truth: Callable[[Any], Bool[np.ndarray, "*grid"]]
    """What the label is about."""
    cells: Callable[[Values, Heat, Bool[np.ndarray, "*grid"], str], list[Cell]]
    """In a style of overlays."""
    headings: tuple[str, ...]
    side: int
    """Of a cell, in points: its longer one."""
    style: str | None = None
    """The only one, where there is one."""
    moves: bool = False


def _cells_of_series(values: Values, heat: Heat, truth: Bool[np.ndarray, " t"], style: str) -> list[Cell]:
    del truth, style
    return [Cell(series(values, heat, width=_CURVE))]


def _cells_of_volume(values: Values, heat: Heat, truth: Bool[np.ndarray, "z y x"], style: str) -> list[Cell]:
    # The same slices for every method: through what the label is about, near its middle, which may be a torus's hole.
    places = np.argwhere(truth)
    nearest = np.square(places - places.mean(0)).sum(1).argmin()
    return volume_cells(values, heat, longest=2 * _SLICE, at=places[nearest].tolist(), style=style)


def _cells_of_clip(values: Values, heat: Heat, truth: Bool[np.ndarray, "t h w"], style: str) -> list[Cell]:
    del truth
    return [Cell(cell.image) for cell in clip_cells(values, heat, longest=2 * _FRAME, num=len(values), style=style)]


def _everything(drawn: Any) -> Bool[np.ndarray, "*grid"]:
    return drawn.masks.any(0)


def _what_travels(drawn: Any) -> Bool[np.ndarray, "t h w"]:
    return drawn.masks[:, int(drawn.moving)]


KINDS: Mapping[str, Kind] = {
    "series": Kind(
        *(scenes.series, "values", ("mini_tcn",), _everything, _cells_of_series, ("time",)),
        side=_CURVE,
        style="plain",  # the heat is the ground of the curve
    ),
    "volume": Kind(
        *(scenes.volume, "density", ("mini_net3d",), _everything, _cells_of_volume),
        headings=("across z", "across y", "across x"),
        side=_SLICE,
    ),
    "clip": Kind(
        *(scenes.clip, "frames", ("mini_c3d", "mini_convlstm"), _what_travels, _cells_of_clip),
        headings=tuple(f"frame {i}" for i in range(8)),
        side=_FRAME,
        moves=True,
    ),
}
"""By the command's name."""


class Shown(NamedTuple):
    """A method's map of a drawn input."""

    choice: Choice
    heatmap: Heat
    energy: float
    """The share of the heat on what the label is about."""
    hits: float
    """1 where its maximum lies there or next to it."""
    status: Status


def run(arguments: list[str]) -> int:
    """Runs the command, of which the kind is the first argument; returns its exit code."""
    kind, *rest = arguments
    shown = KINDS[kind]
    options = _parser(kind, shown).parse_args(rest)
    try:
        place = checked_place("--out", Path(options.out), _SUFFIXES)
        model = SEQUENCE_MODELS[options.model or shown.networks[0]]()
        choices = choose(options.methods, model, _METHODS)
        wanted = None if options.class_name is None else class_index(options.class_name, model.class_names)
    except UsageError as error:
        report(one_line(error))
        return 2
    drawn = jax.device_get(shown.draw(options.seed))
    values, truth = getattr(drawn, shown.values), shown.truth(drawn)
    bar = Progress(total=len(choices), label="explain")
    with silent() if options.quiet else contextlib.nullcontext(), bar:
        try:
            found = []
            for choice in choices:
                found.append(_explained(model, values, truth, choice, class_idx=wanted, layer=options.layer))
                bar.update(len(found))
        except (ValueError, TypeError) as error:
            report(f"--{one_line(error)}" if str(error).startswith("layer=") else one_line(error))
            return 2
    confidence = np.asarray(jax.nn.softmax(model(values[None]))[0])
    likeliest = int(confidence.argmax()) if wanted is None else wanted
    name, true_name = model.class_names[likeliest], model.class_names[int(drawn.class_idx)]
    title = f"{name} {100 * confidence[likeliest]:.1f} %, drawn as {true_name}"
    layer = model.default_layer if options.layer is None else options.layer
    about = f"{kind} {options.seed}, by {options.model or shown.networks[0]}, layer {layer}"
    try:
        style = shown.style or options.style
        _save(place, shown, values, truth, found, title=f"{title}\n{about}", style=style, dark=options.dark)
    except (ValueError, OSError) as error:
        report(f"--out: {one_line(error)}")
        return 2
    if not options.quiet:
        print(f"{about} -> {place}: {title}\n" + indent(_table(found), "  "))
    return 0


def _explained(
    model: Chain,
    values: Values,
    truth: Bool[np.ndarray, "*grid"],
    choice: Choice,
    *,
    class_idx: int | None,
    layer: str | int | None,
) -> Shown:
    bound = bind(choice.method, choice.options, draws=True)
    found = explain(
        model,
        values[None],
        class_idx=class_idx,
        method=choice.method,
        layer=layer if bound.takes_layer else None,
        key=jax.random.key(0) if bound.takes_key else None,
        **choice.options,
    )
    heat = np.asarray(found.heatmap[0])
    return Shown(
        choice,
        heat,
        float(metrics.energy_pointing_game(heat, truth)),
        float(metrics.pointing_game(heat, truth, tolerance=Protocol().tolerance * min(truth.shape))),
        Status(int(found.status[0])),
    )


def _save(
    place: Path,
    kind: Kind,
    values: Values,
    truth: Bool[np.ndarray, "*grid"],
    found: Sequence[Shown],
    *,
    title: str,
    style: str,
    dark: bool,
) -> None:
    """The picture; of a clip as .webp one that moves."""
    maps = [("drawn", "the truth", truth.astype(np.float32))]
    maps += [(each.choice.title, f"{100 * each.energy:.0f} % inside", each.heatmap) for each in found]
    if kind.moves and place.suffix.lower() == ".webp":
        save(_moving(values, [heat for *_, heat in maps], style), place, fps=_FPS)
        return
    rows = [Row(f"{name}\n{fact}", kind.cells(values, heat, truth, style)) for name, fact, heat in maps]
    save(panel(rows, headings=kind.headings, title=title, style=style, cell_size=kind.side, dark=dark), place)


def _moving(values: Values, heats: Sequence[Heat], style: str) -> list[Image.Image]:
    """The frames with each heat, side by side."""
    lanes = [frames(values, heat, size=4 * _FRAME, style=style) for heat in heats]
    width, height = lanes[0][0].size
    pages = []
    for together in zip(*lanes, strict=True):
        page = Image.new("RGB", (width * len(together), height))
        for i, frame in enumerate(together):
            page.paste(frame, (i * width, 0))
        pages.append(page)
    return pages


def _table(found: Sequence[Shown]) -> str:
    lines = [
        [each.choice.title, f"{100 * each.energy:.1f} %", "yes" if each.hits else "no", each.status.words or "ok"]
        for each in found
    ]
    return tables.text(["method", "heat on the truth", "maximum there", "status"], lines, left=(0, 3))


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
    add_maps(parser, "grad_cam,grad_cam_pp")
    add(
        "--class",
        dest="class_name",
        metavar="CLASS",
        help="this class (the likeliest): an index, a name, or part of it",
    )
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
