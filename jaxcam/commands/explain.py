"""`python -m jaxcam [IMAGE ...]`: pictures in, panels and a table out."""

import argparse
import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path

from PIL import Image

from jaxcam.commands.choices import Choice, choose, class_index
from jaxcam.commands.networks import (
    add_maps,
    add_network,
    add_quiet,
    by_options,
    default_name,
    network,
    photograph,
    tell_what_it_knows,
)  # fmt: skip
from jaxcam.commands.parser import Parser, UsageError, checked_place, one_line, printable, report
from jaxcam.commands.report import explained, panel_of, table_of, table_of_page
from jaxcam.datasets.image_files import files_in, others_in
from jaxcam.images.preprocessing import read_for_views
from jaxcam.methods.method import METHODS
from jaxcam.models import Network
from jaxcam.pages import Page, page
from jaxcam.pictures import save
from jaxcam.pictures.overlays import STYLES
from jaxcam.progress import Progress, silent

_DEFAULT_METHODS = ("grad_cam", "grad_cam_pp", "cam", "guided_grad_cam")
_PAGE_METHODS = ("grad_cam", "grad_cam_pp")
_PAGE = ".html"
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", _PAGE)
_OUT = "jaxcam.png"
_MOST_ENLARGED = 8
"""Pictures that are enlarged by more show a network little: CIFAR's, of 32 pixels, by 7."""
_EPILOG = """\
Without IMAGE a photograph is explained with the extra `photographs`, else a
drawing. Several pictures go to OUT with their names added. Exit codes: 0;
1 if some could not be read; 2 if none could, or for a wrong option or file.

  python -m jaxcam cat.jpg dog.png --model resnet50 --weights imagenet
  python -m jaxcam both.png --class "tiger cat" --methods grad_cam,score_cam

Others: python -m jaxcam evaluate|layers|train|verify --help"""


