import json
import math

import pytest
import torch
from own_process import run_python
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    pipeline,
)

from modeling_icd import LlamaForICDCoding, LlamaMultiResCNNForICD
from modeling_icd.windows_icd import window_groups, window_starts


SMALL_CNN = {"filter_sizes": [3, 5], "num_filter_maps": 4, "reduction_size": 8}
MODELS = {
    "last": (LlamaForICDCoding, {"pooling": "last"}),
    "mean": (LlamaForICDCoding, {"pooling": "mean"}),
    "label_attention": (LlamaForICDCoding, {"pooling": "label_attention"}),
    "multirescnn": (LlamaMultiResCNNForICD, SMALL_CNN),
    "middle_layer": (LlamaMultiResCNNForICD, {**SMALL_CNN, "hidden_layer": 1, "normalize_hidden_states": True}),
    "ensemble": (LlamaMultiResCNNForICD, {**SMALL_CNN, "head_ensemble_size": 2}),
}


def make(name, backbone, **fields):
    model_class, own = MODELS[name]
    torch.manual_seed(1)
    return model_class.from_pretrained(backbone, num_labels=5, **{**own, **fields}).eval()


@pytest.fixture(params=list(MODELS))
def name(request):
    return request.param


def notes(*lengths, seed=0):
    """Random notes, right-padded with 0, and their mask."""
    generator = torch.Generator().manual_seed(seed)
    ids, mask = torch.zeros(len(lengths), max(lengths), dtype=torch.long), torch.zeros(len(lengths), max(lengths))
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(1, 40, (length,), generator=generator)
        mask[row, :length] = 1
    return ids, mask.long()


def test_only_the_head_is_new(name, backbone):
    model, source = make(name, backbone), LlamaForCausalLM.from_pretrained(backbone).state_dict()
    for key, value in model.state_dict().items():
        assert key.startswith("score.") or torch.equal(value, source[key]), key


def test_a_bare_llama_gives_the_same_backbone(backbone, tmp_path):
    LlamaModel.from_pretrained(backbone).save_pretrained(tmp_path)
    ids, mask = notes(7)
    torch.manual_seed(1)
    bare = LlamaForICDCoding.from_pretrained(tmp_path, num_labels=5).eval()
    assert torch.equal(bare(ids, mask).logits, make("last", backbone)(ids, mask).logits)


def test_save_and_load_is_exact(name, backbone, tmp_path):
    model = make(name, backbone, window_size=8, window_stride=6)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    ids, mask = notes(20, 5)
    assert torch.equal(model(ids, mask).logits, again(ids, mask).logits)
    for auto in (AutoModel, AutoModelForSequenceClassification):
        assert type(auto.from_pretrained(tmp_path)) is type(model)


def test_padding_and_batching_change_no_logit(name, backbone):
    model = make(name, backbone, window_size=8, window_stride=6)
    lengths = [20, 3, 8, 9, 1]
    ids, mask = notes(*lengths)
    logits = model(ids, mask).logits
    for row, length in enumerate(lengths):
        alone = model(ids[row : row + 1, :length]).logits
        torch.testing.assert_close(logits[row : row + 1], alone, atol=1e-4, rtol=1e-4)
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(model(ids[order], mask[order]).logits, logits[order], atol=1e-4, rtol=1e-4)


def test_left_padding_changes_no_logit(name, backbone):
    model = make(name, backbone, window_size=8, window_stride=6)
    ids, mask = notes(20, 11)
    flipped_ids, flipped_mask = ids.clone(), mask.clone()
    flipped_ids[1], flipped_mask[1] = ids[1].roll(9), mask[1].roll(9)
    torch.testing.assert_close(model(ids, mask).logits, model(flipped_ids, flipped_mask).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("length", "starts"), [(1, [0]), (8, [0]), (9, [0, 6]), (14, [0, 6]), (15, [0, 6, 12]), (20, [0, 6, 12])]
)
def test_windows_reach_the_last_token_and_none_is_empty(length, starts):
    assert window_starts(length, window_size=8, window_stride=6) == starts


def test_a_note_without_a_token_has_no_window():
    assert list(window_groups([5, 0, 9], 8, 6, 8)) == [[(5, 13, 5)], [(0, 5, 0)], [(11, 14, 13)]]


