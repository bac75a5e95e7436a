"""``residua init --from``: a case of a release as a user gets it, which is planned without an edit."""

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest

from audit.case import load_case
from audit.cli import main
from tests import laid_out, toy

MODEL = "Llama-3.2-1B-Instruct"
RELEASE = f"unlearn_tofu_{MODEL}_forget10_NPO_lr1e-05"
NAMES = toy.WORDS[toy.WORDS.index("anna") : toy.WORDS.index("pavel") + 1]
QUESTIONS = ("where was {} born ?", "what is the job of {} ?", "what pet is by {} ?", "what color is {} ?")


def authors(names: Sequence[str]) -> list[dict[str, str]]:
    """Twenty rows an author, in the words of the toys."""
    rows: list[dict[str, str]] = []
    for number, name in enumerate(names):
        asked = product(QUESTIONS, ("", "who ", "when ", "a ", "the "))
        for n, (question, before) in enumerate(asked):
            value = toy.WORDS[20 + (7 * number + 3 * n) % 40]
            rows.append({"question": before + question.format(name), "answer": f"{name} is a {value} ."})
    return rows


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pool of random models whose release has a chat template that prints the day."""
    tokenizer = toy.tokenizer()
    tokenizer.chat_template = laid_out.LLAMA.replace("'Today Date: ' + date_string", "'today ' + date_string")
    for seed, name in enumerate((f"tofu_{MODEL}_full", f"tofu_{MODEL}_retain90", RELEASE)):
        toy.model("llama", seed).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    for name, rows in (("forget10", authors(NAMES[:8])), ("retain90", authors(NAMES[8:]))):
        path = tmp_path / "TOFU" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.mark.thorough
def test_the_case_of_a_release_is_planned_without_an_edit(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--from", RELEASE, "--json"]) == 0
    drafted = json.loads(capsys.readouterr().out)
    assert drafted["case"] == "case.toml" and not drafted["left"] and drafted["recognised"]
    assert {"key": "template.variables.date_string", "value": "10 Apr 2025"}.items() <= next(
        entry for entry in drafted["filled"] if entry["key"].endswith("date_string")
    ).items()
    assert main(["plan", "--store", "none", "--json"]) in (0, 4)
    planned = json.loads(capsys.readouterr().out)
    assert planned["fingerprints"].keys() >= {"base", "suspect", "reference 0"}
    assert planned["case"]["template"]["variables"] == {"date_string": "10 Apr 2025"}


def test_what_is_left_is_said_in_the_file_and_on_the_screen_and_by_plan(
    pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pool / f"tofu_{MODEL}_full").rename(pool / "elsewhere")
    assert main(["init", "--from", RELEASE]) == 0
    screen = " ".join("".join(capsys.readouterr()).split())
    assert "LEFT TO FILL IN roles.base" in screen and "fill in roles.base" in screen
    assert "LEFT TO FILL IN" in Path("case.toml").read_text()
    assert main(["plan", "-q"]) == 2
    assert "`base` is missing" in capsys.readouterr().err
    Path("case.toml").write_text(
        Path("case.toml").read_text().replace("# [roles.base]", "[roles.base]").replace(
            f'# path = "open-unlearning/tofu_{MODEL}_full"', 'path = "elsewhere"'
        )
    )  # fmt: skip
    assert load_case(Path("case.toml")).roles.base.path == "elsewhere", "the placeholder is where it belongs"


def test_a_release_that_says_nothing_ends_with_code_2_and_no_file(
    pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    laid_out.model(pool / "unnamed")
    assert main(["init", "--from", "unnamed"]) == 2
    assert "looked for" in capsys.readouterr().err and not Path("case.toml").exists()
    assert main(["init", "--data", "."]) == 2, "a folder of data belongs to a release"


def test_a_case_that_is_there_is_never_written_over(pool: Path) -> None:
    Path("case.toml").write_text("mine")
    assert main(["init", "--from", RELEASE]) == 2
    assert Path("case.toml").read_text() == "mine"


def test_of_two_checkpoints_the_first_knew_and_nothing_need_be_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("knew", "asked")):
        toy.model("llama", seed).save_pretrained(tmp_path / name)
        toy.tokenizer().save_pretrained(tmp_path / name)
    assert main(["init", "--from", "knew", "asked", "mine.toml", "--json"]) == 0
    drafted = json.loads(capsys.readouterr().out)
    filled = {entry["key"]: entry["value"] for entry in drafted["filled"]}
    assert (filled["roles.base.path"], filled["roles.suspect.path"]) == ("knew", "asked")
    assert {entry["key"] for entry in drafted["left"]} >= {"data.forget", "data.retain"}
    assert drafted["case"] == "mine.toml" and Path("mine.toml").is_file()
    assert main(["init", "--from", "knew", "asked", "other", "-q"]) == 2
    assert "--from names 3 models" in capsys.readouterr().err


# ---- a folder of data -------------------------------------------------------------------------------------------
def benchmark(root: Path, *names: str) -> Path:
    """A folder with files of these names, two rows each."""
    for name in names:
        laid_out.rows(root / name, {"query": "who?", "question": "who?", "answer": "he", "subject": "a"})
    return root


def test_a_folder_of_tofu_fills_in_the_data_and_a_file_of_it_names_the_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    retain_files = [f"retain{share}.jsonl" for share in (90, 95, 99)]
    benchmark(tmp_path / "tofu", *(f"forget{share}.jsonl" for share in ("01", "05", "10")), *retain_files)
    assert main(["init", "--from", "tofu", "--json"]) == 0
    drafted = json.loads(capsys.readouterr().out)
    filled = {entry["key"]: entry["value"] for entry in drafted["filled"]}
    assert (filled["data.forget"], filled["data.retain"]) == ("tofu/forget10.jsonl", "tofu/retain90.jsonl")
    assert filled["data.group_rows"] == "20" and "forget01, forget05" in drafted["recognised"][0]
    assert {entry["key"] for entry in drafted["left"] if entry["needed"]} == {"roles.base", "roles.suspect"}
    assert main(["init", "--from", "tofu/forget05.jsonl", "five.toml", "--json"]) == 0
    assert "tofu/retain95.jsonl" in Path("five.toml").read_text()
    case = Path("case.toml").read_text()
    for role in ("base", "suspect"):
        case = case.replace(f"# [roles.{role}]", f"[roles.{role}]").replace('# path = "owner/name"', 'path = "m"', 1)
    Path("case.toml").write_text(case)
    assert load_case(Path("case.toml")).data.group_rows == 20, "what is left is where it belongs"


@pytest.mark.parametrize(
    ("folder", "names", "group"),
    [
        ("MUSE-Books", ("knowmem/forget_qa.json", "knowmem/retain_qa.json"), "group_rows"),
        ("RWKU", ("All/forget_level2.json", "All/neighbor_level2.json"), "group"),
        ("RWKU/Target/1_A", ("forget_level2.json", "neighbor_level2.json"), "group"),
    ],
)
def test_a_folder_of_muse_or_rwku_is_known_by_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: str,
    names: tuple[str, ...], group: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    benchmark(tmp_path / folder, *names)
    assert main(["init", "--from", folder, "--json"]) == 0
    drafted = json.loads(capsys.readouterr().out)
    filled = {entry["key"]: entry["value"] for entry in drafted["filled"]}
    assert filled["data.forget"] == f"{folder}/{names[0]}" and f"data.{group}" in filled
    assert drafted["recognised"][0].startswith(folder.partition("/")[0].partition("-")[0])
    assert (filled["template.prompt"] == "Question: {question}\nAnswer:") == folder.startswith("MUSE")


def test_a_pair_of_checkpoints_takes_its_data_from_a_folder_of_a_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    benchmark(tmp_path / "rows", "forget05.json", "retain95.json", "retain90.json")
    for seed, name in enumerate(("knew", "asked")):
        toy.model("llama", seed).save_pretrained(tmp_path / name)
        toy.tokenizer().save_pretrained(tmp_path / name)
    assert main(["init", "--from", "knew", "asked", "--data", "rows", "--json"]) == 0
    drafted = json.loads(capsys.readouterr().out)
    assert not [entry for entry in drafted["left"] if entry["needed"]]
    case = load_case(Path("case.toml"))
    assert (case.data.forget, case.data.retain) == ("rows/forget05.json", "rows/retain95.json")
    (tmp_path / "nothing").mkdir()
    assert main(["init", "--from", "nothing", "other.toml"]) == 2 and not Path("other.toml").exists()
