"""Commands that a user may never need, each in a file of its own: `python -m modeling_icd.extras.NAME --help`."""