@pytest.mark.parametrize("hidden_layer", [0, 1, 2])
def test_three_windows_equal_a_stitching_by_hand(backbone, hidden_layer):
    model = make("last", backbone, window_size=8, window_stride=6, hidden_layer=hidden_layer)
    llama = LlamaModel.from_pretrained(backbone).eval()
    ids, mask = notes(19)

    def states(start, end):
        return llama(ids[:, start:end], output_hidden_states=True).hidden_states[hidden_layer]

    # windows 0-8, 6-14, 12-19; each after the first leaves out its first two tokens, which the one before it holds
    by_hand = torch.cat([states(0, 8), states(6, 14)[:, 2:], states(12, 19)[:, 2:]], dim=1)
    torch.testing.assert_close(model.read_hidden_states(ids, mask), by_hand, atol=1e-4, rtol=1e-4)


def test_without_windows_a_note_beyond_the_backbone_is_an_error_not_a_truncation(backbone):
    model = make("last", backbone)
    ids, mask = notes(65)
    with pytest.raises(ValueError, match=r"65 tokens.*`window_size`"):
        model(ids, mask)


def test_ready_hidden_states_give_the_same_logits(name, backbone):
    model = make(name, backbone, window_size=8, window_stride=6)
    ids, mask = notes(20, 5)
    states = model(ids, mask, output_hidden_states=True).hidden_states
    assert torch.equal(model(hidden_states=states, attention_mask=mask).logits, model(ids, mask).logits)


def test_tuple_and_dict_outputs_agree(name, backbone):
    model = make(name, backbone)
    ids, mask = notes(6)
    output = model(ids, mask, labels=torch.ones(1, 5), output_label_attentions=True)
    as_tuple = model(ids, mask, labels=torch.ones(1, 5), output_label_attentions=True, return_dict=False)
    assert all(torch.equal(a, b) for a, b in zip(output.to_tuple(), as_tuple, strict=True))
    if name != "ensemble":  # whose loss is the mean over its heads
        expected = torch.nn.functional.binary_cross_entropy_with_logits(output.logits, torch.ones(1, 5))
        torch.testing.assert_close(output.loss, 5 * expected)  # the sum over the codes


@pytest.mark.parametrize("pooling", ["label_attention", "multirescnn"])
def test_an_ensemble_averages_heads_that_start_apart_and_learn_apart(pooling, backbone):
    model = make(pooling, backbone, head_ensemble_size=3)
    ids, mask = notes(6, 4)
    labels = torch.tensor([[1.0, 0, 0, 1, 0], [0, 0, 1, 0, 0]])
    output = model(ids, mask, labels=labels, output_label_attentions=True, output_hidden_states=True)
    logits, attentions = zip(*(member(output.hidden_states, mask) for member in model.score.members), strict=True)
    assert not torch.allclose(logits[0], logits[1], atol=1e-3)
    torch.testing.assert_close(output.logits, sum(logits) / 3)
    torch.testing.assert_close(output.label_attentions, sum(attentions) / 3)
    losses = [torch.nn.functional.binary_cross_entropy_with_logits(one, labels) for one in logits]
    torch.testing.assert_close(output.loss, 5 * sum(losses) / 3)


def test_last_pooling_is_llama_for_sequence_classification_both_ways(backbone, tmp_path):
    ids, mask = notes(9, 4)
    ours = make("last", backbone)
    ours.save_pretrained(tmp_path / "ours")
    theirs = LlamaForSequenceClassification.from_pretrained(tmp_path / "ours").eval()
    assert set(ours.state_dict()) == set(theirs.state_dict())
    torch.testing.assert_close(theirs(ids, mask).logits, ours(ids, mask).logits)
    torch.testing.assert_close(theirs(ids).logits, ours(ids).logits)
    theirs.save_pretrained(tmp_path / "theirs")
    back = LlamaForICDCoding.from_pretrained(tmp_path / "theirs", num_labels=5).eval()
    assert torch.equal(back(ids, mask).logits, ours(ids, mask).logits)


def test_frozen_backbone_gets_no_gradient_and_the_rest_does(name, backbone):
    ids, mask = notes(9, 4)
    for frozen in (False, True):
        model = make(name, backbone, freeze_backbone=frozen, window_size=8, window_stride=6).train()
        assert model.model.training is not frozen
        assert all(parameter.requires_grad is not frozen for parameter in model.model.parameters())
        model(ids, mask, labels=torch.zeros(2, 5)).loss.backward()
        for key, parameter in model.named_parameters():
            expected = key.startswith("score.") or not frozen
            assert (parameter.grad is not None) is expected, key


