"""Numbers and hostile text as words, for the judge and for every view alike."""
