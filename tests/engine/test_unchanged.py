"""A finished run answers without torch, and only as long as nothing is other than it states."""

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from audit.case import CaseFile
from audit.engine import run
from audit.engine.unchanged import _made_alike, issued_as_planned
from audit.planning import RunSettings, Step
from audit.runs import RunJournal
from audit.schema import AuditError, ExitCode, Report
from audit.zoo import Built
from tests.planted import planted_package

ROOT = Path(__file__).resolve().parents[2]
COVERED = "audit.engine.unchanged._is_in_code_version"


class World(NamedTuple):
    """Case file, run folder and settings of a finished run; nothing else is in the folder of both."""

    root: Path
    case: Path
    out: Path
    settings: RunSettings

    @property
    def suspect(self) -> Path:
        roles = tomllib.loads(self.case.read_text())["roles"]
        return (self.case.parent / roles["suspect"]["path"]).resolve()

    def answer(self) -> Report | None:
        return issued_as_planned(CaseFile.read(self.case), self.out, self.settings)


@pytest.fixture(scope="module")
def whole(zoo: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The case of a suspect with its models and data, audited once by planted probes."""
    root = tmp_path_factory.mktemp("whole")
    source = zoo.cases["refusal"].parents[2]
    shutil.copytree(source, root / "world", ignore=shutil.ignore_patterns("destroyed-*", "logit_bias-*"))
    case = root / "world" / zoo.cases["refusal"].relative_to(source)
    (root / "plugins").mkdir()
    with planted_package(root / "plugins", "planted_unchanged") as package:
        settings = RunSettings(package=package.name)
        run(case, root / "run", settings)
        yield World(root, case, root / "run", settings)


@pytest.fixture
def world(whole: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A copy of it, of which the sources of the planted probes count as hashed."""
    monkeypatch.setattr(COVERED, lambda _: True)
    shutil.copytree(whole.root, tmp_path / "copy")
    case, out = (tmp_path / "copy" / path.relative_to(whole.root) for path in (whole.case, whole.out))
    return World(tmp_path / "copy", case, out, whole.settings)


def test_a_finished_run_answers_with_its_report_and_says_that_it_is_finished(world: World) -> None:
    steps: list[Step] = []
    report = run(world.case, world.out, world.settings, watch=steps.append)
    assert report == Report.model_validate_json((world.out / "report.json").read_bytes())
    assert [(step.stage, step.detail) for step in steps] == [
        ("final", f"{world.out} is finished: nothing is measured again")
    ]


def test_and_imports_neither_torch_nor_what_comes_with_it(world: World) -> None:
    code = (
        "import sys\nfrom audit.engine import run, unchanged\nfrom audit.planning import RunSettings\n"
        "unchanged._is_in_code_version = lambda _: True\n"
        f"run({str(world.case)!r}, {str(world.out)!r}, RunSettings(package={world.settings.package!r}))\n"
        "heavy = ('torch', 'transformers', 'scipy', 'numpy', 'jaxtyping', 'pyarrow', 'tokenizers')\n"
        "print(*[m for m in heavy if m in sys.modules], len(sys.modules))"
    )
    path = str(world.root / "plugins")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
        env={"PYTHONPATH": f"{ROOT}:{path}"},
    )  # fmt: skip
    assert done.stdout.split()[:-1] == []


def _weights(world: World) -> None:
    path = world.suspect / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def _tokenizer(world: World) -> None:
    path = world.suspect / "tokenizer.json"
    path.write_text(path.read_text() + "\n")


def _data(world: World) -> None:
    path = next((world.case.parents[1] / "data").glob("retain.jsonl"))
    path.write_text(path.read_text() + path.read_text().splitlines()[0].replace('"id": "', '"id": "again') + "\n")


def _case(world: World) -> None:
    world.case.write_text("seed = 7\n" + world.case.read_text())


def _forgotten_plan(world: World) -> None:
    path = world.out / "plan.json"
    path.write_text(path.read_text().replace('"will_run": true', '"will_run": false', 1))


