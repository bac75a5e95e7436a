"""The engine on a tiny world with planted probes: plan, resume, failures, locks, and what is written when."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from audit.calibration.behaviour import MEASURED_BY, Behaviour, Settings, attested
from audit.calibration.sources import installed
from audit.case import CaseFile, open_case
from audit.engine import guarded, run
from audit.engine.runner import plan
from audit.planning import RunSettings, Step, UnitProfiles
from audit.pools.fit import calibrate, write_all
from audit.review import verify_run
from audit.runs import custody
from audit.schema import AuditError, Domain, Failure, LikelihoodRatio, PeopleKept, Report, Texts
from audit.zoo import Built
from tests.known_truth import ZOO, as_asked, pool
from tests.planted import planted_behaviour, planted_package, write_probe


@pytest.fixture(scope="module")
def case(zoo: Built) -> Path:
    """The case file of the tiny world's base, audited as a suspect."""
    return zoo.cases["base"]


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    with planted_package(tmp_path, f"planted_{tmp_path.name.replace('-', '_')}") as folder:
        yield folder


@pytest.fixture
def how(package: Path, tmp_path: Path) -> RunSettings:
    return RunSettings(package=package.name, store=tmp_path / "store")


def timeless(folder: Path) -> dict[str, object]:
    document = json.loads((folder / "report.json").read_text())
    return {key: value for key, value in document.items() if key not in ("created", "registered", "timings")}


def events(folder: Path, kind: str) -> list[str]:
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [line["detail"] for line in lines if line["event"] == kind]


def test_a_panic_of_a_library_costs_one_probe_and_an_interrupt_ends_the_run() -> None:
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})

    def broken(error: BaseException) -> None:
        raise error

    failed = guarded("probe", "key", lambda: broken(panic("no entry found")))
    assert isinstance(failed, Failure) and failed.error == "PanicException: no entry found"
    with pytest.raises(KeyboardInterrupt):
        guarded("probe", "key", lambda: broken(KeyboardInterrupt()))


@pytest.mark.thorough
def test_a_profile_lies_beside_the_run_and_changes_nothing_in_it(case: Path, how: RunSettings, tmp_path: Path) -> None:
    plain, profiled = tmp_path / "plain", tmp_path / "profiled"
    run(case, plain, how)
    run(case, profiled, replace(how, store=tmp_path / "other", profile=True))
    assert timeless(plain) == timeless(profiled) and verify_run(profiled).accepted
    shares = {share.unit: share for share in UnitProfiles(profiled).shares()}
    assert {"roles", "recall", "reads", "gate", "output", "causal", "report"} <= shares.keys()
    assert any(share.passes > 0 for share in shares.values()) and not UnitProfiles(plain).shares()


@pytest.mark.thorough
def test_a_run_leaves_a_report_that_verifies(case: Path, how: RunSettings, tmp_path: Path) -> None:
    out = tmp_path / "run"
    report = run(case, out, how)
    assert report.verdict.word == "CONSISTENT WITH NEVER TRAINED"
    assert Report.model_validate_json((out / "report.json").read_bytes()) == report
    assert {e.measurement.probe for e in report.evidence} == {"gate", "output", "causal", "decoding"}
    assert {path.name for path in out.iterdir()} >= {
        "plan.json",
        "units",
        "report.html",
        "report.md",
        "manifest.sha256",
    }
    assert not (out / "run.lock").exists()
    assert verify_run(out).accepted
    assert report.exhibits[0].role == "base"
    assert all(exhibit.verified_after for exhibit in report.exhibits)


@pytest.mark.thorough
def test_custody_says_what_was_received_and_issued_once_even_after_kills(
    case: Path, how: RunSettings, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    report = run(case, out, how)
    chain = custody.read(out)
    told = [line.action for line in chain.lines]
    files = sum(len(list((out / name).iterdir())) for name in ("units", "tables"))
    arrivals = len(report.exhibits) + len(report.plan.data_sha256)
    assert told == ["kept", *["received"] * arrivals, *["kept"] * (files + 1), "issued"]
    received = [line.about for line in chain.lines if line.action == "received"]
    stated = [(about["role"], about["fingerprint"], about["path"]) for about in received]
    data = [(f"data {cohort}", sha, "") for cohort, sha in report.plan.data_sha256.items()]
    assert stated == [*((e.role, e.fingerprint, e.path) for e in report.exhibits), *data]
    path = out / custody.NAME
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:-1]) + whole[-1][:20])
    assert not verify_run(out).accepted
    run(case, out, how)
    assert [line.action for line in custody.read(out).lines] == told
    (out / "manifest.sha256").unlink()
    path.write_bytes(b"".join(whole[:3]) + whole[3][:9])
    run(case, out, how)
    again = [line.action for line in custody.read(out).lines]
    assert [action for action in again if action != "begun"] == told
    assert again.count("begun") == len(list((out / "units").iterdir())) - 1, "each probe, for its unit lay there"
    assert verify_run(out).accepted


