"""What a `.tflite` file that was just written holds, and the forms in which firmware takes it."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import Any

# Precisions whose activations have integer ranges, taken from calibration samples.
INT8 = ("int8", "int8-io", "int16")
# They move between float and integers; everything else that gives floats computes in float.
CONVERSIONS = ("QUANTIZE", "DEQUANTIZE", "CAST")
# TensorFlow Lite Micro lets these write over their input: no second buffer.
IN_PLACE = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")

_BYTES = {"float32": 4, "float16": 2, "int32": 4, "int64": 8, "int16": 2, "int8": 1, "uint8": 1,
          "bool": 1, "uint32": 4, "float64": 8}  # fmt: skip


def facts(content: bytes) -> dict[str, Any]:
    """Of the file: operators with counts, those that compute in float, the signature's tensors.

    hybrids: operators with INT8 weights that give floats. unscaled: operators that take a tensor
    with a scale of 0, on which LiteRT aborts. arena: bytes of activations that must be in memory at
    once, where one graph tells.
    """
    from workbench.inspect.tflite_file import Flat

    flat = Flat(content)
    operators: Counter[str] = Counter()
    floats: Counter[str] = Counter()
    hybrids: Counter[str] = Counter()
    unscaled: set[str] = set()
    for graph in flat.graphs:
        tensors = flat.each(graph, "Tensors")
        for operator in flat.each(graph, "Operators"):
            name = flat.codes[operator.OpcodeIndex()]
            operators[name] += 1
            if any(_scaled_by_nothing(tensors[number])
                   for number in flat.integers(operator, "Inputs") if number >= 0):  # fmt: skip
                unscaled.add(name)
            kinds = {flat.types.get(tensors[number].Type(), "")
                     for number in flat.integers(operator, "Outputs")}  # fmt: skip
            if name not in CONVERSIONS and any(kind.startswith("float") for kind in kinds):
                taken = [
                    tensors[number] for number in flat.integers(operator, "Inputs") if number >= 0
                ]
                (hybrids if _integer_weights(flat, taken) else floats)[name] += 1
    signature = flat.model.SignatureDefs(0)
    tensors = flat.each(flat.graphs[0], "Tensors")
    stored = {
        side: {entry.Name().decode(): tensors[entry.TensorIndex()].Name().decode()
               for entry in flat.each(signature, side.capitalize())}
        for side in ("inputs", "outputs")
    }  # fmt: skip
    return {
        "operators": dict(operators), "floats": dict(floats), "hybrids": dict(hybrids),
        "unscaled": sorted(unscaled),
        "arena": _arena(flat), **stored
    }  # fmt: skip


def _integer_weights(flat: Any, taken: list[Any]) -> bool:
    """Whether an operator's constants are INT8, which it computes with as such."""
    return any(
        flat.types.get(tensor.Type()) == "int8" and flat.stored[tensor.Buffer()] for tensor in taken
    )


def _scaled_by_nothing(tensor: Any) -> bool:
    quantization = tensor.Quantization()
    if quantization is None or not quantization.ScaleLength():
        return False
    return bool((quantization.ScaleAsNumpy() == 0).any())


def _arena(flat: Any) -> int | None:
    """The largest sum of activations alive at once, in bytes: no arena can be smaller.

    None where the file has several graphs, or a shape is open.
    """
    if len(flat.graphs) != 1:
        return None
    graph = flat.graphs[0]
    tensors = flat.each(graph, "Tensors")
    sizes = {}
    for number, tensor in enumerate(tensors):
        shape = flat.shape(tensor)
        width = _BYTES.get(flat.types.get(tensor.Type(), ""))
        if None in shape or width is None:
            return None
        if not flat.stored[tensor.Buffer()]:
            sizes[number] = prod(shape) * width
    operators = flat.each(graph, "Operators")
    first: dict[int, int] = dict.fromkeys(flat.integers(graph, "Inputs"), 0)
    last = dict.fromkeys(flat.integers(graph, "Outputs"), len(operators))
    same: dict[int, int] = {}  # by tensor: the one whose memory it may have
    for step, operator in enumerate(operators):
        inputs, outputs = flat.integers(operator, "Inputs"), flat.integers(operator, "Outputs")
        for number in inputs:
            last[number] = max(last.get(number, 0), step)
        for number in outputs:
            first[number] = step
            if flat.codes[operator.OpcodeIndex()] in IN_PLACE:
                same[number] = same.get(inputs[0], inputs[0])
    return max(
        (_alive(step, first, last, sizes, same) for step in range(len(operators))), default=None
    )


def _alive(
    step: int,
    first: dict[int, int],
    last: dict[int, int],
    sizes: dict[int, int],
    same: dict[int, int],
) -> int:
    """Bytes of the activations that hold something while an operator runs."""
    alive = {
        same.get(number, number)
        for number in sizes
        if number in first and first[number] <= step <= last.get(number, step)
    }
    return sum(sizes[number] for number in alive)


def c_array(content: bytes, name: str) -> tuple[str, str]:
    """A C++ header and source with the file as an aligned array `name`, its length `name_len`.

    The source does not include the header, so that either file may be renamed.
    """
    declared = f"extern const unsigned char {name}[];\nextern const unsigned int {name}_len;\n"
    guard = f"{name.upper()}_H_"
    header = f"#ifndef {guard}\n#define {guard}\n\n{declared}\n#endif  // {guard}\n"
    lines = [
        f"  {', '.join(f'0x{byte:02x}' for byte in content[i : i + 12])},\n"
        for i in range(0, len(content), 12)
    ]
    source = (
        f"{declared}\n"
        # TensorFlow Lite Micro reads the flatbuffer in place: its tensors ask for 16 bytes.
        f"alignas(16) const unsigned char {name}[] = {{\n{''.join(lines)}}};\n"
        f"const unsigned int {name}_len = {len(content)};\n"
    )
    return header, source