def run(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        images = list(_images(options.images, quiet=options.quiet))
        name = options.model or default_name(for_photographs=bool(options.images) or photograph() is not None)
        places = _places(images, Path(options.out))
        model = network(name, options.weights)
        class_idx = None if options.class_name is None else class_index(options.class_name, model.class_names)
        is_page = places[0][1].suffix.lower() == _PAGE
        _check_style(options, is_page=is_page)
        choices = choose(options.methods, model, _PAGE_METHODS if is_page else _DEFAULT_METHODS)
    except UsageError as error:
        report(one_line(error))
        return 2
    failed, done = 0, 0
    steps = 1 if is_page else len(choices)
    bar = Progress(total=len(places) * steps, label="explain")
    with silent() if options.quiet else contextlib.nullcontext(), bar:
        for number, (source, place) in enumerate(places):
            heading = printable(f"{source}, by {name} -> {place}")
            done = number * steps

            def told() -> None:
                nonlocal done
                done += 1
                bar.update(done)

            kind = _page if is_page else _panel
            if not options.quiet:
                _tell_if_small(source, model)
            draw = partial(kind, model, options=options, choices=choices, class_idx=class_idx, name=name)
            try:
                made, table = draw(source, title=source.name, heading=heading, told=told)
            except (ValueError, TypeError, OSError) as error:
                report(by_options(error, name) if source.exists() else one_line(error))
                failed += 1
                continue
            try:
                made.save(place) if isinstance(made, Page) else save(made, place)
            except (ValueError, OSError) as error:
                report(f"--out: {one_line(error)}")
                return 2
            if not options.quiet:
                print(table)
    if failed == len(places):
        return 2
    if options.images and options.model is None and not options.quiet:
        tell_what_it_knows(name, model, drawn=False)
    return 1 if failed else 0


def _panel(
    model: Network,
    source: Path,
    *,
    options: argparse.Namespace,
    choices: Sequence[Choice],
    class_idx: int | None,
    name: str,
    title: str,
    heading: str,
    told: Callable[[], None],
) -> tuple[Image.Image, str]:
    """A picture of the likeliest classes, and its figures."""
    size = options.size or 224
    found = explained(
        model,
        read_for_views(source, model.preprocessing, size),
        class_idx=class_idx,
        choices=choices,
        layer=options.layer,
        top=options.top,
        size=size,
        told=told,
    )
    title = f"{printable(title)}\n{name}"
    drawn = panel_of(found, title=title, style=options.style or STYLES[0], dark=options.dark)
    return drawn, table_of(found, title=heading)


def _page(
    model: Network,
    source: Path,
    *,
    options: argparse.Namespace,
    choices: Sequence[Choice],
    class_idx: int | None,
    name: str,
    title: str,
    heading: str,
    told: Callable[[], None],
) -> tuple[Page, str]:
    """A page of all classes, and the figures of the likeliest."""
    made = page(
        model,
        source,
        methods=[
            partial(METHODS[each.method].function, **each.options) if each.options else each.method for each in choices
        ],
        layer=options.layer,
        class_idx=class_idx,
        top=options.top,
        title=title,
        network=name,
        size=options.size or 448,
    )
    told()
    return made, table_of_page(made, title=heading, top=options.top or 3)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m jaxcam",
        usage="python -m jaxcam [IMAGE ...] [OPTION ...]",
        description="Shows what an image network looked at: class activation maps and a table.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("images", nargs="*", metavar="IMAGE", help="JPEG, PNG, WebP, BMP or GIF files, or folders")
    add_network(parser)
    add_maps(parser, "four")
    add("--top", type=_top, metavar="K", help="the K likeliest classes (3 that look at different things)")
    add("--class", dest="class_name", metavar="CLASS", help="this class: an index, a name, or part of one")
    add("--out", default=_OUT, metavar="FILE", help=f"the picture ({_OUT}), a page (.html), or a folder")
    add("--size", type=_size, metavar="PIXELS", help="of the small pictures, 96 to 2048 (224; on a page 448)")
    add("--style", choices=STYLES, metavar="NAME", help="grey (this), colour or plain")
    add("--dark", action="store_true", help="on a dark ground")
    add_quiet(parser)
    return parser


def _tell_if_small(source: Path, model: Network) -> None:
    """A note where there is so little to be seen that the network's opinion means nothing."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(source) as picture:
            width, height = picture.size
    except (OSError, ValueError, Image.DecompressionBombError):  # what is wrong with it is said where it is read
        return
    side = model.preprocessing.crop
    if side is not None and side > _MOST_ENLARGED * min(width, height):
        report(
            f"{printable(str(source))} has {width} x {height} pixels, of which the network sees {min(width, height)} x "
            f"{min(width, height)}, enlarged to {side} x {side}: what it makes of them means little"
        )


def _check_style(options: argparse.Namespace, *, is_page: bool) -> None:
    if is_page and (options.style or options.dark):
        raise UsageError("--style and --dark are for pictures: a page has switches of its own")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)


def _top(text: str) -> int:
    # A row of pictures for each: more than a person looks at, and than a picture of sensible size holds.
    if _positive(text) > 20:
        raise argparse.ArgumentTypeError(f"must be from 1 to 20, not {text}")
    return int(text)


def _size(text: str) -> int:
    value = _positive(text)
    if not 96 <= value <= 2048:
        raise argparse.ArgumentTypeError(f"must be from 96 to 2048 pixels, not {value}")
    return value


def _images(given: Sequence[str], *, quiet: bool) -> Iterator[Path]:
    """The files that are named, and those in folders that are."""
    for image in given:
        if not image.strip():
            raise UsageError("IMAGE is empty: give the path of a picture, or of a folder of them")
        try:
            if Path(image).is_dir():
                yield from (file.path for file in files_in(Path(image)))
                others = others_in(Path(image))
                if others and not quiet:  # as the HEIC files of a telephone, which would be missed in silence
                    listed = ", ".join(others[:4]) + (", …" if len(others) > 4 else "")
                    report(printable(f"{image}: {len(others)} left out, of kinds that are not read: {listed}"))
                continue
        except (ValueError, OSError) as error:
            raise UsageError(one_line(error)) from None
        yield Path(image)


def _places(images: Sequence[Path], out: Path) -> list[tuple[Path, Path]]:
    """Each picture and where its panel goes."""
    if not out.suffix and not out.exists():
        raise UsageError(
            f"--out: there is no folder {printable(str(out))!r}: make it, or end the name of a file in one of "
            f"{', '.join(_SUFFIXES)}"
        )
    out = checked_place("--out", out / _OUT if out.is_dir() else out, _SUFFIXES)
    if not images:
        return [(photograph() or Path(str(files("jaxcam") / "data" / "scene.png")), out)]
    places = [(image, out.with_name(f"{out.stem}-{name}{out.suffix}")) for image, name in _named(images)]
    if len(images) == 1:
        places = [(images[0], out)]
    sources = {source.resolve() for source, _ in places}
    for _, place in places:
        if place.resolve() in sources:
            raise UsageError(f"--out: {str(place)!r} is one of the pictures to explain; choose another name")
    return places


def _named(images: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Each image with its stem, numbered where it occurs again."""
    seen: dict[str, int] = {}
    for image in images:
        # The name of a file has 255 bytes at most, and this one stands behind that of --out.
        stem = printable(image.stem).encode()[:150].decode(errors="ignore")
        seen[stem] = seen.get(stem, 0) + 1
        yield image, stem if seen[stem] == 1 else f"{stem}-{seen[stem]}"
