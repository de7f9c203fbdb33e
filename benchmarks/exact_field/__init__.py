"""Cost of the exact field beside other ways of computing it: time, error, memory; ``python -m exact_field``."""
