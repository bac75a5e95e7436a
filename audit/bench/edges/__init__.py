"""The edges between the parts of a model: their graph, their attribution, exact patching."""
