"""A head that is not of this project: one class and one row, and it trains, saves, loads and codes."""

import pytest
import torch
from test_models import notes
from torch import nn
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

from modeling_icd import HeadRow, ICDConfig, LlamaICDConfig, ModelForICDCoding, Option, register_head
from modeling_icd.heads import HEADS, require_positive


class GatedHead(nn.Module):
    """Reads a note with a GRU and sums its states by a learned gate, the same for every code."""

    def __init__(self, hidden_size: int, num_labels: int, width: int, dropout: float = 0.0):
        super().__init__()
        self.reader = nn.GRU(hidden_size, width, batch_first=True)
        self.gate = nn.Parameter(torch.empty(width))
        self.output = nn.Linear(width, num_labels)
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.normal_(self.gate)

    def forward(self, hidden_states, attention_mask, need_attentions=True):
        states = self.reader(self.dropout(hidden_states))[0]
        weights = (states @ self.gate).masked_fill(attention_mask == 0, -1e4).softmax(dim=1)
        attentions = weights[:, None].expand(-1, self.output.out_features, -1) if need_attentions else None
        return self.output((weights[..., None] * states).sum(dim=1)), attentions


@pytest.fixture(autouse=True)
def gated():
    register_head(
        "gated", HeadRow(GatedHead, attends=True, options={"width": Option(6, require_positive)}, dropout=0.1)
    )
    yield
    del HEADS["gated"]


def make(backbone, **fields):
    torch.manual_seed(1)
    return ModelForICDCoding.from_pretrained(backbone, num_labels=5, head="gated", window_size=8, **fields)


def test_it_trains_saves_and_loads(backbone, tmp_path):
    model = make(backbone, head_options={"width": 10})
    assert (model.config.head_dropout, model.score.gate.shape) == (0.1, (10,))
    weights = torch.cat([weight.detach().flatten() for weight in model.score.parameters()])
    assert weights.isfinite().all() and weights.abs().max() < 5
    rows = [{"input_ids": ids, "labels": torch.eye(5)[i % 5]} for i, ids in enumerate(notes(*[9] * 10)[0])]
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    args = TrainingArguments(
        tmp_path / "run", max_steps=4, per_device_train_batch_size=5, learning_rate=0.05, report_to="none"
    )
    Trainer(model, args, train_dataset=rows).train()
    assert all(not torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    model.eval().save_pretrained(tmp_path / "model")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    assert (type(again.score), again.config.head_options) == (GatedHead, {"width": 10})
    ids, mask = notes(20, 5)
    output = again(ids, mask, output_label_attentions=True)
    assert torch.equal(output.logits, model(ids, mask).logits)
    assert output.label_attentions.shape == (2, 5, 20)
    torch.testing.assert_close(output.logits[1:], again(ids[1:, :5]).logits, atol=1e-5, rtol=1e-5)


def test_several_of_it_make_an_ensemble(backbone):
    assert len(make(backbone, head_ensemble_size=3).score.members) == 3


def test_where_it_is_not_registered_the_error_says_so(backbone, tmp_path):
    make(backbone).save_pretrained(tmp_path)
    row = HEADS.pop("gated")
    with pytest.raises(ValueError, match=r"`head` must be one of last, .*, got 'gated'. .* `register_head`"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)
    HEADS["gated"] = row
    with pytest.raises(ValueError, match="There is a head 'gated' already"):
        register_head("gated", row)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head": "gated", "head_options": {"width": 0}}, "`width` must be a whole number of at least 1, got 0"),
        ({"head": "gated", "head_options": {"depth": 2}}, "'gated' has no option `depth`: it takes width"),
        (
            {"head": "mean", "head_ensemble_size": 2},
            r"needs `head` 'label_attention' or 'multirescnn' or .* or 'gated', got",
        ),
        ({"head": "multirescnn", "head_options": {"filter_sizes": [4]}}, "`filter_sizes` must be odd, got 4"),
        ({"head": "multirescnn", "head_options": {"filter_sizes": 3}}, "`filter_sizes` must be a list"),
        ({"head": ["last"]}, r"`head` must be one of"),
    ],
)
def test_what_it_cannot_be_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        ICDConfig.from_backbone(LlamaICDConfig(), **fields)
    if fields["head"] == "gated":
        with pytest.raises(ValueError, match=r"LlamaICDConfig has no field `head`.* use ICDConfig"):
            LlamaICDConfig(head="gated")
