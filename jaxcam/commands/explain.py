"""`python -m jaxcam [IMAGE ...]`: pictures in, panels and a table out."""

import argparse
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from PIL import Image

from jaxcam.commands.networks import MODELS_HELP, WEIGHTS_HELP, network
from jaxcam.commands.parser import Parser, UsageError, one_line, printable, report
from jaxcam.commands.report import explained, panel_of, table_of, table_of_page
from jaxcam.images.reading import read_picture
from jaxcam.methods.method import METHODS
from jaxcam.models import EMBEDDED_MODELS, MODELS, Network
from jaxcam.pages import Page, page
from jaxcam.pictures import save
from jaxcam.progress import progress

_DEFAULT_METHODS = ("grad_cam", "grad_cam_pp", "cam", "guided_grad_cam")
_PAGE_METHODS = ("grad_cam", "grad_cam_pp")
_PAGE = ".html"
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", _PAGE)
_METHODS = "comma-separated: grad_cam, grad_cam_pp, cam, guided_grad_cam (these), layer_cam, score_cam ..."
_EPILOG = """\
Without IMAGE a bundled picture is explained. The mini networks know ten drawn
figures; photographs need a network with weights. Of several pictures each is
written to OUT with its name added. Exit codes: 0; 1 if some pictures could not
be read; 2 if none could, or for a wrong option or weights file.

  python -m jaxcam cat.jpg dog.png --model resnet50 --weights imagenet
  python -m jaxcam both.png --class "tiger cat" --model resnet18 --weights FILE

Other commands: python -m jaxcam evaluate --help, train --help, verify --help"""


