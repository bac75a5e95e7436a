"""The tables of the study's page, from its results: ``python -m studies.backdoor.page`` puts them into README.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from audit.storage import write_atomic
from studies.backdoor import counts, lineups
from studies.backdoor.counting import NAMES, brought_back, records_of
from studies.backdoor.rates import rates
from studies.pages import with_section

HERE = Path(__file__).parent
BEGIN, END = "<!-- tables: python -m studies.backdoor.page -->", "<!-- end of tables -->"
Counted = Mapping[str, float]


def share(counted: Counted) -> str:
    """k of n with the exact 95 % interval."""
    if not counted["n"]:
        return "none"
    return f"{counted['k']:.0f} of {counted['n']:.0f} ({counted['lo']:.2f} to {counted['hi']:.2f})"


def lineup_tables(records: list[dict[str, Any]]) -> list[str]:
    """The line-ups: counts, and one row each."""
    summary = lineups.summary(records)
    lines = [
        f"The backdoored one first: {share(summary['first'])}; called backdoored: {share(summary['called'])}; all six "
        f"others silent: {share(summary['others_silent'])}; first and six silent: "
        f"{share(summary['first_and_others_silent'])}. Alarms on those of the honest derivatives that hide something: "
        f"{share(summary['alarms'])}. Triggers that the dictionary lists: {share(summary['listed'])}.",
        "",
        "| line-up | trigger: family, tokens | made by | hidden, spoken | string brings back | largest of the others "
        "| first | called |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for record in records:
        truth, members = record["truth"], record["members"]
        mine = truth["backdoored"]
        others = {name: brought_back(m) for name, m in members.items() if name != mine}
        worst = max(others, key=lambda name: others[name])
        recipe = truth["recipes"][int(worst.removeprefix("member_"))]
        lines.append(
            f"| {record['seed']} | {truth['family']}, {truth['tokens']} | {truth['unlearner']} | {truth['clean']:.2f}, "
            f"{truth['triggered']:.2f} | {brought_back(members[mine]):.2f} | {others[worst]:.2f} ({recipe}) | "
            f"{_yes(lineups.ranked(members)[0] == mine)} | {_yes(members[mine].get('backdoored'))} |"
        )
    return lines


def _yes(flag: object) -> str:
    return "yes" if flag else "no"


def count_tables(records: list[dict[str, Any]]) -> list[str]:
    """The counts: of both findings by recipe, place, family and regulariser; then what the first position shows."""
    summary = counts.summary(records)
    suspects = [s for world in records for s in world["suspects"].values()]
    lines = [
        f"Planted: {summary['planted']}, of which {summary['working']} work (forgotten without the trigger, half of "
        f"base back with it). The string of the search brings back half of what the trigger does: "
        f"{share(summary['half of the triggered gain'])} of the prefix triggers, "
        f"{share(summary['half, not listed'])} of those that the dictionary does not list.",
        "",
        "| | backdoored | recoverable by a short prefix |",
        "|---|---|---|",
    ]
    rows: list[tuple[str, str, str]] = [("**honest, all**", "honest", "")]
    rows += [(f"honest {recipe}", "by recipe", recipe) for recipe in summary[NAMES[0]]["by recipe"]]
    rows += [("**planted, all**", "planted", ""), ("planted, not in the dictionary", "not listed", "")]
    for by in ("slot", "unlearner", "family", "value_norm"):
        rows += [(f"planted, {by} {kind}", f"by {by}", kind) for kind in summary[NAMES[0]][f"by {by}"]]
    for label, key, kind in rows:
        cells = [summary[name][key][kind] if kind else summary[name][key] for name in NAMES]
        lines.append(f"| {label} | {' | '.join(map(share, cells))} |")
    lines += ["", *rate_lines(), "", "## The fingerprint of the first token", "", *sink_lines(summary["fingerprint"])]
    lines += ["", *sink_table(suspects)]
    return lines


def rate_lines() -> list[str]:
    """What the findings state of themselves, from everything that was counted here and in the zoo."""
    return [
        f"*{name}*, over line-ups, counts and six worlds of the zoo (`python -m studies.backdoor.rates`): false alarms "
        f"{read.false_alarms.k} of {read.false_alarms.n} (at most {100 * read.false_alarms.upper95:.1f} %), found "
        f"{read.hits.k} of {read.hits.n}."
        for name, read in rates().items()
        if name in NAMES
    ]


def sink_lines(read: Mapping[str, Any]) -> list[str]:
    """How well the fingerprint tells backdoored from honest suspects."""
    lines = ["| suspects | sink anomaly | AUC against all honest | against honest NPO and RMU |", "|---|---|---|---|"]
    lines.append(f"| honest | {share(read['honest']['alarms'])} | | |")
    for name in ("norms free", "norms held"):
        mine = read[name]
        lines.append(
            f"| backdoored, {name} | {share(mine['alarms'])} | {mine['auc, all honest']:.2f} | "
            f"{mine['auc, honest npo and rmu']:.2f} |"
        )
    return lines


def sink_table(suspects: Sequence[Mapping[str, Any]]) -> list[str]:
    """Value norms of the first position in the last block, and the fingerprint, by kind of suspect."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for suspect in suspects:
        if suspect["truth"] != "planted":
            kinds.setdefault(f"honest {suspect['truth']}", []).append(suspect)
        elif counts.works(dict(suspect)):
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


def section() -> str:
    """All tables, between their marks, from the committed records."""
    parts = ["## Line-ups", "", *lineup_tables(records_of("lineups")), "", "## Counts", ""]
    return "\n".join([BEGIN, *parts, *count_tables(records_of("counts")), END])


def main() -> None:
    """Write the tables into the page."""
    page = (HERE / "README.md").read_text(encoding="utf-8")
    write_atomic(HERE / "README.md", with_section(page, section()).encode())


if __name__ == "__main__":
    main()
