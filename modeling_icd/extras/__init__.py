"""Commands for special needs, each in a file of its own; run `modeling-icd NAME --help`."""