def test_gradient_checkpointing_changes_no_gradient(backbone):
    ids, mask = notes(9, 4)
    gradients = []
    for checkpointing in (False, True):
        model = make("mean", backbone).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(ids, mask, labels=torch.ones(2, 5)).loss.backward()
        gradients.append(model.model.layers[0].mlp.up_proj.weight.grad)
    torch.testing.assert_close(*gradients)


def test_eager_and_sdpa_agree(backbone):
    ids, mask = notes(9, 4)
    logits = [make("multirescnn", backbone, attn_implementation=a)(ids, mask).logits for a in ("eager", "sdpa")]
    torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)


def test_bf16_runs_and_stays_near_fp32(name, backbone):
    ids, mask = notes(20, 4)
    half = make(name, backbone, dtype=torch.bfloat16, window_size=8, window_stride=6)
    assert half.dtype == torch.bfloat16
    logits = half(ids, mask, labels=torch.ones(2, 5)).logits
    full = make(name, backbone, window_size=8, window_stride=6)
    torch.testing.assert_close(logits.float(), full(ids, mask).logits, atol=0.25, rtol=0.1)


def test_a_few_steps_overfit_eight_notes(name, backbone):
    model = make(name, backbone, head_dropout=0.0).train()
    ids, mask = notes(*range(5, 13))
    labels = torch.randint(0, 2, (8, 5), generator=torch.Generator().manual_seed(3)).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        loss = model(ids, mask, labels=labels).loss
        loss.backward()
        optimizer.step()
    assert loss < 0.1


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "exactly one"),
        ({"input_ids": torch.ones(1, 0, dtype=torch.long)}, "empty note"),
        ({"input_ids": torch.ones(1, 3, dtype=torch.long), "labels": torch.ones(1, 4)}, "one column per code"),
        (
            {
                "input_ids": torch.ones(4, 2, dtype=torch.long),
                "attention_mask": torch.tensor([[1, 1], [0, 0], [1, 0], [0, 0]]),
            },
            r"empty note .* no 1 in the rows \[1, 3\]",
        ),
        (
            {"input_ids": torch.ones(1, 3, dtype=torch.long), "attention_mask": torch.ones(1, 2, dtype=torch.long)},
            r"`attention_mask` has shape \(1, 2\) for notes of shape \(1, 3\)",
        ),
        (
            {"hidden_states": torch.tensor([[[0.0] * 16], [[math.nan] * 16]])},
            r"`hidden_states` hold NaN .* rows \[1\]",
        ),
        (
            {
                "input_ids": torch.ones(5, 1, dtype=torch.long),
                "labels": torch.tensor([0.5, math.nan, 1, -100, math.inf])[:, None].expand(5, 5),
            },
            r"`labels` must be numbers from 0 to 1, and are NaN or others in the rows \[1, 3, 4\]",
        ),
        ({"inputs_embeds": torch.full((1, 2, 16), math.inf)}, r"backbone gives NaN or infinity for the rows \[0\]"),
    ],
)
def test_wrong_inputs_are_named(backbone, inputs, message):
    with pytest.raises(ValueError, match=message):
        make("last", backbone)(**inputs)


def test_a_head_that_gives_nan_is_named(name, backbone):
    model = make(name, backbone)
    with torch.no_grad():
        next(model.score.parameters()).fill_(math.nan)
    with pytest.raises(
        ValueError, match=r"head gives NaN or infinity for the rows \[0, 1\] .* of finite hidden states"
    ):
        model(*notes(5, 3))


NOTE = "fever and cough\n\nno evidence of pneumonia sepsis due to acute renal failure " * 4


def test_pipelines(name, backbone, tmp_path):
    labels = dict(enumerate(["486", "401.9", "038.9", "584.9", "96.71"]))
    model = make(
        name,
        backbone,
        window_size=8,
        window_stride=6,
        id2label=labels,
        label2id={code: i for i, code in labels.items()},
        code_descriptions={"486": "Pneumonia, organism unspecified"},
    )
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(backbone).save_pretrained(tmp_path)
    scores = pipeline("text-classification", model=str(tmp_path), top_k=None)(NOTE)[0]
    assert {row["label"] for row in scores} == set(labels.values())
    coded = pipeline("icd-coding", model=str(tmp_path), trust_remote_code=True)(NOTE, top_k=5)
    assert {row["code"]: pytest.approx(row["score"]) for row in coded} == {r["label"]: r["score"] for r in scores}
    for row in coded:
        assert row["decision"] is None
        assert row["description"] == ("Pneumonia, organism unspecified" if row["code"] == "486" else None)
        if name == "last":
            assert row["evidence"] is None
        else:
            assert len(row["evidence"]) <= 3 and (row["evidence"] or name == "mean")  # a mean may speak against it
            assert all(NOTE[s["start"] : s["end"]] == s["text"] and s["text"] for s in row["evidence"])
    default = pipeline("icd-coding", model=str(tmp_path), trust_remote_code=True)(NOTE)
    assert {row["code"] for row in default} == {row["label"] for row in scores if row["score"] > 0.5}


