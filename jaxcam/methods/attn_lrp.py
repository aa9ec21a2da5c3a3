"""AttnLRP: the logit of a transformer shared out among the pixels, by one backward pass with rules of its own.

The program is rewritten as `jaxcam.guided` does it: the values stay, and some derivatives become others.

    y = φ(x), one value: GELU, SiLU, tanh        dy/dx := φ(x) / x                             identity rule, Eq. 9
    y = a b, a product of two that move          half of the derivative by a and by b          uniform rule, Eq. 7
    1 / std of normalisation layers              a constant                                    Eq. 10
    softmax                                      its own derivative                            Eq. 5
    linear layers, sums, moved elements          their own derivative                          ε-rule with ε = 0, Eq. 4

Gradient times input is then the relevance, at the input and at every value between. Each rule but the softmax's hands
on as much as it was given; biases, class tokens and embeddings of positions keep what is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn, Var
from jax.extend.core import primitives as core
from jaxtyping import Array, Float

from jaxcam import scores
from jaxcam.cuts.attentions import written_out
from jaxcam.cuts.cut import Network, network
from jaxcam.cuts.outputs import Reader
from jaxcam.programs.notes import note
from jaxcam.programs.primitives import Linear, about
from jaxcam.programs.program import Program, Stage, moves, shape, straight_line
from jaxcam.programs.rectifiers import Values, clamps
from jaxcam.programs.scopes import scopes
from jaxcam.programs.specs import spec_of

__all__ = ["attn_lrp"]


def attn_lrp(
    model: object,
    image: Float[Array, ...] | Float[np.ndarray, ...],
    class_idx: scores.ClassIdx,
    *,
    softmax: str = "gradient",
) -> Float[Array, ...]:
    """AttnLRP: the relevance R of each input value for the logit, I ∘ dS_c / dI by the rules above.

    A network without biases and with softmax="constant" has sum(R) = S_c. By the paper's rule, softmax="gradient", a
    softmax keeps the difference between what reaches its result and what its scores are given.

    For vision transformers the authors use the γ-rule in linear layers as well, against noise; here they have ε = 0.
    The derivative of R itself, by the image or by parameters, is that of the rules and not of its values.

    Args:
        model: as for `jaxcam.explain`, with attention; windows and cross-attention as well.
        image: I, one image as the model takes it, `[H, W, 3]`.
        class_idx: c, static or traced; of a target's scores the one that is explained.
        softmax: "gradient", or "constant" for attention weights that take no relevance (CP-LRP, Ali et al. 2022).

    Returns:
        R `[H, W, 3]`, signed; sum it over the channels for a map of pixels.

    Raises:
        ValueError: the model has no attention, softmax is another word, or there is no rule for a function in the
            program, which is named; as `jaxcam.explain` for class_idx.
        TypeError: image is not floating point; as `jaxcam.explain`.

    **Source**: Achtibat et al. 2024 (AttnLRP), Eq. 4 to 10, in their form of gradient times input.
    """
    image = jnp.asarray(image)
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise TypeError(f"image must be floating point but its dtype is {image.dtype}: pass the same numbers as floats")
    if softmax not in ("gradient", "constant"):
        raise ValueError(f'softmax must be "gradient" or "constant" but is {softmax!r}')
    whole = network(model, image)
    scores.check_class_idx(class_idx, jax.eval_shape(whole, image).shape[0])
    program = straight_line(whole.closed, opened=written_out)
    stage = _Rewriting(whole, program, is_constant=softmax == "constant").stage()
    arrays = jax.tree.leaves(whole.model)

    def logit(image: Array) -> Array:
        operands = zip(program.arguments, [*arrays, *whole.inputs(image)], strict=True)
        (logits, *_), _ = stage({**program.constants, **dict(operands)})
        return scores.logit(logits[0], class_idx)

    gradient = jax.grad(logit)(image)
    note("has_gradient", lambda: (gradient != 0).any())
    return gradient * image


_ZERO_AT_ZERO = (
    lax.tanh_p, lax.erf_p, lax.asinh_p, lax.atan_p, lax.sinh_p, lax.sin_p, lax.expm1_p, lax.log1p_p, lax.cbrt_p,
    lax.square_p,
)  # fmt: skip
"""Functions of one value that are 0 at 0, so that φ(x) / x is finite. A sigmoid or cosine gives relevance from none."""


_IN_SOFTMAX = {
    lax.div_p, lax.mul_p, lax.add_p, lax.max_p, lax.reduce_sum_p, lax.select_n_p, lax.broadcast_in_dim_p, lax.reshape_p,
    lax.transpose_p, lax.squeeze_p, lax.convert_element_type_p, lax.copy_p, core.name_p,
}  # fmt: skip
"""What stands between the exponential and the shares."""


class _Rewriting:
    """The program with the rules' derivatives."""

    def __init__(self, network: Network, program: Program, *, is_constant: bool) -> None:
        self.name, self.program, self.is_constant = network.model.name, program, is_constant
        self.image = program.arguments[len(program.arguments) - len(network.others) - 1 + network.main]
        self.reader = Reader({var: eqn for eqn in program.equations for var in eqn.outvars})

    def stage(self) -> Stage:
        """From nothing but what is known to the logits."""
        equations: list[JaxprEqn] = []
        moving: set[Any] = {self.image}
        softmaxes, inside = self.softmaxes()
        ends = self.activations()
        unknown: set[int] = set()
        passing: dict[int, tuple[Any, ...]] = {}
        for eqn in self.program.equations:
            operands = [atom for atom in eqn.invars if isinstance(atom, Var) and atom in moving]
            rule, given = None, ()
            if operands and not _is_step(eqn):
                activation = ends.get(eqn.outvars[0])
                if id(eqn) in softmaxes and self.is_constant:
                    rule = _stopped
                elif id(eqn) in inside:
                    pass
                elif activation is not None and activation in moving:
                    rule, given = _identity, (activation,)
                elif eqn.primitive in (lax.rsqrt_p, lax.sqrt_p):
                    rule = _stopped
                elif len(operands) == 1 and _is_zero_at_zero(eqn):
                    rule, given = _identity, tuple(operands)
                elif about(eqn).linear is Linear.EACH and len(operands) > 1:
                    rule = _halved
                elif not _is_linear(eqn, operands):
                    unknown.add(len(equations))
                if rule is not _stopped:
                    moving.update(var for var in eqn.outvars if moves(var))
            if rule is None:
                equations.append(eqn)
                continue
            equations += _with_rule(eqn, rule, given)
            if rule is not _halved:  # the function itself passes nothing back
                passing[len(equations) - 1] = given
        if not softmaxes:
            raise ValueError(
                f"{self.name} must have attention, softmax(Q K) V, for AttnLRP, but no softmax was found in its "
                'program: use another method, such as method="grad_cam"'
            )
        self.check(equations, unknown, passing)
        return Stage((), self.program.outputs, equations)

    def softmaxes(self) -> tuple[set[int], set[int]]:
        """The equations whose results are softmaxes, and all that belong to one, from the exponential on."""
        results: set[int] = set()
        inside: set[int] = set()
        for eqn in self.program.equations:
            if self.reader.shares(eqn) is None:
                continue
            open_, seen = [eqn], dict[int, JaxprEqn]()
            while open_:
                each = open_.pop()
                seen[id(each)] = each
                if each.primitive in _IN_SOFTMAX:
                    makers = (self.reader.maker(atom) for atom in each.invars)
                    open_ += [maker for maker in makers if maker is not None and id(maker) not in seen]
            ends = {each.primitive for each in seen.values()} - _IN_SOFTMAX
            if ends == {lax.exp_p}:
                results.add(id(eqn))
                inside |= {*seen}
        return results, inside

    def activations(self) -> dict[Var, Var]:
        """Of each result of an activation, however many equations it has, what it is a function of."""
        constants = {var: Values.of_constant(value) for var, value in self.program.constants.items()}
        values = Values(dict(constants), {*self.program.arguments})
        found = clamps(self.program.equations, self.program.outputs, values)
        return {self.program.equations[c.end].outvars[0]: c.x for c in found if c.left_alone is None}

    def check(self, equations: list[JaxprEqn], unknown: set[int], passing: dict[int, tuple[Any, ...]]) -> None:
        """Refuses what has no rule and passes relevance on."""
        wanted: set[Any] = {*self.program.outputs}
        for i in range(len(equations) - 1, -1, -1):
            eqn = equations[i]
            if wanted.isdisjoint(eqn.outvars):
                continue
            if i in unknown:
                self.refuse(eqn)
            through = () if _is_step(eqn) else passing.get(i, eqn.invars)
            wanted.update(atom for atom in through if isinstance(atom, Var))

    def refuse(self, eqn: JaxprEqn) -> NoReturn:
        """The error, with what is known of the place."""
        place = "/".join(scopes(eqn))
        at = f" at {place}" if place else ""
        raise ValueError(
            f"{self.name} must be made of linear layers, activations, normalisation and softmax for AttnLRP, but there "
            f"is no rule for {eqn.primitive.name} -> {list(shape(eqn.outvars[0]))}{at}: use "
            'another method, such as method="attention_relevance"'
        )


