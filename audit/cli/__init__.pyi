from .demonstration import Audited as Audited
from .demonstration import World as World
from .demonstration import demonstrate as demonstrate
from .process import main as main
from .progress import Progress as Progress
