from pathlib import Path

from tests.house.names import count
from tests.house.test_imports import lay_out


def test_every_way_to_bind_a_name_is_counted(tmp_path: Path) -> None:
    text = (
        "class Rows:\n    found: int = 0\n"
        "def said(rows, *, one=1, **how):\n"
        "    for kept in rows:\n        pass\n"
        "    with rows as told, rows as named_rows:\n        pass\n"
        "    return [why for why in rows if (what := why)]\n"
    )
    counted = count(lay_out(tmp_path, {"audit/a.py": text}))
    assert set(counted.words) == {"found", "said", "one", "how", "kept", "told", "why", "what"}
    assert (counted.everyday, counted.names) == (8, 11)


def test_word_that_is_read_or_part_of_a_name_is_not_counted(tmp_path: Path) -> None:
    counted = count(lay_out(tmp_path, {"audit/a.py": "import found\nprint(found.told, one=2)\nfound_rows = 1\n"}))
    assert (counted.everyday, counted.names) == (0, 1)


def test_share_is_of_all_four_packages_and_of_no_other(tmp_path: Path) -> None:
    files = {f"{folder}/a.py": "found = 1\nrows = 2\n" for folder in ("audit", "probes", "dashboards", "studies")}
    files["tests/a.py"] = "found = told = 1\n"
    counted = count(lay_out(tmp_path, files))
    assert (counted.everyday, counted.names, counted.share) == (4, 8, 0.5)
    assert str(counted) == "4 of 8 bound names are everyday words, 50.00%: found 4"
