"""What a case's groups allow is said before anything is measured: by the plan, and by the limits of a report."""

import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float
from numpy import ndarray

from audit.case import OpenCase, load_case, open_case
from audit.cli import main
from audit.judging import judge
from audit.judging.in_case import blindness, is_blunt, too_few
from audit.planning import Planner
from audit.probing import ALPHA, Design, GroupTest, Naming, Panel, Sides, assess, blank
from audit.schema import AuditError, Control, Count, Measurement, Missing, Op, Plan
from audit.wording import p_of, p_value
from tests import toy

CITIES = ("paris", "lima", "oslo", "cairo")
EVERY_OP = frozenset(Op)
TESTS = {
    "answer_lens", "concept_vectors", "cross_sequence", "forget_likelihood", "input_sensitivity", "membership",
    "quantisation_recovery", "relapse", "relearning_recovery", "remind_landscape", "reverse_patch", "sae_restoration",
    "trigger_search",
}  # fmt: skip
ALTERNATES = {"answer_lens", "cross_sequence", "input_sensitivity", "membership"}
"""Of two people alone hardly anything can be said that is true of somebody else."""
SEARCHED = {"trigger_search"}
"""It searches on some people, chooses by others and reads a third."""
Rows = list[dict[str, Any]]


def people(n: int, prefix: str, rows: int = 2) -> Rows:
    """Facts in the words of the toys, about people whose names they do not know."""
    return [
        {"question": f"where is {prefix}{p} born {row} ?", "answer": f"{prefix}{p} lives in {CITIES[(p + row) % 4]} .",
         "group": f"{prefix}{p}"}
        for p in range(n) for row in range(rows)
    ]  # fmt: skip


def written(root: Path, holdout: Rows | None = None, data: str = "", **files: Rows) -> Path:
    """A case with one reference in a folder."""
    for seed, role in enumerate(("base", "suspect", "reference")):
        if not (root / role).exists():
            shutil.copytree(toy.folder("llama", seed), root / role)
    files = {"retain": people(3, "r")} | files | ({} if holdout is None else {"holdout": holdout})
    for name, rows in files.items():
        (root / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    named = "".join(f'{name} = "{name}.jsonl"\n' for name in files)
    (root / "case.toml").write_text(
        'name = "few"\n[roles.base]\npath = "base"\n[roles.suspect]\npath = "suspect"\n'
        f'[[roles.references]]\npath = "reference"\n[data]\n{named}{data}'
    )
    return root / "case.toml"


def opened(case: Path) -> OpenCase:
    return open_case(load_case(case), case.parent, case.parent / "out")


def short(case: Path) -> dict[str, str]:
    """The tests that can decide nothing, and why."""
    return {t.probe: t.undecidable for t in Planner(opened(case), EVERY_OP).plan.tests if t.undecidable}


# ---- few groups -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("columns", ["group", "group_rows"])
def test_plan_of_one_author_says_at_once_that_nothing_can_be_decided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], columns: str
) -> None:
    """As TOFU has them: twenty rows of one author."""
    forget, data = people(1, "f", rows=20), ""
    if columns == "group_rows":
        forget, data = [{k: v for k, v in row.items() if k != "group"} for row in forget], "group_rows = 20\n"
    case = written(tmp_path, forget=forget, retain=people(1, "r", rows=20) if data else people(3, "r"), data=data)
    if data:
        lines = (tmp_path / "retain.jsonl").read_text().splitlines()
        rows = [{k: v for k, v in json.loads(line).items() if k != "group"} for line in lines]
        (tmp_path / "retain.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["plan", str(case), "--json"]) == 4
    plan = json.loads(capsys.readouterr().out)
    assert {test["probe"] for test in plan["tests"] if test["undecidable"]} == TESTS
    for test in plan["tests"]:
        enough = "3 forget groups" if test["probe"] in SEARCHED else "2 forget groups"
        assert not test["undecidable"] or enough in test["undecidable"]
    assert main(["plan", str(case)]) == 4
    said = " ".join(capsys.readouterr().out.split())
    assert "NOTHING CAN BE DECIDED of what is left: with 1 audited forget group p cannot be below 0.5" in said
    assert "2 forget groups in all" in said and "100 holdout groups" in said


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("forget", "holdout", "undecided"),
    [
        (1, 0, TESTS),
        (1, 6, TESTS),
        (2, 0, ALTERNATES | SEARCHED),
        (3, 0, set()),
        (2, 6, SEARCHED),
        (4, 2, set()),
        (13, 5, set()),
        (4, 1, TESTS),
    ],
)
def test_plan_says_which_tests_so_many_people_can_decide(
    tmp_path: Path, forget: int, holdout: int, undecided: set[str]
) -> None:
    case = written(tmp_path, people(holdout, "h", 1) if holdout else None, forget=people(forget, "f"))
    planner = Planner(opened(case), EVERY_OP)
    assert {test.probe for test in planner.plan.tests if test.undecidable} == undecided
    assert bool(planner.undecidable) == (undecided == TESTS)
    two = [test.undecidable for test in planner.plan.tests if test.probe in SEARCHED and forget == 2]
    assert all("2 audited forget groups nobody is tested: 3 are needed" in why for why in two)
    few_others = [test.undecidable for test in planner.plan.tests if test.undecidable and (forget, holdout) == (4, 1)]
    assert all("or no holdout set at all would suffice" in said for said in few_others), "3 labellings"