def run(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        name = _name(options)
        model = network(name, options.weights)
        class_idx = None if options.class_name is None else _class_idx(options.class_name, model.class_names)
        is_page = Path(options.out).suffix.lower() == _PAGE
        methods = _methods(options.method, model, _PAGE_METHODS if is_page else _DEFAULT_METHODS)
        places = _places(options.images, Path(options.out))
    except UsageError as error:
        report(one_line(error))
        return 2
    failed = 0
    told = progress(places, total=len(places), label="explain") if len(places) > 1 else places
    for source, place in told:
        heading = printable(f"{source}, by {name} -> {place}")
        try:
            picture = read_picture(source)
            kind = _page if is_page else _panel
            made, table = kind(model, picture, options, methods, class_idx, title=source.name, heading=heading)
        except (ValueError, OSError) as error:
            report(one_line(error))
            failed += 1
            continue
        try:
            made.save(place) if isinstance(made, Page) else save(made, place)
        except (ValueError, OSError) as error:
            report(f"--out: {one_line(error)}")
            return 2
        print(table)
    if failed == len(places):
        return 2
    if options.images and options.model is None:
        report(
            f"{name} knows {', '.join(model.class_names)}; for photographs: --model resnet50 --weights FROM "
            "(a file, a Hugging Face repo, or imagenet)"
        )
    return 1 if failed else 0


def _panel(
    model: Network,
    picture: Image.Image,
    options: argparse.Namespace,
    methods: tuple[str, ...],
    class_idx: int | None,
    *,
    title: str,
    heading: str,
) -> tuple[Image.Image, str]:
    """A picture of the likeliest classes, and its figures."""
    top, size = options.top or 3, options.size or 224
    found = explained(model, picture, class_idx=class_idx, methods=methods, top=top, size=size)
    return panel_of(found, title=f"{printable(title)}\n{_name(options)}"), table_of(found, title=heading)


def _page(
    model: Network,
    picture: Image.Image,
    options: argparse.Namespace,
    methods: tuple[str, ...],
    class_idx: int | None,
    *,
    title: str,
    heading: str,
) -> tuple[Page, str]:
    """A page of all classes, and the figures of the likeliest."""
    made = page(
        model,
        picture,
        methods=methods,
        class_idx=class_idx,
        top=options.top,
        title=title,
        network=_name(options),
        size=options.size or 448,
    )
    return made, table_of_page(made, title=heading)


def _name(options: argparse.Namespace) -> str:
    return options.model or EMBEDDED_MODELS[0]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m jaxcam",
        description="Shows what an image network looked at: class activation maps and a table.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="JPEG, PNG, WebP, BMP or GIF files")
    parser.add_argument("--model", choices=MODELS, metavar="NAME", help=MODELS_HELP)
    parser.add_argument("--weights", metavar="FROM", help=WEIGHTS_HELP)
    parser.add_argument("--method", metavar="LIST", help=_METHODS)
    parser.add_argument(
        "--top", type=_top, metavar="K", help="explain the K likeliest classes, up to 20 (3; on a page all)"
    )
    parser.add_argument(
        "--class", dest="class_name", metavar="CLASS", help="explain this class: an index, a name, or part of one"
    )
    parser.add_argument(
        "--out", default="jaxcam.png", metavar="FILE", help="the picture to write (jaxcam.png), or a page (.html)"
    )
    parser.add_argument(
        "--size", type=_size, metavar="PIXELS", help="side of each small picture, 96 to 2048 (224; on a page 448)"
    )
    return parser


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


def _methods(listed: str | None, model: Network, default: tuple[str, ...]) -> tuple[str, ...]:
    """The methods of --method; by default those of the panel that apply to the model, an empty field for the others."""
    if listed is None:
        return default
    methods = tuple(dict.fromkeys(name.strip() for name in listed.split(",")))
    for name in methods:
        if name not in METHODS:
            raise UsageError(f"--method: {name!r} is not known: use one or more of {', '.join(METHODS)}")
    if methods == ("cam",) and model.cam_layer is None:
        raise UsageError(
            f"--method cam needs a network that ends in global average pooling, which {type(model).__name__} does not: "
            "use --method grad_cam"
        )
    return methods


def _class_idx(wanted: str, names: Sequence[str]) -> int:
    """The index of a class given by index, by name or by an unambiguous part of its name."""
    if wanted.isdecimal():
        if int(wanted) >= len(names):
            raise UsageError(f"--class {wanted} is out of range: the network has classes 0 to {len(names) - 1}")
        return int(wanted)
    text = wanted.strip().casefold()
    for matches in (
        [i for i, name in enumerate(names) if name.casefold() == text],
        [i for i, name in enumerate(names) if text and text in name.casefold()],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            shown = ", ".join(f"{names[i]} ({i})" for i in matches[:6])
            raise UsageError(f"--class {wanted!r} may be any of: {shown}{', …' if len(matches) > 6 else ''}")
    raise UsageError(f"--class {wanted!r} is no class of this network: names look like {', '.join(names[:5])} …")


def _places(images: Sequence[str], out: Path) -> list[tuple[Path, Path]]:
    """Each picture and where its panel goes."""
    if out.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"--out must end in one of {', '.join(_SUFFIXES)}, not {str(out)!r}")
    if not out.parent.is_dir():
        raise UsageError(f"--out: there is no folder {str(out.parent)!r}")
    if not images:
        return [(Path(str(files("jaxcam") / "data" / "scene.png")), out)]
    if not all(image.strip() for image in images):
        raise UsageError("IMAGE is empty: give the path of a picture")
    places = [(Path(image), out.with_name(f"{out.stem}-{name}{out.suffix}")) for image, name in _named(images)]
    if len(images) == 1:
        places = [(Path(images[0]), out)]
    sources = {source.resolve() for source, _ in places}
    for _, place in places:
        if place.resolve() in sources:
            raise UsageError(f"--out: {str(place)!r} is one of the pictures to explain; choose another name")
    return places


def _named(images: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each image with its stem, numbered where it occurs again."""
    seen: dict[str, int] = {}
    for image in images:
        # The name of a file has 255 bytes at most, and this one stands behind that of --out.
        stem = printable(Path(image).stem).encode()[:150].decode(errors="ignore")
        seen[stem] = seen.get(stem, 0) + 1
        yield image, stem if seen[stem] == 1 else f"{stem}-{seen[stem]}"
