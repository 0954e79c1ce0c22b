"""What is read of `.pt2` programs and TorchScript archives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests import nets
from workbench.artifact import Format, digest
from workbench.errors import ModelError
from workbench.inspect import onnx_file, pt2_file, read, torchscript_file
from workbench.inspect.facts import Tensor as Declared


def program(path: Path, module: nn.Module, *example: Tensor, batch: bool = True) -> Path:
    axis = torch.export.Dim("batch")
    shapes = tuple({0: axis} for _ in example) if batch else None
    torch.export.save(torch.export.export(module, example, dynamic_shapes=shapes), path)
    return path


def archive(path: Path, module: nn.Module, *example: Tensor) -> Path:
    torch.jit.save(torch.jit.trace(module, example), path)
    return path


class Everything(nn.Module):
    """Attention [N, 5, 16], a transposed convolution and an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.up = nn.ConvTranspose2d(3, 4, 3, 2)
        self.lstm = nn.LSTM(6, 5, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.attention(x, x, x)[0], self.up(y), self.lstm(z)[0]


EVERYTHING = (
    5 * 16 * 64 + 2 * 5 * 5 * 16  # projections, scores and their sums
    + 3 * 8 * 8 * 4 * 9
    + 3 * 2 * 20 * (6 + 5)
)  # fmt: skip


def test_a_program_by_hand(tmp_path: Path) -> None:
    example = torch.zeros(2, 5, 16), torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 6)
    path = program(tmp_path / "made.pt2", Everything().eval(), *example)
    facts = pt2_file.read(path)
    assert facts.format is Format.PT2
    assert facts.inputs == (
        Declared(name="x", dtype="float32", shape=(None, 5, 16)),
        Declared(name="y", dtype="float32", shape=(None, 3, 8, 8)),
        Declared(name="z", dtype="float32", shape=(None, 3, 6)),
    )
    assert [tensor.shape for tensor in facts.outputs] == [
        (None, 5, 16), (None, 4, 17, 17), (None, 3, 10),
    ]  # fmt: skip
    assert facts.macs == EVERYTHING
    assert facts.operators["aten::lstm"] == 1
    weights = 16 * 48 + 48 + 16 * 16 + 16 + 3 * 4 * 9 + 4 + 2 * (20 * 11 + 40)
    assert (facts.parameters, facts.precision) == (weights, "float32")
    assert (facts.sha256, facts.bytes) == (digest(path), path.stat().st_size)
    assert facts.takes == {}


def test_torchs_count_is_that_of_the_exported_onnx(tmp_path: Path) -> None:
    module = nets.build()
    facts = pt2_file.read(program(tmp_path / "made.pt2", module, torch.zeros(2, 3, 32, 32)))
    onnx = onnx_file.read(nets.exported(tmp_path / "onnx", module, nets.images()).path)
    assert facts.macs == onnx.macs == 107_136
    assert facts.parameters == sum(p.numel() for p in module.parameters()) + 2 * (8 + 8)


def test_an_open_axis_besides_the_batch_leaves_the_macs_unknown(tmp_path: Path) -> None:
    shapes = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("length")},)
    exported = torch.export.export(nn.Linear(6, 4), (torch.zeros(2, 5, 6),), dynamic_shapes=shapes)
    torch.export.save(exported, tmp_path / "open.pt2")
    facts = pt2_file.read(tmp_path / "open.pt2")
    assert facts.macs is None
    assert facts.inputs[0].shape == (None, None, 6)
    assert facts.notes[0].startswith("MACs unknown: aten::")


def test_a_half_program(tmp_path: Path) -> None:
    path = program(tmp_path / "half.pt2", nets.build(nets.Mlp).half(), torch.zeros(2, 8).half())
    assert pt2_file.read(path).precision == "float16"


@pytest.mark.process
def test_a_traced_archive(tmp_path: Path) -> None:
    path = archive(tmp_path / "traced.pt", nets.build(nets.TwoInputs), torch.zeros(1, 3, 8, 8),
                   torch.zeros(1, 5))  # fmt: skip
    facts = read(path)
    assert facts.format is Format.TORCHSCRIPT
    assert [tensor.name for tensor in facts.inputs] == ["zebra", "apple"]
    assert not any(tensor.ranked for tensor in facts.inputs)
    assert facts.operators["aten::_convolution"] == 1
    assert (facts.parameters, facts.precision) == (6 * 27 + 6 + 6 * 5 + 6, "float32")
    assert facts.macs is None
    assert "MACs unknown: TorchScript holds no shapes" in facts.notes
    assert (facts.sha256, facts.bytes) == (digest(path), path.stat().st_size)


def test_control_flow_and_what_is_inside_it(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nets.Branching()), tmp_path / "branches.pt")
    facts = torchscript_file.read(tmp_path / "branches.pt")
    assert facts.operators["prim::If"] == 1
    assert facts.operators["aten::mul"] == 2
    assert [tensor.name for tensor in facts.inputs] == ["x"]


def test_frozen_weights_are_constants_of_the_code(tmp_path: Path) -> None:
    traced = torch.jit.trace(nets.build(nets.Mlp), torch.zeros(1, 8))
    torch.jit.save(torch.jit.freeze(traced), tmp_path / "frozen.pt")
    assert torchscript_file.read(tmp_path / "frozen.pt").parameters == 8 * 16 + 16 + 16 * 4 + 4


def test_several_outputs_have_names(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x + 1, x - 1

    facts = torchscript_file.read(archive(tmp_path / "two.pt", Two(), torch.zeros(3)))
    assert [tensor.name for tensor in facts.outputs] == ["output_0", "output_1"]


def test_shared_memory_counts_once() -> None:
    weight = torch.ones(3, 4)
    counts = pt2_file.elements([weight, weight, weight.clone(), torch.ones(5, dtype=torch.int64)])
    assert counts == {"float32": 24}


@pytest.mark.parametrize("make", [program, archive])
def test_a_changed_weight_is_refused(make, tmp_path: Path) -> None:
    """torch itself does not look at the checksums."""
    path = make(tmp_path / "made.pt2", nets.build(nets.Mlp), torch.zeros(2, 8))
    weight = nets.build(nets.Mlp).layers[0].weight.detach().numpy().tobytes()
    data = path.read_bytes()
    assert weight in data
    path.write_bytes(data.replace(weight, bytes(len(weight))))
    with pytest.raises(ModelError):
        (pt2_file if make is program else torchscript_file).read(path)


@pytest.mark.process
def test_an_archive_whose_code_is_nonsense_is_refused(tmp_path: Path) -> None:
    import zipfile

    path = archive(tmp_path / "traced.pt", nets.build(nets.Mlp), torch.zeros(1, 8))
    with zipfile.ZipFile(path) as archived:
        parts = {name: archived.read(name) for name in archived.namelist()}
    with zipfile.ZipFile(tmp_path / "bad.pt", "w", zipfile.ZIP_STORED) as rewritten:
        for name, content in parts.items():
            rewritten.writestr(name, b"def forward(:" if name.endswith(".py") else content)
    with pytest.raises(ModelError, match="cannot be read as TorchScript"):
        read(tmp_path / "bad.pt")
