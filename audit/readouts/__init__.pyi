from . import enrichment_scan as enrichment_scan
from . import grouped_ridge as grouped_ridge
from . import label_swaps as label_swaps
from . import usable_information as usable_information
from .logistic_probe import Logistic as Logistic
from .logistic_probe import logistic as logistic
