"""The page's table and the summary that the documentation shows, from the records of the sweep and of the audits alone.

python -m studies.families.page            # writes the table into the page
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
PAGE = HERE / "README.md"
START, END = "<!-- families: made by studies.families.page -->", "<!-- end of families -->"
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


def summary(families: Sequence[Family], audits: Sequence[Audit]) -> str:
    """What the documentation says of families, in a paragraph."""
    n, causal = len(opened(families)), len(opened(families)) + len(refused(families))
    names = ", ".join(f"`{family.name}`" for family in refused(families))
    rest, decided = len(families) - causal, sum(audit.verdict not in UNDECIDED for audit in audits)
    tests = [len(audit.measured) for audit in audits]
    return (
        f"transformers 5.23 builds {causal} families of causal language models from a config. {n} of them open and "
        f"pass the checks of their hooks: dense models, mixtures of experts, state-space models and hybrids. "
        f"{len(audits)} were taught a few people and audited from the case to the report, by {min(tests)} to "
        f"{max(tests)} tests each. {decided} verdicts were decided. The cross-checking backends open fewer: nnsight "
        f"{len(opened(families, 'nnsight'))}, transformer_lens {len(opened(families, 'transformer_lens'))}. Refused by "
        f"name, with the reason: {names}. The other {rest} model types are encoders, or are not built from a config. "
        "What a family has no part for (attention patterns of a state-space block) is a skip with that reason."
    )


def main() -> None:
    """Write the page's table."""
    section = table(read_families(), read_audits())
    PAGE.write_text(with_section(PAGE.read_text(encoding="utf-8"), section), encoding="utf-8")


if __name__ == "__main__":
    main()
