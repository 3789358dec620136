"""The metric of this project as an `evaluate` module: `evaluate.load(<this folder>)`, or the accumulator on its own."""
