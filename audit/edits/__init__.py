"""One edit per file: cures, attacks and unlearners, the one way in which weights or activations change."""
