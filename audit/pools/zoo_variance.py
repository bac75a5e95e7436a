"""The between-base share: how alike models of one base are in the joint score, estimated from the zoo's worlds.

Every world of the zoo has a base of its own, so that what its clean models share beyond chance is a base's, its facts'
and its recipe's together: more than a base's alone, which errs to the side of wider bounds.
"""

import math

import numpy as np

from audit.calibration import JOINT, Joint, joint_rule, read, read_library, stored, table_of
from audit.stats import intraclass_share, significant

WITHOUT_ZOO = 1.0
"""Where no zoo is stored: worlds of one base are then worth one."""


def between_base_share() -> float:
    """The intraclass share of the stored joint score among the zoo's clean models, by world."""
    library = read_library(stored())
    if library.subjects is None or not (library.folder / JOINT).is_file():
        return WITHOUT_ZOO
    joint = read(library.folder / JOINT, Joint)
    table = table_of(library.subjects, library.calibrations, joint.columns)
    places = {column: n for n, column in enumerate(table.columns)}
    rows = np.nan_to_num(table.x[table.people.clean], nan=0.0)
    score = [
        joint_rule.apply(joint, {column: float(row[places[column]]) for column in joint.columns}).score for row in rows
    ]
    share = intraclass_share(np.array(score), table.people.world[table.people.clean])
    return WITHOUT_ZOO if math.isnan(share) else significant(share, 3)
