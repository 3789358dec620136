"""Evaluate a checkpoint: `python evaluate.py --help`.

This file has the name of the `evaluate` library and, run from this folder, comes before it on `sys.path`. So when it is
imported, it steps aside: it finds the installed library and puts that in its own place.
"""

import sys
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...  # a type checker run from here takes this file for the library, too

elif __name__ == "__main__":
    try:
        from modeling_icd.evaluation.cli import main
    except KeyboardInterrupt:  # while libraries are read, which takes seconds
        sys.exit(130)
    sys.exit(main())

elif __name__ == "evaluate":
    import importlib.util
    import os
    from importlib.machinery import PathFinder

    here = os.path.dirname(os.path.realpath(__file__))
    elsewhere = [entry for entry in sys.path if os.path.realpath(entry or os.getcwd()) != here]
    spec = PathFinder.find_spec("evaluate", elsewhere)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(
            "The `evaluate` library is not installed: run `pip install evaluate`.", name="evaluate"
        )
    library = importlib.util.module_from_spec(spec)
    sys.modules["evaluate"] = library
    spec.loader.exec_module(library)
