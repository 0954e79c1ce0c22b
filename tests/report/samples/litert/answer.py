"""LiteRT's interpreter for `shim.cpp`: `list` the tensors of a model, or `run` it, in a folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def main(what: str, folder: Path) -> None:
    interpreter = Interpreter(os.environ["WB_MODEL"])
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    for one in filter(None, os.environ["WB_RESIZES"].split(";")):
        place, *dims = map(int, one.split(","))
        interpreter.resize_tensor_input(inputs[place]["index"], dims)
    interpreter.allocate_tensors()

    def array(detail: dict[str, Any]) -> np.ndarray:
        return interpreter.get_tensor(detail["index"])

    if what == "list":
        with (folder / "list").open("wb") as file:
            for details in (inputs, outputs):
                file.write(f"{len(details)}\n".encode())
                for detail in details:
                    name, found = detail["name"].encode(), array(detail)
                    dims = " ".join(map(str, [found.ndim, *found.shape, found.nbytes]))
                    file.write(f"{len(name)}\n".encode() + name + f"\n{dims}\n".encode())
        return
    for number, detail in enumerate(inputs):
        data = (folder / f"input{number}").read_bytes()
        given = np.frombuffer(data, detail["dtype"]).reshape(array(detail).shape)
        interpreter.set_tensor(detail["index"], given)
    interpreter.invoke()
    for number, detail in enumerate(outputs):
        (folder / f"output{number}").write_bytes(array(detail).tobytes())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
