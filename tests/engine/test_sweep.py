"""A sweep: which audits it is, what is read once, and that what happens to one worker or suspect costs no other."""

import gc
import json
import multiprocessing
import os
import shutil
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from audit.bench import Bench
from audit.case import CaseFile
from audit.cli import main
from audit.engine import Cluster, Outcome, Spread, Suspect, run, suspects_of, sweep
from audit.engine.sweeping import sweep as sweeping
from audit.engine.sweeping.processes import CARDS, Processes
from audit.engine.sweeping.tasks import Task, tasks_of
from audit.engine.sweeping.worker import Worker
from audit.planning import RunSettings, Step, Watch, unwatched
from audit.schema import AuditError, Checkpoint
from audit.storage import Store, read_tensors, write_tensors
from audit.zoo import Built
from tests import toy
from tests.engine.pretended_worker import Said, pretended
from tests.engine.test_resume import timeless, with_key
from tests.planted import few_probes, planted_package, write_probe

KILLING = """import os, signal
        from pathlib import Path
        seen = Path({folder!r}) / case.case.name
        if case.case.name == {name!r} and not seen.exists():
            seen.touch()
            os.kill(os.getpid(), signal.SIGKILL)"""
"""The body of a probe that kills its own process the first time that it is asked about one suspect."""


@pytest.fixture
def how(tmp_path: Path) -> Iterator[RunSettings]:
    with planted_package(tmp_path, f"planted_{tmp_path.name.replace('-', '_')}") as folder:
        yield RunSettings(package=folder.name, store=tmp_path / "store", threads=1)


def pool_of(base: Path, folder: Path, n: int) -> Path:
    """``n`` checkpoints, each base with a little noise of its own."""
    for k in range(n):
        shutil.copytree(base, folder / f"checkpoint-{k}")
        path, rng = folder / f"checkpoint-{k}" / "model.safetensors", torch.Generator().manual_seed(k)
        noisy = {
            name: w + 0.02 * (k + 1) * w.std() * torch.randn(w.shape, generator=rng)
            for name, w in read_tensors(path).items()
        }
        write_tensors(path, noisy, {"format": "pt"})
    return folder


def base_of(zoo: Built) -> Path:
    case = CaseFile.read(zoo.cases["base"])
    return (case.root / case.case.roles.base.path).resolve()


def shared_of(case: CaseFile) -> Suspect:
    return Suspect(case.case.name, case.case, case.root)


# ---- which audits -----------------------------------------------------------------------------------------------
def test_a_folder_of_case_files_is_one_audit_a_file(zoo: Built) -> None:
    suspects = suspects_of([zoo.cases["base"].parent])
    assert {s.name for s in suspects} == set(zoo.cases)
    assert len({s.shared for s in suspects}) < len(suspects)
    assert suspects_of([zoo.cases["refusal"], zoo.cases["base"]])[0].name == "refusal"


def test_a_pool_stands_in_the_place_of_the_suspect_in_the_order_of_its_numbers(zoo: Built, tmp_path: Path) -> None:
    for n in (10, 9, 1):
        (tmp_path / f"checkpoint-{n}").mkdir()
        (tmp_path / f"checkpoint-{n}" / "config.json").write_text("{}")
    (tmp_path / "logs").mkdir()
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    (tmp_path / "model.Q4_0.gguf").write_bytes(b"")
    hub = [f"owner/model@{digit * 40}" for digit in "ab"]
    suspects = suspects_of([zoo.cases["refusal"]], [str(tmp_path), *hub])
    assert [s.name for s in suspects] == [
        "checkpoint-1",
        "checkpoint-9",
        "checkpoint-10",
        "lora",
        "model.Q4_0",
        "owner--model--aaaaaaa",
        "owner--model--bbbbbbb",
    ]
    assert len({s.shared for s in suspects}) == 1
    first, adapter = suspects[0].case.roles.suspect, suspects[3].case.roles.suspect
    assert first.path == str(tmp_path / "checkpoint-1")
    assert (adapter.path, adapter.adapter) == (suspects[3].case.roles.base.path, str(tmp_path / "lora"))


def test_what_is_no_sweep_is_refused_before_anything_is_made(zoo: Built, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="both named"):
        suspects_of([zoo.cases["base"], zoo.cases["base"]])
    with pytest.raises(AuditError, match="no case file"):
        suspects_of([tmp_path])
    with pytest.raises(AuditError, match="neither a checkpoint"):
        suspects_of([zoo.cases["base"]], [str(tmp_path)])
    with pytest.raises(AuditError, match="6 case files and a pool"):
        suspects_of([zoo.cases["base"].parent], [str(base_of(zoo))])


