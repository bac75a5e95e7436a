"""A case written as a file reads back as the same case, and its paths lead to where they led."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.case import CaseFile, case_text, load_case, moved, open_case
from audit.schema import Case, Columns, DataFiles, Fields, Roles, Source, Template
from tests.case.test_opened import root as root

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
WORDS = st.sampled_from(
    ["name", "a b", 'say "so"', "C:\\data", "x = 1", "[roles]", "# no", "é東", "1.0", "true", "~/m"]
)
ANY = st.one_of(WORDS, TEXT)
PATHS = ANY.filter(lambda path: "\0" not in path)
SCALAR = st.one_of(st.booleans(), st.integers(-(2**40), 2**40), st.floats(-1e300, 1e300), ANY)
SOURCES = st.builds(
    Source, path=PATHS, commit=st.none() | ANY, adapter=st.none() | PATHS, fingerprint=st.none() | ANY,
    lineage=st.sampled_from(["same_ancestor", "other_initialisation"]), data_order=st.none() | st.integers(0, 9),
    allow_code=st.none() | ANY,
)  # fmt: skip
COLUMNS = st.builds(Columns, question=st.none() | ANY, key=st.none() | ANY)
CASES = st.builds(
    Case,
    name=TEXT,
    roles=st.builds(
        Roles, base=SOURCES, suspect=SOURCES, references=st.lists(SOURCES, max_size=3).map(tuple),
        ancestor=st.none() | SOURCES,
    ),
    data=st.builds(
        DataFiles, forget=PATHS, retain=PATHS, holdout=st.none() | PATHS, split_seed=st.integers(0, 9),
        group_rows=st.none() | st.integers(1, 9), fields=st.builds(Fields, answer=st.none() | ANY, retain=COLUMNS),
    ),
    template=st.builds(
        Template, prompt=st.sampled_from(["{question}", "Q: {question}\nA:", '"{question}"\t\x7f\x01']),
        chat=st.just(True), system=TEXT, variables=st.dictionaries(ANY, SCALAR, max_size=3),
    ),
    edited=st.one_of(st.sampled_from(["all", "unknown"]), st.lists(ANY, min_size=1, max_size=3).map(tuple)),
    probes=st.dictionaries(WORDS, st.dictionaries(WORDS, SCALAR, max_size=2), max_size=2),
    seed=st.integers(0, 99), published=st.none() | PATHS,
)  # fmt: skip


@given(case=CASES)
def test_a_case_that_was_written_reads_back_as_itself(tmp_path_factory: pytest.TempPathFactory, case: Case) -> None:
    path = tmp_path_factory.getbasetemp() / "written.toml"
    path.write_bytes(case_text(case).encode())
    assert load_case(path) == case


@pytest.mark.thorough
def test_a_moved_case_opens_the_same_models_and_data(root: Path, tmp_path: Path) -> None:
    first = CaseFile.read(root / "case.toml")
    absolute = first.case.roles.model_copy(update={"ancestor": Source(path=str(root / "ancestor"))})
    hub = first.case.model_copy(update={"roles": absolute, "published": "nothing/of-this-name"})
    for below in ("elsewhere", "deep/er/still"):
        there = tmp_path / below
        there.mkdir(parents=True)
        again = moved(hub, root, there)
        (there / "case.toml").write_text(case_text(again))
        assert again.published == "nothing/of-this-name", "what is no file here stays as it is"
        assert again.roles.ancestor is not None and again.roles.ancestor.path == str(root / "ancestor")
        cases = [open_case(case, at, tmp_path) for case, at in ((hub, root), CaseFile.read(there / "case.toml"))]
        assert cases[0].data_sha256 == cases[1].data_sha256
        for name in ("base", "suspect", "ancestor"):
            assert getattr(cases[0], name) == getattr(cases[1], name)
        assert cases[0].references == cases[1].references


def test_every_data_file_of_a_moved_case_is_where_it_was(tmp_path: Path) -> None:
    names = ("forget", "retain", "holdout", "general", "neighbour", "forms")
    for name in names:
        (tmp_path / f"{name}.jsonl").touch()
    source = Source(path="base")
    data = DataFiles.model_validate({name: f"{name}.jsonl" for name in names})
    again = moved(Case(name="all", roles=Roles(base=source, suspect=source), data=data), tmp_path, tmp_path / "below")
    assert [getattr(again.data, name) for name in names] == [f"../{name}.jsonl" for name in names]


def test_a_case_without_a_suspect_is_read_for_an_edit_and_base_stands_in(root: Path) -> None:
    text = (root / "case.toml").read_text().replace('[roles.suspect]\npath = "suspect"\n', "")
    (root / "case.toml").write_text(text)
    shutil.rmtree(root / "suspect")
    case = CaseFile.read_unedited(root / "case.toml").case
    assert case.roles.suspect == case.roles.base and len(case.roles.references) == 3
