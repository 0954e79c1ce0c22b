from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import nets
from workbench.device.session import infer, open_session
from workbench.errors import InputError, ModelError
from workbench.model import ModelSource
from workbench.sources.loading import declared_inputs, load
from workbench.sources.pt2 import _no_pickles, open_program
from workbench.steps import Export

pytestmark = [
    pytest.mark.filterwarnings("ignore:::torch"),
    pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning"),
]
BATCH = torch.export.Dim("batch", min=1)


def saved(
    path: Path, module: torch.nn.Module, *shapes: tuple[int, ...], dynamic: bool = True
) -> Path:
    """The module exported with inputs of those shapes, two samples where the batch is dynamic."""
    inputs = tuple(torch.randn(2 if dynamic else 1, *shape) for shape in shapes)
    axes = tuple({0: BATCH} for _ in inputs) if dynamic else None
    torch.export.save(torch.export.export(module, inputs, dynamic_shapes=axes), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """conv.pt2 with a dynamic batch, one.pt2 for one sample, two.pt2 with two inputs."""
    programs = tmp_path_factory.mktemp("pt2")
    saved(programs / "conv.pt2", nets.build(), (3, 32, 32))
    saved(programs / "one.pt2", nets.build(), (3, 32, 32), dynamic=False)
    saved(programs / "two.pt2", nets.build(nets.TwoInputs), (3, 16, 16), (5,))
    return programs


IMAGES = {"image": nets.normal(8, 3, 32, 32)}


def loaded(path: Path, **examples: np.ndarray) -> Any:
    return load(ModelSource(spec=path.name, folder=path.parent), examples or IMAGES, path.parent)


def test_a_program_gives_what_the_module_gave(folder: Path) -> None:
    model = loaded(folder / "conv.pt2")
    assert (model.input_names, model.output_names, model.batch) == (("image",), ("output",), None)
    expected = nets.run_torch(nets.build(), IMAGES["image"])
    np.testing.assert_allclose(model(IMAGES)[0], expected, rtol=1e-5, atol=1e-6)


def test_inputs_go_by_name_whatever_the_order_and_by_keyword(folder: Path, tmp_path: Path) -> None:
    zebra, apple = nets.normal(4, 3, 16, 16), nets.normal(4, 5, seed=1)
    expected = nets.run_torch(nets.build(nets.TwoInputs), zebra, apple)
    model = loaded(folder / "two.pt2", apple=apple, zebra=zebra)
    assert model.input_names == ("zebra", "apple")
    np.testing.assert_allclose(model({"zebra": zebra, "apple": apple})[0], expected, atol=1e-6)
    by_keyword = torch.export.export(
        nets.build(nets.TwoInputs), (torch.randn(2, 3, 16, 16),), {"apple": torch.randn(2, 5)},
        dynamic_shapes={"zebra": {0: BATCH}, "apple": {0: BATCH}},
    )  # fmt: skip
    torch.export.save(by_keyword, tmp_path / "keyword.pt2")
    model = loaded(tmp_path / "keyword.pt2", apple=apple, zebra=zebra)
    np.testing.assert_allclose(model({"zebra": zebra, "apple": apple})[0], expected, atol=1e-6)


def test_several_outputs_keep_their_names(tmp_path: Path) -> None:
    path = saved(tmp_path / "outputs.pt2", nets.build(nets.Outputs), (8,))
    assert loaded(path, x=nets.normal(4, 8)).output_names == ("scores", "embedding")


def test_one_sample_at_a_time_is_found_out_and_said(folder: Path) -> None:
    model = loaded(folder / "one.pt2")
    assert model.batch == 1
    assert model.notes == ("the program was exported for one sample at a time",)
    expected = nets.run_torch(nets.build(), IMAGES["image"])
    np.testing.assert_allclose(model(IMAGES)[0], expected, rtol=1e-5, atol=1e-6)
    source = ModelSource(spec="one.pt2", folder=folder)
    (output,) = infer(open_session(source, 1, IMAGES), IMAGES)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


def test_another_fixed_batch_is_refused_with_the_way_out(tmp_path: Path) -> None:
    program = torch.export.export(nets.build(nets.Mlp), (torch.randn(4, 8),))
    torch.export.save(program, tmp_path / "four.pt2")
    with pytest.raises(ModelError, match="takes exactly 4 samples at a time") as caught:
        loaded(tmp_path / "four.pt2", x=nets.normal(8, 8))
    assert "dynamic_shapes" in caught.value.fix


def test_samples_of_another_shape_type_or_name_are_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"takes image: float32\[\?x3x32x32\].*\[\?x3x64x64\]"):
        loaded(folder / "conv.pt2", image=nets.normal(2, 3, 64, 64))
    with pytest.raises(ModelError, match="dataset gives float64"):
        loaded(folder / "conv.pt2", image=np.zeros((2, 3, 32, 32)))
    with pytest.raises(InputError, match="takes zebra, apple, the dataset gives a, b"):
        loaded(folder / "two.pt2", a=nets.normal(2, 3, 16, 16), b=nets.normal(2, 5))


