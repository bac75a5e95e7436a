from .case_writing import Written as Written
from .case_writing import written as written
from .draft import Draft as Draft
from .draft import drafted as drafted
