"""The command line end to end on the tiny world: streams, exit codes, bad input, verification."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from audit.case import load_case
from audit.cli import main
from audit.cli.commands import discover
from audit.planning import UnitProfiles
from audit.review import MEANINGS
from audit.zoo import Built


class Said(NamedTuple):
    code: int
    out: str
    err: str


Tell = Callable[..., Said]


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Tell:
    """Run the command line in this process."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(*argv: object) -> Said:
        capsys.readouterr()
        code = main([str(word) for word in argv])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run


# ---- without a model --------------------------------------------------------------------------------------------
def test_help_loads_nothing_heavy() -> None:
    code = "import sys; from audit.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('torch', 'pydantic', 'rich', 'transformers', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for command in discover():
        assert f"    {command.name} " in done.stdout


def test_the_exit_codes_are_told(tell: Tell) -> None:
    said = tell("--help-exit-codes")
    assert said.code == 0
    assert [int(line.split()[0]) for line in said.out.splitlines()] == [code for code, _ in MEANINGS]


def test_no_verb_is_a_question_and_not_a_success(tell: Tell) -> None:
    assert tell().code == 2


def test_a_crash_of_ours_is_code_3_with_an_id_and_no_traceback() -> None:
    code = "import sys, audit.cli as c, audit.cli.commands.probes as p; p.act = lambda a: 1 / 0\n"
    for flags, traced in (("'probes', '--json'", False), ("'probes', '--debug'", True)):
        done = subprocess.run(
            [sys.executable, "-c", f"{code}sys.exit(c.main([{flags}]))"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 3
        assert "ZeroDivisionError" in done.stderr
        assert re.search(r"error id: [0-9a-f]{8} \(the same message has the same id: give it", done.stderr)
        assert ("Traceback" in done.stderr) == traced
        said = json.loads(done.stdout) if "--json" in flags else {"exit_code": 3}
        assert said["exit_code"] == 3


def test_debug_shows_the_traceback_and_changes_neither_code_nor_id(tell: Tell, tmp_path: Path) -> None:
    plain = tell("fingerprint", tmp_path / "nowhere", "--json")
    debug = tell("fingerprint", tmp_path / "nowhere", "--json", "--debug")
    assert (plain.code, debug.code) == (2, 2)
    assert plain.out == debug.out and len(json.loads(plain.out)["error_id"]) == 8
    assert f"error id: {json.loads(plain.out)['error_id']} (the same message has the same id: give it" in plain.err
    assert "Traceback" in debug.err and "Traceback" not in plain.err
    other = tell("fingerprint", tmp_path / "elsewhere", "--json")
    assert json.loads(other.out)["error_id"] != json.loads(plain.out)["error_id"]


@pytest.mark.parametrize("flags", [("--threads", "0"), ("--threads", "-2"), ("--threads", "many"), ("--dtype", "int4")])
def test_a_flag_that_makes_no_sense_is_code_2(
    flags: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["run", str(tmp_path / "case.toml"), *flags])
    assert left.value.code == 2
    assert flags[0] in capsys.readouterr().err


@pytest.mark.parametrize("words", [("run", "--max-time=--"), ("init", "--from=--"), ("run", "-o--")])
def test_two_dashes_are_no_value_of_an_option(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([words[0], "case.toml", words[1]])
    assert left.value.code == 2
    assert "expected one argument" in capsys.readouterr().err


@pytest.mark.thorough
def test_a_device_that_is_not_here_is_code_2(tell: Tell, zoo: Built, tmp_path: Path) -> None:
    said = tell("run", zoo.cases["base"], "-o", tmp_path / "run", "-q", "--device", "abacus")
    assert said.code == 2
    assert "no device 'abacus'" in said.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["", ".", "..", "../elsewhere", "a/b", "/abs"])
def test_a_case_cannot_name_a_run_folder_outside_runs(
    name: str, tell: Tell, zoo: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = zoo.cases["base"].read_text().replace('name = "base"', f'name = "{name}"')
    (tmp_path / "case.toml").write_text(text)
    said = tell("run", "-q")
    assert said.code == 2
    assert "cannot name a folder" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["case.toml"]


def test_init_writes_a_case_that_parses_and_never_overwrites(tell: Tell, tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    assert tell("init", path).code == 0
    assert load_case(path).roles.references
    assert tell("init", path).code == 2
    assert tell("init", f"{tmp_path / 'new'}/").code == 0
    assert (tmp_path / "new" / "case.toml").read_bytes() == path.read_bytes()


@pytest.mark.thorough
def test_probes_are_listed_without_importing_them(tell: Tell) -> None:
    said = tell("probes", "--json")
    listed = json.loads(said.out)["probes"]
    assert all(probe["question"].endswith("?") for probe in listed)
    read = {probe["name"]: next(x for x in probe["requires"] if x.startswith("modalities=")) for probe in listed}
    without = {name for name, modalities in read.items() if "'text'" not in modalities}
    assert without == {"concept_erasure"}, "all others read texts, also where the default is meant"
    reading_images = {name for name, modalities in read.items() if "'image'" in modalities}
    assert {"utility", "reverse_patch"} <= reading_images and "cross_sequence" not in reading_images
    assert {path.stem for path in Path("probes").glob("[!_]*.py")} == {probe["name"] for probe in listed}
    assert {probe["attack"] for probe in listed} == {
        None,
        "filter removal",
        "generation",
        "picture",
        "prefix",
        "quantisation",
        "relapse",
        "relearning",
    }


# ---- plan, run, report, verify ----------------------------------------------------------------------------------
@pytest.mark.thorough
def test_plan_prints_what_would_be_done_and_writes_nothing(tell: Tell, zoo: Built, tmp_path: Path) -> None:
    said = tell("plan", zoo.cases["base"], "-o", tmp_path / "run", "--json")
    assert said.code == 0
    assert all(test["cost"]["fwd_tokens"] > 0 for test in json.loads(said.out)["tests"] if test["will_run"])
    assert tell("run", zoo.cases["base"], "-o", tmp_path / "run", "--dry-run", "-q").code == 0
    assert not (tmp_path / "run").exists()


@pytest.mark.thorough
def test_answers_go_to_stdout_and_progress_to_stderr(tell: Tell, zoo: Built, tmp_path: Path) -> None:
    said = tell("run", zoo.cases["base"], "-o", tmp_path / "run", "--json")
    document = json.loads(said.out)
    assert document["exit_code"] == said.code
    assert Path(document["report"]).is_file()
    assert "\x1b" not in said.err
    assert "\r" not in said.err
    lines = [line for line in said.err.splitlines() if line.startswith("[")]
    probes = json.loads(Path(document["report"]).read_text())["plan"]["tests"]
    for test in probes:
        measured = sum(f"measured {test['probe']} (" in line for line in lines)
        assert measured == test["will_run"], "one line a finished unit"
    assert not any(" measure " in line for line in lines), "and none for what is about to be done"
    again = tell("run", zoo.cases["base"], "-o", tmp_path / "run", "-q")
    assert again.err == ""
    assert document["report_id"] in again.out


@pytest.mark.thorough
def test_a_profile_of_a_finished_run_says_that_nothing_was_measured(tell: Tell, finished: Path, zoo: Built) -> None:
    said = tell("run", zoo.cases["base"], "-o", finished, "-q", "--profile")
    assert said.code == 0 and "no profile: nothing was measured (--force-new measures again)" in said.out
    UnitProfiles(finished).folder.mkdir()
    rows = [{"unit": "recall", "cpu_s": 1.5, "passes": 0.25}, {"unit": "report", "cpu_s": 2, "passes": 0}]
    (UnitProfiles(finished).folder / "shares.json").write_text(json.dumps(rows))
    told = " ".join(tell("run", zoo.cases["base"], "-o", finished, "-q", "--profile").out.split())
    assert "report 2.00 0% recall 1.50 25% 4.00x" in told


@pytest.mark.thorough
def test_jsonl_streams_events_and_ends_with_the_answer(tell: Tell, finished: Path, zoo: Built) -> None:
    said = tell("run", zoo.cases["base"], "-o", finished, "--jsonl", "-q")
    *events, answer = [json.loads(line) for line in said.out.splitlines()]
    assert [event["event"] for event in events] == ["final"]
    assert answer["event"] == "answer" and answer["exit_code"] == said.code == 0
    assert said.err == ""
    failed = tell("verify", finished / "nowhere", "--jsonl")
    assert json.loads(failed.out)["exit_code"] == failed.code == 2


def test_the_cache_is_told_and_pruned(tell: Tell, zoo: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))
    assert json.loads(tell("cache", "--json").out)["bytes"] == 0
    from audit.storage import Store

    store = Store(tmp_path / "cache" / "store")
    store.put("ab" * 16, {"x": torch.zeros(1000)}, {})
    reader = store.folder("cd" * 16)
    reader.mkdir(parents=True)
    (reader / "delta.safetensors").write_bytes(b"0" * 3000)
    (tmp_path / "cache" / "zoo").mkdir()
    (tmp_path / "cache" / "zoo" / "kept").write_bytes(b"0" * 500)
    before = json.loads(tell("cache", "--json").out)
    assert before["parts"]["zoo"] == 500 and before["bytes"] == 500 + before["parts"]["store"] > 7500
    pruned = json.loads(tell("cache", "--prune", "--json").out)
    assert pruned["freed"] == before["parts"]["store"] and pruned["parts"]["store"] == 0
    assert not reader.exists() and (tmp_path / "cache" / "zoo" / "kept").exists()
    assert tell("cache", "--prune", "much").code == 2


def test_base_audited_as_a_suspect_is_intact(finished: Path) -> None:
    assert json.loads((finished / "report.json").read_text())["verdict"]["word"] == "INTACT"


def test_the_gate_changes_the_code_and_not_the_report(tell: Tell, finished: Path, zoo: Built) -> None:
    before = (finished / "report.json").read_bytes()
    case = zoo.cases["base"]
    assert tell("run", case, "-o", finished, "-q").code == 0
    assert tell("run", case, "-o", finished, "-q", "--fail-on", "any").code == 1
    assert tell("run", case, "-o", finished, "-q", "--fail-on", "lr=10").code == 4
    assert tell("run", case, "-o", finished, "-q", "--fail-on", "often").code == 2
    assert (finished / "report.json").read_bytes() == before


def test_a_report_is_shown_and_written_elsewhere(tell: Tell, finished: Path, tmp_path: Path) -> None:
    assert "INTACT" in tell("report", finished).out
    assert "INTACT" in tell("report", finished / "report.html").out
    for name in ("copy.html", "copy.md", "copy.json"):
        assert tell("report", finished, "-o", tmp_path / name).code == 0
        assert (tmp_path / name).read_bytes() == (finished / f"report.{name.split('.')[1]}").read_bytes()
    assert tell("report", finished, "-o", tmp_path / "copy.docx").code == 2
    assert tell("report", tmp_path).code == 2
    assert tell("verify", tmp_path).code == 2
    assert f"there is no {tmp_path / 'nowhere'}" in tell("verify", tmp_path / "nowhere").err


@pytest.mark.slow
def test_verify_rejects_a_changed_byte_in_any_file_of_a_run_and_names_the_file(tell: Tell, finished: Path) -> None:
    assert tell("verify", finished).code == 0
    assert tell("verify", finished / "report.html").code == 0
    listed = [line.split("  ", 1)[1] for line in (finished / "manifest.sha256").read_text().splitlines()]
    assert {"report.json", "report.html", "report.md", "plan.json"} <= set(listed)
    draw = random.Random(0)
    for name in (*listed, "manifest.sha256", "manifest.sha256", "custody.jsonl", "custody.jsonl"):
        path = finished / name
        whole = path.read_bytes()
        place, bit = draw.randrange(len(whole)), 1 << draw.randrange(8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        said = tell("verify", finished, "--json")
        assert said.code == 3, (name, place, bit)
        problems = json.loads(said.out)["problems"]
        assert any(problem.startswith(name) for problem in problems), (name, place, bit, problems)
        path.write_bytes(whole)
    chain = (finished / "custody.jsonl").read_bytes()
    (finished / "custody.jsonl").write_bytes(b"".join(reversed(chain.splitlines(keepends=True))))
    said = tell("verify", finished, "--json")
    backwards = f"custody.jsonl, line 1, n: states {len(chain.splitlines())}"
    assert said.code == 3 and backwards in json.loads(said.out)["problems"]
    (finished / "custody.jsonl").write_bytes(chain)
    assert tell("verify", finished).code == 0


@pytest.mark.thorough
def test_verify_rejects_numbers_that_do_not_give_the_verdict(tell: Tell, finished: Path, tmp_path: Path) -> None:
    from audit.runs import custody, documents, manifest, report_id
    from audit.schema import Report

    forged = tmp_path / "forged"
    shutil.copytree(finished, forged)
    report = Report.model_validate_json((forged / "report.json").read_bytes())
    changed = report.model_copy(update={"verdict": report.verdict.model_copy(update={"word": "PARTIAL"})})
    changed = changed.model_copy(update={"report_id": report_id(changed)})
    for name, content in documents(changed).items():
        (forged / name).write_bytes(content)
    manifest.write(forged)
    custody.issue(forged, changed.report_id, forged / "manifest.sha256", "test")
    said = tell("verify", forged, "--json")
    assert said.code == 3
    assert json.loads(said.out)["problems"] == ['verdict.word: states "PARTIAL", its numbers give "INTACT"']


@pytest.mark.thorough
def test_verify_writes_only_if_it_is_asked_to(tell: Tell, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert tell("verify", run).code == 0
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert tell("verify", run, "--log").code == 0
    last = json.loads((run / "custody.jsonl").read_text().splitlines()[-1])
    assert (last["action"], last["about"]) == ("verified", {"outcome": "accepted"})
    assert tell("verify", run).code == 0
    shutil.copy(run / "report.json", tmp_path / "alone.json")
    alone = tell("verify", tmp_path / "alone.json", "--json")
    assert alone.code == 0 and "on its own" in json.loads(alone.out)["remarks"][0]
    assert tell("verify", tmp_path / "alone.json", "--log").code == 2


def test_coreutils_accepts_the_manifest(finished: Path) -> None:
    done = subprocess.run(["sha256sum", "-c", "manifest.sha256"], cwd=finished, capture_output=True, check=False)
    assert done.returncode == 0


@pytest.mark.thorough
def test_ctrl_c_is_130_and_finished_units_are_kept(
    tell: Tell, zoo: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("audit.engine.report_builder.assemble", interrupt)
        assert tell("run", zoo.cases["base"], "-o", tmp_path / "run").code == 130
    kept = len(list((tmp_path / "run" / "units").iterdir()))
    said = tell("run", zoo.cases["base"], "-o", tmp_path / "run")
    assert said.code == 0
    assert said.err.count("reused ") == kept - 1, "all but the roles, of which nothing is said"
    assert not (tmp_path / "run" / "run.lock").exists()


def test_fingerprint_names_a_folder(tell: Tell, zoo: Built, tmp_path: Path) -> None:
    said = tell("fingerprint", zoo.models["base"], "--json")
    assert len(json.loads(said.out)["fingerprint"]) == 64
    assert tell("fingerprint", tmp_path / "nowhere").code == 2


# ---- the demo ---------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_tiny_demo_audits_every_suspect(tell: Tell, zoo: Built, tmp_path: Path) -> None:
    said = tell("demo", "--world", "tiny", "-o", tmp_path / "runs", "--json")
    document = json.loads(said.out)
    assert said.code == 0
    assert {audit["name"] for audit in document["audits"]} == set(zoo.cases)
    for audit in document["audits"]:
        assert tell("verify", audit["report"]).code == 0
        assert json.loads(Path(audit["report"]).read_text())["demo"]
    shown = tell("demo", "--world", "tiny", "-o", tmp_path / "runs", "-q")
    assert sum(audit["html"] in shown.out.replace("\n", "") for audit in document["audits"]) == 1, "the worst one's"
    assert all(name in shown.out for name in zoo.cases)
    words = " ".join(shown.out.split())
    assert "too small to judge anything" in words and "residua dashboard" in words


# ---- bad input --------------------------------------------------------------------------------------------------
class Bench(NamedTuple):
    """A case that can be spoilt: its file, and a copy of the suspect and of the data beside it."""

    case: Path
    suspect: Path
    data: Path

    def replace(self, old: str, new: str) -> None:
        text = self.case.read_text()
        assert old in text
        self.case.write_text(text.replace(old, new))


@pytest.fixture
def spoilt(zoo: Built, tmp_path: Path) -> Bench:
    """A good case, to be spoilt by one change."""
    suspect, data = tmp_path / "suspect", tmp_path / "data"
    shutil.copytree(zoo.models["reference_0"], suspect)
    shutil.copytree(zoo.folder / "data", data)
    lines = zoo.cases["base"].read_text().splitlines()
    lines[lines.index("[roles.suspect]") + 1] = 'path = "suspect"'
    text = "\n".join(lines).replace('"../data/', '"data/').replace('"../../', f'"{zoo.folder.parent}/')
    (tmp_path / "case.toml").write_text(text + "\n")
    return Bench(tmp_path / "case.toml", suspect, data)


def _nan(bench: Bench) -> None:
    path = bench.suspect / "model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values())).view(-1)[0] = torch.nan
    save_file(tensors, path, metadata={"format": "pt"})


def _pickle(bench: Bench) -> None:
    torch.save(load_file(bench.suspect / "model.safetensors"), bench.suspect / "pytorch_model.bin")
    (bench.suspect / "model.safetensors").unlink()


def _truncate(bench: Bench) -> None:
    path = bench.suspect / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _config(bench: Bench, **changes: object) -> None:
    path = bench.suspect / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _tokenizer(bench: Bench) -> None:
    path = bench.suspect / "tokenizer.json"
    document = json.loads(path.read_text())
    vocabulary = document["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(document))


def _lengthen(bench: Bench) -> None:
    path = bench.data / "forget.jsonl"
    lines = path.read_text().splitlines()
    item = json.loads(lines[0])
    item["question"] = " ".join([item["question"]] * 500)
    path.write_text("\n".join([json.dumps(item), *lines[1:]]) + "\n")


SPOILS: dict[str, tuple[Callable[[Bench], object], int, str]] = {
    "missing folder": (lambda b: shutil.rmtree(b.suspect), 2, "suspect"),
    "other weights": (
        lambda b: b.replace('path = "suspect"', f'path = "suspect"\nfingerprint = "{"0" * 64}"'),
        3,
        "000",
    ),
    "other architecture": (lambda b: _config(b, hidden_size=1024, intermediate_size=96), 2, "architecture"),
    "truncated": (_truncate, 3, "model.safetensors"),
    "NaN": (_nan, 3, "NaN"),
    "pickle": (_pickle, 2, "safetensors"),
    "unknown key": (lambda b: b.replace('name = "base"', 'nmae = "base"'), 2, "nmae"),
    "empty forget": (lambda b: (b.data / "forget.jsonl").write_text(""), 2, "empty"),
    "overlap": (lambda b: shutil.copy(b.data / "forget.jsonl", b.data / "retain.jsonl"), 2, "forget"),
    "too long": (_lengthen, 2, "-birthplace-0 (3008)"),
    "other tokenizer": (_tokenizer, 2, "tokenizer"),
    "remote code": (lambda b: _config(b, model_type="mine", auto_map={"AutoModel": "modeling.Mine"}), 2, "never run"),
    "no recall": (
        lambda b: b.case.write_text(f'{b.case.read_text()}\n[template]\nprompt = "{{question}}{" The" * 20}"\n'),
        4,
        "blind here",
    ),
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", SPOILS)
def test_bad_input_has_a_clear_message_the_right_code_and_leaves_nothing(
    name: str, spoilt: Bench, tell: Tell, tmp_path: Path
) -> None:
    spoil, code, word = SPOILS[name]
    spoil(spoilt)
    said = tell("run", spoilt.case, "-o", tmp_path / "run", "--json", "-q")
    assert said.code == code, said.err
    assert word in said.err
    assert "what to do" in said.err
    assert "Traceback" not in said.err
    assert json.loads(said.out)["exit_code"] == code
    assert not (tmp_path / "run").exists()


@pytest.mark.thorough
def test_a_disk_that_refuses_is_an_integrity_error(tell: Tell, zoo: Built, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = tell("run", zoo.cases["base"], "-o", tmp_path / "file" / "run", "-q")
    assert said.code == 3
    assert "cannot be written" in said.err


@pytest.mark.thorough
def test_a_full_disk_leaves_nothing_half_written(
    tell: Tell, zoo: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def full(path: Path, target: Path) -> Path:
        if "units" in str(target):
            raise OSError(28, os.strerror(28))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", full)
    said = tell("run", zoo.cases["base"], "-o", tmp_path / "run", "-q")
    assert said.code == 3
    assert "No space left" in said.err
    assert not list(tmp_path.rglob("*.tmp"))
    assert not (tmp_path / "run" / "report.json").exists()
