"""References, ancestor and base are audited before they judge: by models of known truth in the planted world."""

import json
import shutil
from collections.abc import Callable
from functools import cache

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audit.bench import Bench
from audit.case import OpenCase, open_case
from audit.checkpoints import resolve
from audit.edits import NPO, EditData, GradDiff
from audit.probing import audit_roles
from audit.schema import AuditError, Case, RoleAudit, Source, Texts
from tests import planted_world


def changed(name: str, source: str, change: Callable[[str, Tensor], Tensor]) -> str:
    """A copy of a model of the world with other weights."""
    folder = planted_world.root() / name
    if not folder.exists():
        shutil.copytree(planted_world.root() / source, folder)
        weights = load_file(folder / "model.safetensors")
        save_file(
            {key: change(key, x).contiguous() for key, x in weights.items()}, folder / "model.safetensors",
            metadata={"format": "pt"},
        )  # fmt: skip
    return name


def noisy(source: str) -> str:
    draw = torch.Generator().manual_seed(0)
    return changed(f"noisy_{source}", source, lambda _, x: x + 1e-5 * torch.randn(x.shape, generator=draw))


def halved(source: str) -> str:
    return changed(f"halved_{source}", source, lambda _, x: x.bfloat16().float())


@cache
def edited(kind: str) -> str:
    """Base as an edit leaves it, in weights of its own."""
    name, root = f"{kind}_of_base", planted_world.root()
    bench, case = Bench(), opened(planted_world.case("clean"))
    data = EditData(case.rows(Texts(cohort="forget")), case.rows(Texts(cohort="retain")))
    edit = {"npo": NPO(steps=30, lr=2e-3), "grad_diff": GradDiff(steps=30, lr=2e-3)}[kind]
    edit.fit(bench, resolve(Source(path="base"), root), data, root / name)
    return name


def opened(case: Case) -> OpenCase:
    return open_case(case, planted_world.root(), planted_world.root() / "out")


def audited(case: Case) -> dict[str, RoleAudit]:
    return {record.role: record for record in audit_roles(Bench(), opened(case))}


def refused(case: Case) -> set[str]:
    return {role for role, record in audited(case).items() if not record.takes_part}


ANCESTRY = (("ancestor",), ())


@pytest.mark.sampled
@pytest.mark.parametrize("ancestor", ANCESTRY, ids=["ancestor", "no_ancestor"])
@pytest.mark.parametrize("suspect", ["base", "clean", "destroyed", "grad_diff"])
def test_genuine_references_pass_whatever_is_audited(suspect: str, ancestor: tuple[str, ...]) -> None:
    name = edited(suspect) if suspect == "grad_diff" else suspect
    records = audited(planted_world.case(name, references=("null", "floor", *ancestor)))
    assert all(record.takes_part and record.settled and not record.because for record in records.values())


@pytest.mark.thorough
@pytest.mark.parametrize("ancestor", ANCESTRY, ids=["ancestor", "no_ancestor"])
def test_dup_both_references_are_the_suspect_saved_again_and_both_are_refused(ancestor: tuple[str, ...]) -> None:
    case = planted_world.case("destroyed", references=(noisy("destroyed"), halved("destroyed"), *ancestor))
    records = audited(case)
    assert {role for role, record in records.items() if not record.takes_part} == {"reference 0", "reference 1"}
    assert "its weights are those of suspect" in records["reference 0"].because[0]


@pytest.mark.sampled
@pytest.mark.parametrize("ancestor", ANCESTRY, ids=["ancestor", "no_ancestor"])
@pytest.mark.parametrize("first", [True, False], ids=["dup_one", "dup_second"])
def test_dup_one_and_dup_second_a_copy_is_refused_and_the_genuine_reference_stays(
    first: bool, ancestor: tuple[str, ...]
) -> None:
    copies = (noisy("destroyed"), "null") if first else ("null", halved("destroyed"))
    case = planted_world.case("destroyed", references=(*copies, *ancestor))
    assert refused(case) == {"reference 0" if first else "reference 1"}


