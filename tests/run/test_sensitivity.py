from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests import project
from tests.quantization.search.test_sensitivity import images, network
from workbench.cli.sensitivity import print_table
from workbench.display import Quiet
from workbench.errors import DatasetError, InputError, ModelError, RecipeError
from workbench.quantization.explain.sensitivity_table import SensitivityTable
from workbench.report import sensitivity_page, sensitivity_text
from workbench.run.sensitivity import measure_sensitivity

LABELLED = """
source = "numpy"
path = "x.npy"
[split]
calibration = 40
evaluation = 10
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose layer `wide` costs most, and samples without labels."""
    made = tmp_path_factory.mktemp("sensitivity")
    onnx.save(network(), made / "net.onnx")
    np.save(made / "x.npy", images(50))
    (made / "data.toml").write_text(LABELLED)
    return made


def run(
    folder: Path, name: str = "net.onnx", data: str | None = "data.toml", **more: Any
) -> SensitivityTable:
    given = {"preset": "fast", "samples": None, "device": "cpu", "out": None} | more
    where = None if data is None else str(folder / data)
    return measure_sensitivity(folder / name, where, display=Quiet(), **given)


@pytest.fixture(scope="module")
def table(folder: Path) -> SensitivityTable:
    return run(folder, out=folder / "out")


def test_layers_stand_in_the_order_of_what_they_cost(table: SensitivityTable) -> None:
    noise = [one.sensitivity.alone.noise for one in table.layers]
    assert noise == sorted(noise, reverse=True)
    assert {one.sensitivity.layer for one in table.layers} == {"first", "wide", "third", "last"}
    assert {one.sensitivity.layer: one.position for one in table.layers}["third"] == 2
    assert table.samples == (40, 40)
    assert table.whole.sqnr > 10
    assert table.scheme in ("u8s8", "u8s8-reduced", "s8s8")


def test_times_are_measured_for_every_layer(table: SensitivityTable) -> None:
    for one in table.layers:
        assert one.milliseconds is not None
        assert all(value >= 0 for value in one.milliseconds)
        assert one.saved == one.milliseconds[0] - one.milliseconds[1]
    assert sensitivity_text.total(table).startswith("these layers take ")


def test_times_that_fail_leave_the_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.quantization.search import layer_times

    def failing(*_: Any) -> None:
        raise RuntimeError("no profile")

    monkeypatch.setattr(layer_times, "time_layers", failing)
    made = run(folder)
    assert [one.milliseconds for one in made.layers] == [None] * 4
    assert "times not measured: no profile" in made.notes
    assert sensitivity_text.total(made) == ""
    assert any(line.rstrip().endswith("–") for line in sensitivity_text.lines(made))
    assert made.to_json()["layers"][0]["milliseconds"] is None


def test_the_page_and_its_json_hold_every_layer(table: SensitivityTable, folder: Path) -> None:
    page = (folder / "out" / "sensitivity.html").read_text()
    assert page.count("<rect ") == 4
    assert page.count("<tr><th>") == 1 + 4
    for word in ("script", "http://", "https://"):
        assert word not in page
    read = json.loads((folder / "out" / "sensitivity.json").read_text())
    # The page was written before the time it took was known to `print_table`.
    assert read == table.to_json()
    assert read["layers"][0]["layer"] == table.layers[0].sensitivity.layer
    assert read["layers"][0]["bytes"]["float32"] == 4 * read["layers"][0]["parameters"]
    assert sum(one["share_of_noise"] for one in read["layers"]) == pytest.approx(1)


def test_names_are_escaped_in_the_page(folder: Path) -> None:
    model = network()
    model.graph.node[2].name = "<b>&wide"
    onnx.save(model, folder / "odd.onnx")
    page = sensitivity_page.page(run(folder, "odd.onnx"))
    assert "<b>" not in page
    assert "&lt;b&gt;&amp;wide" in page


