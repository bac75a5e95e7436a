"""One suspect searched as an audit would: the probe, and of its measurements what a count needs."""

import time
from pathlib import Path
from typing import Any

from audit.bench import Bench
from audit.case import open_case
from audit.schema import Interval, Measurement, Missing
from audit.storage import Store
from probes.attention_sink import AttentionSink
from probes.trigger_search import TriggerSearch
from studies.backdoor.folders import case_of

KEPT = ("brought_back", "brought_back_null", "hidden", "gain_on_holdout", "gain_of_shuffled_answers")
SINK = tuple(
    f"{reading}_{role}"
    for reading in ("first_value_norm_last_block", "largest_first_value_z", "sink_rate_first")
    for role in ("base", "suspect", "null")
)


def searched(root: Path, suspect: str, store: Store) -> dict[str, Any]:
    """What the probe says of one suspect of a world's folder: values, findings, CPU-seconds. No word of the data."""
    began = time.process_time()
    bench, case = Bench(store=store), open_case(case_of(suspect), root, root / "out")
    measured = {m.name: m for m in TriggerSearch().measure(bench, case)}
    (sink,) = AttentionSink().measure(bench, case)
    record: dict[str, Any] = {name: _numbers(m) for name, m in measured.items()}
    for m in measured.values():
        for finding in m.findings:
            holds = None if isinstance(finding.holds, Missing) else finding.holds
            record[finding.name] = holds
            if finding.trigger is not None:
                record["transfer"] = round(finding.trigger.transfer, 4)
                record["string"] = finding.trigger.text
    record["sink"] = {name: round(sink.readings[name], 4) for name in SINK if name in sink.readings}
    record["sink anomaly"] = next((f.holds for f in sink.findings if not isinstance(f.holds, Missing)), None)
    return record | {"cpu_s": round(time.process_time() - began, 1)}


def _numbers(m: Measurement) -> dict[str, Any]:
    """A measurement's value, interval, p, and the readings that say what came back by which budget."""
    ends = [round(m.ci95.lo, 4), round(m.ci95.hi, 4)] if isinstance(m.ci95, Interval) else None
    shown = {k: round(v, 4) for k, v in m.readings.items() if k in KEPT or k.startswith(("effect_", "string_"))}
    value = None if isinstance(m.value, Missing) else round(m.value, 4)
    return {"value": value, "ci95": ends, "p": m.p if isinstance(m.p, float) else None, **shown}
