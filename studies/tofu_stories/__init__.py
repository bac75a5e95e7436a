"""Real input: a pretrained story model is taught real TOFU authors, made to forget some, and audited."""
