"""What drawing many continuations costs: the recorded rows keep the promise, and the page says them."""

from pathlib import Path

import pytest
import torch

from studies.speed import sampling_rows
from studies.speed.sampling_rows import BY_LENGTH, BY_PROMPT, LEAST_GENERATE, LEAST_SINGLE, OURS, SINGLE, Results, Size

FOLDER = Path(sampling_rows.__file__).parent


def test_recorded_rows_keep_the_promise_and_stand_on_the_page() -> None:
    recorded = Results.model_validate_json((FOLDER / "sampling_rows.json").read_text(encoding="utf-8"))
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [row.size for row in recorded.rows] == ["tiny", "5M"]
    for row in recorded.rows:
        times = {each.against: each for each in row.times}
        assert row.tokens == row.prompts * row.samples * row.steps and (row.prompts, row.samples) == (200, 64)
        assert times[SINGLE].ci95.lo >= LEAST_SINGLE and times[BY_LENGTH].ci95.lo >= LEAST_GENERATE
        assert f"**{times[SINGLE].median:.0f}x**" in page and f"**{times[BY_LENGTH].median:.2f}x**" in page
        assert f"| {row.cpu_s[OURS]:.1f}" in page and f"{times[BY_PROMPT].median:.2f}x (" in page


@pytest.mark.thorough
def test_every_way_draws_as_many_tokens(tmp_path: Path) -> None:
    ways = sampling_rows.methods(tmp_path, Size("smoke", 32, 2, 64, 3, 1), 13, 4, 0)
    drawn = {name: way() for name, way in ways.items()}
    assert [[len(tokens) for tokens in row] for row in drawn[OURS]] == [[3] * 4] * 13  # type: ignore[attr-defined]
    lengths = [9 + n % 12 for n in range(13)]
    assert [tuple(each.shape) for each in drawn[BY_PROMPT]] == [(4, n + 3) for n in lengths]  # type: ignore[attr-defined]
    together: list[torch.Tensor] = drawn[BY_LENGTH]  # type: ignore[assignment]
    assert sum(len(each) for each in together) == 13 * 4 and len(together) == 12
    assert [len(each) for each in drawn[SINGLE]] == [3] * 52  # type: ignore[attr-defined]
