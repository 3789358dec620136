"""An invented corpus in the shape of MIMIC-III v1.4 or MIMIC-IV v2.2, with the words that justify each code.

    modeling-icd synthetic --output_dir DIR --num_admissions 1000 --seed 0

The folder then holds the tables that the builder of that data set reads (same names, columns, quoting and compression),
and `evidence.jsonl.gz`: for each discharge summary and addendum, the character spans of its text that justify each code,
and those that only mention a code which does not apply. No patient, hospital or note in it is real.

One subject at a time: `admissions` draws who is admitted and with which codes, `notes` puts that into words with the help
of `wording` and `layout`, `mimic3` and `mimic4` write the tables. What the notes say is in the YAML files beside them, which
`content` reads: concepts, rules, labs_and_drugs, phrases.
"""

from .mimic3 import write_corpus
from .notes import LENGTHS


__all__ = ["LENGTHS", "write_corpus"]