@pytest.mark.thorough
def test_an_attack_counts_by_what_its_probe_declares_and_never_by_its_name(
    case: Path, how: RunSettings, package: Path, tmp_path: Path
) -> None:
    write_probe(package, "gcg_search", attack="prefix")
    write_probe(package, "noise_search", attack="noise")
    write_probe(package, "relearning_of_nothing")
    report = run(case, tmp_path / "run", how)
    counted = {row.attack: (row.family, row.access, row.measurements) for row in report.attacks if row.attack}
    assert counted["prefix"] == ("optimised prompts and prefixes", "weights", 1)
    assert counted["noise"] == ("noise", "as its probe says", 1)
    assert {attack for attack, (_, _, n) in counted.items() if n} == {"prefix", "noise"}
    assert ("optimised prompts and prefixes", "weights", "tested (1 measurement)") in report.coverage
    assert ("relearning", "fine-tune", "not tested") in report.coverage


@pytest.mark.thorough
def test_groups_that_stand_out_are_nowhere_in_clear_but_in_tables(
    case: Path, how: RunSettings, package: Path, tmp_path: Path
) -> None:
    write_probe(package, "causal_people", body=PEOPLE)
    out = tmp_path / "run"
    report = run(case, out, how)
    (people,) = [e.measurement.people for e in report.evidence if e.measurement.name == "people"]
    assert isinstance(people, PeopleKept) and len(people.named) == people.of > 1
    assert all(re.fullmatch("‹masked [0-9a-f]{12}, 1 word›", name) for name in people.named)
    loaded = CaseFile.read(case)
    received = open_case(loaded.case, loaded.root, tmp_path / "other")
    groups = {item.group for item in received.items(Texts(cohort="forget"))}
    assert len(groups) == people.of
    texts = [path.read_text() for path in out.rglob("*") if path.suffix in (".json", ".jsonl", ".html", ".md")]
    assert len(texts) > 3 and not [group for group in groups for text in texts if f'"{group}"' in text]


PEOPLE = """
        from audit.schema import PeopleKept

        names = tuple(sorted({item.group for item in case.items(Texts(cohort="forget"))}))
        people = PeopleKept(kept=1, ci95=NONE, level=1, log10_ratio=0, named=names, fdr=.05, of=len(names))
        return (Measurement(
            probe="causal_people", name="people", kind="context", statistic="people", value=0.0, unit="effect",
            scale="effect", n=Count(scored=1), ci95=NONE, unit_of_replication="person", units=1, seed=0, p=NONE,
            p_below=NONE, null=NONE, positive_control=NONE, floor=NONE, items=NONE, people=people,
        ),)
"""


