"""What the verdict says of image classifiers of known truth."""
