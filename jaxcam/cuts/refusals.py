"""What is wrong with a foreign model's layout or outputs, as far as its program says so."""

import jax
from jax.extend.core import JaxprEqn, Var

from jaxcam.cuts.cut import Cut
from jaxcam.cuts.grid import Layout
from jaxcam.programs.program import shape


def check_images_layout(image: jax.ShapeDtypeStruct, layout: Layout) -> None:
    """Refuses images whose colours are plainly not where `channel_axis` says."""
    sizes = image.shape
    first, last = sizes[0], sizes[-1]
    if layout.channel_axis == -1 and first in (1, 3) and last > 4 and sizes[1] > 4:
        raise ValueError(f"images seem to be channels first, [n, {', '.join(map(str, sizes))}]: pass channel_axis=1")
    if layout.channel_axis == 1 and last in (1, 3) and first > 4 and sizes[1] > 4:
        raise ValueError(
            f"images seem to be channels last, [n, {', '.join(map(str, sizes))}], and channel_axis=1 means [n, 3, H, "
            "W]: transpose them; or, where only the activations are channels first, leave channel_axis out and pass "
            "reshape=lambda t: t.transpose(0, 2, 3, 1)"
        )


def check_channels(cut: Cut, layout: Layout) -> None:
    """Refuses a layer that comes straight from a convolution with its channels on another axis."""
    if layout.reshape is not None:
        return
    equations = cut.before.equations
    convolutions = [i for i, eqn in enumerate(equations) if eqn.primitive.name == "conv_general_dilated"]
    if not convolutions or any(eqn.primitive.name == "transpose" for eqn in equations[convolutions[-1] :]):
        return
    last = equations[convolutions[-1]]
    if shape(last.outvars[0]) != shape(cut.layer):
        return
    axis = last.params["dimension_numbers"].out_spec[1]
    expected = layout.channel_axis % len(shape(cut.layer))
    if axis != expected:
        raise ValueError(
            f"the layer's channels are on axis {axis} of {list(shape(cut.layer))}, not on axis {expected}: pass "
            + (
                "channel_axis=1 for images [n, 3, H, W], or reshape=lambda t: t.transpose(0, 2, 3, 1) where the images "
                "are channels last"
                if axis == 1
                else "reshape=lambda t: t, where only the images are channels first"
            )
        )


def check_is_logits(cut: Cut, name: str) -> None:
    """Refuses a model that ends in a softmax: its probabilities are no logits."""
    makers: dict[Var, JaxprEqn] = {var: eqn for eqn in cut.program.equations for var in eqn.outvars}

    def behind(var: object) -> JaxprEqn | None:
        eqn = makers.get(var) if isinstance(var, Var) else None
        while eqn is not None and eqn.primitive.name in ("broadcast_in_dim", "reshape", "convert_element_type", "name"):
            operand = eqn.invars[0]
            eqn = makers.get(operand) if isinstance(operand, Var) else None
        return eqn

    last = behind(cut.program.outputs[0])
    if last is None or last.primitive.name != "div":
        return
    over, under = (behind(atom) for atom in last.invars)
    if over is None or under is None or over.primitive.name != "exp" or under.primitive.name != "reduce_sum":
        return
    if behind(under.invars[0]) is over:
        raise ValueError(
            f"{name} must return logits, but ends in a softmax: leave that out (classifier_activation=None in "
            "keras.applications), or explain the logarithm, model_fn=lambda model, images: jnp.log(model(images)), "
            "whose softmax is the same"
        )
