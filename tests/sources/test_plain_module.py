"""What a factory gives, as steps take it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from workbench.errors import ModelError
from workbench.sources.plain_module import plain_module


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def test_a_plain_module_is_left_as_it_is() -> None:
    module = net()
    assert plain_module(module, "net.py:build") == (module, [])


def test_a_compiled_module_is_taken_out() -> None:
    module = net()
    inner, notes = plain_module(torch.compile(module), "net.py:build")
    assert inner is module
    assert notes == ["taken out of torch.compile, for exporters need the plain module"]


def test_wrappers_within_wrappers_are_taken_off() -> None:
    module = net()
    inner, notes = plain_module(nn.DataParallel(torch.compile(module)), "net.py:build")
    assert inner is module
    assert len(notes) == 2
    assert "DataParallel" in notes[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_made_float32_and_that_is_said(dtype: torch.dtype) -> None:
    module, (note,) = plain_module(net().to(dtype), "net.py:build")
    assert {tensor.dtype for tensor in module.state_dict().values()} == {
        torch.float32, torch.int64,
    }  # fmt: skip
    assert note == f"{str(dtype)[6:]} made float32, which recipes start from"


def dynamic() -> Any:
    return torch.ao.quantization.quantize_dynamic(net().eval(), {nn.Linear}, dtype=torch.qint8)


def trained() -> Any:
    module = net().train()
    module.qconfig = torch.ao.quantization.get_default_qat_qconfig("x86")
    return torch.ao.quantization.prepare_qat(module)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [dynamic, trained])
def test_a_quantized_module_is_refused_with_the_reason(make: Any) -> None:
    with pytest.raises(ModelError, match=r"net\.py:q gives a module that is quantized") as caught:
        plain_module(make(), "net.py:q")
    assert "torch.ao.nn" in caught.value.why
    assert "float module" in caught.value.fix
