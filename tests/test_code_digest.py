"""A key's code: what a module imports, nothing less, and little more."""

from __future__ import annotations

import shutil
from pathlib import Path

import grimp
import pytest

from workbench import code_digest as digests
from workbench.code_digest import PACKAGE, code_digest, import_closure
from workbench.process import JOBS

STEP = ("workbench.steps.to_tflite", "workbench.jobs.step")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    copy = tmp_path / "workbench"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.pt"))
    # As the wheel has it: a folder of data with the name of a module.
    (copy / "library" / "recipes").mkdir(parents=True, exist_ok=True)
    return copy


def edited(path: Path, package: Path) -> str:
    """The digest of STEP with a line more in a file, which is then as before."""
    before = path.read_text(encoding="utf-8")
    path.write_text(f"{before}\n# edited\n", encoding="utf-8")
    digests._file_digest.cache_clear()
    try:
        return code_digest(*STEP, package=package)
    finally:
        path.write_text(before, encoding="utf-8")
        digests._file_digest.cache_clear()


def test_an_edit_of_any_module_of_the_closure_is_another_code(package: Path) -> None:
    whole = code_digest(*STEP, package=package)
    assert whole == code_digest(*STEP)
    closure = import_closure(*STEP)
    assert {"workbench.tflite.tensorflow_jobs", "workbench.tflite.saved_model",
            "workbench.artifact", "workbench.sources.loading"} <= closure  # fmt: skip
    for module in sorted(closure):
        file = digests._file(package, module)
        assert file is not None
        assert edited(file, package) != whole, module
    assert code_digest(*STEP, package=package) == whole


def test_an_edit_elsewhere_is_not(package: Path) -> None:
    whole = code_digest(*STEP, package=package)
    for name in ("cli/app.py", "report/html.py", "steps/prune.py", "steps/__init__.py",
                 "measure/latency.py", "engine/execution.py"):  # fmt: skip
        assert edited(package / name, package) == whole, name


def test_a_closure_holds_all_that_is_imported() -> None:
    imports = grimp.build_graph("workbench", exclude_type_checking_imports=True, cache_dir=None)
    modules = [path.stem for path in (PACKAGE / "steps").glob("[a-z]*.py")]
    assert len(modules) > 8
    for module in [f"workbench.steps.{name}" for name in modules] + [
        job.partition(":")[0] for job in JOBS.values()
    ]:
        missing = imports.find_upstream_modules(module) - import_closure(module)
        assert missing <= {"workbench"}, module


def test_worker_jobs_are_followed_by_their_names() -> None:
    text = (
        'def f(worker):\n    worker.call(\n        "flatbuffer", 1)\n    other.start("inspect")\n'
    )
    assert list(digests.named_modules(text)) == [
        "workbench.tflite.tensorflow_jobs", "workbench.inspect.guarded",
    ]  # fmt: skip


def test_imports_for_type_checking_alone_are_not_followed() -> None:
    text = (
        "from workbench import library, recipe as recipes\n"
        "if TYPE_CHECKING:\n    from workbench.report import html\n\n"
        "def f():\n    from workbench.steps import (  # all\n        Export, to_ort\n    )\n"
    )
    assert list(digests.named_modules(text)) == [
        "workbench.library", "workbench.recipe", "workbench.steps", "workbench.steps.to_ort",
    ]  # fmt: skip
