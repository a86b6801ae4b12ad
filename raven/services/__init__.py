"""One wiring file per console script, and nothing but wiring."""
