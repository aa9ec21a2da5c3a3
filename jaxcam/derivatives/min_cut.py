"""The narrowest cut through a directed graph with weighted nodes: a maximal flow, by shortest paths.

Source: J. Edmonds and R. M. Karp, "Theoretical improvements in algorithmic efficiency for network flow
problems", Journal of the ACM 19 (1972). Every node is split into an entry and an exit, joined by its size.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Mapping
from itertools import pairwise
from typing import TypeVar

__all__ = ["narrowest_cut"]

Node = TypeVar("Node", bound=Hashable)


def narrowest_cut(
    edges: Iterable[tuple[Node, Node]], sizes: Mapping[Node, int], source: Node, sink: Node
) -> set[Node] | None:
    """The nodes of least total size that every path from `source` to `sink` goes through.

    Of several such sets it is the one closest to the sink. Neither end belongs to it: it is None if some path
    touches nothing in between.
    """
    entry, leave = 0, 1
    residual: dict[tuple[Node, int], dict[tuple[Node, int], int | float]] = defaultdict(dict)

    def connect(start: tuple[Node, int], stop: tuple[Node, int], capacity: int | float) -> None:
        residual[start][stop] = capacity
        residual[stop].setdefault(start, 0)

    for node, size in sizes.items():
        connect((node, entry), (node, leave), size)
    for start, stop in edges:
        connect((start, leave), (stop, entry), math.inf)

    while True:
        onward = {(sink, entry): (sink, entry)}  # from each place that still reaches the sink, the next one
        queue = deque(onward)
        while queue:
            place = queue.popleft()
            for before in residual[place]:
                if before not in onward and residual[before][place] > 0:
                    onward[before] = place
                    queue.append(before)
        if (source, leave) not in onward:
            return {node for node in sizes if (node, leave) in onward and (node, entry) not in onward}
        path = [(source, leave)]
        while path[-1] != (sink, entry):
            path.append(onward[path[-1]])
        steps = list(pairwise(path))
        flow = min(residual[start][stop] for start, stop in steps)
        if flow == math.inf:
            return None
        for start, stop in steps:
            residual[start][stop] -= flow
            residual[stop][start] += flow
