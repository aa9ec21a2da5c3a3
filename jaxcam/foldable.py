"""What treescope shows of an object: its type, and its fields, each of which unfolds.

Contract: called by treescope alone, so that nobody else needs it. `_repr_html_`, where there is one, treescope shows
below by itself.
"""

from collections.abc import Iterable
from typing import Any

__all__ = ["foldable"]


def foldable(node: Any, names: Iterable[str], path: str | None, subtree_renderer: Any) -> Any:
    """`Type(name=value, ...)` with these attributes: what `__treescope_repr__(path, subtree_renderer)` returns."""
    from treescope.repr_lib import render_object_constructor

    return render_object_constructor(type(node), {name: getattr(node, name) for name in names}, path, subtree_renderer)
