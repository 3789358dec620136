"""What an Inference Endpoint answers: as the pipeline, and one message for a request that it cannot answer."""

import pytest
import torch
from transformers import AutoTokenizer

from modeling_icd import LlamaForICDCoding
from modeling_icd.handler import EndpointHandler


NOTES = [
    "fever cough and sepsis",
    "no evidence of pneumonia",
    "",
    "the patient has renal failure due to sepsis",
    "cough",
]


@pytest.fixture(scope="module")
def handler(backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("endpoint")
    torch.manual_seed(1)
    LlamaForICDCoding.from_pretrained(
        backbone, num_labels=5, window_size=8, pooling="label_attention", threshold=0.3
    ).save_pretrained(folder)
    AutoTokenizer.from_pretrained(backbone).save_pretrained(folder)
    return EndpointHandler(folder)


def test_a_request_in_batches_gives_what_a_request_for_each_note_gives(handler):
    sizes = []
    hook = handler.coder.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    parameters = {"top_k": 3, "num_spans": 1}
    one_by_one = [handler({"inputs": note, "parameters": parameters}) for note in NOTES]
    together = handler({"inputs": NOTES, "parameters": {**parameters, "batch_size": 4}})
    hook.remove()
    assert sizes == [1, 1, 1, 1, 3, 1]  # of 8, 4 and 4 tokens, and of 1: none is read with more than twice its length
    assert [len(codes) for codes in together] == [3, 3, 0, 3, 3]
    for codes, expected in zip(together, one_by_one, strict=True):
        for code, other in zip(codes, expected, strict=True):
            assert code["score"] == pytest.approx(other.pop("score"), abs=1e-5)
            assert [span.pop("weight") for span in code["evidence"]] == pytest.approx(
                [span.pop("weight") for span in other["evidence"]], abs=1e-5
            )
            del code["score"]
            assert code == other


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, 'A request needs "inputs": a note (a string), or a list of notes.'),
        ({"inputs": None}, 'A request needs "inputs": a note (a string), or a list of notes.'),
        ({"inputs": 5}, 'A request needs "inputs": a note (a string), or a list of notes.'),
        (["secret"], 'A request needs "inputs": a note (a string), or a list of notes.'),
        ({"inputs": ["secret", 5]}, "Note 1 (counted from 0) is no string but int: drop it, or give its text."),
        ({"inputs": [["secret"]]}, "Note 0 (counted from 0) is no string but list: drop it, or give its text."),
        ({"inputs": {"note": "secret"}}, 'The note has other fields than "text"'),
        ({"inputs": "secret", "parameter": {}}, "A request may hold inputs, parameters; parameter is none of these."),
        ({"inputs": "secret", 5: 1, "x": 2}, "A request may hold inputs, parameters; 5, x is none of these."),
        (
            {"inputs": "secret", "parameters": {None: 1, "x": 2}},
            '"parameters" may hold threshold, top_k, num_spans, batch',
        ),
        ({"inputs": {5: "secret"}}, 'The note has other fields than "text"'),
        ({"inputs": "secret", "parameters": 3}, '"parameters" must be an object with any of threshold, top_k, '),
        (
            {"inputs": "secret", "parameters": {"temperature": 1}},
            '"parameters" may hold threshold, top_k, num_spans, batch_size; temperature is none of these.',
        ),
        (
            {"inputs": "secret", "parameters": {"inputs": 1}},
            '"parameters" may hold threshold, top_k, num_spans, batch',
        ),
        (
            {"inputs": "secret", "parameters": {"threshold": "0.5"}},
            "`threshold` must be a number in [0, 1], got a str",
        ),
        ({"inputs": [], "parameters": {"batch_size": "8"}}, "`batch_size` must be a whole number of at least 1, got"),
    ],
    ids=str,
)
def test_a_bad_request_gets_one_message_which_holds_no_text(handler, request_, message):
    with pytest.raises(ValueError) as error:
        handler(request_)
    assert str(error.value).startswith(message) and "secret" not in str(error.value)


def test_a_request_for_nothing_is_answered_with_nothing(handler):
    assert handler({"inputs": []}) == handler({"inputs": " "}) == handler({"inputs": "", "parameters": None}) == []


def test_a_request_beyond_the_limit_is_refused_before_it_is_read(handler, monkeypatch):
    monkeypatch.setattr(EndpointHandler, "max_bytes", 20)
    assert handler({"inputs": ["fever cough", "sepsis"], "parameters": {"top_k": 1}})
    message = "The notes of this request hold 21 bytes of text, and at most 20 are coded at once"
    for notes in (
        "fever" * 4 + "s",
        ["fever cough", {"text": "pneumonia."}],
        "\U0001f600" * 5 + "s",
        "s" * 18 + "\ud800é",
    ):
        with pytest.raises(ValueError) as error:
            handler({"inputs": notes})
        assert str(error.value).startswith(message)


def test_the_limit_takes_the_longest_summaries():
    assert EndpointHandler.max_bytes == 400_000
