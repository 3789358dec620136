"""Publishing a model: its card, the privacy check of what is uploaded, and the push to a Hub."""
