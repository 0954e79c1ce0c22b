"""A `.pt2` file (`torch.export.save`) as a model: a graph of PyTorch's operators with its weights.

A foreign file cannot run code here: see `pt2_archive` for what is left out, and why.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.artifact import TensorSpec
from workbench.errors import ModelError, first_line
from workbench.sources import pt2_archive

if TYPE_CHECKING:
    import torch

    from workbench.model import ModelSource


@dataclass(frozen=True)
class Program:
    """An exported program, checked.

    Attributes:
        exported: what torch read.
        inputs: in call order; None in a shape is a dynamic axis.
        module: runs the program by position.
    """

    exported: torch.export.ExportedProgram
    inputs: tuple[TensorSpec, ...]
    module: torch.nn.Module


def build(source: ModelSource, names: Sequence[str] = ()) -> tuple[torch.nn.Module, list[str]]:
    """The program's module, and what a user should know of it. Raises ModelError."""
    path = source.folder / source.spec
    program = open_program(path)
    batch = program.module.batch
    if batch is not None and batch != 1:
        raise ModelError(
            f"{path} takes exactly {batch} samples at a time",
            "it was exported with a fixed batch",
            "export it with one sample, or with a dynamic batch: "
            "dynamic_shapes={'NAME': {0: torch.export.Dim('batch')}}",
        )
    notes = [] if batch is None else ["the program was exported for one sample at a time"]
    return program.module, notes


def open_program(path: Path) -> Program:
    """The program in a file, on the CPU. Raises ModelError for what is damaged or refused."""
    from torch.export.pt2_archive._package import load_pt2

    from workbench.sources import wrappers

    archive = pt2_archive.read(path)
    for content in archive.pickled:
        _check_pickle(path, content)
    try:
        with _no_pickles():
            (exported,) = load_pt2(io.BytesIO(archive.data)).exported_programs.values()
        # The guards are Python source; shapes are compared with `inputs` where samples come in.
        graph = exported.module(check_guards=False)
    except MemoryError:
        raise
    except Exception as error:  # torch raises all kinds on a graph that does not hold together
        raise ModelError(
            f"{path} cannot be read as a .pt2",
            f"{type(error).__name__}: {first_line(error)}",
            "export it again with the torch that is here, or get the file again",
        ) from error
    _open_up(graph)
    kind: Any = wrappers.with_signature(
        wrappers.PositionalProgram, tuple(spec.name for spec in archive.inputs)
    )
    module = kind(graph, archive.inputs, archive.keywords)
    return Program(exported, archive.inputs, module.eval().requires_grad_(False))


def _check_pickle(path: Path, content: bytes) -> None:
    """That a pickle of an old archive opens with weights only, as torch will open it too."""
    import torch

    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"{path} holds a pickle with more than tensors, and is refused",
            "a pickle runs any code it likes when it is opened",
            "export the model again with a newer torch",
        ) from error


class _PickleError(Exception):
    """Something was about to be unpickled."""


_guarded = threading.local()


@contextmanager
def _no_pickles() -> Iterator[None]:
    """Let no pickle name anything while the block runs: the second lock, behind `pt2_archive`."""
    _install()
    _guarded.active = True
    try:
        yield
    finally:
        _guarded.active = False


@cache
def _install() -> None:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "pickle.find_class" and getattr(_guarded, "active", False):
            raise _PickleError(f"a pickle names {arguments[0]}.{arguments[1]}")

    sys.addaudithook(hook)  # cannot be taken off again


def _open_up(graph: Any) -> None:
    """Make a program's module one that every exporter takes.

    Sizes become calls that tracing follows (an operator of torch.ops takes them for constants, and
    fixes the batch); the check of the inputs' shapes, which tracing cannot do, goes; and train and
    eval, which an exported module refuses, are again what they are for a module without either.
    """
    import torch

    graph._forward_pre_hooks.clear()
    for name in ("train", "eval"):
        graph.__dict__.pop(name, None)
    for module in graph.modules():
        if isinstance(module, torch.fx.GraphModule):
            _follow_sizes(module)


def _follow_sizes(module: torch.fx.GraphModule) -> None:
    import torch

    sizes: set[torch.fx.Node] = set()
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        if node.target is torch.ops.aten.sym_size.int:
            node.op, node.target = "call_method", "size"
            sizes.add(node)
        elif isinstance(node.meta.get("val"), torch.SymInt):
            sizes.add(node)
        elif sizes.intersection(node.all_input_nodes):
            _as_python(node)
    module.recompile()


def _as_python(node: torch.fx.Node) -> None:
    """An operator as the method of Tensor, or the function of torch, that it stands for."""
    import torch

    if not isinstance(node.target, torch._ops.OpOverload):
        return
    name = node.target._schema.name.partition("::")[2]
    arguments = node.target._schema.arguments
    if arguments and arguments[0].name == "self" and node.args and hasattr(torch.Tensor, name):
        node.op, node.target = "call_method", name
    elif hasattr(torch, name):
        node.target = getattr(torch, name)
