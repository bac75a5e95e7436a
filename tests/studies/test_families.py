"""The page on families is what the records say, the records say what was promised, and both can be made again."""

from pathlib import Path

import pytest

from studies import provenance
from studies.families import audits, page, sweep
from studies.families.audits import AUDITED, Audit
from studies.families.sweep import Family, Seen
from studies.families.tiny_configs import FAMILIES
from studies.pages import with_section


def test_the_page_is_what_the_records_say() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert with_section(text, page.table(page.read_families(), page.read_audits())) == text


def test_every_row_says_where_it_comes_from() -> None:
    seen = sweep.Results.model_validate_json((page.HERE / "results.json").read_bytes())
    assert seen.stamp is not None and all(row.stamp is not None and row.limit for row in page.read_audits())


def test_every_family_is_in_the_record_and_none_broke() -> None:
    families = page.read_families()
    assert [family.name for family in families] == list(FAMILIES)
    seen = [getattr(family, backend) for family in families for backend in sweep.BACKENDS]
    assert not [one for one in seen if one is not None and (one.outcome == "broke" or one.code not in (0, 2))]


def test_at_most_eight_families_are_refused_each_with_its_reason() -> None:
    families = page.read_families()
    refused = page.refused(families)
    assert len(refused) <= 8 and all(family.native.reason for family in refused)
    assert len(page.opened(families)) >= 150 and len(page.unbuilt(families)) <= 6


def test_families_were_audited_whole_and_none_broke() -> None:
    done = page.read_audits()
    assert len(done) >= 20 and {audit.name for audit in done} <= set(AUDITED)
    assert not [audit.name for audit in done if audit.code == 3 or audit.failed or not audit.measured]


def test_the_summary_counts_what_the_records_hold() -> None:
    families, done = page.read_families(), page.read_audits()
    told = page.summary(families, done)
    assert f"{len(page.opened(families))} of them open" in told and f"{len(done)} were taught" in told
    assert all(f"`{family.name}`" in told for family in page.refused(families))


def test_an_encoder_a_refusal_and_a_family_that_is_not_built_are_told_apart() -> None:
    def family(name: str, outcome: str, reason: str) -> Family:
        return Family(name=name, model_class="", native=Seen(outcome=outcome, reason=reason))  # type: ignore[arg-type]

    rows = (
        family("a", "opened", ""), family("b", "refused", "B is no decoder: tokens see"),
        family("c", "refused", "no list of blocks"), family("d", "not built", "ValueError"),
    )  # fmt: skip
    names = [
        [row.name for row in rows_of(rows)] for rows_of in (page.encoders, page.refused, page.unbuilt, page.opened)
    ]
    assert names == [["b"], ["c"], ["d"], ["a"]]
    shown = page.table(rows, [Audit(name="a", code=0, verdict="CLEAN", measured=("x",), skipped=(("y", "why"),))])
    assert "| `a` | yes | – | – | – | CLEAN (0), 1 tests |" in shown and "- `y`: why (a)" in shown


def test_a_family_that_ends_its_process_costs_its_own_row_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "share.py"
    script.write_text(
        "import sys, os, json\n"
        "names = sys.argv[sys.argv.index('--names') + 1:]; out = open(sys.argv[sys.argv.index('--share') + 1], 'a')\n"
        "for name in names:\n"
        "    if name == 'dies': out.flush(); os._exit(9)\n"
        "    out.write(json.dumps({'name': name, 'model_class': 'C', 'native': {'outcome': 'opened'}}) + '\\n')\n"
    )
    popen = sweep.subprocess.Popen
    monkeypatch.setattr(sweep.subprocess, "Popen", lambda command, **s: popen([command[0], script, *command[3:]], **s))
    rows = sweep.sweep(["a", "b", "dies", "c", "d"])
    assert [(row.name, row.native.outcome) for row in rows] == [
        ("a", "opened"), ("b", "opened"), ("dies", "broke"), ("c", "opened"), ("d", "opened"),
    ]  # fmt: skip
    assert "9" in rows[2].native.reason


def test_a_family_is_built_opened_and_recorded() -> None:
    row = sweep.seen_family("mixtral", ("native",))
    assert row.native.outcome == "opened" and row.blocks == 4 and "attn_out" in row.native.parts
    assert sweep.seen_family("roberta", ("native",)).native.code == 2


def test_a_row_is_put_among_those_of_other_families_and_what_is_said_of_them_stays(tmp_path: Path) -> None:
    out = tmp_path / "audits.json"
    for name, code in (("mamba", 0), ("llama", 0), ("mamba", 4)):
        audits.keep(out, Audit(name=name, code=code, verdict="INTACT", stamp=provenance.stamp(0)))
    assert [(audit.name, audit.code) for audit in page.read_audits(out)] == [("llama", 0), ("mamba", 4)]
    assert all(audit.stamp is not None for audit in page.read_audits(out))


@pytest.mark.slow
def test_the_sweep_made_again_is_the_record() -> None:
    recorded = {family.name: family for family in page.read_families()}
    for family in sweep.sweep(FAMILIES):
        before = recorded[family.name]
        for backend in sweep.BACKENDS:
            now, then = getattr(family, backend), getattr(before, backend)
            assert (now is None) == (then is None), (family.name, backend)
            assert now is None or (now.outcome, now.parts) == (then.outcome, then.parts), (family.name, backend, now)


@pytest.mark.slow
@pytest.mark.parametrize("name", AUDITED)
def test_a_trained_model_of_a_family_is_audited_whole(name: str, tmp_path: Path) -> None:
    audits.write_world(name, tmp_path)
    done = audits.audited(name, tmp_path)
    assert done.stamp is not None and done.limit == audits.LIMIT
    assert done.code != 3 and not done.failed and done.measured and done.verdict, done
