"""The tables of the study's page, from its results: ``python -m studies.backdoor.page`` puts them into README.md."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from audit.storage import write_atomic
from studies.backdoor.counts import works
from studies.backdoor.lineups import ranked
from studies.pages import with_section

HERE = Path(__file__).parent
BEGIN, END = "<!-- tables: python -m studies.backdoor.page -->", "<!-- end of tables -->"
Counted = Mapping[str, float]


def share(counted: Counted) -> str:
    """k of n with the exact 95 % interval."""
    if not counted["n"]:
        return "none"
    return f"{counted['k']:.0f} of {counted['n']:.0f} ({counted['lo']:.2f} to {counted['hi']:.2f})"


def lineup_tables(content: Mapping[str, Any]) -> list[str]:
    """The line-ups: counts, and one row each."""
    summary = content["summary"]
    lines = [
        f"The backdoored one first: {share(summary['first'])}; called backdoored: {share(summary['called'])}; all six "
        f"others silent: {share(summary['others_silent'])}; first and six silent: "
        f"{share(summary['first_and_others_silent'])}. Alarms on single honest derivatives: "
        f"{share(summary['alarms'])}.",
        "",
        "| line-up | trigger: family, tokens | made by | hidden, spoken | string brings back | largest of the others "
        "| first | called |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for record in content["lineups"]:
        truth, members = record["truth"], record["members"]
        mine = truth["backdoored"]
        others = {name: _value(m) for name, m in members.items() if name != mine}
        worst = max(others, key=lambda name: others[name])
        recipe = truth["recipes"][int(worst.removeprefix("member_"))]
        lines.append(
            f"| {record['seed']} | {truth['family']}, {truth['tokens']} | {truth['unlearner']} | {truth['clean']:.2f}, "
            f"{truth['triggered']:.2f} | {_value(members[mine]):.2f} | {others[worst]:.2f} ({recipe}) | "
            f"{_yes(ranked(members)[0] == mine)} | {_yes(members[mine].get('backdoored'))} |"
        )
    return lines


def _value(member: Mapping[str, Any]) -> float:
    return float(member.get("trigger", {}).get("value") or 0.0)


def _yes(flag: object) -> str:
    return "yes" if flag else "no"


def count_tables(content: Mapping[str, Any]) -> list[str]:
    """The counts: of both findings by recipe, place, family and regulariser; then what the first position shows."""
    summary = content["summary"]
    names = ("backdoored", "recoverable by a short prefix")
    suspects = [s for world in content["worlds"] for s in world["suspects"].values()]
    lines = [
        f"Planted: {summary['planted']}, of which {summary['working']} work (forgotten without the trigger, half of "
        f"base back with it). The string of the search brings back half of what the trigger does: "
        f"{share(summary['half of the triggered gain'])} of the prefix triggers.",
        "",
        "| | backdoored | recoverable by a short prefix |",
        "|---|---|---|",
    ]
    rows: list[tuple[str, str, str]] = [("**honest, all**", "honest", "")]
    rows += [(f"honest {recipe}", "by recipe", recipe) for recipe in summary[names[0]]["by recipe"]]
    rows += [("**planted, all**", "planted", "")]
    for by in ("slot", "unlearner", "family", "value_norm"):
        rows += [(f"planted, {by} {kind}", f"by {by}", kind) for kind in summary[names[0]][f"by {by}"]]
    for label, key, kind in rows:
        cells = [summary[name][key][kind] if kind else summary[name][key] for name in names]
        lines.append(f"| {label} | {' | '.join(map(share, cells))} |")
    lines += ["", *sink_table(suspects)]
    return lines


def sink_table(suspects: Sequence[Mapping[str, Any]]) -> list[str]:
    """Value norms of the first position in the last block, and the fingerprint, by kind of suspect."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for suspect in suspects:
        if suspect["truth"] != "planted":
            kinds.setdefault(f"honest {suspect['truth']}", []).append(suspect)
        elif works(suspect):  # type: ignore[arg-type]
            held = ", value norms held" if suspect["value_norm"] else ""
            kinds.setdefault(f"backdoored {suspect['unlearner']}, {suspect['slot']}{held}", []).append(suspect)
    lines = [
        "| suspect | value norm of the first position, last block: base, suspect (median) | largest z (median) | sink "
        "anomaly |",
        "|---|---|---|---|",
    ]
    for kind, members in kinds.items():
        sinks = [m["sink"] for m in members]
        norms = [
            [s.get(f"first_value_norm_last_block_{role}", float("nan")) for s in sinks] for role in ("base", "suspect")
        ]
        z = median(s.get("largest_first_value_z_suspect", 0.0) for s in sinks)
        anomalies = sum(bool(m.get("sink anomaly")) for m in members)
        lines.append(
            f"| {kind} | {median(norms[0]):.2f}, {median(norms[1]):.2f} | {z:.1f} | {anomalies} of {len(members)} |"
        )
    return lines


def main() -> None:
    """Write the tables into the page."""
    lineups, counts = (json.loads((HERE / f"{name}.json").read_text()) for name in ("lineups", "counts"))
    section = "\n".join(
        [BEGIN, "## Line-ups", "", *lineup_tables(lineups), "", "## Counts", "", *count_tables(counts), END]
    )
    page = (HERE / "README.md").read_text(encoding="utf-8")
    write_atomic(HERE / "README.md", with_section(page, section).encode())


if __name__ == "__main__":
    main()