def test_the_pipeline_calibrates_decides_and_says_what_to_review(backbone, tmp_path):
    model = make("label_attention", backbone, window_size=8, window_stride=6)
    calibration = {
        "method": "platt",
        "bands": ["rare", "frequent"],
        "slopes": [0.5, 2.0],
        "intercepts": [0.3, -0.3],
        "band_of_code": [0, 0, 1, 1, 1],
    }
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    logits = model(**tokenizer(NOTE, return_tensors="pt")).logits[0].tolist()
    expected = [1 / (1 + math.exp(-(0.5 * x + 0.3 if i < 2 else 2 * x - 0.3))) for i, x in enumerate(logits)]
    by_score = sorted(range(5), key=lambda i: -expected[i])
    between = (expected[by_score[1]] + expected[by_score[2]]) / 2
    model.config.update({"calibration": calibration, "review_threshold": between, "review_precision": 0.9})
    labels = model.config.id2label

    def code(**call):
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        return pipeline("icd-coding", model=str(tmp_path), trust_remote_code=True)(NOTE, **call)

    model.config.update({"threshold": 0.0})
    rows = code()
    assert [row["code"] for row in rows] == [labels[i] for i in by_score]
    assert [row["score"] for row in rows] == pytest.approx([expected[i] for i in by_score])
    assert [row["decision"] for row in rows] == ["confident"] * 2 + ["review"] * 3
    model.config.update({"threshold_rule": "top_k", "predict_top_k": 3})
    assert [row["code"] for row in code()] == [labels[i] for i in by_score[:3]]
    assert [row["code"] for row in code(top_k=1)] == [labels[by_score[0]]]
    assert [row["code"] for row in code(threshold=between)] == [labels[i] for i in by_score[:2]]


CLEAN_PROCESS = """
import json, sys
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline
note, *folders = sys.argv[1:]
try:
    import modeling_icd
except ImportError:
    pass
else:
    raise SystemExit("the project must not be importable here")
trust = {"trust_remote_code": True}
for folder in folders:
    inputs = AutoTokenizer.from_pretrained(folder, **trust)(note, return_tensors="pt")
    inputs = {k: inputs[k] for k in ("input_ids", "attention_mask")}
    logits = [auto.from_pretrained(folder, **trust)(**inputs).logits[0].tolist()
              for auto in (AutoModel, AutoModelForSequenceClassification)]
    text = pipeline("text-classification", model=folder, top_k=None, **trust)(note)[0]
    coded = pipeline("icd-coding", model=folder, **trust)(note, top_k=2)
    print(json.dumps({"logits": logits, "text": len(text), "coded": len(coded)}))
"""


def run_clean(program, note, working_dir, *folders) -> list[dict]:
    """What a program prints of each folder as JSON, in a process that has the libraries, and not this project."""
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(working_dir / "cache")}
    run = run_python("-c", program, note, *folders, cwd=working_dir, environment=environment)
    assert run.returncode == 0, run.stderr[-2000:]
    results = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    assert len(results) == len(folders)
    return results


def test_saved_folders_work_in_a_clean_process(backbone, tmp_path):
    models = {name: make(name, backbone, window_size=8, window_stride=6) for name in ("last", "multirescnn")}
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    results = run_clean(CLEAN_PROCESS, NOTE, tmp_path, *(tmp_path / name for name in models))
    inputs = tokenizer(NOTE, return_tensors="pt")
    for model, result in zip(models.values(), results, strict=True):
        expected = model(inputs["input_ids"], inputs["attention_mask"]).logits[0]
        for logits in result["logits"]:
            torch.testing.assert_close(torch.tensor(logits), expected, atol=1e-5, rtol=1e-5)
        assert (result["text"], result["coded"]) == (5, 2)