def _own_hash(world: World) -> None:
    path = world.out / "plan.json"
    plan = json.loads(path.read_text())
    path.write_text(json.dumps(plan | {"plan_hash": "0" * 64}))


def _unit(world: World) -> None:
    path = next((world.out / "units").iterdir())
    path.write_text(path.read_text() + " ")


def _unissued(world: World) -> None:
    path = world.out / "custody.jsonl"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if '"issued"' not in line))


def _missing_model(world: World) -> None:
    shutil.rmtree(world.suspect)


def _other_library(world: World) -> None:
    path = world.out / "report.json"
    path.write_text(path.read_text().replace('"python": "3', '"python": "2', 1))


CHANGES = [
    _weights, _tokenizer, _data, _case, _forgotten_plan, _own_hash, _unit, _unissued, _missing_model, _other_library,
]  # fmt: skip


@pytest.mark.sampled
@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_other_than_it_was_is_left_to_planning(world: World, change: Callable[[World], None]) -> None:
    assert world.answer() is not None
    change(world)
    assert world.answer() is None


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("change", "code", "words"),
    [(_case, ExitCode.INPUT, "was started with another plan"), (_unit, ExitCode.INTEGRITY, "is not what was issued"),
     (_missing_model, ExitCode.INPUT, "no such folder")],
)  # fmt: skip
def test_which_refuses_it_as_ever(world: World, change: Callable[[World], None], code: int, words: str) -> None:
    change(world)
    with pytest.raises(AuditError, match=words) as refused:
        run(world.case, world.out, world.settings)
    assert refused.value.code == code


@pytest.mark.thorough
def test_settings_that_a_plan_depends_on_or_that_may_be_refused_are_left_to_planning(world: World) -> None:
    others = {
        "backend": "transformer_lens", "attention": "eager", "device": "cuda:7", "dtype": "float8", "force_new": True,
        "max_time": 1.0, "max_mem": 1, "device_map": "auto", "max_memory": "1G", "offload": world.root,
    }  # fmt: skip
    for name, value in others.items():
        assert world._replace(settings=replace(world.settings, **{name: value})).answer() is None, name
    for name, value in {"threads": 2, "store": world.root, "dtype": "float32", "device": "cpu", "demo": True}.items():
        assert world._replace(settings=replace(world.settings, **{name: value})).answer() is not None, name


def test_another_version_of_the_code_is_left_to_planning(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.engine.unchanged.code_version", lambda: "0.1.0+another")
    assert world.answer() is None


@pytest.mark.parametrize("name", ["torch", "regex"])
def test_another_version_of_a_library_is_left_to_planning(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from audit.runs import versions

    now = versions() | {name: "0.0"}
    monkeypatch.setattr("audit.engine.unchanged.versions", lambda: now)
    assert world.answer() is None


def test_another_python_is_left_to_planning(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.engine.unchanged.sys", SimpleNamespace(version="3.99.0 (main)"))
    assert world.answer() is None


def test_a_run_of_models_that_were_spread_is_left_to_planning(world: World) -> None:
    environment = Report.model_validate_json((world.out / "report.json").read_bytes()).environment
    assert _made_alike(environment, world.settings)
    for flag in ("device_map", "max_memory", "ranks"):
        assert not _made_alike(environment.model_copy(update={"flags": {flag: "x"}}), world.settings), flag


def test_a_run_from_which_a_limit_left_out_a_test_is_left_to_planning(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = RunJournal(world.out).planned()
    assert plan is not None
    first = plan.tests[0].model_copy(update={"dropped_by": "--max-time 1s"})
    limited = plan.model_copy(update={"tests": (first, *plan.tests[1:])})
    monkeypatch.setattr("audit.engine.unchanged.plan_hash_of", lambda _: plan.plan_hash)
    assert world.answer() is not None
    monkeypatch.setattr(RunJournal, "planned", lambda _: limited)
    assert world.answer() is None


def test_probes_that_are_not_hashed_with_the_code_are_left_to_planning(whole: World) -> None:
    assert whole.answer() is None
