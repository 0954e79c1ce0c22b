"""Whether a device's execution provider is there and starts: asked before anything else is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.device.runtimes.ort import ort_session, start_error
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.device.profile import Device
    from workbench.progress import Progress
    from workbench.worker_pool import Pool


def require(device: Device, pool: Pool) -> None:
    """That the device's provider is there and starts, before anything is worked for.

    Raises DependencyError where onnxruntime has no such provider, DeviceError where it has and the
    provider does not start: no GPU, no driver, an option that it does not know.
    """
    if device.provider != "cpu":
        pool.call("provider", device)


def start(device: Device, progress: Progress) -> None:
    """Open a session on one node with the device's provider; a worker's job, see `require`."""
    from onnx import TensorProto, helper

    shape = [1, 4]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    # Old enough for every onnxruntime.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    try:
        ort_session(model.SerializeToString(), device.threads, device)
    except WorkbenchError:
        raise
    except Exception as error:
        raise start_error(device, error) from error
