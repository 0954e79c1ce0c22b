"""A user's module as steps take it: not compiled, not wrapped, in float32, not quantized."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.errors import ModelError

if TYPE_CHECKING:
    import torch

# Attributes under which wrappers keep the module, by the wrapper's class.
WRAPPERS = {"OptimizedModule": "_orig_mod", "DataParallel": "module",
            "DistributedDataParallel": "module"}  # fmt: skip
CALLED = {"OptimizedModule": "torch.compile"}
QUANTIZED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.ao.nn.qat",
             "torch.ao.nn.intrinsic.qat", "torch.ao.quantization")  # fmt: skip


def plain_module(module: torch.nn.Module, spec: str) -> tuple[torch.nn.Module, list[str]]:
    """The module without its wrappers, its weights in float32; and notes of what was changed.

    Raises ModelError for one that is quantized already.
    """
    import torch

    notes = []
    while (name := type(module).__name__) in WRAPPERS:
        inner = getattr(module, WRAPPERS[name], None)
        if not isinstance(inner, torch.nn.Module):
            break
        notes.append(f"taken out of {CALLED.get(name, name)}, for exporters need the plain module")
        module = inner
    for part in module.modules():
        kind = type(part)
        if kind.__module__.startswith(QUANTIZED):
            raise ModelError(
                f"{spec} gives a module that is quantized, or prepared for it",
                f"it holds {kind.__module__}.{kind.__name__}; recipes quantize float weights "
                "themselves, for each runtime",
                "give the float module, as it is before quantize_dynamic, prepare or convert",
            )
    tensors = (*module.parameters(), *module.buffers())
    halves = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors
              if tensor.dtype in (torch.float16, torch.bfloat16)}  # fmt: skip
    if halves:
        module = module.float()
        notes.append(f"{' and '.join(sorted(halves))} made float32, which recipes start from")
    return module, notes
