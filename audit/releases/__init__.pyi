from .case_writing import Written as Written
from .case_writing import written as written
from .chat_recipe import Recipe as Recipe
from .chat_recipe import recipe as recipe
from .clues import Asked as Asked
from .draft import Draft as Draft
from .draft import drafted as drafted
