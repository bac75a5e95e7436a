from .demonstration import Audited as Audited
from .demonstration import World as World
from .demonstration import demonstrate as demonstrate
from .parser import build_parser as build_parser
from .process import main as main
from .progress import Progress as Progress
