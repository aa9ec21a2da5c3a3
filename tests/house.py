"""The structure of the package, read off its source: which module imports which, on which floor each one is.

    python tests/house.py [FOLDER]

prints the figures (floors, circles, imports upward, files, lines) for this checkout, or for another one's `jaxcam/`.
"""

import ast
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[1] / "jaxcam"
FLOORS = (
    {"version", "types", "precision", "checks", "tables", "foldable", "files", "progress", "scores"},
    {"programs", "images", "closed_forms"},
    {"cuts", "derivatives", "metrics", "pictures", "datasets", "alphas", "maps", "targets"},
    {"methods", "scenes", "verification"},
    {"explanation", "models"},
    {"evaluation", "learning", "pages"},
    {"commands"},
    {"__init__", "__main__"},
)
"""From the ground up; a room imports from those below."""
WITHOUT_CAM = {"programs", "images"}
"""Rooms that know of no score."""


class Import(NamedTuple):
    """That one module takes something from another, both by their dotted names below the package."""

    source: str
    target: str
    hidden: bool
    """Whether it stands inside a function."""
    line: int


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """The files by their dotted names: "cuts.layers"; a room itself, its `__init__.py`, by its own: "cuts"."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


def imports(package: Path = PACKAGE) -> list[Import]:
    """All imports of the package's own modules, wherever they stand."""
    known = modules(package)
    found = []
    for name, path in known.items():
        for node, is_inside in _imports_in(ast.parse(path.read_text(encoding="utf-8"))):
            targets = []
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                # `from jaxcam.cuts import layers` may mean the module of that name, or something in the room's sign.
                both = [(f"{node.module}.{alias.name}", node.module) for alias in node.names]
                targets = [whole if whole.removeprefix("jaxcam.") in known else room for whole, room in both]
            elif isinstance(node, ast.ImportFrom) and node.level:
                raise AssertionError(f"{path}: a relative import, which is not followed here")
            own = [target for target in targets if target.split(".")[0] == "jaxcam"]
            for target in own:
                short = target.removeprefix("jaxcam").removeprefix(".") or "__init__"
                found.append(Import(name, short, is_inside, node.lineno))
    return found


def _imports_in(tree: ast.Module) -> list[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import statement, and whether it stands inside a function."""
    found, waiting = [], [(tree, False)]
    while waiting:  # expressions have no imports in them, but for the functions that they call; these stand elsewhere
        node, is_inside = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append((node, is_inside))
        is_inside = is_inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for part in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting += [(child, is_inside) for child in getattr(node, part, ()) if isinstance(child, ast.AST)]
    return found


def room(module: str) -> str:
    """The folder or the loose file that a module belongs to."""
    return module.split(".")[0]


def floor(module: str) -> int:
    """From 1."""
    return next(i for i, rooms in enumerate(FLOORS, 1) if room(module) in rooms)


def upward(found: list[Import]) -> list[Import]:
    """The imports that do not go down."""

    def goes_down(one: Import) -> bool:
        source, target = room(one.source), room(one.target)
        if source in WITHOUT_CAM and target == "scores":
            return False
        return source == target or floor(target) < floor(source)

    return [one for one in found if not goes_down(one)]


def circles(found: list[Import]) -> list[set[str]]:
    """The sets of modules that import each other, directly or around several corners."""
    onward: dict[str, set[str]] = {}
    for one in found:
        onward.setdefault(one.source, set()).add(one.target)

    def reached(start: str) -> set[str]:
        seen, waiting = set(), [start]
        while waiting:
            for target in onward.get(waiting.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        return seen

    reach = {module: reached(module) for module in onward}
    tied = {m: frozenset(n for n in reach[m] if m in reach.get(n, ())) for m in onward}
    return [set(circle) for circle in dict.fromkeys(tied.values()) if circle]


def storeys(found: list[Import]) -> int:
    """The floors that the imports of rooms really need: the longest way down. Circles count as one."""
    edges = {(room(one.source), room(one.target)) for one in found if room(one.source) != room(one.target)}
    names = {name for edge in edges for name in edge}
    height = dict.fromkeys(names, 1)
    for _ in names:
        for above, below in edges:
            if (below, above) not in edges:
                height[above] = max(height[above], height[below] + 1)
    return max(height.values(), default=0)


def names_twice(package: Path = PACKAGE) -> dict[str, int]:
    """File names that stand in several rooms; commands are called like what they run."""
    names = Counter(p.name for p in package.rglob("*.py") if p.name != "__init__.py" and p.parent.name != "commands")
    return {name: count for name, count in names.items() if count > 1}


def main(package: Path) -> None:
    """Prints the figures."""
    found, files = imports(package), modules(package)
    lines = [len(path.read_text(encoding="utf-8").splitlines()) for path in files.values()]
    loose = sum("." not in name and not (package / name).is_dir() for name in files)
    print(f"files {len(files)}, of which loose {loose}; lines {sum(lines):,}; longest file {max(lines)}")
    hidden = sum(one.hidden for one in found)
    print(f"floors {storeys(found)}; circles {len(circles(found))}; imports inside functions {hidden}")
    print(f"file names that stand twice: {names_twice(package) or 'none'}")
    if all(any(room(name) in rooms for rooms in FLOORS) for name in files):
        print(f"imports that do not go down: {len(upward(found))}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE)
