"""The page: code a note in the browser, look at the words behind each code, and correct the list. `modeling-icd space` starts it."""
