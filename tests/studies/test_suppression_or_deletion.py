"""The restoration study: its page says what its results say, and the results what its sentences claim."""

import json

from studies.pages import with_section
from studies.suppression_or_deletion import page
from studies.suppression_or_deletion.models import NEVER_SAW, SUPPRESSED
from studies.suppression_or_deletion.study import RESULTS

RESULTS_READ = json.loads(RESULTS.read_bytes())
ROWS = list(RESULTS_READ["subjects"].values())


def test_the_page_holds_the_tables_of_the_results() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    tables = "\n".join([page.START, "", *page._lines(RESULTS_READ), page.END])
    assert with_section(text, tables) == text


def test_what_lies_above_the_edited_block_is_called_deleted_as_published_and_found_in_the_states() -> None:
    hidden = [row for row in ROWS if row["method"] in SUPPRESSED]
    assert len(hidden) == 51
    assert all(page._lit(row["measurements"][page.REVERSE], judged=True) for row in hidden)
    transformers = [row for row in hidden if row["kind"] != "resnet"]
    assert max(map(page._gain, transformers)) < page.NOTHING_RESTORED


def test_models_that_never_knew_restore_as_published_and_stay_silent_in_their_own_states() -> None:
    unseen = [row for row in ROWS if row["method"] in NEVER_SAW and row["kind"] != "pools"]
    assert page._traces(unseen, page.REVERSE) == 1 and page._traces(unseen, page.DICTIONARY) == 0 and len(unseen) == 34
    restored = [page._gain(row, 5) for row in unseen if (row["kind"], row["method"]) == ("vit", "reference_0")]
    assert sum(restored) / len(restored) > 0.8
    pools = [row for row in ROWS if row["kind"] == "pools"]
    assert len(pools) == 120 and not page._traces(pools, page.REVERSE) + page._traces(pools, page.DICTIONARY)


def test_an_empty_set_restores_what_experts_do_in_transformers() -> None:
    for row in ROWS:
        readings = row["measurements"][page.PUBLISHED]["readings"]
        if row["kind"] in ("vit", "language") and readings:
            assert abs(readings["suspect_experts_alpha1"] - readings["suspect_empty_alpha1"]) < 0.2
