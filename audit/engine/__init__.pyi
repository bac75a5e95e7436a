from .domain import domain_of as domain_of
from .editing import Edited as Edited
from .editing import EditRequest as EditRequest
from .editing import edit as edit
from .runner import Run as Run
from .runner import plan as plan
from .runner import prepare as prepare
from .runner import run as run