@pytest.mark.thorough
@pytest.mark.parametrize("ancestor", ANCESTRY, ids=["ancestor", "no_ancestor"])
def test_npo_reference_an_edit_of_base_is_refused_and_the_genuine_reference_stays(ancestor: tuple[str, ...]) -> None:
    records = audited(planted_world.case(edited("grad_diff"), references=(edited("npo"), "null", *ancestor)))
    failed = [role for role, record in records.items() if not record.takes_part]
    if ancestor or failed:
        assert failed == ["reference 0"] and "descend from base" in records["reference 0"].because[0]
    else:  # too large an edit to say which of the two is one: no verdict rests on them
        assert not records["reference 0"].settled and not records["reference 1"].settled


@pytest.mark.thorough
def test_an_ancestor_that_knows_is_refused_where_the_references_agree() -> None:
    case = planted_world.case("clean", references=("null", "floor", "ancestor"))
    knowing = changed("knowing", "base", lambda _, x: x)
    blurred = changed("blurred", knowing, lambda _, x: x + 0.05 * x.std() * torch.randn(x.shape))
    roles = case.roles.model_copy(update={"ancestor": Source(path=blurred)})
    assert "ancestor" in refused(case.model_copy(update={"roles": roles}))


@pytest.mark.thorough
def test_groups_that_base_never_knew_are_named_and_not_counted() -> None:
    root = planted_world.root()
    lines = (root / "forget.jsonl").read_text() + "".join(
        line.replace('"group": "', '"group": "new-').replace('"id": "', '"id": "new-') + "\n"
        for line in (root / "holdout.jsonl").read_text().splitlines()[:12]
    )
    (root / "more.jsonl").write_text(lines)
    case = planted_world.case("clean", references=("null", "floor"), holdout=False)
    more = case.model_copy(update={"data": case.data.model_copy(update={"forget": "more.jsonl"})})
    unknown = audited(more)["base"].unknown
    new = {json.loads(line)["group"] for line in lines.splitlines() if json.loads(line)["group"].startswith("new-")}
    assert set(unknown) == new and new
    before, after = opened(more), opened(more).without(groups=unknown)
    texts = Texts(cohort="forget")
    assert {item.group for item in before.items(texts)} - {item.group for item in after.items(texts)} == new


@pytest.mark.sampled
@pytest.mark.parametrize("kind", ["zero", "constant", "of integers"])
@pytest.mark.parametrize("role", ["reference 0", "ancestor"])
def test_a_degenerate_matrix_of_a_reference_or_an_ancestor_is_refused(kind: str, role: str) -> None:
    values = {"zero": torch.zeros_like, "constant": lambda x: torch.full_like(x, 0.5), "of integers": torch.round}
    source, place = {"reference 0": ("floor", "q_proj"), "ancestor": ("ancestor", "down_proj")}[role]
    broken = changed(
        f"{kind}_{source}".replace(" ", "_"), source,
        lambda key, x: values[kind](30 * x) if f"1.self_attn.{place}" in key or f"1.mlp.{place}" in key else x,
    )  # fmt: skip
    case = planted_world.case("clean", references=("null", "ancestor"))
    given = {"references": (Source(path=broken),)} if role == "reference 0" else {"ancestor": Source(path=broken)}
    with pytest.raises(AuditError, match=f"{role}.*tensor 'model.layers.1.*is {kind}") as raised:
        opened(case.model_copy(update={"roles": case.roles.model_copy(update=given)}))
    assert raised.value.code == 3


@pytest.mark.sampled
@pytest.mark.parametrize("kind", ["zero", "constant", "of integers"])
@pytest.mark.parametrize("others", [("null", "ancestor"), ()])
def test_a_degenerate_matrix_of_base_is_refused_where_all_others_contradict_it(
    kind: str, others: tuple[str, ...]
) -> None:
    values = {"zero": torch.zeros_like, "constant": lambda x: torch.full_like(x, 0.5), "of integers": torch.round}
    broken = changed(
        f"{kind}_base".replace(" ", "_"), "base",
        lambda key, x: values[kind](30 * x) if "1.mlp.up_proj" in key else x,
    )  # fmt: skip
    with pytest.raises(AuditError, match=f"base.*tensor 'model.layers.1.mlp.up_proj.weight' is {kind}") as raised:
        opened(with_role(planted_world.case("clean", references=others), "base", broken))
    assert raised.value.code == 3


