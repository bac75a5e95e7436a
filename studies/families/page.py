"""The page's table and what README says of families, from the records of the sweep and of the audits alone.

python -m studies.families.page            # writes both
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from studies.families import audits as whole_audits
from studies.families import sweep
from studies.families.audits import AUDITED, Audit
from studies.families.sweep import BACKENDS, Family, Seen
from studies.pages import with_section

HERE: Final = Path(__file__).parent
PAGE, README = HERE / "README.md", HERE.parents[1] / "README.md"
START, END = "<!-- families: made by studies.families.page -->", "<!-- end of families -->"
README_START, README_END = "<!-- families: from studies/families -->", "<!-- end of families -->"
UNDECIDED: Final = ("INCONCLUSIVE", "INVALID")
_ENCODER: Final = "is no decoder"
_STREAM: Final = {"embed", "resid_in", "resid_out", "final_in", "logits"}


def read_families(path: Path = HERE / "results.json") -> tuple[Family, ...]:
    """The record of the sweep."""
    return sweep.Results.model_validate_json(path.read_bytes()).families


def read_audits(path: Path = HERE / "audits.json") -> tuple[Audit, ...]:
    """The record of the whole audits."""
    return whole_audits.Results.model_validate_json(path.read_bytes()).audits


def encoders(families: Sequence[Family]) -> tuple[Family, ...]:
    """Families that the library lists as decoders and whose default config is an encoder."""
    return tuple(family for family in families if _ENCODER in family.native.reason)


def refused(families: Sequence[Family]) -> tuple[Family, ...]:
    """Other families that are refused."""
    return tuple(f for f in families if f.native.outcome == "refused" and _ENCODER not in f.native.reason)


def opened(families: Sequence[Family], backend: str = "native") -> tuple[Family, ...]:
    """Families that a backend opens and whose hooks pass the checks."""
    return tuple(f for f in families if (seen := _behind(f, backend)) is not None and seen.outcome == "opened")


def unbuilt(families: Sequence[Family]) -> tuple[Family, ...]:
    """Families that the library did not build from a config here."""
    return tuple(family for family in families if family.native.outcome == "not built")


def _behind(family: Family, backend: str) -> Seen | None:
    seen: Seen | None = getattr(family, backend)
    return seen


def table(families: Sequence[Family], audits: Sequence[Audit]) -> str:
    """The page's section."""
    audited = {audit.name: audit for audit in audits}
    counts = [f"{len(opened(families, backend))} {backend}" for backend in BACKENDS]
    parts = [
        START,
        f"{len(families)} model types: opened behind {', '.join(counts)}; {len(encoders(families))} are encoders, "
        f"{len(refused(families))} others are refused, {len(unbuilt(families))} are not built by the library from a "
        f"config. Whole audits: {len(audits)}{_unaudited(audited)}.",
        "",
        "| model type | native | transformer_lens | nnsight | parts beside the stream | audit |",
        "|---|---|---|---|---|---|",
        *(_row(family, audited.get(family.name)) for family in sorted(families, key=lambda f: f.name)),
        "",
        "Why the others are not opened (native):",
        "",
        *(f"- `{f.name}`: {f.native.reason}" for f in [*refused(families), *unbuilt(families)]),
        "",
        "Tests that an audit left out, and why (every reason once):",
        "",
        *_skips(audits),
        END,
    ]
    return "\n".join(parts)


def _unaudited(audited: Collection[str]) -> str:
    names = ", ".join(f"`{name}`" for name in AUDITED if name not in audited)
    return f" (not in the record yet: {names})" if names else ""


def _row(family: Family, audit: Audit | None) -> str:
    marks = [_mark(_behind(family, backend)) for backend in BACKENDS]
    parts = ", ".join(part for part in family.native.parts if part not in _STREAM) or "–"
    shown = "" if audit is None else f"{audit.verdict} ({audit.code}), {len(audit.measured)} tests"
    return f"| `{family.name}` | {' | '.join(marks)} | {parts} | {shown} |"


def _mark(seen: Seen | None) -> str:
    if seen is None:
        return "–"
    return {"opened": "yes", "refused": "no", "not built": "not built", "broke": "broke"}[seen.outcome]


def _skips(audits: Sequence[Audit]) -> list[str]:
    by_reason: dict[tuple[str, str], list[str]] = {}
    for audit in audits:
        for probe, reason in audit.skipped:
            by_reason.setdefault((probe, reason), []).append(audit.name)
    return [f"- `{probe}`: {reason} ({', '.join(names)})" for (probe, reason), names in sorted(by_reason.items())]


def readme(families: Sequence[Family], audits: Sequence[Audit]) -> str:
    """What README says of families."""
    n, causal = len(opened(families)), len(opened(families)) + len(refused(families))
    names = ", ".join(f"`{family.name}`" for family in refused(families))
    rest, decided = len(families) - causal, sum(audit.verdict not in UNDECIDED for audit in audits)
    tests = [len(audit.measured) for audit in audits]
    return "\n".join(
        [
            README_START,
            f"Of the {causal} families of causal language models that transformers 5.23 builds from a config, {n} open "
            f"and pass the checks of their hooks ([table](studies/families/README.md)): dense, mixtures of experts, "
            f"state-space and hybrid ones. {len(audits)} of them were taught a few people and audited from the case to "
            f"the report, by {min(tests)} to {max(tests)} tests each; {decided} verdicts were decided. The "
            f"cross-checking backends open fewer: nnsight {len(opened(families, 'nnsight'))}, transformer_lens "
            f"{len(opened(families, 'transformer_lens'))}. Refused by name, with the reason: {names}; encoders that "
            f"are listed as decoders too (the other {rest} model types are these, or are not built from a config). "
            f"What a "
            f"family has no part for (attention patterns of a state-space block) is a skip with that reason.",
            README_END,
        ]
    )


def main() -> None:
    """Write the page's table, and what README says."""
    families, audits = read_families(), read_audits()
    for page, section in ((PAGE, table(families, audits)), (README, readme(families, audits))):
        page.write_text(with_section(page.read_text(encoding="utf-8"), section), encoding="utf-8")


if __name__ == "__main__":
    main()
