"""Storage that does not answer, and trials that Optuna's own tools can read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.sweep import fakes
from workbench.errors import DependencyError, InputError
from workbench.sweep.goals import Goal
from workbench.sweep.spec import FILE, read
from workbench.sweep.study import Study, trials_of


@pytest.mark.parametrize(
    ("url", "kind", "said"),
    [
        ("sqlite:////nowhere/at/all/study.db", InputError, "does not answer"),
        ("no url", InputError, "does not answer"),
        ("postgresql+nodriver://user:secret@host/db", (InputError, DependencyError), "user@host"),
    ],
)
def test_a_storage_that_does_not_answer_is_said(url, kind, said):
    with pytest.raises(kind, match=said) as caught:
        Study(fakes.spec(), url, "study")
    assert "secret" not in str(caught.value)


def test_a_study_that_is_not_there(tmp_path):
    Study(fakes.spec(), f"sqlite:///{tmp_path}/study.db", "study")
    with pytest.raises(InputError, match="has no study other"):
        trials_of(f"sqlite:///{tmp_path}/study.db", "other")


def test_a_record_that_names_a_server_is_read_by_its_owner_alone(tmp_path):
    own = fakes.record(tmp_path)
    own.write()
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o644
    replace(own, storage="postgresql://me:secret@host/db").write()
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert read(tmp_path).storage == "postgresql://me:secret@host/db"


@pytest.mark.filterwarnings("error")
def test_optuna_reads_what_was_told(tmp_path):
    import optuna

    url = f"sqlite:///{tmp_path}/study.db"
    study = Study(fakes.spec(limits=(fakes.limit("drop", 0.4),)), url, "study")
    asked = study.ask()
    assert asked.settings == ("quantize.preset=fast", "quantize.samples=8")
    told = study.tell(asked.number, fakes.report(2.0, 0.5), 1.5)
    assert (told.state, told.holds, told.seconds) == ("done", False, 1.5)
    assert told.figures["drop"].high == pytest.approx(0.6)
    (plain,) = optuna.load_study(study_name="study", storage=url).trials
    assert plain.values == [2.0, 0.5]
    assert plain.constraints == {"drop": pytest.approx(0.1)}
    assert plain.params == {"quantize.preset": "fast", "quantize.samples": "8"}


def test_a_report_without_the_figure_is_a_failed_trial(tmp_path):
    goals = (Goal("latency", "cpu"),)
    study = Study(fakes.spec(goals=goals), f"sqlite:///{tmp_path}/study.db", "study")
    told = study.tell(study.ask().number, fakes.report(2.0, 0.5), 1.0)
    assert told.state == "failed"
    assert "has no latency@cpu" in told.error


@pytest.mark.parametrize("search", ["random", "tpe", "nsga2"])
def test_a_second_process_draws_other_points(tmp_path, search):
    from workbench.sweep.space import Dimension

    space = (Dimension(name="quantize.samples", low=1, high=10**6, whole=True),)
    drawn = []
    for _ in range(2):
        spec = fakes.spec(search=search, space=space, trials=20)
        study = Study(spec, f"sqlite:///{tmp_path}/study.db", "study")
        for _ in range(3):
            asked = study.ask()
            study.tell(asked.number, fakes.report(1.0, 0.0), 0.0)
            drawn.append(asked.settings)
    assert len(set(drawn)) == 6
