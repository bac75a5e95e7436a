"""How hard will it be? A forecast before anything is unlearned: base, the forget set, and models of known truth."""
