"""`pipeline("icd-coding")`: a note in; codes with descriptions, scores and the text that their attention weighs most."""

import re

import torch
from transformers import Pipeline

from .scores import calibrated_scores
from .sharing_icd import PushGuard, guard_tokenizer


TASK = "icd-coding"
CUSTOM_PIPELINES = {
    TASK: {
        "impl": "pipeline_icd.ICDCodingPipeline",
        "pt": ["AutoModelForSequenceClassification"],
        "type": "text",
        "default": None,
    }
}


class ICDCodingPipeline(PushGuard, Pipeline):
    """Codes notes of any length.

    Call arguments:
        threshold (`float`, *optional*): in place of the model's own; a code is predicted when its score is greater.
        top_k (`int`, *optional*): the k best codes, whatever their score, in place of a threshold.
        num_spans (`int`, defaults to 3): how many evidence spans a code gets at most.

    Returns, for each note, a list by falling score of
    `{"code", "description", "score", "decision", "evidence": [{"start", "end", "text", "weight"}]}`. Scores are
    calibrated where the model's configuration says how. `decision` is `"confident"`, or `"review"` where fewer of such
    predictions were right than the model was asked for, or `None` where it was asked for nothing. Evidence has character
    offsets into the note as given, and the share of the code's attention inside the span. `description` is `None` where
    the model has none, `evidence` is `None` where its head does not attend (`pooling` `last` or `mean`).
    """

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        guard_tokenizer(self.tokenizer, self.shared_record())

    def shared_record(self):
        return self.model.config.training_data

    def _sanitize_parameters(self, threshold=None, top_k=None, num_spans=None, **unknown):
        if unknown:
            raise ValueError(f"Unknown arguments {sorted(unknown)}: {TASK} knows threshold, top_k and num_spans.")
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"`threshold` must be in [0, 1], got {threshold}.")
        if top_k is not None and top_k < 1:
            raise ValueError(f"`top_k` must be at least 1, got {top_k}.")
        given = {"threshold": threshold, "top_k": top_k, "num_spans": num_spans}
        return {}, {}, {name: value for name, value in given.items() if value is not None}

    def preprocess(self, note):
        if not isinstance(note, str) or not note.strip():
            raise ValueError("A note must be a string with text in it.")
        if self.tokenizer is None or not self.tokenizer.is_fast:
            raise ValueError("Evidence needs character offsets: load the model with a fast tokenizer.")
        # A note is longer than many a tokenizer's `model_max_length`; the model reads it in windows, so no truncation.
        encoded = self.tokenizer(note, return_tensors="pt", return_offsets_mapping=True, verbose=False)
        return {"note": note, "offsets": encoded.pop("offset_mapping")[0].tolist(), **encoded}

    def _forward(self, model_inputs):
        inputs = {name: model_inputs[name] for name in ("input_ids", "attention_mask")}
        output = self.model(**inputs, output_label_attentions=True)
        return {
            "note": model_inputs["note"],
            "offsets": model_inputs["offsets"],
            "logits": output.logits[0],
            "label_attentions": None if output.label_attentions is None else output.label_attentions[0],
        }

    def postprocess(self, outputs, threshold=None, top_k=None, num_spans=3):
        config = self.model.config
        scores = calibrated_scores(outputs["logits"], config.calibration)
        attentions = outputs["label_attentions"]
        descriptions = config.code_descriptions or {}
        return [
            {
                "code": (code := config.id2label[i]),
                "description": descriptions.get(code),
                "score": (score := scores[i].item()),
                "decision": decision_of(score, config.review_threshold),
                "evidence": None
                if attentions is None
                else evidence_spans(outputs["note"], outputs["offsets"], attentions[i].float().tolist(), num_spans),
            }
            for i in predicted_codes(scores, config, threshold, top_k)
        ]


def predicted_codes(scores, config, threshold: float | None = None, top_k: int | None = None) -> list[int]:
    """Class ids of a note's predicted codes by falling score, after the model's own rule unless another one is given.

    Args:
        scores (`torch.Tensor` of shape `(C,)`): calibrated.
        config (`LlamaICDConfig`): of the model.
        threshold, top_k (*optional*): as in the pipeline's call.
    """
    order = scores.argsort(descending=True, stable=True).tolist()
    if top_k is None and threshold is None:
        top_k = config.predict_top_k
    if top_k is not None:
        return order[:top_k]
    limits = torch.as_tensor(config.threshold if threshold is None else threshold).expand(len(scores))
    return [i for i in order if scores[i] > limits[i]]


def decision_of(score: float, review_threshold: float | None) -> str | None:
    """What to do with a predicted code: take it (`"confident"`) or look at it (`"review"`)."""
    if review_threshold is None:
        return None
    return "confident" if score > review_threshold else "review"


def evidence_spans(note: str, offsets: list, weights: list[float], num_spans: int) -> list[dict]:
    """The words that hold most of a code's attention, neighbours joined.

    Args:
        note (`str`): as given; the words are read from it.
        offsets (`list` of `(start, end)`): characters of each token, (0, 0) for special tokens.
        weights (`list[float]`): attention of each token, as long as `offsets`.
        num_spans (`int`): how many spans to return at most.

    Returns:
        Spans by falling weight, none overlapping another, each from the start of a word to the end of one.
    """
    words = [m.span() for m in re.finditer(r"\S+", note)]
    word_weights = [0.0] * len(words)
    word = 0
    for (start, end), weight in zip(offsets, weights, strict=True):
        while word + 1 < len(words) and words[word + 1][0] < end:
            word += 1
        if words and end > start and end > words[word][0]:
            word_weights[word] += weight
    # A word counts when it holds at least a fifth of the heaviest word's share: enough to join a phrase, and to leave
    # out the flat rest of a note.
    floor = max(word_weights, default=0.0) / 5
    spans: list[dict] = []
    previous = None
    for i, ((start, end), weight) in enumerate(zip(words, word_weights, strict=True)):
        if weight == 0 or weight < floor:
            continue
        if previous == i - 1 and spans:
            spans[-1]["end"] = end
            spans[-1]["weight"] += weight
        else:
            spans.append({"start": start, "end": end, "weight": weight})
        previous = i
    spans.sort(key=lambda span: (-span["weight"], span["start"]))
    return [
        {"start": s["start"], "end": s["end"], "text": note[s["start"] : s["end"]], "weight": s["weight"]}
        for s in spans[:num_spans]
    ]