def _is_step(eqn: JaxprEqn) -> bool:
    """Whether nothing passes back through it."""
    return about(eqn).linear is Linear.STEP or eqn.primitive is core.stop_gradient_p


def _is_zero_at_zero(eqn: JaxprEqn) -> bool:
    power = eqn.params.get("y") if eqn.primitive is lax.integer_pow_p else None
    return eqn.primitive in _ZERO_AT_ZERO or (isinstance(power, int) and power > 0)


def _is_linear(eqn: JaxprEqn, operands: Iterable[Var]) -> bool:
    linear = about(eqn).linear
    if linear is Linear.FIRST:
        return not any(eqn.invars[1] is var for var in operands)
    return linear is not None or eqn.primitive is lax.convert_element_type_p


def _halved(y: Array) -> Array:
    return y / 2 + jax.lax.stop_gradient(y / 2)


def _stopped(y: Array) -> Array:
    return jax.lax.stop_gradient(y)


def _identity(x: Array, y: Array) -> Array:
    """The value y of φ(x) with the slope y / x."""
    ratio = jnp.where(x == 0, jnp.zeros_like(y), y / jnp.where(x == 0, jnp.ones_like(x), x))
    return jax.lax.stop_gradient(y) + (x - jax.lax.stop_gradient(x)) * jax.lax.stop_gradient(ratio)


def _with_rule(eqn: JaxprEqn, rule: Callable[..., Any], given: tuple[Var, ...]) -> list[JaxprEqn]:
    """The equation with a rule behind it: w = f x becomes v = f x; w = rule v, or w = rule(x, v)."""
    (out,) = eqn.outvars
    alone = Var(out.aval)
    operands = (*given, alone)
    (call,) = jax.make_jaxpr(jax.jit(rule))(*(spec_of(var.aval) for var in operands)).jaxpr.eqns
    return [eqn.replace(outvars=[alone]), call.replace(invars=[*operands], outvars=[out])]