def test_other_data_share_nothing_and_the_suspect_changes_nothing_that_is_shared(zoo: Built) -> None:
    case = CaseFile.read(zoo.cases["refusal"])
    other = case.case.model_copy(update={"data": case.case.data.model_copy(update={"split_seed": 7})})
    assert shared_of(case).shared != shared_of(CaseFile(other, case.root)).shared
    assert shared_of(case).shared == shared_of(CaseFile.read(zoo.cases["logit_bias"])).shared
    tasks = tasks_of([shared_of(case), shared_of(CaseFile.read(zoo.cases["logit_bias"]))], Path("out"), share=True)
    assert [(t.kind, t.role) for t in tasks[:-2]] == [("shared", role) for role in shared_of(case).roles_shared]
    assert [t.kind for t in tasks[-2:]] == ["audit", "audit"]
    assert len(tasks_of([shared_of(case)], Path("out"), share=True)) == 1


# ---- what is read once ------------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_after_the_shared_reads_no_audit_runs_base_or_a_reference(
    zoo: Built, how: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspects = suspects_of([zoo.cases["refusal"], zoo.cases["logit_bias"]])
    computed: list[str] = []
    compute = Bench._compute

    def counting(bench: Bench, ckpt: Checkpoint, *args: object) -> object:
        computed.append(ckpt.source)
        return compute(bench, ckpt, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Bench, "_compute", counting)
    shared, audits = Worker(how), Worker(how)
    for task in tasks_of(suspects, tmp_path / "runs", share=True):
        worker = shared if task.kind == "shared" else audits
        outcome = worker.perform(task, unwatched)
        assert outcome.finished, outcome
        if task.kind == "shared":
            assert computed
            assert not (tmp_path / "runs").exists()
        else:
            assert not [source for source in computed if "refusal" not in source and "logit_bias" not in source]
        computed = [] if task.kind == "audit" or task.role == "ancestor" else computed


def _value(root: Path, log: Path) -> None:
    store = Store(root)
    store.waits = True
    bench = Bench(store=store)

    def slow() -> dict[str, np.ndarray]:
        with log.open("a") as file:
            file.write("computed\n")
        time.sleep(0.5)
        return {"x": np.ones(2)}

    assert bench.cached(("what", 1), slow)["x"].sum() == 2


def test_processes_that_fill_one_store_compute_each_entry_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_value, args=(tmp_path / "store", tmp_path / "log")) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert (tmp_path / "log").read_text().splitlines() == ["computed"]
    assert not list((tmp_path / "store").rglob("*.lock*"))


# ---- workers ----------------------------------------------------------------------------------------------------
def unread() -> RunSettings:
    """Settings that a pretended worker does not read, nor has to import."""
    return cast(RunSettings, None)


def audits(folder: Path, names: Sequence[str], zoo: Built) -> tuple[Task, ...]:
    case = CaseFile.read(zoo.cases["base"])
    return tasks_of([Suspect(name, case.case, case.root) for name in names], folder, share=False)


@pytest.mark.thorough
def test_a_killed_workers_unit_is_taken_up_and_one_that_kills_every_worker_is_named(zoo: Built, tmp_path: Path) -> None:
    said: list[Said] = []
    with Processes(unread(), 2, cast(Watch, said.append), ["4", "7"], pretended) as processes:
        tasks = audits(tmp_path, ("a", "once", "deadly", "b"), zoo)
        outcomes = {outcome.name: outcome for outcome in processes.perform(tasks)}
    assert {name: o.attempts for name, o in outcomes.items()} == {"a": 1, "once": 2, "deadly": 3, "b": 1}
    assert [name for name, o in outcomes.items() if not o.finished] == ["deadly"]
    assert "SIGKILL" in outcomes["deadly"].problem
    assert outcomes["deadly"].error().code == 3
    assert {each.detail for each in said} == {"a", "once", "b"}
    assert {(each.number, each.card) for each in said} <= {(0, "4"), (1, "7")}


@pytest.mark.parametrize(
    ("settings", "workers", "cards"),
    [({}, 3, ["0", "1", "2"]), ({"device": "cuda"}, 3, ["0", "1", "2"]), ({"device": "cpu"}, 2, []),
     ({"device": "cuda:1"}, 2, []), ({"device_map": "auto"}, 2, [])],
)  # fmt: skip
def test_a_process_has_a_card_to_itself_but_where_the_settings_name_cards(
    settings: dict[str, str], workers: int, cards: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CARDS, "0,1,2")
    with sweeping._performers(Spread(), RunSettings(**settings), 9, unwatched) as performers:  # type: ignore[arg-type]
        assert isinstance(performers, Processes)
        assert (performers._workers, performers._cards) == (workers, cards)


