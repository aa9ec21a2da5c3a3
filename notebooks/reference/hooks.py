"""What the reference is made of beside its own pages: the package's public names, the notebooks, the measured tables.

A page for each room with the names of its `__all__`, each with its docstring; the notebooks and the tables as they are
in the repository; and llms.txt, the same in short for those who read with a program. A public name without a docstring
ends the build.
"""

import json
import re
from base64 import b64decode
from functools import partial
from pathlib import Path

import griffe
import latex2mathml.converter
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
JAXCAM = griffe.load("jaxcam", search_paths=[ROOT])
ROOMS = {
    "explanation": "Maps of a batch",
    "targets": "What is explained",
    "cuts": "Any model",
    "methods": "Methods",
    "derivatives": "Derivatives",
    "alphas": "Alphas",
    "scores": "Scores",
    "closed_forms": "Closed forms",
    "maps": "Maps",
    "verification": "Verification",
    "programs": "Programs",
    "evaluation": "On a data set",
    "metrics": "Metrics",
    "datasets": "Data sets",
    "learning": "Learning",
    "models": "Networks",
    "images": "Images",
    "scenes": "Scenes",
    "pictures": "Pictures",
    "pages": "Pages",
}
"""The rooms in the order of a reader who comes from `explain`, with the titles of their pages."""
OURS = {"checks", "commands", "files", "foldable", "precision", "progress", "tables", "types", "version"}
"""Rooms with nothing for users: what all the others share, and the command, which has a --help."""
MEASURED = ("README", "tables", "protocols", "controls", "learning")
"""The notes of tests/benchmarks that are pages."""


def public_names(room):
    """What stands in the room's `__all__`."""
    return [str(name).strip("'") for name in JAXCAM[room].exports]


def place(room, name):
    """Where a public name is found: a function in a file of its own name would be taken for the file."""
    own = f"{room}.{name}.{name}"
    return own if JAXCAM[f"{room}.{name}"].is_module and name in JAXCAM[f"{room}.{name}"].members else f"{room}.{name}"


def sentence(room, name):
    """The first sentence of a public name's docstring.

    Raises:
        PluginError: it has none.
    """
    found = JAXCAM[place(room, name)]
    found = found.final_target if found.is_alias else found
    if found.docstring is None:
        raise PluginError(f"jaxcam.{room}.{name} is public but has no docstring: say what it is")
    return re.split(r"(?<=\.)\s", " ".join(found.docstring.value.partition("\n\n")[0].split()))[0]


def room_page(room):
    """The page of a room: its sign, then every public name."""
    lines = [f"# {ROOMS[room]}", "", f"`jaxcam.{room}`: {JAXCAM[room].docstring.value}", ""]
    for name in public_names(room):
        sentence(room, name)
        lines += [f"::: jaxcam.{place(room, name)}", "    options:", f"      heading: jaxcam.{room}.{name}", ""]
    return "\n".join(lines)


def short_list():
    """llms.txt: what the package is, and every public name with its first sentence."""
    lines = ["# jaxcam", "", "> " + JAXCAM.docstring.value.replace("\n", "\n> ")]
    for room, title in ROOMS.items():
        lines += ["", f"## {title} (jaxcam.{room})", ""]
        for name in public_names(room):
            lines.append(f"- [{name}](reference/{room}.html#jaxcam.{place(room, name)}): {sentence(room, name)}")
    return "\n".join(lines) + "\n"


def repository_links(text, up="../"):
    """Links to notebooks and tables lead to their pages here; those to other files of the repository stay as words."""

    def link(match):
        words, place = match.groups()
        if place.startswith(("#", "http")):
            return match[0]
        stem, ending = Path(place.partition("#")[0]).stem, Path(place.partition("#")[0]).suffix
        if ending == ".ipynb":
            return f"[{words}]({up}notebooks/{stem}.md)"
        return f"[{words}]({up}measured/{stem}.md)" if ending == ".md" and stem in MEASURED else words

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", link, text)


def measured_page(name):
    """A table of tests/benchmarks."""
    return repository_links((ROOT / "tests" / "benchmarks" / f"{name}.md").read_text())


