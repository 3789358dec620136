"""Publishing a model: its card, the check that nothing confidential goes out, the push, and the package for PhysioNet."""
