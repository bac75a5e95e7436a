"""What may be changed on the way through a model."""

from audit.bench.writes.edges import Edges
from audit.bench.writes.features import Features
from audit.bench.writes.logit_bias import LogitBias
from audit.bench.writes.low_rank import LowRank
from audit.bench.writes.prefix import Prefix
from audit.bench.writes.replace import Replace
from audit.bench.writes.scale import Scale

Write = Replace | LowRank | Scale | Prefix | LogitBias | Edges | Features