def test_its_inputs_are_known_without_torch(folder: Path) -> None:
    (spec,) = declared_inputs(ModelSource(spec="one.pt2", folder=folder))
    assert (spec.name, spec.dtype, spec.shape) == ("image", "float32", (None, 3, 32, 32))


def test_the_batch_stays_open_where_shapes_are_computed(tmp_path: Path) -> None:
    class Shuffle(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            count, channels, height, width = x.shape
            shuffled = x.reshape(count, 2, channels // 2, height, width).transpose(1, 2)
            return shuffled.reshape(count, -1) + torch.zeros(count, 1)

    path = saved(tmp_path / "shuffle.pt2", Shuffle(), (4, 3, 5))
    x = nets.normal(8, 4, 3, 5)
    model = loaded(path, x=x)
    exported = Export(opset=17).run(model, nets.context(tmp_path / "out", nets.dataset_of(x=x)))
    for count in (1, 5):
        np.testing.assert_array_equal(
            nets.run_onnx(exported.path, x[:count])[0], nets.run_torch(Shuffle(), x[:count])
        )


@pytest.mark.parametrize("opset", [17, pytest.param(18, marks=pytest.mark.process)])
@pytest.mark.parametrize("name", ["conv", "one"])
def test_a_program_is_exported_with_equal_outputs(
    name: str, opset: int, folder: Path, tmp_path: Path
) -> None:
    model = loaded(folder / f"{name}.pt2")
    exported = Export(opset=opset).run(model, nets.context(tmp_path, nets.images()))
    assert exported.inputs[0].shape == (1 if name == "one" else None, 3, 32, 32)
    assert any("batch is fixed to 1" in note for note in exported.notes) == (name == "one")
    (output,) = infer(open_session(exported, 1), IMAGES)
    expected = nets.run_torch(nets.build(), IMAGES["image"])
    np.testing.assert_allclose(output, expected, rtol=1e-3, atol=1e-5)


# What a foreign file may try. Each payload makes a folder when it runs.


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def rewritten(path: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A copy of the archive with its records changed, by their names inside the root folder."""
    with zipfile.ZipFile(path) as archive:
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(records)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records.items():
            archive.writestr(f"{target.stem}/{name}", content)
    return target


def edited(path: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy with its program's JSON changed."""

    def of_json(records: dict[str, bytes]) -> None:
        program = json.loads(records["models/model.json"])
        change(program)
        records["models/model.json"] = json.dumps(program).encode()

    return rewritten(path, target, of_json)


def pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_sample_inputs_are_never_unpickled(folder: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"

    def change(records: dict[str, bytes]) -> None:
        records["data/sample_inputs/model.pt"] = pickled(((Payload(trap),), {}))

    path = rewritten(folder / "conv.pt2", tmp_path / "evil.pt2", change)
    np.testing.assert_array_equal(loaded(path)(IMAGES)[0], loaded(folder / "conv.pt2")(IMAGES)[0])
    assert not trap.exists()
    with pytest.raises(Exception):  # noqa: B017 - what torch itself does with such a file
        torch.export.load(path)
    assert trap.exists()


def weight(records: dict[str, bytes], trap: Path) -> None:
    listing = json.loads(records["data/weights/model_weights_config.json"])
    first = next(iter(listing["config"].values()))
    first["use_pickle"] = True
    records["data/weights/model_weights_config.json"] = json.dumps(listing).encode()
    records[f"data/weights/{first['path_name']}"] = pickled(Payload(trap))


def opaque(records: dict[str, bytes], trap: Path) -> None:
    meta = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    records["data/constants/model_constants_config.json"] = json.dumps(
        {"config": {"x": meta}}
    ).encode()
    records["data/constants/opaque_obj_0"] = pickle.dumps(Payload(trap))


def legacy(records: dict[str, bytes], trap: Path) -> None:
    records["data/weights/model.pt"] = pickled({"x": Payload(trap)})


@pytest.mark.parametrize("attack", [weight, opaque, legacy])
def test_a_pickle_in_its_place_is_refused_and_does_not_run(
    attack: Callable[[dict[str, bytes], Path], None], folder: Path, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    path = tmp_path / "evil.pt2"
    rewritten(folder / "conv.pt2", path, lambda records: attack(records, trap))
    with pytest.raises(ModelError, match=r"holds a pickle.*and is refused") as caught:
        loaded(path)
    assert "runs any code" in caught.value.why
    assert not trap.exists()
    with pytest.raises(Exception):  # noqa: B017 - what torch itself does with such a file
        torch.export.load(path).module()
    assert trap.exists()


def test_the_second_lock_holds_where_the_first_is_passed(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    with _no_pickles(), pytest.raises(Exception, match=r"a pickle names posix\.mkdir"):
        pickle.loads(pickle.dumps(Payload(trap)))
    assert not trap.exists()
    pickle.loads(pickle.dumps(Payload(trap)))  # and opens again after the block
    assert trap.exists()


def test_old_archives_with_plain_weights_are_read(folder: Path, tmp_path: Path) -> None:
    """Torch 2.8 kept the weights as one state dict."""

    def change(records: dict[str, bytes]) -> None:
        for name in [name for name in records if name.startswith("data/weights/")]:
            del records[name]
        parameters = dict(nets.build().named_parameters())
        records["data/weights/model.pt"] = pickled({**nets.build().state_dict(), **parameters})

    path = rewritten(folder / "conv.pt2", tmp_path / "old.pt2", change)
    np.testing.assert_array_equal(loaded(path)(IMAGES)[0], loaded(folder / "conv.pt2")(IMAGES)[0])


def test_compiled_code_and_the_oldest_archives_are_refused(folder: Path, tmp_path: Path) -> None:
    def compiled(records: dict[str, bytes]) -> None:
        records["data/aotinductor/model/model.so"] = b"\x7fELF"

    path = rewritten(folder / "conv.pt2", tmp_path / "compiled.pt2", compiled)
    with pytest.raises(ModelError, match="compiled machine code"):
        loaded(path)
    with zipfile.ZipFile(tmp_path / "oldest.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("serialized_state_dict.pt", pickled({"x": Payload(tmp_path / "trap")}))
        archive.writestr("version", "8.8")
    with pytest.raises(ModelError, match=r"torch 2\.7 or older"):
        loaded(tmp_path / "oldest.pt2")
    assert not (tmp_path / "trap").exists()


def call(trap: Path) -> str:
    return f"__import__('os').mkdir({str(trap)!r})"


def in_a_name(program: dict[str, Any], trap: Path) -> None:
    """A default value in a parameter: torch compiles the names of inputs into source."""
    text = json.dumps(program).replace('"name": "image"', f'"name": "image={call(trap)}"')
    text = text.replace('"image": {', f'"image={call(trap)}": {{')
    program.clear()
    program.update(json.loads(text))


def in_a_shape(program: dict[str, Any], trap: Path) -> None:
    sizes = program["graph_module"]["graph"]["tensor_values"]["image"]["sizes"]
    sizes[0]["as_expr"]["expr_str"] = f"{call(trap)} or 2"


def in_an_operator(program: dict[str, Any], trap: Path) -> None:
    node = program["graph_module"]["graph"]["nodes"][0]
    node["target"] = "torch.os.mkdir"
    node["inputs"] = [{"name": "path", "arg": {"as_string": str(trap)}, "kind": 1}]


def in_a_tree(program: dict[str, Any], trap: Path) -> None:
    (trap.parent / "evil_module.py").write_text(f"{call(trap)}\n")
    (root,) = [
        entry for entry in program["graph_module"]["module_call_graph"] if entry["fqn"] == ""
    ]  # fmt: skip
    context = {"default_factory_module": "evil_module", "default_factory_name": "x",
               "dict_context": []}  # fmt: skip
    leaf = {"type": None, "context": None, "children_spec": []}
    tree = {"type": "collections.defaultdict", "context": context, "children_spec": [leaf]}
    root["signature"]["out_spec"] = json.dumps([1, tree])


@pytest.mark.parametrize("attack", [in_a_name, in_a_shape, in_an_operator, in_a_tree])
def test_code_in_the_program_itself_is_refused_and_does_not_run(
    attack: Callable[[dict[str, Any], Path], None],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    trap = tmp_path / "trap"
    path = tmp_path / "evil.pt2"
    edited(folder / "conv.pt2", path, lambda program: attack(program, trap))
    with pytest.raises(ModelError, match=r"refused|damaged|takes or returns"):
        loaded(path)
    assert not trap.exists()


@pytest.mark.parametrize("attack", [in_a_name, in_a_shape, in_a_tree])
def test_torch_itself_would_run_it(
    attack: Callable[[dict[str, Any], Path], None],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that the tests above can fail: the payloads are ones that work."""
    monkeypatch.syspath_prepend(tmp_path)
    trap = tmp_path / "trap"
    path = tmp_path / "evil.pt2"
    edited(folder / "conv.pt2", path, lambda program: attack(program, trap))
    with contextlib.suppress(Exception):  # after the payload ran, torch may go on or not
        torch.export.load(path).module()
    assert trap.exists()


def test_guards_are_not_run(folder: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"

    def change(program: dict[str, Any]) -> None:
        program["guards_code"] = [f"{call(trap)} is None"]

    path = edited(folder / "conv.pt2", tmp_path / "evil.pt2", change)
    np.testing.assert_array_equal(loaded(path)(IMAGES)[0], loaded(folder / "conv.pt2")(IMAGES)[0])
    assert not trap.exists()


@pytest.mark.parametrize(
    "operator",
    ["torch.ops.aten.save.default", "torch.ops.aten.from_file.default", "torch.load",
     "torch.ops.debugprims.load_tensor.default", "_operator.methodcaller", "math.__dict__",
     "torch.ops.aten.__dict__.pop", "torch.ops.higher_order.print", "torch.ops.mine.op.default",
     "#evil:op", "os.system"],
)  # fmt: skip
def test_operators_on_files_and_foreign_ones_are_refused(
    operator: str, folder: Path, tmp_path: Path
) -> None:
    def change(program: dict[str, Any]) -> None:
        program["graph_module"]["graph"]["nodes"][0]["target"] = operator

    path = edited(folder / "conv.pt2", tmp_path / "evil.pt2", change)
    with pytest.raises(ModelError, match=r"has the operator.*refused") as caught:
        loaded(path)
    assert operator in caught.value.what


def test_names_of_the_users_may_be_words_of_the_format(tmp_path: Path) -> None:
    class Odd(torch.nn.Module):
        def forward(self, metadata: torch.Tensor, device: torch.Tensor) -> torch.Tensor:
            return metadata - 2 * device

    path = saved(tmp_path / "odd.pt2", Odd(), (3,), (3,))
    inputs = {"metadata": nets.normal(2, 3), "device": nets.normal(2, 3, seed=1)}
    output = loaded(path, **inputs)(inputs)[0]
    np.testing.assert_allclose(output, inputs["metadata"] - 2 * inputs["device"], rtol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(share: float, folder: Path, tmp_path: Path) -> None:
    content = (folder / "conv.pt2").read_bytes()
    path = tmp_path / "short.pt2"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match=r"is empty|damaged|not a whole"):
        loaded(path)


@pytest.mark.parametrize("content", [b"hello, world\n", bytes(range(256)) * 8, b"PK\x03\x04 no"])
def test_garbage_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "garbage.pt2").write_bytes(content)
    with pytest.raises(ModelError, match=r"garbage\.pt2"):
        loaded(tmp_path / "garbage.pt2")


def test_any_damage_is_a_models_error(folder: Path, tmp_path: Path) -> None:
    generator = random.Random(0)
    content = (folder / "conv.pt2").read_bytes()
    path = tmp_path / "damaged.pt2"
    for _ in range(60):
        broken = bytearray(content)
        for _ in range(generator.randrange(1, 8)):
            broken[generator.randrange(len(broken))] = generator.randrange(256)
        path.write_bytes(broken)
        try:
            open_program(path)
        except ModelError:
            continue


def test_another_format_under_this_name_is_told(tmp_path: Path) -> None:
    torch.jit.trace(nets.build(nets.Mlp), torch.zeros(1, 8)).save(str(tmp_path / "x.pt2"))
    with pytest.raises(ModelError, match=r"TorchScript, not a \.pt2") as caught:
        loaded(tmp_path / "x.pt2")
    assert caught.value.fix == "rename it to x.pt"
