"""The ten figures of the generated scenes, as signed distances on the plane.

Contract: a figure is centred near the origin, fits a circle of radius 1.2, and points along +x or +y until it
is rotated. `signed_distance` is negative inside, positive outside, zero on the edge, and its gradient has
length 1 near straight edges, so that the same formula gives the mask, the anti-aliased edge and the outline
at any resolution. Near the edge it is exact; far outside, beyond corners, it may be smaller than the
Euclidean distance. The constructions are the usual ones for distance fields: half-planes, discs, folds along
symmetry axes.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

CLASS_NAMES: tuple[str, ...] = (
    "disc",
    "ring",
    "square",
    "triangle",
    "star",
    "cross",
    "heart",
    "crescent",
    "arrow",
    "fish",
)
"""The figures of pictures, captions, questions and clips, by class."""

DISC_RADIUS = 0.86
RING_OUTER, RING_INNER = 0.92, 0.50
SQUARE_HALF_SIDE = 0.76
TRIANGLE_INRADIUS = 0.55
CROSS_LENGTH, CROSS_HALF_WIDTH = 0.96, 0.29
HEART_HALF_SIDE = 0.60
_STAR_OUTER, _STAR_INNER = 1.12, 0.50
_COS36, _SIN36 = 0.8090169943749475, 0.5877852522924731
_SQRT_HALF = 0.7071067811865476

_Plane = Float[Array, "*points"]


def _norm(x: _Plane, y: _Plane) -> _Plane:
    return jnp.sqrt(x * x + y * y)


def _disc(x: _Plane, y: _Plane) -> _Plane:
    return _norm(x, y) - DISC_RADIUS


def _ring(x: _Plane, y: _Plane) -> _Plane:
    middle, half_width = (RING_OUTER + RING_INNER) / 2, (RING_OUTER - RING_INNER) / 2
    return jnp.abs(_norm(x, y) - middle) - half_width


def _square(x: _Plane, y: _Plane) -> _Plane:
    return jnp.maximum(jnp.abs(x), jnp.abs(y)) - SQUARE_HALF_SIDE


def _triangle(x: _Plane, y: _Plane) -> _Plane:
    # Equilateral, one corner at the top: the mirror image in x leaves two half-planes.
    sloped = 0.8660254037844386 * jnp.abs(x) + 0.5 * y
    return jnp.maximum(sloped, -y) - TRIANGLE_INRADIUS


def _star(x: _Plane, y: _Plane) -> _Plane:
    # Three reflections fold the plane into one tenth of the star, whose edge is a single line.
    x = jnp.abs(x)
    along = 2 * jnp.maximum(_COS36 * x - _SIN36 * y, 0.0)
    x, y = x - along * _COS36, y + along * _SIN36
    along = 2 * jnp.maximum(-_COS36 * x - _SIN36 * y, 0.0)
    x, y = jnp.abs(x + along * _COS36), y + along * _SIN36
    edge_x, edge_y = _STAR_INNER * _SIN36, _STAR_INNER * _COS36 - _STAR_OUTER
    length = (edge_x**2 + edge_y**2) ** 0.5
    return ((y - _STAR_OUTER) * edge_x - x * edge_y) / length


def _cross(x: _Plane, y: _Plane) -> _Plane:
    long, short = jnp.maximum(jnp.abs(x), jnp.abs(y)), jnp.minimum(jnp.abs(x), jnp.abs(y))
    return jnp.maximum(long - CROSS_LENGTH, short - CROSS_HALF_WIDTH)


def _heart(x: _Plane, y: _Plane) -> _Plane:
    # A square standing on its corner, and a disc on each of its two upper sides.
    half, x, y = HEART_HALF_SIDE, jnp.abs(x), y + 0.1
    square = (x + jnp.abs(y)) * _SQRT_HALF - half
    return jnp.minimum(square, _norm(x - half * _SQRT_HALF, y - half * _SQRT_HALF) - half)


def _crescent(x: _Plane, y: _Plane) -> _Plane:
    # A disc less a second one. Beyond the tips, where the circles cross, the nearest point is the tip itself.
    x, y, outer, inner, gap = x - 0.22, jnp.abs(y), 1.0, 0.80, 0.45
    tip_x = (outer**2 - inner**2 + gap**2) / (2 * gap)
    tip_y = (outer**2 - tip_x**2) ** 0.5
    beyond = x * tip_y - y * tip_x > gap * jnp.maximum(tip_y - y, 0.0)
    edge = jnp.maximum(_norm(x, y) - outer, inner - _norm(x - gap, y))
    return jnp.where(beyond, _norm(x - tip_x, y - tip_y), edge)


def _arrow(x: _Plane, y: _Plane) -> _Plane:
    y = jnp.abs(y)
    shaft = jnp.maximum(jnp.maximum(-1.0 - x, x - 0.3), y - 0.20)
    head = jnp.maximum(0.12 - x, 0.5812 * (x - 1.08) + 0.8137 * y)
    return jnp.minimum(shaft, head)


def _fish(x: _Plane, y: _Plane) -> _Plane:
    # A lens for the body, a notched wedge for the tail, and a hole for the eye.
    fold = jnp.abs(y)
    body = _norm(x - 0.28, fold + 0.39) - 0.89
    wedge = jnp.maximum(0.6632 * (x + 0.30) + 0.7485 * fold, 0.8944 * (-x - 0.80) - 0.4472 * fold)
    tail = jnp.maximum(wedge, -1.0 - x)
    return jnp.maximum(jnp.minimum(body, tail), 0.11 - _norm(x - 0.66, y - 0.10))


_FIGURES: tuple[Callable[[_Plane, _Plane], _Plane], ...] = (
    _disc,
    _ring,
    _square,
    _triangle,
    _star,
    _cross,
    _heart,
    _crescent,
    _arrow,
    _fish,
)


def signed_distance(
    class_idx: Int[Array, ""], x: Float[Array, "*points"], y: Float[Array, "*points"]
) -> Float[Array, "*points"]:
    """Signed distance of the points (x, y) from the edge of figure `class_idx`, in units of the figure.

    All ten formulas are evaluated and one is kept: under vmap a branch would do the same, and as one
    elementwise program it costs less than reading a stored table.

    Args:
        class_idx: index into `CLASS_NAMES`, may be traced; not checked here.
        x: horizontal coordinates, any shape.
        y: vertical coordinates (upwards in the figure's own frame), of x's shape.

    Returns:
        Distances of x's shape and dtype, negative inside.
    """
    distance = _FIGURES[0](x, y)
    for i, figure in enumerate(_FIGURES[1:], start=1):
        distance = jnp.where(class_idx == i, figure(x, y), distance)
    return distance
