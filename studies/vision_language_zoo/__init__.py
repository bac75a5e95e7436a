"""Vision-language models of known truth: what the verdict says of them."""
