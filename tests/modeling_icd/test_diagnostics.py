"""What a run says about whether its model learns: the figures at each evaluation, each against a direct computation, and
the yardsticks at the end."""

import copy
import json

import datasets
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig

from modeling_icd import LlamaForICDCoding
from modeling_icd.evaluation import ICDMetricsAccumulator
from modeling_icd.evaluation.cli import main as evaluate
from modeling_icd.evaluation.yardsticks import training_warning
from modeling_icd.training import diagnostics
from modeling_icd.training.arguments import ICDTrainingArguments
from modeling_icd.training.collator import ICDCollator
from modeling_icd.training.diagnostics import GradientNorms, attention_entropy, fit_tfidf
from modeling_icd.training.run import main
from modeling_icd.training.trainer import make_trainer, predict_split


CODES = [[0], [0, 2], [1], [0, 1], [], [2, 3], [0], [0, 2]]


def tiny_model(backbone, **options):
    torch.manual_seed(0)
    options = {"num_labels": 4, "pooling": "label_attention", "window_size": 32, "head_dropout": 0.0} | options
    return LlamaForICDCoding.from_pretrained(backbone, **options)


def tokenized(codes=CODES):
    lengths = [3 + 4 * (i % 5) for i in range(len(codes))]
    ids = [[(7 * i + j) % 20 + 2 for j in range(length)] for i, length in enumerate(lengths)]
    return datasets.Dataset.from_dict({"input_ids": ids, "label_ids": codes, "length": lengths})