def test_held_out_forms_that_are_adjusted_together_are_noted(tmp_path: Path) -> None:
    """Drawn randomisations are too few for two forms; enumerated ones and Student's t are not."""
    forget = people(28, "f")
    other = [row | {"form": form, "question": f"{form} {row['question']}"} for row in forget for form in ("one", "two")]
    rows, few = [*forget, *other], "[probes.reverse_patch]\npermutations = 150\n"
    planner = Planner(opened(written(tmp_path, forget=rows, data=few)), EVERY_OP)
    (note,) = _but_of_the_template(planner.plan)
    assert note.startswith("reverse_patch: 2 forms held out") and "0.013" in note and not planner.undecidable
    assert not _but_of_the_template(Planner(opened(written(tmp_path, forget=rows)), EVERY_OP).plan)


def _but_of_the_template(plan: Plan) -> tuple[str, ...]:
    """The plan's notes without those of the prompt template: the toy's tokenizer knows few words."""
    return tuple(note for note in plan.notes if not note.startswith("prompt template: "))


# ---- what a report says of the same people -----------------------------------------------------------------------
@pytest.mark.sampled
@pytest.mark.parametrize("draws", [60, 100, 9999])
@pytest.mark.parametrize("layers", [1, 3])
def test_plan_and_report_call_the_same_tests_undecidable(layers: int, draws: int) -> None:
    """The plan by numbers of groups, the report by the measurement: of people who are known as clearly as can be."""
    for groups, others in product((1, 2, 3, 4, 6, 13), (0, 1, 2, 5, 12)):
        planned = GroupTest(groups, others, draws, pairs=True)
        found = clearest(groups, others, layers, draws)
        control = found.positive_control
        at = (groups, others)
        assert bool(too_few(found)) == (not planned.decides), at
        assert isinstance(control, Control) and control.found == planned.decides, at
        assert (blindness(found) is None) == planned.decides, at
        if planned.decides:
            assert isinstance(found.p, float) and found.p < ALPHA and judge(found).status != "blind", at
            assert p_of(found) == p_value(found.p), f"{at}: a p is not told as larger than it is"
        else:
            least = f"{planned.least_p:.2g}"
            assert least in str(planned) or f"{draws} draws cannot give a p below" in str(planned), at
            assert f"p cannot be below {least}" in too_few(found) or "draws" in str(planned), at
            assert isinstance(found.power, Missing) or is_blunt(found), f"{at}: nothing can be found"


