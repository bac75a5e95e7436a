from .forecaster import forecast as forecast
from .model import FITTED as FITTED
from .model import PREDICTORS as PREDICTORS
from .model import Fitted as Fitted
from .model import normal_scores as normal_scores
from .model import ridge as ridge
