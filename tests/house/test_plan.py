from pathlib import Path

from tests.house.rooms import Plan, lines_of, plan_of
from tests.house.test_imports import lay_out

CONTRACT = """
[[tool.importlinter.contracts]]
id = "layers"
layers = [{layers}]
"""

STACK = {
    "audit/schema/report.py": "class Report: ...\n",
    "audit/schema/__init__.py": "from audit.schema.report import Report\n",
    "audit/bench.py": "from audit.schema import Report\n",
    "audit/engine.py": "from audit.bench import x\n",
}


def measured(root: Path, files: dict[str, str], *layers: str) -> Plan:
    contract = CONTRACT.format(layers=", ".join(f'"{layer}"' for layer in layers))
    return plan_of(lay_out(root, {**files, "pyproject.toml": contract}))


def test_files_folders_and_other_packages_are_rooms(tmp_path: Path) -> None:
    plan = measured(tmp_path, {**STACK, "probes/utility.py": "import audit.bench\n", "probes/deep/part.py": ""})
    assert plan.rooms == ("audit", "audit.bench", "audit.engine", "audit.schema", "probes")


def test_room_stands_above_the_highest_room_that_it_imports(tmp_path: Path) -> None:
    plan = measured(tmp_path, {**STACK, "probes/utility.py": "import audit.bench\nimport audit.schema\n"})
    assert plan.floors == {"audit": 1, "audit.schema": 1, "audit.bench": 2, "audit.engine": 3, "probes": 3}
    assert plan.height == 3
    assert plan.cycles == ()


def test_cycle_is_seen_where_only_a_function_or_a_type_closes_it(tmp_path: Path) -> None:
    for name, back in {
        "late": "def f():\n    from audit.engine import run\n",
        "typed": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from audit.engine import run\n",
    }.items():
        plan = measured(tmp_path / name, {**STACK, "audit/schema/report.py": back})
        assert plan.cycles == (("audit.bench", "audit.engine", "audit.schema"),)
        assert ("audit.schema.report", "audit.engine") in {(t.importer, t.target) for t in plan.ties(plan.cycles[0])}
        assert plan.floors["audit.engine"] == 3, "an import made late takes no room off its floor"


def test_rooms_that_import_each_other_at_the_top_share_a_floor(tmp_path: Path) -> None:
    plan = measured(tmp_path, {**STACK, "audit/schema/report.py": "from audit.engine import run\n"})
    assert {plan.floors[room] for room in plan.cycles[0]} == {1}


def test_import_from_a_lower_layer_to_a_higher_one_runs_up(tmp_path: Path) -> None:
    layers = ("audit.engine", "audit.bench", "audit.schema")
    assert measured(tmp_path / "down", STACK, *layers).upward == ()
    files = {**STACK, "audit/schema/report.py": "def f():\n    import audit.bench\n"}
    (entry,) = measured(tmp_path / "up", files, *layers).upward
    assert (entry.importer, entry.target, entry.kind) == ("audit.schema.report", "audit.bench", "function")


def test_rooms_of_one_layer_meet_only_behind_a_colon(tmp_path: Path) -> None:
    for name, mark, breaches in (("open", ":", 0), ("closed", "|", 1)):
        plan = measured(tmp_path / name, STACK, f"audit.engine {mark} audit.bench", "audit.schema")
        assert len(plan.upward) == breaches


def test_room_in_no_layer_is_named(tmp_path: Path) -> None:
    assert measured(tmp_path, STACK, "audit.engine", "audit.schema").unplaced == ("audit.bench",)


def test_file_inside_a_room_is_imported_past_its_door(tmp_path: Path) -> None:
    plan = measured(tmp_path, {**STACK, "studies/deep.py": "from audit.schema.report import Report\n"})
    assert [(entry.importer, entry.target) for entry in plan.past_doors] == [("studies.deep", "audit.schema.report")]


def test_probes_are_entered_by_name(tmp_path: Path) -> None:
    files = {**STACK, "probes/utility.py": "", "audit/planning.py": "from probes.utility import Utility\n"}
    assert measured(tmp_path, files).past_doors == ()


def test_plan_is_printed_with_what_breaks_it(tmp_path: Path) -> None:
    broken = {
        "audit/schema/report.py": "from audit.engine import run\n",
        "studies/s.py": "import audit.schema.report\n",
    }
    files = {**STACK, **broken}
    text = "\n".join(lines_of(measured(tmp_path, files, "audit.engine", "audit.bench", "audit.schema")))
    assert "cycle: audit.bench, audit.engine, audit.schema" in text
    assert "runs up: audit.schema.report:1 -> audit.engine [run]" in text
    assert "past a door: studies.s:1 -> audit.schema.report" in text
    assert "in no layer: studies" in text