def tiny_trainer(model, tmp_path, **options):
    given = {"max_grad_norm": 1.0, "num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3}
    given |= {"save_strategy": "no", "load_best_model_at_end": False, "disable_tqdm": True, "logging_strategy": "no"}
    args = ICDTrainingArguments(str(tmp_path), use_cpu=True, **given | options)
    return make_trainer(model, args, tokenized(), tokenized(CODES[:5]), ICDCollator(4), None, [[1, 2]])


def evaluations(trainer):
    return [entry for entry in trainer.state.log_history if "eval_map" in entry]


def test_frequencies_and_predicted_codes_against_all_scores(backbone, tmp_path):
    trainer = tiny_trainer(tiny_model(backbone), tmp_path, num_train_epochs=1, score_storage="float32")
    trainer.train()
    (logged,) = evaluations(trainer)
    # Training notes of the codes: 5, 2, 3, 1. The note without text has scores of 0, here as for the model.
    table = np.tile(np.array([5, 2, 3, 1], np.float32) / 8, (6, 1))
    table[5] = 0
    accumulator = ICDMetricsAccumulator(4)
    accumulator.add_batch(table, [*CODES[:5], [1, 2]])
    assert logged["eval_map_of_frequencies"] == pytest.approx(accumulator.compute()["map"])
    scores = torch.from_numpy(predict_split(trainer, trainer.eval_dataset)).sigmoid().numpy()
    is_predicted = (scores > np.float32(logged["eval_threshold"])).any(axis=0)
    assert logged["eval_codes_predicted"] == is_predicted.mean()


def inputs_of(note):
    ids = torch.tensor([note["input_ids"]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_attention_entropy_by_hand(backbone):
    model = tiny_model(backbone).eval()
    short, long = (inputs_of(note) for note in tokenized().select([0, 1]))
    one = {name: values[:, :1] for name, values in short.items()}
    expected = []
    for inputs in (short, long):
        attentions = model(**inputs, output_label_attentions=True).label_attentions[0].detach().double()  # (C, L)
        expected.append(-(attentions * attentions.log()).sum(dim=1).mean() / np.log(attentions.shape[1]))
    assert attention_entropy(model, [short, long, one]) == pytest.approx(float(sum(expected)) / 2, abs=1e-5)
    assert attention_entropy(model, [one]) is None  # of which 0 / 0 would be the share
    # Padding counts for nothing, here as in the model.
    batch = ICDCollator(4)([{**note} for note in tokenized().select([0, 1])])
    batch.pop("labels")
    assert attention_entropy(model, [batch]) == pytest.approx(float(sum(expected)) / 2, abs=1e-5)
    model.score.queries.weight.data.zero_()
    assert attention_entropy(model, [long]) == pytest.approx(1)
    model.score.queries.weight.data.normal_(std=1e4)
    assert attention_entropy(model, [long]) < 0.05


def test_a_head_that_does_not_attend_has_no_entropy(backbone, tmp_path):
    trainer = tiny_trainer(tiny_model(backbone, pooling="mean"), tmp_path, num_train_epochs=1)
    trainer.train()
    (logged,) = evaluations(trainer)
    assert "eval_attention_entropy" not in logged and "eval_grad_norm_head" in logged


def direct_norms(model, batches):
    """Norms of the gradients of the mean loss over batches of one size, for the head and the backbone."""
    model = copy.deepcopy(model).train()
    for batch in batches:
        (model(**batch).loss / len(batches)).backward()
    parts = {"head": [], "backbone": []}
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            parts["head" if "score." in name else "backbone"].append(weight.grad.flatten())
    return {part: torch.cat(grads).norm().item() for part, grads in parts.items() if grads}


@pytest.mark.parametrize("max_grad_norm", [0.0, 1e-3, 1e3])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_gradient_norms_are_those_before_clipping(max_grad_norm, accumulated, backbone, tmp_path):
    model = tiny_model(backbone)
    notes = [dict(note) for note in tokenized()]
    batches = [ICDCollator(4)(notes[i : i + 8 // accumulated]) for i in range(0, 8, 8 // accumulated)]
    expected = direct_norms(model, batches)
    trainer = tiny_trainer(
        model,
        tmp_path,
        max_grad_norm=max_grad_norm,
        max_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        gradient_accumulation_steps=accumulated,
        per_device_train_batch_size=8 // accumulated,
        train_sampling_strategy="sequential",
    )
    trainer.train()
    (logged,) = evaluations(trainer)
    assert logged["eval_grad_norm_head"] == pytest.approx(expected["head"], rel=1e-3)
    assert logged["eval_grad_norm_backbone"] == pytest.approx(expected["backbone"], rel=1e-3)


def test_gradient_norms_are_means_of_steps_and_start_afresh():
    model = torch.nn.ModuleDict(
        {"score": torch.nn.Linear(1, 1, bias=False), "model": torch.nn.Linear(1, 1, bias=False)}
    )
    norms = GradientNorms()
    assert norms.take() == {}
    # Clipped from 3 and 4 to 0.3 and 0.4; then an overflow, which is left out; then 6 and 8, not clipped.
    for head, backbone, total in ((0.3, 0.4, 5.0), (np.nan, np.nan, np.inf), (6.0, 8.0, torch.tensor(10.0))):
        model["score"].weight.grad = torch.tensor([[head]])
        model["model"].weight.grad = torch.tensor([[backbone]])
        norms.add_step(model, total)
    assert norms.take() == pytest.approx({"grad_norm_head": 4.5, "grad_norm_backbone": 6.0})
    model["model"].weight.grad = None
    model["score"].weight.grad = torch.zeros(1, 1)
    norms.add_step(model, 0.0)
    assert norms.take() == {"grad_norm_head": 0.0}


@pytest.mark.parametrize("mode", ["frozen", "lora", "bfloat16"])
def test_each_way_of_training_logs_what_it_has(mode, backbone, tmp_path):
    model = tiny_model(backbone, freeze_backbone=mode == "frozen")
    if mode == "lora":
        lora = LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj"], modules_to_save=["score"])
        model = get_peft_model(model, lora)
    trainer = tiny_trainer(model, tmp_path, bf16=mode == "bfloat16")
    trainer.train()
    first, second = evaluations(trainer)
    for logged in (first, second):
        assert 0 < logged["eval_attention_entropy"] <= 1
        assert logged["eval_grad_norm_head"] > 0
        assert ("eval_grad_norm_backbone" in logged) == (mode != "frozen")
    assert first["eval_grad_norm_head"] != second["eval_grad_norm_head"]
    assert json.dumps(trainer.state.log_history)  # plain numbers


def test_diagnostics_change_no_weight(backbone, tmp_path):
    trained = []
    for has_diagnostics in (True, False):
        trainer = tiny_trainer(tiny_model(backbone, head_dropout=0.3), tmp_path, max_grad_norm=0.1)
        if not has_diagnostics:
            trainer.diagnostics = None
        trainer.train()
        trained.append(trainer.model.state_dict())
    for name, weight in trained[0].items():
        assert torch.equal(weight, trained[1][name]), name


def test_too_many_notes_and_codes_are_left_out_and_said_so(monkeypatch, capsys):
    monkeypatch.setattr(diagnostics, "MAX_TFIDF_PAIRS", 5)
    assert fit_tfidf(["cough", "fever", "cough"], [[0], [1], [0]], ["cough"], 2) is None
    said = "The TF-IDF yardstick is left out: 3 training notes and 2 codes are too many.\n"
    assert capsys.readouterr().out == said
    assert fit_tfidf(["cough"], [[0]], ["cough"], 2) is None
    assert "too few to share words" in capsys.readouterr().out
    scores = fit_tfidf(["cough", "fever", "cough", "fever"], [[0], [1], [0], [1]], ["fever"], 1 + 1)
    assert scores is None and "4 training notes" in capsys.readouterr().out
    monkeypatch.setattr(diagnostics, "MAX_TFIDF_PAIRS", 8)
    scores = fit_tfidf(["cough", "fever", "cough", "fever"], [[0], [1], [0], [1]], ["fever"], 2)
    assert scores.dtype == np.float32 and scores[0, 1] > 0.5 > scores[0, 0]


REPORT = """<doc id="{id}" type="RADIOLOGY_REPORT"><codes>{codes}</codes><texts>
<text origin="CCHMC_RADIOLOGY" type="CLINICAL_HISTORY"></text><text origin="CCHMC_RADIOLOGY" type="IMPRESSION">the patient has {words}</text></texts></doc>"""
CODE = '<code origin="CMC_MAJORITY" type="ICD-9-CM">{}</code>'
CODE_OF = {"cough": "786.2", "fever": "780.6", "pneumonia": "486", "sepsis": "V42.0", "renal": "593.1", "acute": "462"}


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Invented reports in which each code has a word of its own; the first words are the most frequent."""
    generator = np.random.default_rng(0)
    docs = []
    for number in range(160):
        chances = np.array([0.7, 0.4, 0.2, 0.1, 0.1, 0.1])
        words = [word for word, chance in zip(CODE_OF, chances, strict=True) if generator.random() < chance]
        codes = "".join(CODE.format(CODE_OF[word]) for word in words or ["cough"])
        docs.append(REPORT.format(id=number, codes=codes, words=" and the ".join(words or ["cough"])))
    folder = tmp_path_factory.mktemp("reports")
    (folder / "reports.xml").write_text(f"<docs>{''.join(docs)}</docs>")
    return folder


@pytest.fixture
def train(reports, backbone, tmp_path, capsys):
    def run(**options):
        given = {"model": "direct", "pooling": "label_attention", "freeze_backbone": True, "window_size": 32}
        given |= {"dataset": "cmc2007", "use_cpu": True, "disable_tqdm": True, "num_train_epochs": 1}
        given |= {"backbone": backbone, "data_dir": reports, "output_dir": tmp_path / "model"}
        assert main([f"--{name}={value}" for name, value in (given | options).items()]) == 0
        return AutoConfig.from_pretrained(tmp_path / "model").training_data, capsys.readouterr()

    return run


def warnings_in(printed):
    return [line for line in printed.err.splitlines() if line.startswith("warning:")]


def test_a_run_that_learns_nothing_says_so_in_training_and_in_evaluation(train, reports, tmp_path):
    record, printed = train(learning_rate=0, head_start="random")
    found = record["yardsticks"]
    assert found["below"] == ["frequencies", "tfidf"]
    assert found["model"]["map"] < found["frequencies"]["map"]
    assert found["model"]["f1_micro"] < found["tfidf"]["f1_micro"]
    warning = training_warning(record)
    assert warnings_in(printed) == [f"warning: o{warning[1:]} See docs/training.md on what to do."]
    log = json.loads((tmp_path / "model" / "run.json").read_text())["log"]
    (logged,) = [entry for entry in log if "eval_map" in entry]
    assert logged["eval_map"] == pytest.approx(found["model"]["map"])
    assert logged["eval_map_of_frequencies"] == pytest.approx(found["frequencies"]["map"])
    output = tmp_path / "results"
    options = ["--dataset=cmc2007", f"--data_dir={reports}", "--split=validation", f"--output_dir={output}"]
    assert evaluate([str(tmp_path / "model"), *options]) == 0
    assert json.loads((output / "results.json").read_text())["training_warning"] == warning


def test_a_run_that_learns_says_nothing(train):
    record, printed = train(learning_rate=0.03, num_train_epochs=8)
    found = record["yardsticks"]
    assert found["below"] == [] and training_warning(record) is None and warnings_in(printed) == []
    assert found["model"]["map"] > found["frequencies"]["map"]


def test_a_run_without_tf_idf_compares_with_frequencies_alone(train):
    record, _ = train(learning_rate=0, head_start="random", tfidf_yardstick=False)
    assert record["yardsticks"].keys() == {"model", "frequencies", "below"}
    assert record["yardsticks"]["below"] == ["frequencies"]


def test_what_is_refitted_on_validation_keeps_the_figures_of_before(train):
    record, _ = train(refit_on_validation=True, learning_rate=0, head_start="random")
    assert record["yardsticks"]["below"] == ["frequencies", "tfidf"]