def with_mathml(text):
    """Formulas between dollars as MathML, which browsers draw by themselves; code is left alone."""

    def drawn(match):
        code, block, inline = match.groups()
        if code:
            return code
        if block:
            return latex2mathml.converter.convert(re.sub(r"\\tag\{(.*?)\}", r"\\qquad (\1)", block), display="block")
        return f"<span>{latex2mathml.converter.convert(inline)}</span>"  # Markdown ends a paragraph at <math> alone

    return re.sub(r"(```.*?```|`[^`\n]+`)|\$\$(.+?)\$\$|\$([^$\n]+?)\$", drawn, text, flags=re.DOTALL)


def shown(output):
    """One output of a cell: a picture as its bytes and ending, or text."""
    data = output.get("data", {})
    for kind, ending in (("image/png", "png"), ("image/webp", "webp"), ("image/jpeg", "jpg")):
        if kind in data:
            return b64decode("".join(data[kind])), ending
    text = "".join(data.get("text/plain", output.get("text", "")))
    return (text.rstrip(), None) if text.strip() else None


def notebook_pages(path, add):
    """A notebook as a page and its pictures; the page's title, its first paragraph and the pictures' names."""
    lines, pictures, title, opening = [], [], None, ""
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            if title is None:
                head, _, rest = source.partition("\n")
                title, opening = head.lstrip("# "), rest.strip().split("\n\n")[0]
            lines += [repository_links(with_mathml(source)), ""]
            continue
        lines += [f"```python\n{source}\n```", ""]
        for found in filter(None, map(shown, cell.get("outputs", []))):
            if found[1] is None:
                lines += [f"```text\n{found[0]}\n```", ""]
                continue
            name = f"{path.stem}_{len(pictures)}.{found[1]}"
            yield add(f"notebooks/{name}", content=found[0])
            pictures.append(name)
            lines += [f"![Output]({name})", ""]
    yield add(f"notebooks/{path.stem}.md", content="\n".join(lines))
    yield title, opening, pictures


def gallery(add):
    """The page of all notebooks with a picture of each, and the notebooks' own pages."""
    lines = ["# Gallery", ""]
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        *made, (title, opening, pictures) = notebook_pages(path, add)
        yield from made
        lines += [f"## [{title}](notebooks/{path.stem}.md)", "", repository_links(with_mathml(opening), up=""), ""]
        if pictures:
            lines += [f"[![{title}](notebooks/{pictures[0]})](notebooks/{path.stem}.md)", ""]
    yield add("gallery.md", content="\n".join(lines))


def check_statuses():
    """Every status has its place on the page of statuses.

    Raises:
        PluginError: one has not.
    """
    told = (Path(__file__).parent / "pages" / "statuses.md").read_text()
    for name in JAXCAM["explanation.Status"].final_target.attributes:
        if name.isupper() and f"\n## {name}\n" not in told:
            raise PluginError(f"Status.{name} is not told of in pages/statuses.md: say what it means and what to do")


def check_rooms():
    """Every room that has something for users has its page.

    Raises:
        PluginError: one has not.
    """
    rooms = {name for name, each in JAXCAM.members.items() if not each.is_alias and each.is_module and name[0] != "_"}
    if left := sorted(rooms - {*ROOMS, *OURS}):
        raise PluginError(
            f"jaxcam.{left[0]} has no page: give it a title in ROOMS, or say in OURS that it is for us only"
        )


def on_config(config):
    """The pages in their order."""
    notebooks = [f"notebooks/{path.stem}.md" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    config.nav += [
        {"Notebooks": ["gallery.md", *notebooks]},
        {"Reference": [f"reference/{room}.md" for room in ROOMS]},
        {"Measured": [f"measured/{name}.md" for name in MEASURED]},
    ]
    return config


def on_files(files, config):
    """Adds the pages that are made."""
    check_rooms()
    check_statuses()
    add = partial(File.generated, config)
    for room in ROOMS:
        files.append(add(f"reference/{room}.md", content=room_page(room)))
    for name in MEASURED:
        files.append(add(f"measured/{name}.md", content=measured_page(name)))
    for picture in sorted((ROOT / "notebooks" / "pictures").glob("*.webp")):
        files.append(add(f"pictures/{picture.name}", abs_src_path=str(picture)))
    for made in gallery(add):
        files.append(made)
    files.append(add("llms.txt", content=short_list()))
    return files
