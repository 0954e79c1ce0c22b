"""What a `.pt2` program's graph may consist of: plain names, arithmetic, PyTorch's operators.

torch compiles names into Python source and evaluates expressions with sympy: everything that
reaches either is held against what its exporter writes.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

from workbench.errors import ModelError, shown

_NAME = re.compile(r"[A-Za-z_]\w{0,500}", re.ASCII)
_PATH = re.compile(r"[^\"'\\{}\x00-\x1f\x7f-\x9f\u2028\u2029]{1,1000}")  # `layers.0.weight`
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|quantized|quantized_decomposed|torchvision)"
    r"\.(?P<name>(?!__)\w+|__i?(and|or|xor|lshift|rshift)__)\.(?!__)\w+"
    r"|torch\.ops\.higher_order\.(cond|while_loop|map_impl|scan|associative_scan|flex_attention"
    r"|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|torch\.sym_\w+|torch\._sym_\w+|math\.(trunc|ceil|floor|sqrt)"
    r"|_operator\.(eq|ne|le|ge|lt|gt|neg|pos|mul|add|sub|floordiv|mod|pow|truediv|and_|or_"
    r"|lshift|rshift|getitem)",
    re.ASCII,
)
_FILES = ("save", "from_file")  # aten's operators that write or map files
# sympy's, and torch's own (torch/utils/_sympy/functions.py).
_FUNCTIONS = (
    "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Abs", "Eq",
    "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "Mod", "floor", "ceiling", "FloorDiv",
    "ModularIndexing", "Where", "PythonMod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv",
    "LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv",
    "TruncToFloat", "TruncToInt", "RoundToInt", "RoundDecimal", "ToFloat", "Identity",
)  # fmt: skip
_SYNTAX = (
    ast.Expression, ast.Name, ast.Load, ast.keyword, ast.UnaryOp, ast.unaryop, ast.BinOp, ast.Add,
    ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.Compare, ast.cmpop, ast.BoolOp,
    ast.boolop,
)  # fmt: skip
_TREES = ("builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
# What the exporter keys by names of the user's: a tensor may be called `device` or `metadata`.
_BY_NAME = ("tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values",
            "as_string_to_argument", "range_constraints", "opset_version")  # fmt: skip
_LONGEST = 2000  # characters of an expression
_HIGHEST = 16  # exponent: 9**9**9 would never end


def check_graph(path: Path, value: Any) -> None:
    """Check a part of a program, and empty the notes of where its nodes came from.

    Raises ModelError for what is refused, and ValueError for what no exporter writes.
    """
    if isinstance(value, list):
        for item in value:
            check_graph(path, item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in _BY_NAME:
                _check_all(_PATH if key == "as_string_to_argument" else _NAME, item)
                check_graph(path, list(item.values()))
            elif key == "metadata":
                value[key] = {}
            else:
                _check_item(path, key, item)
                check_graph(path, item)


def _check_item(path: Path, key: str, item: Any) -> None:
    if key in ("as_custom_obj", "custom_obj", "token", "custom_obj_values") and item:
        raise ModelError(
            f"{path} holds custom objects, and is refused",
            "they are pickled, and a pickle runs any code it likes when it is opened",
            "export the model with plain tensors only",
        )
    if key == "constant_input" or (key == "user_input" and "as_tensor" not in item["arg"]):
        raise ModelError(
            f"{path} takes arguments that are no tensors",
            "a dataset gives tensors",
            "export a module whose forward takes tensors only",
        )
    if key == "device" and item["type"] != "cpu":
        raise ModelError(
            f"{path} was exported on {shown(item['type'])}",
            "its tensors and operators name that device",
            "export the model on the CPU: model.cpu()",
        )
    if not isinstance(item, str):
        if key == "forward_arg_names" and item:
            _check_all(_NAME, item)
        return
    if key in ("target", "as_operator"):
        _check_operator(path, item)
    elif key == "expr_str":
        check_expression(item)
    elif key in ("name", "as_name"):
        _check_all(_NAME, [item] if item else [])
    elif key.endswith("_name"):
        _check_all(_PATH, [item])


def _check_all(pattern: re.Pattern[str], names: Any) -> None:
    for name in names:
        if not isinstance(name, str) or pattern.fullmatch(name) is None:
            raise ValueError(f"{shown(name)} is no name")


def _check_operator(path: Path, target: str) -> None:
    matched = _OPERATOR.fullmatch(target)
    if matched is None or (matched["name"] or "").rstrip("_") in _FILES:
        raise ModelError(
            f"{path} has the operator {shown(target)}, and is refused",
            "wb loads programs of PyTorch's own operators, those on files excepted",
            "export the model without custom operators",
        )


def check_expression(text: str) -> None:
    """That a shape expression is arithmetic: torch hands it to sympy, which evaluates it.

    Raises ValueError.
    """
    try:
        nodes = list(ast.walk(ast.parse(text[: _LONGEST + 1], mode="eval")))
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"{shown(text)} is no expression") from error
    if len(text) > _LONGEST or not all(_is_arithmetic(node) for node in nodes):
        raise ValueError(f"{shown(text)} is no arithmetic")


def _is_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
    if isinstance(node, ast.Constant):
        plain = isinstance(node.value, int | float)
        return plain or (isinstance(node.value, str) and bool(_NAME.fullmatch(node.value)))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        power = node.right
        constant = isinstance(power, ast.Constant) and isinstance(power.value, int)
        return constant and abs(int(power.value)) <= _HIGHEST  # type: ignore[attr-defined]
    return isinstance(node, _SYNTAX)


def check_tree(path: Path, signature: dict[str, Any]) -> tuple[int, tuple[str, ...]]:
    """Check how a program is called: with tensors, none of them nested.

    Returns how many it takes by position, and the names of those by keyword. Raises ModelError.
    """
    inputs = _tree(path, signature["in_spec"])
    _tree(path, signature["out_spec"])
    try:
        positional, keywords = inputs["children_spec"]
        inner = [*positional["children_spec"], *keywords["children_spec"]]
        names = json.loads(keywords["context"] or "[]")
        nested = any(child["type"] is not None for child in inner)
    except (ValueError, TypeError) as error:
        raise ValueError(f"its signature is unreadable: {error}") from error
    if nested:
        raise ModelError(
            f"{path} takes lists or dicts of tensors",
            "a dataset gives tensors by name",
            "export a module whose forward takes each tensor by its own name",
        )
    _check_all(_NAME, names)
    if len(names) != len(keywords["children_spec"]):
        raise ValueError("its signature names other keywords than it takes")
    return len(positional["children_spec"]), tuple(names)


def _tree(path: Path, text: str) -> dict[str, Any]:
    """A pytree's specification; torch imports modules for other types than the plain ones."""
    _, tree = json.loads(text)
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        waiting += node["children_spec"]
        kind, context = node["type"], node["context"]
        if kind is not None and kind not in _TREES:
            raise ModelError(
                f"{path} takes or returns a {shown(kind)}",
                "wb loads programs of tensors in tuples, lists and dicts",
                "return a dict, or a plain tuple",
            )
        keys = json.loads(context) if context else None
        if not isinstance(keys, list | None):
            raise ValueError(f"{shown(keys)} are no keys")
        _check_all(_PATH, keys or [])
    specification: dict[str, Any] = tree
    return specification
