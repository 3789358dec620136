"""One module for each data set, which reads the user's own files, and what these modules share."""