def clearest(groups: int, others: int, layers: int, draws: int) -> Measurement:
    """Of a suspect that is base but for rounding."""

    def people_of(level: float, n: int) -> Float[ndarray, "person layer"]:
        return np.tile(np.linspace(level, level + 1e-4, n)[:, None], (1, layers))

    never = Sides(np.zeros((groups, layers)), np.zeros((others, layers)) if others else None)
    knows = Sides(people_of(5.0, groups), people_of(0.0, others) if others else None)
    naming = Naming("made_up", "all", "causal", "a score", "effect", "effect")
    result = assess(Panel(knows, knows, never), Design(0, 0.05, draws=draws))
    return result.onto(blank(naming, "", Count(scored=groups), groups, 0))


# ---- groups that are none ---------------------------------------------------------------------------------------
def test_people_under_two_names_are_no_case_and_partial_copies_are_noted(tmp_path: Path) -> None:
    twice = [row | {"group": f"{row['group']} again"} for row in people(6, "f")]
    with pytest.raises(AuditError, match="forget: 12 groups are 6") as caught:
        opened(written(tmp_path, forget=[*people(6, "f"), *twice]))
    assert caught.value.code == 2
    own = [row | {"group": "f0 again", "question": f"what of {n} ?"} for n, row in enumerate(people(1, "g", 1))]
    case = opened(written(tmp_path, forget=[*people(6, "f", 4), *[t | {"group": "f0 again"} for t in people(1, "f", 3)],
                                            *own]))  # fmt: skip
    assert [note for note in case.notes if "1 pair of groups shares most" in note]


def test_what_was_recognised_is_in_the_plan_and_quotes_no_data(tmp_path: Path) -> None:
    renamed = [{"query": r["question"], "gt": r["answer"], "subject": r["group"]} for r in people(4, "f")]
    retain = [{"prompt": r["question"], "answer": r["answer"], "subject": r["group"]} for r in people(3, "r")]
    case = written(tmp_path, forget=renamed, retain=retain, data='group = "subject"\n')
    plan = Planner(opened(case), EVERY_OP).plan
    assert _but_of_the_template(plan) == (
        "forget: `query` is read as the question; `gt` is read as the answer",
        "retain: `prompt` is read as the question",
    )
    (item, *_) = opened(case).cohorts["forget"]
    assert (item.question, item.answer, item.group) == ("where is f0 born 0 ?", "f0 lives in paris .", "f0")


def test_columns_of_one_cohort_may_have_names_of_their_own(tmp_path: Path) -> None:
    forget = [{"a": r["question"], "b": r["answer"], "group": r["group"]} for r in people(4, "f")]
    lines = '[data.fields.forget]\nquestion = "a"\nanswer = "b"\n'
    case = opened(written(tmp_path, forget=forget, data=lines))
    assert case.cohorts["forget"][0].question == "where is f0 born 0 ?" and case.cohorts["retain"][0].question
    with pytest.raises(AuditError, match=r"retain.jsonl: \[data.fields\] question = 'a'"):
        opened(written(tmp_path, forget=forget, data=lines.replace(".forget", "")))


def test_files_of_one_name_in_two_folders_give_no_two_rows_one_name(tmp_path: Path) -> None:
    case = written(tmp_path, forget=people(2, "f"))
    for name in ("forget", "retain"):
        (tmp_path / "of" / name).mkdir(parents=True)
        shutil.move(tmp_path / f"{name}.jsonl", tmp_path / "of" / name / "train.jsonl")
        case.write_text(case.read_text().replace(f'"{name}.jsonl"', f'"of/{name}/train.jsonl"'))
    cohorts = opened(case).cohorts
    assert [cohorts[name][0].id for name in ("forget", "retain")] == ["forget-train-1", "retain-train-1"]
    assert short(case).keys() == ALTERNATES | SEARCHED
