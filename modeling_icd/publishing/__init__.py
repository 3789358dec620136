"""Publishing a model: its card, the check that nothing confidential goes out, and the push."""