def test_the_text_has_a_bar_for_what_costs_most(
    table: SensitivityTable, capsys: pytest.CaptureFixture[str]
) -> None:
    print_table(table, as_json=False, out=Path("there"))
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0] == f"net.onnx in INT8 ({table.scheme}, fast), layer by layer"
    assert lines[3].split()[:4] == ["layer", "op", "SQNR", "alone"]
    assert lines[4].startswith(table.layers[0].sensitivity.layer)
    assert lines[4].count("█") == sensitivity_text.BAR
    assert "all 4 in INT8: " in text
    assert "there/sensitivity.html" in lines[-1]
    print_table(table, as_json=True)
    assert json.loads(capsys.readouterr().out) == table.to_json()


def test_fewer_samples_are_used_where_asked_for(folder: Path) -> None:
    assert run(folder, samples=20).samples == (20, 20)


def test_samples_of_another_layout_are_turned(folder: Path) -> None:
    np.save(folder / "last.npy", images(50).transpose(0, 2, 3, 1))
    (folder / "last.toml").write_text(LABELLED.replace("x.npy", "last.npy"))
    one, other = run(folder), run(folder, data="last.toml")
    assert [x.sensitivity.layer for x in one.layers] == [x.sensitivity.layer for x in other.layers]
    assert other.whole.sqnr == pytest.approx(one.whole.sqnr, abs=1e-2)


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"data": None}, InputError, "there is no --data"),
        ({"preset": "quick"}, RecipeError, "no preset 'quick'"),
        ({"samples": 0}, InputError, "--samples is 0"),
        ({"samples": 41}, DatasetError, "41 calibration samples asked for"),
        ({"name": "absent.onnx"}, ModelError, "absent.onnx"),
        ({"name": "data.toml"}, ModelError, "data.toml"),
        ({"data": "absent.toml"}, DatasetError, "absent.toml"),
        ({"device": "toaster"}, InputError, "toaster"),
    ],
)
def test_wrong_input_is_refused(
    more: dict[str, Any], error: type[InputError], words: str, folder: Path
) -> None:
    with pytest.raises(error, match=words) as caught:
        run(folder, **more)
    assert caught.value.exit_code == 2


def test_a_folder_that_is_a_file_is_refused_before_anything_is_done(folder: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        run(folder, out=folder / "x.npy")


def test_samples_that_do_not_fit_are_refused(folder: Path) -> None:
    np.save(folder / "flat.npy", np.zeros((50, 7), np.float32))
    (folder / "flat.toml").write_text(LABELLED.replace("x.npy", "flat.npy"))
    with pytest.raises(ModelError, match="does not take") as caught:
        run(folder, data="flat.toml")
    assert caught.value.exit_code == 2


def test_a_quantized_file_is_refused(folder: Path) -> None:
    from tests.quantization.search.test_sensitivity import prepared

    ready, placement, plan = prepared()
    onnx.save(ready.write(placement, plan), folder / "int8.onnx")
    with pytest.raises(ModelError, match="quantized already"):
        run(folder, "int8.onnx")


def test_a_network_without_layers_for_int8_is_refused(folder: Path) -> None:
    node = onnx.helper.make_node("Sin", ["image"], ["out"])
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node], "graph", [value("image", 1, ["n", 3, 12, 12])],
        [value("out", 1, ["n", 3, 12, 12])],
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets), folder / "sin.onnx")
    with pytest.raises(ModelError, match="no layer for INT8") as caught:
        run(folder, "sin.onnx")
    assert "Sin" in caught.value.why


def test_a_batch_of_many_is_refused(folder: Path) -> None:
    model = network()
    axis = model.graph.input[0].type.tensor_type.shape.dim[0]
    axis.Clear()
    axis.dim_value = 4
    onnx.save(model, folder / "four.onnx")
    with pytest.raises(ModelError, match="takes no single samples"):
        run(folder, "four.onnx")


@pytest.mark.process
def test_the_command_line(folder: Path) -> None:
    done = project.wb(folder, "sensitivity", "net.onnx", "--data", "data.toml", "--preset", "fast",
                      "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["layers"]) == 4
    done = project.wb(folder, "sensitivity", "net.onnx")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no --data" in done.stderr