@pytest.mark.thorough
def test_a_matrix_that_is_zero_in_every_model_is_no_fault_of_base() -> None:
    folders = {
        name: changed(f"{name}_zeroed", name, lambda key, x: torch.zeros_like(x) if "1.mlp.up_proj" in key else x)
        for name in ("base", "null", "ancestor")
    }
    case = planted_world.case("clean", references=(folders["null"],))
    case = with_role(with_role(case, "base", folders["base"]), "ancestor", folders["ancestor"])
    opened(case)


def test_an_ancestor_as_a_library_initialises_it_may_have_a_matrix_of_zeros_and_a_trained_one_may_not() -> None:
    def zeroed(name: str, also: str) -> Case:
        def change(key: str, x: Tensor) -> Tensor:
            if "1.self_attn.q_proj" in key:
                return torch.zeros_like(x)
            return torch.ones_like(x) if also in key else x

        broken = changed(name, "ancestor", change)
        return with_role(planted_world.case("clean", references=("null", "ancestor")), "ancestor", broken)

    opened(zeroed("zeroed_and_untrained", "norm"))
    with pytest.raises(AuditError, match="ancestor .*q_proj.* is zero"):
        opened(zeroed("zeroed_with_one_norm_as_it_began", "0.input_layernorm"))


@pytest.mark.sampled
@pytest.mark.parametrize("role", ["base", "suspect", "references", "ancestor"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.int8])
def test_floats_that_are_stored_as_integers_are_refused_in_every_role(role: str, dtype: torch.dtype) -> None:
    source = {"references": "null", "suspect": "clean"}.get(role, role)
    broken = changed(
        f"{source}_{dtype}".replace(".", "_"), source,
        lambda key, x: (9 * x).round().to(dtype) if "1.mlp.up_proj" in key else x,
    )  # fmt: skip
    case = planted_world.case("clean", references=("null", "ancestor"))
    with pytest.raises(AuditError, match="model.layers.1.mlp.up_proj.weight' is stored as integers") as raised:
        opened(with_role(case, role, broken))
    assert raised.value.code == 3 and raised.value.what.startswith(role.removesuffix("s"))


def with_role(case: Case, role: str, folder: str) -> Case:
    source = Source(path=folder)
    changes = {role: (source,) if role == "references" else source}
    return case.model_copy(update={"roles": case.roles.model_copy(update=changes)})


@pytest.mark.sampled
@pytest.mark.parametrize("role", ["base", "ancestor"])
@pytest.mark.parametrize("part", ["norm", "up_proj"])
def test_a_judge_whose_outputs_say_nothing_is_refused_by_its_role(role: str, part: str) -> None:
    change: Callable[[Tensor], Tensor] = torch.zeros_like if part == "norm" else lambda x: x / x.abs().max() * 1e38
    broken = changed(f"silent_{role}_{part}", role, lambda key, x: change(x) if part in key else x)
    said = "the same whatever" if part == "norm" else "no numbers"
    with pytest.raises(AuditError, match=f"{role} .*{said}") as raised:
        audited(with_role(planted_world.case("clean", references=("null", "ancestor")), role, broken))
    assert raised.value.code == 3


@pytest.mark.sampled
@pytest.mark.parametrize("parts", [("lm_head", "down_proj"), ("model.norm",), ("input_layernorm",), ("embed_tokens",)])
def test_outputs_that_overflow_are_refused_for_that_reason(parts: tuple[str, ...]) -> None:
    broken = changed(
        f"overflowing_{parts[0]}", "floor",
        lambda key, x: x / x.abs().max() * 1e38 if any(part in key for part in parts) else x,
    )  # fmt: skip
    with pytest.raises(AuditError, match="reference 0.*overflow") as raised:
        audited(planted_world.case("clean", references=(broken, "null")))
    assert raised.value.code == 3


def sharp(source: str, factor: float) -> str:
    return changed(f"sharp_{source}_{factor:g}", source, lambda key, x: factor * x if key == "model.norm.weight" else x)


@pytest.mark.parametrize("factor", [1e2, 1e20])
def test_a_reference_or_ancestor_far_below_guessing_takes_no_part(factor: float) -> None:
    case = planted_world.case("clean", references=(sharp("floor", factor), "null", "ancestor"))
    records = audited(with_role(case, "ancestor", sharp("ancestor", factor)))
    assert {role for role, record in records.items() if not record.takes_part} == {"reference 0", "ancestor"}
    assert all("no working model" in records[role].because[0] for role in ("reference 0", "ancestor"))
