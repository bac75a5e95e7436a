"""What every probe stands on: a probe imports this room and no other of ours.

Its own words are the models of a case, the rows of a person, scores, effects and item tables; whatever else a probe
needs from the rooms below (records, the bench, rows, statistics, read-outs) is handed out here too. Only a probe that
makes an attack also imports its edit, from ``audit.edits``, which stands above.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
