"""PyTorch modules as pure JAX functions of their arrays, through torchax.

    arrays, function = from_torch(module)
    function(arrays, inputs)  # what module(inputs) returns

The module itself is copied and never changed, not even for a moment: what runs is a twin, in which every parameter,
buffer and other tensor is a JAX array, and each submodule tags what it returns with its name, such as "layer4.1.conv2".
It runs once for inputs of each shape and dtype, while JAX traces; from then on there is its program.

Contract: everything is as it was when the module was adapted, and none of it is torch's memory: what is done to the
module afterwards is not seen. Programs belong to the function and go with it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jaxtyping import Array

from jaxcam.cuts.torch_writes import environment, share, watched
from jaxcam.programs.convolution import rewritten
from jaxcam.programs.program import called, straight_line
from jaxcam.programs.scopes import unscoped
from jaxcam.programs.specs import spec_of

__all__ = ["from_torch", "is_torch", "without_torch"]

_Apply = Callable[[Any, Any], Any]

_LOCK = threading.RLock()
"""One module runs at a time: torchax has one state for all threads."""


def is_torch(model: Any) -> bool:
    """Whether it is a torch.nn.Module. torch is not imported to find out: who has a module has imported it."""
    kind = getattr(getattr(sys.modules.get("torch"), "nn", None), "Module", None)
    return kind is not None and isinstance(model, kind)


def without_torch(values: Any) -> Any:
    """A pytree with torch's tensors as NumPy arrays; everything else as it is."""
    kind = getattr(sys.modules.get("torch"), "Tensor", None)
    return values if kind is None else jax.tree.map(lambda x: _numpy(x) if isinstance(x, kind) else x, values)


def from_torch(module: Any, apply: _Apply | None = None) -> tuple[dict[str, Array], _Apply]:
    """The arrays of a module by their names, and the function `(arrays, inputs) -> outputs`, both of JAX.

    Args:
        module: a torch.nn.Module in evaluation mode.
        apply: `(module, inputs) -> outputs`, written in torch, where it is not called as `module(inputs)`.

    Raises:
        ImportError: torchax is not installed.
        TypeError: the module is scripted or compiled, or holds what JAX has no arrays for.
        ValueError: it is in training mode, has hooks, or has no values yet; or it is float64 and JAX is not.
    """
    _check(module)
    _imported()  # says that torchax is missing before anything is copied
    tensors = _tensors(module)
    # `jnp.asarray` might share the memory with torch, which changes it in place.
    arrays = {name: jnp.array(_numpy(tensor, name)) for name, tensor in tensors.items()}
    slots = {name: _Slot() for name in tensors}
    return arrays, _Function(_copied(module, {id(tensors[name]): slot for name, slot in slots.items()}), slots, apply)


class _Slot:
    """In the place of a tensor in a copy of a module."""


def _copied(module: Any, instead: dict[int, Any]) -> Any:
    """A copy of a module with other objects in the places of those with these ids."""
    try:
        return copy.deepcopy(module, instead)  # what stands in the memo is not copied but taken from there
    except Exception as error:
        raise TypeError(f"model must be a module that copy.deepcopy can copy, which says {error}") from error


class _Function:
    """A module as a function of its arrays and its inputs, traced once for each shape of these."""

    def __init__(self, module: Any, slots: dict[str, _Slot], apply: _Apply | None) -> None:
        """Of a module with slots for its arrays, by their names."""
        self._module = module
        self._slots = slots
        self._apply = apply
        self._programs: dict[Any, tuple[Callable[..., Any], Any]] = {}

    def __call__(self, arrays: dict[str, Array], inputs: Any) -> Any:
        """What the module returns: arrays where it returns tensors, dictionaries where it returns mappings."""
        inputs = without_torch(inputs)
        flat, structure = jax.tree.flatten((arrays, inputs))
        key = structure, *map(spec_of, flat)
        if key not in self._programs:
            if self._apply is None:
                _check_dtype(arrays, inputs)
            run = lambda *flat: self._run(*jax.tree.unflatten(structure, flat))  # noqa: E731
            with _hinted(inputs):
                closed, outputs = jax.make_jaxpr(run, return_shape=True)(*map(spec_of, flat))
            # One call where it is run, and no call where it is traced again.
            self._programs[key] = jax.jit(_function(closed), inline=True), jax.tree.structure(outputs)
        program, outputs = self._programs[key]
        return jax.tree.unflatten(outputs, program(*flat))

    def _run(self, arrays: dict[str, Array], inputs: Any) -> Any:
        """What a twin of the module returns."""
        import torch  # pyright: ignore[reportMissingImports]

        torchax = _imported()
        held = functools.partial(torchax.tensor.Tensor, env=environment(torchax))
        tensors = {id(slot): held(jnp.asarray(arrays[name])) for name, slot in self._slots.items()}
        twin = _copied(self._module, tensors)
        for name, part in twin.named_modules():
            if name:
                part.forward = functools.partial(_tagged, name, held, part.forward)
        given = jax.tree.map(lambda x: held(jnp.asarray(x)), inputs)
        # Tensors that the module makes as it runs, `torch.arange(n)`, are to be JAX arrays as well.
        with _LOCK, _as_torch_computes(), watched(torchax), environment(torchax), torch.device("jax"):
            returned = twin(given) if self._apply is None else self._apply(twin, given)
            return _mapped(_array, returned)


