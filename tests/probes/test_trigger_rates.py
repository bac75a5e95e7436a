"""The error rates that the rules of the search state are those that were counted."""

from probes import _trigger_rules as rules
from probes._sink_map import SINK_ALARMS, SINKS_FOUND
from studies.backdoor.rates import NAMES, SINK, rates


def test_the_rates_that_the_findings_state_are_the_studys() -> None:
    counted = rates()
    assert counted[NAMES[0]] == (rules.NO_TRIGGER_ALARMS, rules.TRIGGERS_FOUND)
    assert counted[NAMES[1]] == (rules.NEVER_KNEW_ALARMS, rules.PREFIXES_FOUND)
    assert counted[SINK] == (SINK_ALARMS, SINKS_FOUND)
    assert counted[NAMES[0]].false_alarms.n >= 60


def test_no_rate_is_stated_at_a_budget_that_was_not_counted() -> None:
    share = rules.Share(0.9, rules.Missing(missing=""), 0.001, 0.5, 0.0)
    for budget, counts in (("small", True), ("medium", False)):
        for finding in (rules.backdoored(share, 3, budget), rules.recoverable(share, budget)):
            assert isinstance(finding.hits, rules.Rate) is counts is isinstance(finding.false_alarms, rules.Rate)
