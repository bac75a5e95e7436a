"""The constants of the in-case decision rule: what a gate needs, what counts as a trace, what counts as silence.

Start values from trials on models of known truth; a calibration replaces them where it holds.
"""

GATE_RATIO = 0.5
INTACT_EFFECT = 0.5
PARTIAL_EFFECT = 0.1
TRACE_EFFECT = 0.05
ALPHA = 0.01
HINT_ALPHA = 0.05
SILENT_BOUND = 0.10
BLUNT = 0.25
"""A test that finds only more than this share of base, held of everybody, is too blunt for its silence to count."""
FLOOR_FACTOR = 3.0
RECALL_LIFT = 0.2
EFFECT_KINDS = ("output", "causal", "decoding")
INTERNAL_KINDS = ("causal", "decoding", "recovery")
FALSE_ALARM_SHARE = 0.02
FDR = 0.05
"""The false discovery rate at which people are named."""
POWER = 0.8
NO_FLOOR = "no floor was measured for this kind of model"