@pytest.mark.thorough
def test_a_finished_run_is_returned_and_nothing_is_written(case: Path, how: RunSettings, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = run(case, out, how)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert run(case, out, how) == first
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_an_unfinished_run_resumes_without_redoing_a_unit(case: Path, how: RunSettings, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(case, out, how)
    whole = timeless(out)
    for name in ("manifest.sha256", "report.json", "report.html", "report.md", "events.jsonl"):
        (out / name).unlink()
    kept, lost = sorted(u for u in (out / "units").iterdir() if json.loads(u.read_text())["probe"] != "roles")[:2]
    probe = json.loads(lost.read_text())["probe"]
    lost.unlink()
    (out / "readers" / ".half.1.tmp" / ".delta.1.tmp").mkdir(parents=True)
    (out / "tables" / "causal.parquet").unlink()
    run(case, out, how)
    assert timeless(out) == whole
    again = events(out, "measured")
    assert json.loads(kept.read_text())["probe"] not in set(again) - {"causal"}
    assert {probe, "causal"} == set(again)
    assert len(events(out, "reused")) + len(again) == 4
    assert not list(out.rglob("*.tmp")), "what a killed run had not put in place"
    assert verify_run(out).accepted


@pytest.mark.thorough
def test_another_plan_in_the_folder_is_refused_with_a_diff(
    case: Path, how: RunSettings, package: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    first = run(case, out, how)
    other = with_setting(case, tmp_path, "causal", 0.9)
    with pytest.raises(AuditError, match=r"case\.probes\.causal\.value: \"?absent") as raised:
        run(other, out, how)
    assert raised.value.code == 2
    again = run(other, out, RunSettings(package=how.package, store=how.store, force_new=True))
    assert again.verdict.word != first.verdict.word or again.report_id != first.report_id
    kept = list((out / "superseded").rglob("report.json"))
    assert [Report.model_validate_json(path.read_bytes()).report_id for path in kept] == [first.report_id]
    assert verify_run(out).accepted


def text_of(case: Path) -> str:
    """A case file's text with absolute paths, so that it can lie anywhere."""
    home = case.parent.parent
    return case.read_text().replace('"../../', f'"{home.parent}/').replace('"../', f'"{home}/')


def with_setting(case: Path, folder: Path, probe: str, value: float) -> Path:
    changed = folder / "case.toml"
    changed.write_text(f"{text_of(case)}\n[probes.{probe}]\nvalue = {value}\n")
    return changed


@pytest.mark.thorough
def test_a_probe_that_breaks_is_a_failure_and_the_rest_goes_on(
    case: Path, how: RunSettings, package: Path, tmp_path: Path
) -> None:
    write_probe(package, "context_broken", body="raise ValueError('planted break')")
    out = tmp_path / "run"
    report = run(case, out, how)
    (failure,) = report.failures
    assert failure.probe == "context_broken"
    assert re.fullmatch("ValueError: ‹masked [0-9a-f]{12}, 2 words›, in full in run.log", failure.error)
    log = (out / "run.log").read_text()
    assert failure.error_id in log and "planted break" in log
    assert "Traceback" in log
    assert len(report.evidence) == 4


@pytest.mark.thorough
def test_a_case_that_lacks_what_a_probe_needs_is_a_skip_with_a_reason(
    case: Path, how: RunSettings, package: Path, tmp_path: Path
) -> None:
    write_probe(package, "context_vision", requires='families=("llava",)')
    write_probe(package, "context_fix", body="raise AuditError('no alternates', 'add them')")
    absent = "from audit.schema import AbsentPartError; raise AbsentPartError('no patterns', 'ask another')"
    write_probe(package, "context_absent", body=absent)
    report = run(case, tmp_path / "run", how)
    assert {skip.probe for skip in report.skips if skip.absent} == {"context_absent"}
    reasons = {skip.probe: skip.reason for skip in report.skips}
    assert "llava" in reasons["context_vision"]
    assert "no alternates" in reasons["context_fix"]
    assert "add them" in reasons["context_fix"]


def test_a_probe_of_other_models_is_skipped_with_that_reason(
    case: Path, how: RunSettings, package: Path, tmp_path: Path
) -> None:
    write_probe(package, "context_pixels", requires='modalities=("image", "image+text")')
    write_probe(package, "context_either", requires='modalities=("image", "text")')
    write_probe(package, "context_llama", requires='families=("llama",)')
    rows = {test.probe: test for test in plan(case, tmp_path / "run", how).tests}
    assert rows["context_pixels"].reason == "works on models of image or image+text, not of text"
    assert rows["context_either"].will_run and rows["causal"].will_run and rows["context_llama"].will_run


@pytest.mark.thorough
def test_an_integrity_fault_in_a_probe_stops_the_run(
    case: Path, how: RunSettings, package: Path, tmp_path: Path
) -> None:
    write_probe(package, "context_torn", body="raise AuditError('torn', 'fetch again', 3)")
    with pytest.raises(AuditError, match="torn"):
        run(case, tmp_path / "run", how)
    assert not (tmp_path / "run" / "report.json").exists()


@pytest.mark.thorough
def test_a_template_without_recall_is_blind_here_and_leaves_nothing(
    case: Path, how: RunSettings, tmp_path: Path
) -> None:
    wrong = tmp_path / "case.toml"
    # Base still answers after a few stray words; it is lost after twenty of them.
    wrong.write_text(f'{text_of(case)}\n[template]\nprompt = "{{question}}{" The" * 20}"\n')
    with pytest.raises(AuditError, match="blind here") as raised:
        run(wrong, tmp_path / "run", how)
    assert raised.value.code == 4
    assert not (tmp_path / "run").exists()


@pytest.mark.thorough
def test_one_process_per_run_folder(case: Path, how: RunSettings, tmp_path: Path) -> None:
    import fcntl

    out = tmp_path / "run"
    out.mkdir()
    with (out / "run.lock").open("w") as lock:
        lock.write("4321")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(AuditError, match="pid 4321") as raised:
            run(case, out, how)
        assert raised.value.code == 2
    # The same lock file without a living holder is stale.
    assert run(case, out, how).verdict.word == "CONSISTENT WITH NEVER TRAINED"


@pytest.mark.thorough
def test_a_folder_of_something_else_is_refused(case: Path, how: RunSettings, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(AuditError, match=r"thesis\.tex") as raised:
        run(case, out, how)
    assert raised.value.code == 2
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into read-only folders")
def test_a_read_only_folder_is_an_integrity_error(case: Path, how: RunSettings, tmp_path: Path) -> None:
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o555)
    with pytest.raises(AuditError, match="cannot be written") as raised:
        run(case, shut / "run", how)
    assert raised.value.code == 3


@pytest.mark.thorough
def test_an_unwritable_folder_is_an_integrity_error(case: Path, how: RunSettings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditError, match="cannot be written") as raised:
        run(case, tmp_path / "file" / "run", how)
    assert raised.value.code == 3


def test_a_plan_says_what_will_run_and_writes_nothing(
    case: Path, how: RunSettings, package: Path, tmp_path: Path
) -> None:
    write_probe(package, "context_vision", requires='families=("llava",)')
    found = plan(case, tmp_path / "run", how)
    rows = {test.probe: test for test in found.tests}
    assert rows["causal"].will_run
    assert rows["causal"].cost.fwd_tokens > 7
    assert not rows["context_vision"].will_run
    assert not (tmp_path / "run").exists()
    assert found.plan_hash == plan(case, tmp_path / "elsewhere", how).plan_hash


def test_the_plan_hash_covers_settings_and_not_the_device(case: Path, how: RunSettings, tmp_path: Path) -> None:
    one = plan(case, tmp_path, how).plan_hash
    other = RunSettings(package=how.package, store=None, threads=1, token_budget=99)
    assert plan(case, tmp_path, other).plan_hash == one
    changed = with_setting(case, tmp_path, "causal", 0.9)
    assert plan(changed, tmp_path, how).plan_hash != one


@pytest.mark.parametrize(
    "line", ["[probes.causel]\nvalue = 1.0", "[probes.causal]\nvalu = 1.0"], ids=["probe", "setting"]
)
def test_an_unknown_probe_or_setting_is_named(case: Path, how: RunSettings, tmp_path: Path, line: str) -> None:
    text = text_of(case)
    (tmp_path / "case.toml").write_text(f"{text}\n{line}\n")
    with pytest.raises(AuditError, match="causel|valu") as raised:
        plan(tmp_path / "case.toml", tmp_path / "run", how)
    assert raised.value.code == 2


@pytest.mark.thorough
def test_needs_are_merged_into_one_pass_per_role_and_rows(case: Path, how: RunSettings, tmp_path: Path) -> None:
    steps: list[Step] = []
    run(case, tmp_path / "run", how, watch=steps.append)
    assert len([step for step in steps if step.stage == "prefetch"]) == 1


@pytest.mark.thorough
def test_weights_that_change_during_the_audit_are_noticed(
    zoo: Built, case: Path, how: RunSettings, package: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "suspect"
    shutil.copytree(zoo.models["base"], copy)
    text = text_of(case).split("\n")
    place = text.index("[roles.suspect]")
    text[place + 1] = f'path = "{copy}"'
    (tmp_path / "case.toml").write_text("\n".join(text))
    meddle = "p = __import__('pathlib').Path({!r}); p.write_text(p.read_text().replace('{{', '{{\"x\": 1,', 1))"
    write_probe(package, "context_meddler", body=meddle.format(str(copy / "config.json")))
    with pytest.raises(AuditError) as raised:
        run(tmp_path / "case.toml", tmp_path / "run", how)
    assert raised.value.code == 3
    assert not (tmp_path / "run" / "report.json").exists()


# ---- calibrated -------------------------------------------------------------------------------------------------
PLANTED = {"outside": "output", "inside": "causal", "lens": "decoding"}


def calibrations_of(package: Path, domain: Domain, out: Path) -> Path:
    """Calibrations of the planted probes as they are now, for audits like this one."""
    worlds = as_asked(pool(6), PLANTED, domain)
    settings = {"output": {"value": 0.0}, "causal": {"value": 1.0}, "decoding": {"value": 0.0}}
    records = [
        attested(planted_behaviour(package.name, name, settings[name]), installed(package.name, name, MEASURED_BY))
        for name in PLANTED.values()
    ]
    digests = {record.behaviour.probe: record.digest for record in records}
    change = {"behaviours": digests, "versions": dict.fromkeys(digests, 1), "settings": settings}
    pooled = ZOO._replace(records={record.digest: record for record in records})
    write_all(out, calibrate([world.model_copy(update=change) for world in worlds], pooled))
    return out


@pytest.mark.thorough
def test_a_calibrated_run_has_a_ratio_and_verifies_until_the_probe_changes(
    case: Path, how: RunSettings, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []

    def behaviour_of(package: str, name: str, settings: Settings, _kind: str) -> Behaviour:
        computed.append(name)
        return planted_behaviour(package, name, settings)

    monkeypatch.setattr("audit.engine.runner.behaviour_of", behaviour_of)
    write_probe(package, "causal", value=1.0)
    plain = run(case, tmp_path / "plain", how)
    assert isinstance(plain.domain, Domain) and plain.domain.references == 2
    assert {use.status for use in plain.calibrations} == {"none"} and plain.verdict.basis == "in-case"
    folder = calibrations_of(package, plain.domain, tmp_path / "calibrations")
    report = run(case, tmp_path / "calibrated", replace(how, calibrations=folder))
    assert (report.verdict.word, report.verdict.basis) == ("SUPPRESSED", "calibrated")
    assert isinstance(report.verdict.ratio, LikelihoodRatio)
    assert {use.probe: use.status for use in report.calibrations} == {
        "causal": "holds", "decoding": "holds", "output": "holds", "gate": "none"
    }  # fmt: skip
    assert "times more probable" in (tmp_path / "calibrated" / "report.html").read_text()
    assert verify_run(tmp_path / "calibrated", folder).problems == ()
    lost = verify_run(tmp_path / "calibrated")
    assert lost.accepted and "calibrations that are not stored here" in lost.remarks[0]
    assert computed == [], "what is installed is what was calibrated"
    write_probe(package, "causal", value=1.0, body="self.version")
    steps: list[Step] = []
    again = run(case, tmp_path / "rewritten", replace(how, calibrations=folder), watch=steps.append)
    assert (again.verdict, again.calibrations) == (report.verdict, report.calibrations), "a refactoring changes nothing"
    assert computed == ["causal"] and [step.detail for step in steps if step.stage == "behaviour"] == ["causal"] * 2
    run(case, tmp_path / "rewritten twice", replace(how, calibrations=folder))
    assert computed == ["causal"], "kept in the cache"
    write_probe(package, "causal", value=1.0, body="assert type(case).__name__ == 'OpenCase'")
    broken = run(case, tmp_path / "broken", replace(how, calibrations=folder))
    assert {use.probe: use.status for use in broken.calibrations}["causal"] == "stale"
    assert "it broke on the frozen world" in next(use.because for use in broken.calibrations if use.probe == "causal")
    write_probe(package, "causal", value=1.0, body="self = self.model_copy(update={'value': 0.99})")
    stale = run(case, tmp_path / "stale", replace(how, calibrations=folder))
    assert "effect, value: 1 → 0.99" in next(use.because for use in stale.calibrations if use.probe == "causal")
    assert stale.verdict.basis == "in-case"
    assert any("causal is stale" in limit and "residua calibrate renews it" in limit for limit in stale.verdict.limits)
