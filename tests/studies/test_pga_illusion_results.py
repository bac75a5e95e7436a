"""The committed results of the PGA study: the page shows them, and they bear out what it says of them."""

import json

from studies.pga_illusion import study, tables

RESULTS = json.loads((study.HERE / "results.json").read_text(encoding="utf-8"))
ZOO, TOFU = (RESULTS["subjects"][name]["models"] for name in ("zoo, demo world", "stories260K, TOFU"))
TRAINED = "training loss, unrelated"


def read(models: dict, name: str, pool: str, pooling: str = "last") -> dict:
    return models[name]["readings"][name.rpartition(", ")[2] or "unrelated"][pool][pooling]


def test_the_page_shows_the_committed_tables() -> None:
    assert tables.markdown(RESULTS) in (study.HERE / "README.md").read_text(encoding="utf-8")


def test_the_refitted_probe_is_far_below_chance_on_the_edited_texts_and_inverted_rather_than_empty() -> None:
    for models, highest, lowest in ((ZOO, 0.35, 0.1), (TOFU, 0.12, 0.01)):
        found = read(models, TRAINED, "edited")
        assert found["refitted"]["mean_ci95"][1] < highest and found["refitted"]["lowest"] < lowest
        assert found["sign_free"]["largest_distance_from_half"] == 0.5


def test_fresh_people_are_read_on_the_zoo_and_on_tofu_by_mean_pooling_alone() -> None:
    assert read(ZOO, TRAINED, "fresh")["refitted"]["mean_ci95"][0] > 0.9
    assert abs(read(TOFU, TRAINED, "fresh")["refitted"]["mean"] - 0.5) < 0.05
    assert read(TOFU, TRAINED, "fresh", "mean")["refitted"]["mean"] > 0.7


def test_unrelated_pairs_are_told_apart_by_a_model_that_never_knew_and_matched_ones_by_none() -> None:
    for models, pooling in ((ZOO, "last"), (TOFU, "mean")):
        for name in ("base", "reference"):
            apart = models[name]["readings"]
            assert apart["unrelated"]["fresh"][pooling]["refitted"]["mean"] > 0.75
            assert abs(apart["matched"]["fresh"][pooling]["refitted"]["mean"] - 0.5) < 0.06
    assert "not_made" in ZOO["refit loop, matched"] and "not_made" in TOFU["refit loop, matched"]
    for name in ("training loss, matched", "direction, matched"):
        assert read(TOFU, name, "edited")["refitted"]["mean_ci95"][1] < 0.41


def test_the_controlled_probe_flags_every_edit_of_the_zoo_and_says_that_it_is_blind_on_tofu() -> None:
    for models, told in ((ZOO, "trace found"), (TOFU, "inconclusive")):
        found = [one["controlled"] for one in models.values() if "controlled" in one]
        assert len(found) >= 8 and {one["outcome"] for one in found} == {told}
    assert all(one["controlled"]["p"] < 0.002 for one in ZOO.values() if "controlled" in one)
    assert all("blind here" in one["controlled"]["because"] for one in TOFU.values() if "controlled" in one)


def test_more_directions_cost_language_and_retained_facts() -> None:
    for models in (ZOO, TOFU):
        plain = models["base"]["capability"]
        for name in ("md k=2, unrelated", "md k=3, unrelated"):
            cost = models[name]["capability"]
            assert cost["general_perplexity"] > 5 * plain["general_perplexity"] and cost["probability_retained"] < 0.2
