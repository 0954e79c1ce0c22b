"""The form that rewrites of a float graph have: small functions that change a model in place."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.onnxgraph.view import RewriteContext, View

if TYPE_CHECKING:
    import onnx

# Changes a model in place; how often, 0 where it left the model as it was.
Rewrite = Callable[["onnx.ModelProto", RewriteContext], int]
# Tries to change a graph at one node; whether it did.
NodeRewrite = Callable[[View, "onnx.NodeProto", RewriteContext], bool]


def each_node(rewrite: NodeRewrite) -> Rewrite:
    """A rewrite of a model from that of one node, which is tried on all of them in order."""

    @functools.wraps(rewrite)
    def rewrite_model(model: onnx.ModelProto, context: RewriteContext) -> int:
        view = View(model)
        return view.write_if(sum(rewrite(view, node, context) for node in view.nodes))

    return rewrite_model