@pytest.mark.thorough
def test_an_interruption_leaves_no_worker_behind(zoo: Built, tmp_path: Path) -> None:
    def interrupt(step: Step) -> None:
        raise KeyboardInterrupt

    processes = Processes(unread(), 2, interrupt, life=pretended)
    with pytest.raises(KeyboardInterrupt), processes:
        list(processes.perform(audits(tmp_path, ("a", "b", "c"), zoo)))
    assert not multiprocessing.active_children()


@pytest.mark.thorough
def test_what_breaks_in_one_audit_is_told_as_text(
    zoo: Built, how: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CaseFile.read(zoo.cases["base"])
    worker = Worker(how)

    def perform(case: CaseFile) -> Outcome:
        return worker.perform(Task("audit", shared_of(case), tmp_path / "run"), unwatched)

    gone = case.case.model_copy(update={"roles": case.case.roles.model_copy(update={
        "suspect": case.case.roles.suspect.model_copy(update={"path": "nowhere"})})})  # fmt: skip
    missing = perform(CaseFile(gone, case.root))
    assert (missing.code, missing.finished) == (2, False)
    assert "nowhere" in missing.problem
    monkeypatch.setattr(Bench, "run", None)
    broken = perform(case)
    assert broken.code == 3
    assert "TypeError" in broken.problem


def test_a_worker_keeps_models_open_for_the_next_suspect_and_none_of_another_dtype(how: RunSettings) -> None:
    single, half = toy.checkpoint("llama"), toy.checkpoint("llama", 0, torch.bfloat16)
    worker = Worker(how)
    bench = worker.bench(how, [single])
    bench.open(single)
    assert worker.bench(how, [single]) is bench
    single_bench = weakref.ref(bench)
    del bench
    assert worker.bench(how, [half]).dtype == "bfloat16"
    gc.collect()
    assert single_bench() is None


def test_a_run_that_was_asked_to_stop_is_an_outcome_and_not_the_end_of_the_worker(
    zoo: Built, how: RunSettings, tmp_path: Path
) -> None:
    task = Task("audit", shared_of(CaseFile.read(zoo.cases["base"])), tmp_path / "run")

    def cancel(step: Step) -> None:
        if step.stage == "measured":
            (task.out / "cancel").touch()

    stopped = Worker(how).perform(task, cancel)
    assert (stopped.problem, stopped.code) == ("it was cancelled", 130)
    assert Worker(how).perform(task, unwatched).finished


# ---- the command ------------------------------------------------------------------------------------------------
class Here:
    """Performs units in this process."""

    def __init__(self, settings: RunSettings, watch: Watch) -> None:
        self.worker, self.watch = Worker(settings), watch

    def __enter__(self) -> "Here":
        return self

    def __exit__(self, *_: object) -> None: ...

    def perform(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """One after another."""
        for task in tasks:
            yield self.worker.perform(task, self.watch)


@pytest.fixture
def here(how: RunSettings, monkeypatch: pytest.MonkeyPatch) -> RunSettings:
    def performer(spread: Spread, settings: RunSettings, n: int, watch: Watch) -> Here:
        return Here(replace(settings, package=how.package), watch)

    monkeypatch.setattr(sweeping, "_performers", performer)
    return how


@pytest.mark.thorough
def test_one_suspects_fault_costs_the_others_nothing_and_the_exit_code_says_so(
    zoo: Built, here: RunSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = pool_of(base_of(zoo), tmp_path / "pool", 2)
    shutil.copytree(pool / "checkpoint-0", pool / "checkpoint-00")
    (pool / "checkpoint-00" / "model.safetensors").write_bytes(b"cut off")
    out, store = tmp_path / "runs", ["--store", str(here.store), "--json", "-q"]
    command = ["sweep", str(zoo.cases["refusal"]), "--suspects", str(pool), "-o", str(out), *store]
    assert main(command) == 3
    answer = json.loads(capsys.readouterr().out)
    by_name = {audit["name"]: audit for audit in answer["audits"]}
    assert {name: audit["exit_code"] for name, audit in by_name.items()} == {
        "checkpoint-0": 0, "checkpoint-00": 3, "checkpoint-1": 0
    }  # fmt: skip
    assert "model.safetensors" in by_name["checkpoint-00"]["error"]
    page = (out / "index.html").read_text()
    assert 'href="checkpoint-1/report.html"' in page
    assert "Not audited" in page and "to change it" in page and "Judged numbers: 0 = never trained" in page
    shutil.rmtree(pool / "checkpoint-00")
    assert main([*command, "--fail-on", "any"]) == 0
    assert "Not audited" not in (out / "index.html").read_text()
    assert main([arg for arg in command if arg not in ("--json", "-q")]) == 0
    shown, progress = capsys.readouterr()
    assert "checkpoint-0 " in shown
    assert "is finished: nothing is measured again" in progress
    assert f"residua dashboard {out}" in shown.replace("\n", "")


def test_the_plan_of_a_sweep_names_what_would_run_and_what_cannot(
    zoo: Built, how: RunSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audit.cli.flags.settings", lambda args: how)
    pool = pool_of(base_of(zoo), tmp_path / "pool", 1)
    (pool / "broken").mkdir()
    (pool / "broken" / "config.json").write_text("{}")
    out = tmp_path / "runs"
    command = ["sweep", str(zoo.cases["refusal"]), "--suspects", str(pool), "-o", str(out), "--dry-run", "--json"]
    assert main(command) == 2
    broken, planned = json.loads(capsys.readouterr().out)["audits"]
    assert broken["exit_code"] == 2
    assert planned["tests"] == 4
    assert not out.exists()


def test_ray_where_it_is_not_installed_is_a_refusal(
    zoo: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["sweep", str(zoo.cases["base"]), "--ray", "auto", "-o", str(tmp_path / "runs")]) == 2
    assert "pip install 'residua[ray]'" in capsys.readouterr().err


# ---- the whole --------------------------------------------------------------------------------------------------
PROBES = ("forget_likelihood", "reverse_patch", "utility", "weight_difference")


def one_by_one(suspects: Sequence[Suspect], folder: Path, how: RunSettings) -> dict[str, dict[str, object]]:
    for suspect in suspects:
        run(CaseFile(suspect.case, suspect.root), with_key(folder / suspect.name), how)
    return {suspect.name: timeless(folder / suspect.name) for suspect in suspects}


@pytest.mark.slow
@pytest.mark.parametrize("over", ["processes", "ray"])
def test_twelve_suspects_give_the_reports_of_single_runs_though_a_worker_is_killed(
    over: str, zoo: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = None
    if over == "ray":
        pytest.importorskip("ray")
        # nothing of Ray is left behind: no token in the home folder, and its session in a folder with a short path
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        session = Path("/tmp") / f"r{os.getpid()}"  # noqa: S108 - a socket's path has at most 107 bytes
        monkeypatch.setenv("RAY_TMPDIR", str(session))
        cluster = Cluster("local", 2)
    name = f"few_{over}"
    with few_probes(tmp_path, name, *PROBES):
        killed = tmp_path / "killed"
        killed.mkdir()
        write_probe(tmp_path / name, "deadly", body=KILLING.format(folder=str(killed), name="checkpoint-7"))
        suspects = suspects_of([zoo.cases["refusal"]], [str(pool_of(base_of(zoo), tmp_path / "pool", 12))])
        for suspect in suspects:
            with_key(tmp_path / "swept" / suspect.name)
        how = RunSettings(package=name, store=tmp_path / "store", threads=1)
        try:
            outcomes = sweep(suspects, tmp_path / "swept", how, Spread(2, cluster), unwatched)
        finally:
            if over == "ray":
                shutil.rmtree(session, ignore_errors=True)
        assert [outcome.problem for outcome in outcomes] == [""] * 12
        assert (killed / "checkpoint-7").exists()
        if over == "processes":
            assert [o.attempts for o in outcomes] == [1] * 7 + [2] + [1] * 4
        single = one_by_one(suspects, tmp_path / "single", replace(how, store=tmp_path / "other"))
        assert {s.name: timeless(tmp_path / "swept" / s.name) for s in suspects} == single
        assert len({str(report["evidence"]) for report in single.values()}) == 12


@pytest.mark.slow
def test_an_interrupted_sweep_ends_cleanly_and_the_same_call_finishes_it(
    zoo: Built, how: RunSettings, tmp_path: Path
) -> None:
    write_probe(tmp_path / how.package, "slowest", body="import time; time.sleep(2)")
    suspects, out = suspects_of([zoo.cases["refusal"], zoo.cases["base"]]), tmp_path / "runs"

    def interrupt(step: Step) -> None:
        if step.stage == "measured":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(suspects, out, how, Spread(2), interrupt)
    assert not multiprocessing.active_children()
    assert not list(out.rglob("report.json"))
    assert "interrupted" in "".join(path.read_text() for path in out.rglob("events.jsonl"))
    assert not list(out.rglob("*.tmp"))
    steps: list[Step] = []
    assert [o.problem for o in sweep(suspects, out, how, Spread(2), steps.append)] == ["", ""]
    assert "reused" in {step.stage for step in steps}
