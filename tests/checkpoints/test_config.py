"""A model's sizes are read once, and a config that nests them under its text tower gives them to every reader."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from audit.bench import Bench, PassTimes
from audit.case import OpenCase, load_case, open_case
from audit.checkpoints import model_config
from audit.checkpoints.config import Tower, _staged
from audit.engine import domain_of
from audit.engine.runner import Prepared, prepare
from audit.planning import RunSettings, pricing
from audit.probing import Recall, n_blocks, width
from audit.schema import AuditError, Checkpoint
from tests import toy

WIDTH = 48
LAYOUTS = ("plain", "nested")
CITIES = ("paris", "lima", "oslo", "cairo")


def row(cohort: str, name: str, city: str) -> str:
    question, answer = f"where is {name} born ?", f"{name} lives in {city} ."
    line = {"id": f"{cohort}-{name}", "group": name, "question": question, "answer": answer, "key": city}
    return json.dumps(line | {"alternates": [f"{name} lives in quito ."]})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A case of two models without a null, which the given layout of their configs makes no other case."""
    for seed, role in enumerate(("base", "suspect")):
        shutil.copytree(toy.folder("llama", seed), tmp_path / role)
    names = {"forget": ("anna", "boris", "clara", "david"), "retain": ("elena", "felix")}
    for cohort, people in names.items():
        lines = [row(cohort, name, city) for name, city in zip(people, CITIES, strict=False)]
        (tmp_path / f"{cohort}.jsonl").write_text("\n".join(lines))
    (tmp_path / "case.toml").write_text(
        'name = "toy"\n[roles.base]\npath = "base"\n[roles.suspect]\npath = "suspect"\n'
        '[data]\nforget = "forget.jsonl"\nretain = "retain.jsonl"\n'
    )
    return tmp_path


def lay_out(root: Path, layout: str) -> Path:
    """The same sizes at the top of the config, or in a text tower beside one that sees."""
    if layout == "nested":
        for role in ("base", "suspect"):
            path = root / role / "config.json"
            text = json.loads(path.read_text())
            vision = {"hidden_size": 7, "num_hidden_layers": 9}
            nested = {"model_type": text["model_type"], "text_config": text, "vision_config": vision}
            path.write_text(json.dumps(nested))
    return root


def opened(root: Path) -> OpenCase:
    return open_case(load_case(root / "case.toml"), root, root / "out")


def checkpoint(folder: Path, **config: Any) -> Checkpoint:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return Checkpoint(source=str(folder), family="toy", fingerprint="0" * 64)


def test_sizes_are_read_under_every_name_that_a_family_gives_them(tmp_path: Path) -> None:
    new = checkpoint(
        tmp_path / "new", hidden_size=8, num_hidden_layers=2, vocab_size=50, max_position_embeddings=64, n_layer=3
    )
    old = checkpoint(tmp_path / "old", n_embd=8, n_layer=2, vocab_size=50, n_positions=64)
    assert model_config(new).towers == model_config(old).towers
    assert model_config(new).text == (2, 8, 50, 64)


def test_each_tower_states_its_own_sizes(tmp_path: Path) -> None:
    both = checkpoint(
        tmp_path / "both", hidden_size=1, text_config={"hidden_size": 8}, vision_config={"hidden_size": 6}
    )
    sizes = model_config(both)
    assert (sizes.width, sizes.towers["vision"].width, sizes.vocabulary, sizes.context) == (8, 6, None, None)


def test_a_size_that_no_config_states_is_an_error_where_it_is_needed(tmp_path: Path) -> None:
    silent = model_config(checkpoint(tmp_path / "silent", vocab_size=50))
    for size in ("blocks", "width"):
        with pytest.raises(AuditError, match=r"silent: config.json does not say") as caught:
            getattr(silent, size)
        assert caught.value.code == 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_opened_case_knows_the_context_of_the_text_tower(root: Path, layout: str) -> None:
    assert opened(lay_out(root, layout)).max_length == toy.MAX_LENGTH


@pytest.mark.parametrize("layout", LAYOUTS)
def test_probes_know_the_blocks_and_the_width_of_the_text_tower(root: Path, layout: str) -> None:
    case = opened(lay_out(root, layout))
    assert (n_blocks(case), width(case.suspect)) == (toy.N_BLOCKS, WIDTH)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_domain_of_a_case_is_that_of_the_text_tower(root: Path, layout: str) -> None:
    domain = domain_of(opened(lay_out(root, layout)), Recall(0.9, 0.1, "the alternates"))
    assert (domain.blocks, domain.d, domain.vocabulary) == (toy.N_BLOCKS, WIDTH, toy.VOCAB)


def test_the_memory_of_a_run_counts_the_text_tower(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pricing, "_process_bytes", lambda: 0)
    monkeypatch.setattr(Bench, "pass_times", lambda *_: PassTimes(1e-3, 1e-6, 1e-6))
    monkeypatch.setattr(Bench, "tokens_of", lambda *_, **__: 100)

    def peak(prepared: Prepared) -> int:
        return prepared.pricer.prices(prepared.planner).of("recall").peak_bytes

    def priced(layout: str) -> Prepared:
        return prepare(lay_out(root, layout) / "case.toml", root / layout, RunSettings(threads=1))

    plain = peak(priced("plain"))
    assert peak(priced("nested")) == plain > 4 * pricing.STATES * WIDTH


@pytest.mark.parametrize(
    ("stated", "tower"),
    [
        ({"depths": [3, 4, 6, 3], "hidden_sizes": [256, 512, 1024]}, Tower(16, 1024)), ({}, Tower()),
        ({"depths": [2, "3", None], "hidden_sizes": "wide"}, Tower(2, None)), ({"depths": []}, Tower()),
        ({"depths": 4, "hidden_sizes": [8]}, Tower(None, 8)),
    ],
)  # fmt: skip
def test_a_network_of_stages_has_the_blocks_of_all_and_the_width_of_the_last(
    stated: dict[str, object], tower: Tower
) -> None:
    assert _staged(stated) == tower