def _function(program: ClosedJaxpr) -> Callable[..., Any]:
    """The traced program as a function, with faster convolutions in it."""
    written = straight_line(program, opened=lambda eqn, place: called(eqn) or rewritten(eqn), pruned=False)
    constants = written.constants
    equations, outputs = written.equations, list(written.outputs)
    jaxpr = program.jaxpr.replace(constvars=[*constants], invars=[*written.arguments], eqns=equations, outvars=outputs)
    # torchax has a scope for each operation; where the layers are is in the tags.
    return jaxpr_as_fun(ClosedJaxpr(unscoped(jaxpr), [*constants.values()]))


def _tagged(name: str, held: Callable[[Array], Any], forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a submodule returns, tagged with its name."""
    before = [_array(value) for value in (*args, *kwargs.values()) if hasattr(value, "jax")]

    def tagged(value: Any) -> Any:
        array = _array(value)
        if any(array is other for other in before):
            return value  # an identity, as dropout in evaluation: no layer of its own
        marked = checkpoint_name(array, name)
        if hasattr(value, "_elem"):
            value._elem = marked  # the same tensor: others may have it as well
            return value
        made = held(marked)
        share(made, value)
        return made

    return _mapped(tagged, forward(*args, **kwargs))


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """What a module returns, with each tensor in it changed; a mapping, of whatever kind, is a dictionary."""
    if hasattr(value, "jax"):
        return function(value)
    if isinstance(value, Mapping):
        return {key: _mapped(function, inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        inner = [_mapped(function, each) for each in value]
        return type(value)(*inner) if hasattr(value, "_fields") else type(value)(inner)  # type: ignore[call-arg]
    return value


def _array(tensor: Any) -> Any:
    """What a tensor of torchax is in JAX."""
    return tensor.jax()


def _tensors(module: Any) -> dict[str, Any]:
    """All tensors of a module by their names; one that stands at several places by the first."""
    import torch  # pyright: ignore[reportMissingImports]

    found = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, torch.Tensor):
                found[f"{path}.{name}" if path else name] = value
    return found


def _numpy(tensor: Any, name: str | None = None) -> np.ndarray:
    import torch  # pyright: ignore[reportMissingImports]

    said = "inputs" if name is None else f"model: its tensor {name!r}"
    if tensor.device.type == "meta":
        raise ValueError(
            f"{said} must have values but is on the device meta: load them (model.to_empty, load_state_dict)"
        )
    plain = tensor.detach().cpu()
    try:
        # NumPy knows bfloat16 through JAX only.
        bits = torch.int16 if plain.dtype == torch.bfloat16 else plain.dtype
        found = plain.view(bits).numpy()
        found = found if bits is plain.dtype else found.view(jnp.bfloat16)
    except (TypeError, RuntimeError):
        raise TypeError(
            f"{said} must be dense numbers but is {tensor.dtype} ({tensor.layout}), which JAX has no arrays for: "
            "explain the network before it was quantized or made sparse"
        ) from None
    if found.dtype == np.float64 and name is not None and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise ValueError(
            f"{said} is float64, which JAX would round: call model.float(), or "
            'jax.config.update("jax_enable_x64", True) at the start'
        )
    return found


def _check(module: Any) -> None:
    """Refuses modules of which a twin would not do what they do."""
    import torch  # pyright: ignore[reportMissingImports]

    for path, part in module.named_modules():
        where = f"{path!r} in model" if path else "model"
        if isinstance(part, torch.jit.ScriptModule):
            raise TypeError(f"{where} is scripted or traced by torch.jit: pass the module that it was made from")
        if hasattr(part, "_orig_mod") or part._compiled_call_impl is not None:
            raise TypeError(
                f"{where} is compiled by torch.compile: pass the module that it was made from (model._orig_mod), "
                "jaxcam compiles by itself"
            )
        if any(isinstance(value, torch.nn.UninitializedParameter) for value in part._parameters.values()):
            raise TypeError(f"{where} must have its shapes but is lazy: run it in torch once, model(inputs)")
        hooks = (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks)
        if any(hooks):
            raise ValueError(
                f"{where} has hooks, which would run while JAX traces: remove them (handle.remove(), or what the "
                "package that set them has for it; torch.nn.utils.remove_weight_norm)"
            )
        if part.training:
            raise ValueError(f"{where} is in training mode, where images depend on each other: call model.eval() first")


def _check_dtype(arrays: dict[str, Array], inputs: Any) -> None:
    """Refuses floats of another kind than the module's, as torch does; JAX would convert some and fail on others."""
    own = {array.dtype for array in arrays.values() if jnp.issubdtype(array.dtype, jnp.floating)}
    for leaf in jax.tree.leaves(inputs):
        dtype = jnp.result_type(leaf)
        if jnp.issubdtype(dtype, jnp.floating) and len(own) == 1 and dtype not in own:
            (expected,) = own
            raise ValueError(
                f"inputs must be {expected}, as the module's parameters are, but are {dtype}: use "
                f'inputs.astype("{expected}"), or convert the module (model.float(), model.double())'
            )


@contextlib.contextmanager
def _hinted(inputs: Any) -> Generator[None]:
    """Says what modules of torch usually lack when they cannot be run."""
    try:
        yield
    except Exception as error:
        said, leaves = str(error).strip() or type(error).__name__, jax.tree.leaves(inputs)
        hints: list[str] = []
        if len(leaves) == 1 and len(leaves[0].shape) == 4 and leaves[0].shape[1] > 4 >= leaves[0].shape[3]:
            hints.append("torch takes channels first: inputs.transpose(0, 3, 1, 2)")
        if leaves and inputs is not leaves[0]:
            hints.append(
                "several inputs come to the module as they are, in one argument: say how it takes them with "
                'jaxcam.adapt(model, apply=lambda model, inputs: model(inputs["image"], inputs["text"]))'
            )
        if "mixed math" in said:
            hints.append("each tensor of a module must be a parameter, a buffer or an attribute of its own")
        raise ValueError("; ".join([said, *hints])) from error


@contextlib.contextmanager
def _as_torch_computes() -> Generator[None]:
    """No gradients of torch's, none of its fused attention, and its rules for numbers of different types."""
    import torch  # pyright: ignore[reportMissingImports]

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@functools.cache
def _imported() -> Any:
    """Torchax. Importing it changes settings of torch and of the process, which are put back.

    Raises:
        ImportError: it is not installed.
    """
    import torch  # pyright: ignore[reportMissingImports]

    fast, telemetry = torch.backends.mha.get_fastpath_enabled(), os.environ.get(_TELEMETRY)
    try:
        with _named_overloads():
            import torchax  # pyright: ignore[reportMissingImports]

            with jax.ensure_compile_time_eval():  # its random key is no part of whatever is being traced
                torchax.default_env()  # loads the rest of it
    except ImportError as error:
        raise ImportError(
            f"models of torch are read by torchax, which cannot be imported ({error}): "
            "pip install 'jaxcam-xai[torch]' (in a checkout pip install '.[torch]')"
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        if telemetry is None:
            os.environ.pop(_TELEMETRY, None)
    return torchax


_TELEMETRY = "ENABLE_RUNTIME_UPTIME_TELEMETRY"


@contextlib.contextmanager
def _named_overloads() -> Generator[None]:
    """Lets torchax 0.0.13 load with torch 2.13: it names overloads for tensors with named axes, which are gone.

    `torch.ops.aten.all.dimname`, for example, is a key of its tables; a text in its place is one that is never asked.
    """
    import torch  # pyright: ignore[reportMissingImports]

    packet: Any = type(torch.ops.aten.all)
    found = packet.__getattr__

    def overload(self: Any, name: str) -> Any:
        try:
            return found(self, name)
        except AttributeError:
            if "names" in name or "dimname" in name.lower():
                return f"{self}.{name}"
            raise

    packet.__getattr__ = overload
    try:
        yield
    finally:
        packet.__getattr__ = found
