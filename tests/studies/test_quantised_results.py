"""The study of quantised releases: its page shows what was recorded, and its words hold of that."""

from studies.quantised import study

RECORDED = study.Results.model_validate_json((study.HERE / "results.json").read_bytes())


def test_the_page_has_the_table_of_the_record() -> None:
    assert study.table(RECORDED.rows) in (study.HERE / "README.md").read_text(encoding="utf-8")


def test_every_release_is_read_as_the_plain_folder_of_its_weights() -> None:
    assert {row.format for row in RECORDED.rows} | set(RECORDED.not_here) == set(study.MADE)
    for row in RECORDED.rows:
        assert row.verdict == row.plain_verdict and row.difference < 1e-6, row.format
