from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import nets
from workbench.errors import ModelError
from workbench.model import Model, ModelSource, flatten, parse_inputs


@pytest.mark.parametrize(
    ("spec", "kind", "name"),
    [
        ("deep/MobileNet v2.onnx", "onnx", "MobileNet v2"),
        ("nets/resnet18.py:build", "factory", "resnet18"),
        ("zoo/mobilenetv1/model.py:build", "factory", "mobilenetv1"),
        ("torchvision.models.resnet:resnet18", "factory", "resnet"),
        ("workbench.digits.model:build", "factory", "digits"),
        ("a b!.py:f", "factory", "a-b"),
        ("nets/step 3.pt2", "pt2", "step 3"),
        ("scripted.pt", "torchscript", "scripted"),
        ("scripted.PTH", "torchscript", "scripted"),
        ("hf:org/tiny-bert", "hf", "tiny-bert"),
        ("hf:org/tiny-bert@v1.0", "hf", "tiny-bert"),
        ("hf:deep/folder/", "hf", "folder"),
        ("timm:resnet18.a1_in1k", "timm", "resnet18.a1_in1k"),
        ("torchvision:mobilenet_v2", "torchvision", "mobilenet_v2"),
        ("timm.models:resnet18", "factory", "timm"),
        ("hf.py:build", "factory", "hf"),
    ],
)
def test_a_source_is_named_after_its_file_or_package(
    spec: str, kind: str, name: str, tmp_path: Path
) -> None:
    source = ModelSource(spec=spec, folder=tmp_path)
    assert source.kind == kind
    assert source.name == name


def test_a_name_never_leads_out_of_a_folder() -> None:
    for spec in ("../../etc/passwd.py:x", "..:f", "/:f", "\\\\host\\share.py:f", ".py:f",
                 "hf:../..", "hf:/", "hf:", "hf:~", "timm:../x", "torchvision:a/../b"):  # fmt: skip
        assert not set(ModelSource(spec=spec).name) & set("/\\\0 ")
        assert ModelSource(spec=spec).name.strip(".")


def a_model(module: torch.nn.Module) -> Model:
    return Model(module=module, example_inputs={"x": nets.normal(2, 8)}, output_names=("output",))


def test_the_fingerprint_follows_weights_and_structure() -> None:
    first = a_model(nets.build(nets.Mlp)).fingerprint
    assert a_model(nets.build(nets.Mlp)).fingerprint == first
    assert a_model(nets.build(nets.Mlp, seed=1)).fingerprint != first
    changed = nets.build(nets.Mlp)
    with torch.no_grad():
        changed.layers[2].bias[3] += 1e-6  # type: ignore[index, union-attr]
    assert a_model(changed).fingerprint != first
    other = nets.build(nets.Mlp)
    other.layers[1] = torch.nn.ReLU6()  # type: ignore[index, operator]
    assert a_model(other).fingerprint != first


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_dtype_has_a_fingerprint(dtype: torch.dtype) -> None:
    module = nets.build().to(dtype)
    again = nets.build().to(dtype)
    assert a_model(module).fingerprint == a_model(again).fingerprint


def test_a_fingerprint_takes_scalars_and_empty_buffers() -> None:
    module = nets.build(nets.Mlp)
    module.register_buffer("scalar", torch.tensor(3.0))
    module.register_buffer("empty", torch.zeros(0))
    module.register_buffer("turned", torch.arange(6).reshape(2, 3).T)
    assert len(a_model(module).fingerprint) == 64


def test_state_bytes_counts_parameters_and_buffers() -> None:
    assert a_model(nets.build(nets.Mlp)).state_bytes == 4 * (8 * 16 + 16 + 16 * 4 + 4)
    batch_norm = torch.nn.BatchNorm2d(5)
    assert a_model(batch_norm).state_bytes == 4 * 4 * 5 + 8


def test_a_model_is_called_in_its_own_order_whatever_the_mappings() -> None:
    first, second = nets.normal(3, 4), nets.normal(3, 4, seed=1)
    model = Model(
        module=nets.build(nets.Difference),
        example_inputs={"second": second, "first": first},
        output_names=("output",),
    )
    (output,) = model({"first": first, "second": second})
    np.testing.assert_allclose(output, 2 * second - first, rtol=1e-6)
    assert not torch.from_numpy(output).requires_grad


def test_flatten_follows_the_exporters_order() -> None:
    first, second, third = (torch.full((1,), float(value)) for value in (1, 2, 3))
    nested: Any = {"b": first, "a": (second, [third, None])}
    assert [(name, float(tensor)) for name, tensor in flatten(nested)] == [
        ("b", 1.0), ("", 2.0), ("", 3.0)
    ]  # fmt: skip
    with pytest.raises(ModelError, match="returns a float"):
        flatten((first, 0.5))


def test_inputs_are_parsed_with_their_dtype_and_an_open_batch() -> None:
    image, ids = parse_inputs(["image:1x3x224x224", "ids:1x128:int64"])
    assert (image.name, image.dtype, image.shape) == ("image", "float32", (None, 3, 224, 224))
    assert (ids.name, ids.dtype, ids.shape) == ("ids", "int64", (None, 128))


@pytest.mark.parametrize(
    "text",
    ["image", "image:", ":1x3", "image:1x", "image:1x-3", "image:axb", "image:1x3:complex64",
     "image:1x0x3", "image:1x99999999999", "image:1,3", ""],
)  # fmt: skip
def test_an_input_that_cannot_be_parsed_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="--input"):
        parse_inputs([text])
