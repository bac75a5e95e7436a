"""Every slow test is in one slice and no more, a quick test in each; of a sampled test one in four runs by default."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.slow_slices import parsed, slice_of

ROOT = Path(__file__).resolve().parents[2]
MODULE = """
import pytest

@pytest.mark.slow
@pytest.mark.parametrize("n", range(30))
def test_slow(n): ...

def test_quick(): ...
"""
COLLECT = """
import pytest
for n in range(4):
    print("slice", n, flush=True)
    pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "-p", "tests.slow_slices", f"--slow-slice={n}/4"])
"""


@pytest.mark.thorough
def test_slices_share_out_all_slow_tests_and_each_has_every_quick_one(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(MODULE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow: takes long\n")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{COLLECT}"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    slices = [
        [line for line in part.splitlines() if line.startswith("test_some.py::")]
        for part in done.stdout.split("slice ")[1:]
    ]
    assert len(slices) == 4 and all("test_some.py::test_quick" in lines for lines in slices)
    slow = [line for lines in slices for line in lines if "test_slow" in line]
    assert sorted(slow) == sorted(f"test_some.py::test_slow[{n}]" for n in range(30))


def test_a_slice_follows_from_the_name_alone_and_slices_are_about_equal() -> None:
    names = [f"tests/test_{n % 9}.py::test_{n}" for n in range(1000)]
    counts = [[slice_of(name, 10) for name in names].count(k) for k in range(10)]
    assert sum(counts) == 1000 and min(counts) > 60
    assert slice_of("tests/test_a.py::test_b[c]", 10) == 7


@pytest.mark.parametrize("text", ["10/10", "-1/10", "3", "a/b", "3/"])
def test_a_slice_that_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(pytest.UsageError, match="K from 0"):
        parsed(text)


def test_every_fourth_parameter_of_a_sampled_test_runs_by_default_and_the_others_are_thorough(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(MODULE.replace("mark.slow", "mark.sampled"))
    names = ("slow", "sampled", "thorough")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n" + "".join(f"    {name}: x\n" for name in names))

    def collected(marks: str) -> list[str]:
        call = f"""import sys, pytest; sys.path.insert(0, {str(ROOT)!r})
pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "-p", "tests.slow_slices", "-m", {marks!r}])"""
        done = subprocess.run([sys.executable, "-c", call], cwd=tmp_path, capture_output=True, text=True, check=True)
        return [line for line in done.stdout.splitlines() if line.startswith("test_some.py::")]

    assert collected("not thorough") == [*(f"test_some.py::test_slow[{n}]" for n in range(0, 30, 4)),
                                         "test_some.py::test_quick"]  # fmt: skip
    assert collected("thorough") == [f"test_some.py::test_slow[{n}]" for n in range(30) if n % 4]
