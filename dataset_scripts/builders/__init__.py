"""The builders: one module for each data set, which reads the user's own files, and the modules that they share."""
