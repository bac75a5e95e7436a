"""PGA: the loss falls on its own pairs, projections do what they say, and the illusion is where it belongs."""

from pathlib import Path

import pytest
import torch

from audit.bench import Bench
from audit.checkpoints import resolve
from audit.edits import PGA, EditData, PGAProjection
from audit.edits._alignment import blocks_of, depths, fitted, paired_with
from audit.edits.pga_projection import left_out_accuracy, top_differences
from audit.schema import AuditError, Read, Site, Source
from tests import toy

SITES = tuple(Site(part="resid_out", block=b) for b in range(toy.N_BLOCKS))


def data(n: int = 12) -> EditData:
    return EditData(toy.rows(n, seed=1), toy.rows(n, seed=2), None, toy.rows(n, seed=4))


def last(ckpt: "object", rows: "object") -> torch.Tensor:
    reads = [Read(site=site, at="last") for site in SITES]
    found = Bench().run(ckpt, rows, reads)  # type: ignore[arg-type]
    return torch.stack([found[read] for read in reads]).double()


def test_pairs_are_forget_rows_beside_retained_ones_in_turn_or_their_own_relabelled_ones() -> None:
    some = data()
    short = some._replace(retain=some.retain.take(torch.arange(5)))
    found = paired_with(short, "retain")
    assert found.rows.item_ids[0::2] == some.forget.item_ids and found.pairs == 12
    assert found.rows.item_ids[1::2] == tuple(short.retain.item_ids[i % 5] for i in range(12))
    own = paired_with(some, "relabelled").rows
    assert own.item_ids[0::2] == own.item_ids[1::2]
    with pytest.raises(AuditError, match="relabelled"):
        paired_with(some._replace(relabelled=None), "relabelled")


def test_depths_are_fractions_and_blocks_are_counted_by_name() -> None:
    assert [s.block for s in depths(12, 0.5, 1.0)] == [6, 7, 8, 9, 10, 11]
    assert blocks_of(toy.model("gpt2").state_dict()) == blocks_of(toy.model("llama").state_dict()) == toy.N_BLOCKS
    with pytest.raises(AuditError, match="depth"):
        depths(12, 0.8, 0.2)


@pytest.mark.thorough
def test_training_brings_pairs_together_along_the_probes_direction(tmp_path: Path) -> None:
    parent, some = toy.checkpoint("llama"), data()
    edit = PGA(steps=40, lr=2e-3, batch=24, refit_every=10, ce=0.1)
    suspect = edit.fit(Bench(), parent, some, tmp_path / "pga")
    pairs = paired_with(some, "retain")
    before, after = last(parent, pairs.rows), last(suspect, pairs.rows)
    direction = fitted(before, pairs.side).direction()

    def apart(states: torch.Tensor) -> float:
        return float(((states[:, 0::2] - states[:, 1::2]) @ direction[..., None]).square().mean())

    assert apart(after) < 0.25 * apart(before)


@pytest.mark.parametrize("method", ["direction", "moments"])
def test_a_played_projection_removes_its_directions_and_nothing_else(method: str, tmp_path: Path) -> None:
    parent, some = toy.checkpoint("llama"), data()
    deep = 1.0
    edit = PGAProjection.model_validate({"method": method, "rank": 2, "shallowest": deep, "deepest": deep})
    suspect = edit.fit(Bench(), parent, some, tmp_path / method)
    again = resolve(Source(path=str(tmp_path / method)), tmp_path)
    pairs = paired_with(some, "retain")
    before, after = last(parent, pairs.rows)[-1], last(again, pairs.rows)[-1]
    mean, sd = before.mean(0), before.std(0, unbiased=False)
    z, moved = (before - mean) / sd, (after - mean) / sd
    if method == "direction":
        u = torch.nn.functional.normalize(fitted(before[None], pairs.side).weight, dim=-1)
    else:
        apart = z[0::2] - z[1::2]
        u = torch.linalg.eigh(apart.T @ apart / 12).eigenvectors[:, -2:].T
    torch.testing.assert_close(moved, z - z @ u.T @ u, rtol=0, atol=1e-4)
    assert again.key == suspect.key and len(suspect.edits) == 1


def test_refitting_adds_orthogonal_directions_until_the_probe_is_blind(tmp_path: Path) -> None:
    parent, some = toy.checkpoint("llama"), data(8)
    pairs = paired_with(some, "retain")
    edit = PGAProjection(method="refit", rank=3, tokens=2)
    found = edit.projections(Bench(), parent, pairs, SITES)
    assert any(len(u) for u in found.taken) and all(len(u) <= 3 for u in found.taken)
    for u in found.taken:
        torch.testing.assert_close(u @ u.T, torch.eye(len(u), dtype=u.dtype), rtol=0, atol=1e-8)
    assert (
        not PGAProjection(method="refit", stop=1.01, tokens=2)
        .projections(Bench(), parent, pairs, SITES)
        .taken[0]
        .numel()
    )


def test_accuracy_left_out_by_pairs_equals_a_loop_of_fits() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    x = torch.randn(2, 24, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    side = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(12)
    x = x + 0.7 * side[:, None]
    pair = torch.arange(24) // 2 % 6
    found = left_out_accuracy(x, side, pair)
    for site in range(2):
        right = []
        for p in range(6):
            out = (pair == p).numpy()
            scaler = StandardScaler().fit(x[site].numpy()[~out])
            slow = LogisticRegression(C=1.0, max_iter=5000, tol=1e-10)
            slow.fit(scaler.transform(x[site].numpy()[~out]), side.numpy()[~out])
            right.append(slow.score(scaler.transform(x[site].numpy()[out]), side.numpy()[out]))
        assert float(found[site]) == pytest.approx(sum(right) / 6)


def test_matching_means_on_the_probed_pairs_inverts_the_left_out_probe_and_fresh_pairs_still_show_it() -> None:
    """The mechanism behind accuracies below chance, in a simulation: one shared shift, means matched on 20 pairs."""
    rng = torch.Generator().manual_seed(0)

    def drawn(n: int) -> torch.Tensor:
        content = torch.randn(n, 1, 256, generator=rng, dtype=torch.float64)
        noise = 0.5 * torch.randn(n, 2, 256, generator=rng, dtype=torch.float64)
        shift = torch.zeros(2, 256, dtype=torch.float64)
        shift[0, 0] = 4.0
        return content + noise + shift

    edited, fresh = drawn(20), drawn(20)
    gap = (edited[:, 0] - edited[:, 1]).mean(0)
    for pairs in (edited, fresh):
        pairs[:, 0] -= gap
    side, pair = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(20), torch.arange(40) // 2
    assert float(left_out_accuracy(edited.view(1, 40, 256), side, pair)) == 0.0
    assert float(left_out_accuracy(fresh.view(1, 40, 256), side, pair)) > 0.8


def test_top_differences_are_orthonormal() -> None:
    z = torch.randn(2, 20, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u = top_differences(z, 3)
    torch.testing.assert_close(u @ u.transpose(1, 2), torch.eye(3, dtype=u.dtype).expand(2, 3, 3))
