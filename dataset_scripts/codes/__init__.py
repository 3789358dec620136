"""ICD-9 and ICD-10 codes: where the dot goes, diagnosis or procedure, the hierarchy above a code, titles."""
