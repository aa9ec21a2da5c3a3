"""Derivatives: exact elementwise derivatives of any order of a scalar function of an array.

`elementwise_derivatives` is the way in; it takes a function apart into stages whose derivatives are cheap (`stages`,
`folding`, `min_cut`), or, where positions meet in sums only, as in attention, into what each adds to them
(`by_positions`, `terms`, `taylor`), and differentiates along directions (`directions`). `of_score` takes those of a
class's score by the activations, in closed form where there is one (`closed_forms`, beside the rooms).
"""

from jaxcam.derivatives.elementwise import elementwise_derivatives as elementwise_derivatives

__all__ = ["elementwise_derivatives"]
