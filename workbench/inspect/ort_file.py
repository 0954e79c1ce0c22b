"""Reading `.ort` files by onnxruntime's own flatbuffer schema: no runtime opens them here.

The graph is rebuilt as ONNX, without its large weights, so that all that is known of an ONNX graph
can be known of this one.
"""

from __future__ import annotations

import graphlib
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.artifact import Format
from workbench.errors import ModelError
from workbench.inspect import onnx_facts
from workbench.inspect.facts import Facts, printable
from workbench.onnxgraph import walk
from workbench.onnxgraph.ort_tools import tools_folder

if TYPE_CHECKING:
    import onnx


def read(path: Path) -> Facts:
    """The facts of an `.ort` file. Raises ModelError, or whatever a damaged file leads to."""
    data = path.read_bytes()
    session = _schema("InferenceSession").InferenceSession.GetRootAs(data, 0)
    stored = session.Model()
    if stored is None or stored.Graph() is None:
        raise ModelError(f"{path} cannot be read as an ORT file", "it has no graph")
    model = _Rebuilt(len(data)).model(stored)
    graph_facts = onnx_facts.study(model)
    version = printable((session.OrtVersion() or b"?").decode())
    return Facts(
        path=path,
        format=Format.ORT,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        inputs=tuple(onnx_facts.tensor_of(value) for value in walk.inputs(model.graph)),
        outputs=tuple(onnx_facts.tensor_of(value) for value in model.graph.output),
        opsets=onnx_facts.opsets(model),
        operators=graph_facts.operators,
        parameters=graph_facts.parameters,
        macs=graph_facts.macs,
        precision=graph_facts.precision,
        takes=graph_facts.takes,
        notes=(f"ORT format {version}", *graph_facts.notes),
    )


def _schema(name: str) -> Any:
    """A module of the schema, found without importing onnxruntime.

    They import one another by absolute names, from a folder that must be on the path.
    """
    import importlib

    folder = str(tools_folder() / "ort_format_model")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(f"ort_flatbuffers_py.fbs.{name}")


def _text(value: bytes | None) -> str:
    return (value or b"").decode()


class _Rebuilt:
    """An ORT graph as an ONNX model; lengths in the file are checked against its size."""

    def __init__(self, size: int) -> None:
        self.size = size

    def _each(self, table: Any, field: str) -> list[Any]:
        length = getattr(table, f"{field}Length")()
        if not 0 <= length * 4 <= self.size:
            raise ValueError("a vector is longer than the file")
        return [getattr(table, field)(index) for index in range(length)]

    def model(self, stored: Any) -> onnx.ModelProto:
        import onnx

        model = onnx.ModelProto(ir_version=stored.IrVersion())
        for opset in self._each(stored, "OpsetImport"):
            model.opset_import.add(domain=_text(opset.Domain()), version=opset.Version())
        self._graph(stored.Graph(), model.graph)
        return model

    def _graph(self, stored: Any, graph: onnx.GraphProto) -> None:
        values = {_text(argument.Name()): argument for argument in self._each(stored, "NodeArgs")}
        inputs = [_text(name) for name in self._each(stored, "Inputs")]
        outputs = [_text(name) for name in self._each(stored, "Outputs")]
        for name, value in values.items():
            if name not in inputs and name not in outputs:
                self._value(value, name, graph.value_info.add())
        for names, target in ((inputs, graph.input), (outputs, graph.output)):
            for name in names:
                self._value(values.get(name), name, target.add())
        for tensor in self._each(stored, "Initializers"):
            self._tensor(tensor, graph.initializer.add())
        for sparse in self._each(stored, "SparseInitializers"):
            added = graph.sparse_initializer.add()
            self._tensor(sparse.Values(), added.values)
            added.dims.extend(self._each(sparse, "Dims"))
        for node in self._ordered(self._each(stored, "Nodes")):
            self._node(node, graph.node.add())

    def _ordered(self, nodes: list[Any]) -> list[Any]:
        """The nodes as ONNX wants them: each after those that it takes from."""
        makers = {
            name: index
            for index, node in enumerate(nodes)
            for name in self._each(node, "Outputs")
            if name
        }
        needs = {
            index: {
                makers[name]
                for field in ("Inputs", "ImplicitInputs")
                for name in self._each(node, field)
                if name in makers
            }
            for index, node in enumerate(nodes)
        }
        return [nodes[index] for index in graphlib.TopologicalSorter(needs).static_order()]

    def _value(self, value: Any, name: str, target: onnx.ValueInfoProto) -> None:
        target.name = name
        information = value.Type() if value is not None else None
        if information is None:
            return
        kinds = _schema("TypeInfoValue").TypeInfoValue
        if information.ValueType() != kinds.tensor_type:
            if information.ValueType() == kinds.sequence_type:
                target.type.sequence_type.SetInParent()
            return
        tensor = _schema("TensorTypeAndShape").TensorTypeAndShape()
        tensor.Init(information.Value().Bytes, information.Value().Pos)
        target.type.tensor_type.elem_type = tensor.ElemType()
        shape = tensor.Shape()
        if shape is None:
            return
        target.type.tensor_type.shape.SetInParent()
        for dimension in self._each(shape, "Dim"):
            axis, held = target.type.tensor_type.shape.dim.add(), dimension.Value()
            kind = held.DimType() if held is not None else 0
            if kind == 1:
                axis.dim_value = held.DimValue()
            elif kind == 2:
                axis.dim_param = _text(held.DimParam())

    def _tensor(self, tensor: Any, target: onnx.TensorProto) -> None:
        """Name, dtype and shape; the values of small ones, which may be shapes and axes."""
        target.name = _text(tensor.Name())
        target.data_type = tensor.DataType()
        target.dims.extend(self._each(tensor, "Dims"))
        if tensor.RawDataLength():
            data = tensor.RawDataAsNumpy()  # raises where it reaches beyond the file
            if len(data) <= onnx_facts.SMALL:
                target.raw_data = data.tobytes()

    def _node(self, node: Any, target: onnx.NodeProto) -> None:
        target.name, target.op_type = _text(node.Name()), _text(node.OpType())
        target.domain = _text(node.Domain())
        target.input.extend(_text(name) for name in self._each(node, "Inputs"))
        target.output.extend(_text(name) for name in self._each(node, "Outputs"))
        for attribute in self._each(node, "Attributes"):
            self._attribute(attribute, target.attribute.add())

    def _attribute(self, stored: Any, target: onnx.AttributeProto) -> None:
        target.name, target.type = _text(stored.Name()), stored.Type()
        kind = int(stored.Type())
        if kind in _PLAIN:
            field, getter = _PLAIN[kind]
            setattr(target, field, getattr(stored, getter)() or type(getattr(target, field))())
        elif kind in _LISTS:
            field, getter = _LISTS[kind]
            getattr(target, field).extend(self._each(stored, getter))
        elif kind == 4:
            self._tensor(stored.T(), target.t)
        elif kind == 5:
            self._graph(stored.G(), target.g)
        elif kind == 9:
            for tensor in self._each(stored, "Tensors"):
                self._tensor(tensor, target.tensors.add())
        elif kind == 10:
            for graph in self._each(stored, "Graphs"):
                self._graph(graph, target.graphs.add())


# The kinds of attributes: a field of ONNX's message, the schema's name of it.
_PLAIN = {1: ("f", "F"), 2: ("i", "I"), 3: ("s", "S")}
_LISTS = {6: ("floats", "Floats"), 7: ("ints", "Ints"), 8: ("strings", "Strings")}
