"""ICD-9 and ICD-10 codes: how they are written, which are diagnoses, what is above them in the hierarchy, titles."""
