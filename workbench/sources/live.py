"""Live torch modules: what every source of one has in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from workbench.artifact import TensorSpec, feed
from workbench.errors import ModelError
from workbench.model import Model, ModelSource, flatten
from workbench.sources import hf, pt2, timm, torchscript, torchvision, user_factory, weights

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

Builder = Callable[[ModelSource, Sequence[str]], "tuple[torch.nn.Module, list[str]]"]
# A builder gives a module in eval mode, and what a user should know of it.
BUILDERS: dict[str, Builder] = {
    "factory": user_factory.build,
    "pt2": pt2.build,
    "torchscript": torchscript.build,
    "hf": hf.build,
    "timm": timm.build,
    "torchvision": torchvision.build,
}


def build(source: ModelSource, examples: Mapping[str, NDArray[Any]]) -> tuple[Model, list[str]]:
    """The source's model, with examples in call order but not tried; and what to know of it.

    Raises ModelError.
    """
    module, notes = BUILDERS[source.kind](source, tuple(examples))
    ordered = in_call_order(module, examples)
    batch = getattr(module, "batch", None)
    batch = batch if isinstance(batch, int) else None
    return Model(module=module, example_inputs=ordered, output_names=(), batch=batch), notes


def load_module(source: ModelSource, examples: Mapping[str, NDArray[Any]]) -> Model:
    """The source's module, tried on the examples. Raises ModelError."""
    model, notes = build(source, examples)
    weights.check_finite(model.module)
    if (
        model.batch is None
        and source.kind == "torchscript"
        and not takes_batches(model, model.example_inputs)
    ):
        model = replace(model, batch=1)
        notes.append(
            "the archive gives other outputs for several samples at once, and takes one at a time"
        )
    names, outputs = _try(model)
    for name, tensor in zip(names, outputs, strict=True):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ModelError(
                f"output '{name}' contains NaN or Inf for real samples",
                "",
                "check the preprocessing in the dataset, and the weights",
            )
    return replace(model, output_names=names, notes=tuple(notes))


def in_call_order(
    module: torch.nn.Module, examples: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """The examples in the order of forward's parameters, by name where all names match.

    Raises ModelError where the module declares its inputs, and the examples are others.
    """
    declared = getattr(module, "specs", None)
    if isinstance(declared, tuple):
        return _as_declared(declared, examples)
    parameters = _parameters(module)
    if len(examples) > 1 and set(examples) <= set(parameters):
        return {name: examples[name] for name in parameters if name in examples}
    return dict(examples)


def _parameters(module: torch.nn.Module) -> list[str]:
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        method: Any = module.forward
        return [argument.name for argument in method.schema.arguments[1:]]  # without self
    return list(inspect.signature(module.forward).parameters)


def _as_declared(
    specs: tuple[TensorSpec, ...], examples: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    ordered = feed(specs, examples)
    for spec, array in zip(specs, ordered.values(), strict=True):
        sizes = zip(spec.shape[1:], array.shape[1:], strict=False)
        fits = array.ndim == len(spec.shape) and all(a in (None, b) for a, b in sizes)
        if not fits or str(array.dtype) != spec.dtype:
            shape = "x".join(map(str, array.shape[1:]))
            raise ModelError(
                f"the model takes {spec}, the dataset gives {array.dtype}[?x{shape}]",
                "an exported program takes the shapes that it was exported with",
                "check preprocess.crop, layout and channels in the dataset, or --input",
            )
    if len(specs) == 1:  # under the dataset's own name
        return dict(examples)
    return ordered


def takes_batches(
    run: Callable[[dict[str, NDArray[Any]]], list[NDArray[Any]]],
    examples: Mapping[str, NDArray[Any]],
) -> bool:
    """Whether a model gives the same for two samples at once as for one: a trace may not.

    True also where it takes neither: what is wrong then is said where it is tried.
    """
    import numpy as np

    try:
        alone = run({name: array[:1] for name, array in examples.items()})
    except Exception:  # noqa: BLE001 - TorchScript raises all kinds
        return True
    try:
        together = run({name: array[:2] for name, array in examples.items()})
    except Exception:  # noqa: BLE001
        return False
    return all(
        len(many) == 2 * len(first) and np.allclose(many[: len(first)], first, 1e-3, 1e-4)
        for first, many in zip(alone, together, strict=True)
        if first.ndim and len(first) == 1
    )


def _try(model: Model) -> tuple[tuple[str, ...], list[torch.Tensor]]:
    import torch

    count = model.batch
    examples = {name: array[:count] for name, array in model.example_inputs.items()}
    shapes = ", ".join(f"{name} {array.shape}" for name, array in examples.items())
    try:
        with torch.inference_mode():
            outputs = model.module(*(torch.from_numpy(array) for array in examples.values()))
        named = flatten(outputs)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"the model does not take the dataset's samples ({shapes})",
            f"{type(error).__name__}: {error}",
            "check preprocess.crop, layout and channels in the dataset, or --input",
        ) from error
    if not named:
        raise ModelError("the model returns no tensors")
    if len(named) == 1:
        return (named[0][0] or "output",), [named[0][1]]
    tensors: dict[str, torch.Tensor] = {}
    for number, (name, tensor) in enumerate(named):
        tensors[name if name and name not in tensors else f"output_{number}"] = tensor
    return tuple(tensors), list(tensors.values())
