"""`pipeline("icd-coding")`: a batch is what its notes are one by one; what may be a note, and what is said of what is none."""

import functools
import inspect
import itertools
import random
import string

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from modeling_icd import (
    LlamaForICDCoding,
    LlamaICDConfig,
    LlamaMultiResCNNConfig,
    LlamaMultiResCNNForICD,
)
from modeling_icd.pipeline_icd import LIST_AHEAD, STREAM_AHEAD, batches_by_length


WORDS = [
    "fever",
    "cough",
    "pneumonia",
    "ruled",
    "out",
    "no",
    "evidence",
    "of",
    "the",
    "patient",
    "has",
    "sepsis",
    "due",
    "to",
    "and",
    "with",
    "acute",
    "renal",
    "failure",
]
TINY = {
    "vocab_size": 400,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "num_labels": 5,
    "window_size": 16,
    "window_stride": 12,
    "threshold": 0.4,
}
CNN = {"filter_sizes": [3, 5], "num_filter_maps": 4, "reduction_size": 8}
HEADS = {
    "last": (LlamaForICDCoding, LlamaICDConfig, {"pooling": "last"}),
    "mean": (LlamaForICDCoding, LlamaICDConfig, {"pooling": "mean"}),
    "label_attention": (LlamaForICDCoding, LlamaICDConfig, {"pooling": "label_attention"}),
    "multirescnn": (LlamaMultiResCNNForICD, LlamaMultiResCNNConfig, CNN),
    "ensemble": (LlamaMultiResCNNForICD, LlamaMultiResCNNConfig, {**CNN, "head_ensemble_size": 2}),
}


def word_tokenizer():
    vocabulary = {"[UNK]": 1, **{word: i + 2 for i, word in enumerate(dict.fromkeys(WORDS))}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")  # none for padding


def save_coder(folder) -> str:
    """The folder with a coder whose tokenizer reads bytes."""
    coder = coder_with(tokenizer=byte_tokenizer())
    coder.model.save_pretrained(folder)
    coder.tokenizer.save_pretrained(folder)
    return str(folder)


def byte_tokenizer(padding_side="left"):
    """As Llama 3's: bytes, the space before a word belongs to its token, and a special token begins every note."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, initial_alphabet=alphabet, special_tokens=["<s>"], show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<s>", padding_side=padding_side
    )


def coder_with(head="label_attention", tokenizer=None):
    model_class, config_class, own = HEADS[head]
    torch.manual_seed(1)
    model = model_class(config_class(**TINY, **own)).eval()
    return pipeline("icd-coding", model=model, tokenizer=tokenizer or word_tokenizer(), device="cpu")


@pytest.fixture(scope="module")
def coder():
    return coder_with()


def invented_notes(count=9):
    """From one word to five windows."""
    draw = random.Random(4)
    return [" ".join(draw.choices(WORDS, k=k)) for k in [1, 60, 3, 17, 16, 35, 2, 8, 50, 4, 16, 1][:count]]


def assert_same(given, expected):
    """Codes and places of spans are equal, and their scores and weights to 1e-5."""
    assert len(given) == len(expected)
    for codes, others in zip(given, expected, strict=True):
        assert [code["code"] for code in codes] == [code["code"] for code in others]
        for code, other in zip(codes, others, strict=True):
            assert code["score"] == pytest.approx(other["score"], abs=1e-5)
            assert (code["decision"], code["description"]) == (other["decision"], other["description"])
            assert (code["evidence"] is None) == (other["evidence"] is None)
            for span, another in zip(code["evidence"] or [], other["evidence"] or [], strict=True):
                assert span.pop("weight") == pytest.approx(another["weight"], abs=1e-5)
                assert span == {name: another[name] for name in ("start", "end", "text", "source")}


@pytest.mark.parametrize("tokenizer", [word_tokenizer, byte_tokenizer, lambda: byte_tokenizer("right")])
@pytest.mark.parametrize("head", HEADS)
def test_a_batch_gives_what_one_by_one_gives(head, tokenizer):
    coder = coder_with(head, tokenizer())
    notes = invented_notes()
    rows = datasets.Dataset.from_dict({"text": notes})
    for call in ({}, {"threshold": 0.0, "num_spans": 2}, {"top_k": 3}):
        one_by_one = [coder(note, **call) for note in notes]
        assert any(one_by_one)
        assert_same(coder(notes, batch_size=2, **call), one_by_one)
        assert_same(coder(notes, batch_size=8, num_workers=2, **call), one_by_one)
    assert_same(list(coder((note for note in notes), batch_size=4, **call)), one_by_one)
    assert_same(list(coder(KeyDataset(rows, "text"), batch_size=4, **call)), one_by_one)
    assert_same(coder(rows["text"], batch_size=4, **call), one_by_one)


def test_every_code_is_scored_for_its_own_note_as_the_model_scores_it(coder):
    notes = invented_notes()
    for note, codes in zip(notes, coder(notes, batch_size=4, top_k=5), strict=True):
        ids = torch.tensor([coder.tokenizer(note)["input_ids"]])
        scores = coder.model(ids, torch.ones_like(ids)).logits[0].sigmoid().tolist()
        assert {code["code"]: pytest.approx(code["score"], abs=1e-5) for code in codes} == {
            coder.model.config.id2label[i]: score for i, score in enumerate(scores)
        }


def test_the_batch_size_of_the_pipeline_holds_for_its_calls():
    coder = coder_with("mean")
    batched = pipeline("icd-coding", model=coder.model, tokenizer=coder.tokenizer, batch_size=4, device="cpu")
    sizes = []
    batched.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    assert_same(batched(["fever"] * 6), [coder("fever")] * 6)
    assert sizes == [4, 2, 1]


@settings(max_examples=50)
@given(st.lists(st.integers(0, 5000), max_size=60), st.integers(1, 9), st.none() | st.integers(1, 3000))
def test_batches_hold_every_note_once_and_less_than_half_of_them_is_padding(lengths, batch_size, max_tokens):
    batches = batches_by_length(lengths, batch_size, max_tokens)
    assert sorted(itertools.chain(*batches)) == [i for i, length in enumerate(lengths) if length > 0]
    for batch in batches:
        own = [lengths[i] for i in batch]
        assert len(batch) <= batch_size
        assert 2 * sum(own) >= len(own) * max(own)
        assert max_tokens is None or len(own) == 1 or len(own) * max(own) <= max_tokens


def test_batches_are_as_full_as_they_may_be():
    assert batches_by_length([3, 100, 90, 0, 60, 2, 49], 8) == [[1, 2, 4], [6], [0, 5]]
    assert batches_by_length([3, 100, 90, 0, 60, 2, 49], 2) == [[1, 2], [4, 6], [0, 5]]
    assert batches_by_length([3, 100, 90, 0, 60, 2, 49], 8, max_tokens=200) == [[1, 2], [4, 6], [0, 5]]


def test_notes_of_mixed_length_are_read_with_little_padding(coder, monkeypatch):
    read = []
    forward = coder._forward
    monkeypatch.setattr(
        coder, "_forward", lambda inputs, **rule: (read.append(inputs["attention_mask"]), forward(inputs, **rule))[1]
    )
    notes = [" ".join(["fever"] * length) for length in [60, 2] * 16]
    coder(notes, batch_size=8)
    assert [tuple(mask.shape) for mask in read] == [(8, 60), (8, 60), (8, 2), (8, 2)]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_stream_stays_a_stream(coder, batch_size):
    read = 0

    def endless():
        nonlocal read
        for read in itertools.count(1):
            yield WORDS[read % len(WORDS)]

    results = coder(endless(), batch_size=batch_size)
    assert inspect.isgenerator(results)
    first = list(itertools.islice(results, 3))
    assert_same(first, [coder(WORDS[i]) for i in (1, 2, 3)])
    assert read <= (3 if batch_size == 1 else STREAM_AHEAD * batch_size)
    assert STREAM_AHEAD < LIST_AHEAD


class Notes(Dataset):
    """A torch data set that has no end but its length."""

    def __len__(self):
        return 3

    def __getitem__(self, i):
        return ["fever", "cough", "sepsis"][i % 3]


class Indexed:
    """Neither a list nor a torch data set, but it can be gone through."""

    def __iter__(self):
        return iter(["fever", "cough", "sepsis"])


THREE = ["fever", "cough", "sepsis"]
ROWS = datasets.Dataset.from_dict({"text": THREE, "hadm_id": [1, 2, 3]})


@pytest.mark.parametrize(
    ("inputs", "is_list"),
    [
        (THREE, True),
        (tuple(THREE), True),
        (np.array(THREE), True),
        (np.array(THREE, dtype=object), True),
        (pd.Series(THREE, index=[7, 8, 9]), True),
        (ROWS["text"], True),
        ([{"text": note} for note in THREE], True),
        (ROWS.select_columns("text"), True),
        ((note for note in THREE), False),
        (map(str, THREE), False),
        (KeyDataset(ROWS, "text"), False),
        (Notes(), False),
        (Indexed(), False),
        (ROWS.to_iterable_dataset()["text"], False),
        (({"text": note} for note in THREE), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_it_takes_what_pipelines_take(coder, inputs, is_list):
    expected = [coder(note) for note in THREE]
    coded = coder(inputs, batch_size=2)
    assert isinstance(coded, list) == is_list
    assert_same(list(coded), expected)


def test_one_note_gives_its_codes_and_no_note_gives_none(coder):
    assert_same([coder({"text": "fever"}), coder(np.str_("fever"))], [coder("fever")] * 2)
    for nothing in ([], (), np.array([], dtype=str), pd.Series([], dtype=str), ROWS.select([])["text"]):
        assert coder(nothing, batch_size=2) == []
    assert list(coder(iter([]))) == []


@pytest.mark.parametrize("tokenizer", [word_tokenizer, byte_tokenizer])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_blank_note_gets_no_codes_and_one_warning(tokenizer, batch_size, caplog):
    coder = coder_with(tokenizer=tokenizer())
    notes = ["fever", "", "cough and sepsis", " \n\t", "\u2003", "no fever"]
    for inputs in (notes, (note for note in notes)):
        caplog.clear()
        coded = list(coder(inputs, batch_size=batch_size, top_k=2))
        assert [len(codes) for codes in coded] == [2, 0, 2, 0, 0, 2]
        assert [record.getMessage() for record in caplog.records] == ["3 of 6 notes are blank and get no codes."]
        assert_same([codes for codes in coded if codes], coder([note for note in notes if note.strip()], top_k=2))
    assert coder("", top_k=2) == coder({"text": " "}, top_k=2) == []
    assert coder(["", ""], top_k=2, batch_size=batch_size) == [[], []]


def test_a_note_of_which_the_tokenizer_keeps_nothing_counts_as_blank(caplog):
    coder = coder_with()
    vanishing = Tokenizer(models.WordLevel({"fever": 2, "[UNK]": 1}, unk_token="[UNK]"))
    vanishing.pre_tokenizer = pre_tokenizers.Split("\x00", "removed")
    coder.tokenizer = PreTrainedTokenizerFast(tokenizer_object=vanishing, unk_token="[UNK]")
    assert [len(codes) for codes in coder(["fever", "\x00\x00"], top_k=1)] == [1, 0]
    assert "1 of 2 notes are blank" in caplog.text


def test_text_classification_refuses_a_blank_note_with_the_models_own_words(coder):
    """It hands every note to the model, which has no answer without a token; `icd-coding` does not ask it."""
    tokenizer = word_tokenizer()
    tokenizer.pad_token = "[UNK]"  # it batches with no other
    stock = pipeline("text-classification", model=coder.model, tokenizer=tokenizer, device="cpu")
    for inputs, batch_size in (("", 1), (["fever", " "], 1), (["fever", " "], 2)):
        with pytest.raises(ValueError, match="An empty note cannot be coded"):
            stock(inputs, batch_size=batch_size)
    assert stock("fever", top_k=1)[0]["label"] == coder("fever", top_k=1)[0]["code"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            {"threshold": "0.5"},
            "`threshold` must be a number in [0, 1], got a string: give the number without quotes.",
        ),
        ({"threshold": [0.5]}, "`threshold` must be a number in [0, 1], got list."),
        ({"threshold": float("nan")}, "`threshold` must be a number in [0, 1], got nan."),
        ({"threshold": True}, "`threshold` must be a number in [0, 1], got True."),
        (
            {"top_k": "3"},
            "`top_k` must be a whole number of at least 1, got a string: give the number without quotes.",
        ),
        ({"top_k": 0}, "`top_k` must be a whole number of at least 1, got 0."),
        ({"top_k": 2.5}, "`top_k` must be a whole number of at least 1, got 2.5."),
        ({"num_spans": "x"}, "`num_spans` must be a whole number of at least 0, got a string"),
        ({"num_spans": -1}, "`num_spans` must be a whole number of at least 0, got -1."),
        ({"batch_size": "2"}, "`batch_size` must be a whole number of at least 1, got a string"),
        ({"batch_size": 0}, "`batch_size` must be a whole number of at least 1, got 0."),
        ({"num_workers": "x"}, "`num_workers` must be a whole number of at least 0, got a string"),
        (
            {"temperature": 1},
            "Unknown arguments ['temperature']: icd-coding knows threshold, top_k, num_spans, evidence_method and",
        ),
    ],
)
def test_a_wrong_argument_gets_one_message(coder, call, message):
    for notes in ("fever", ["fever", "cough"], []):
        with pytest.raises(ValueError) as error:
            coder(notes, **call)
        assert str(error.value).startswith(message)
    if "batch_size" in call:
        made = pipeline("icd-coding", model=coder.model, tokenizer=coder.tokenizer, device="cpu", **call)
        with pytest.raises(ValueError, match="batch_size"):
            made("fever")


def test_numbers_of_numpy_are_numbers(coder):
    assert_same(
        [coder("fever", top_k=np.int64(2)), coder("fever", threshold=np.float32(0.25))],
        [coder("fever", top_k=2), coder("fever", threshold=0.25)],
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["secret", None], "Note 1 (counted from 0) is no string but NoneType: drop it, or give its text."),
        (pd.Series(["secret", float("nan")]), "Note 1 (counted from 0) is no string but float"),
        (np.array([1.5, 2.5]), "Note 0 (counted from 0) is no string but float64"),
        ([["secret"]], "Note 0 (counted from 0) is no string but list"),
        ([b"secret"], "Note 0 (counted from 0) is no string but bytes"),
        ([{"text": "secret"}, {"text": None}], "Note 1 (counted from 0) is no string but NoneType"),
        ({"text": ["secret"]}, "The note is no string but list"),
        ({"text": "secret", "text_pair": "secret"}, 'The note has other fields than "text"'),
        (ROWS, 'Note 0 (counted from 0) has other fields than "text"'),
        (None, "Give a note (a string), or several in an order (a list, a column, a generator), not NoneType."),
        (3, "Give a note (a string), or several in an order (a list, a column, a generator), not int."),
        (b"secret", "Give a note (a string), or several in an order (a list, a column, a generator), not bytes."),
        (
            {"secret"},
            "Give a note (a string), or several in an order (a list, a column, a generator), not set.",
        ),
        (pd.DataFrame({"text": ["secret"]}), "Give one column of notes, got 2 dimensions (DataFrame)."),
        (np.array("secret"), "Give one column of notes, got 0 dimensions (ndarray)."),
    ],
    ids=str,
)
def test_what_is_no_note_is_named_by_its_place_and_never_shown(coder, inputs, message):
    with pytest.raises(ValueError) as error:
        coder(inputs, batch_size=2)
    assert str(error.value).startswith(message) and "secret" not in str(error.value)
    if isinstance(inputs, list) and len(inputs) > 1:
        with pytest.raises(ValueError) as error:
            list(coder((note for note in inputs), batch_size=2))
        assert str(error.value).startswith(message)


ODD = [
    *string.ascii_lowercase[:4],
    *" \n\t\r\x00\x0b\x1c\x85\xa0\u200b\u2028\ufeff",  # spaces of all kinds, and NUL
    *"\ud800\udbff\udc00\udfff",  # halves of surrogate pairs
    *"e\u0301\u0327漢字ßﬁ٣",  # letters with marks that join them, a ligature
    "\U0001f600",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # one picture of five characters
    "fever",
]


@pytest.mark.parametrize("tokenizer", [word_tokenizer, byte_tokenizer])
def test_odd_notes_are_coded_and_their_spans_are_places_in_the_note_as_given(tokenizer):
    draw = random.Random(11)
    notes = ["".join(draw.choices(ODD, k=draw.randint(1, 30))) for _ in range(500)]
    notes += ["\x00", "\ud800", "\udfff\ud800", "\ud83d\ude00", "a\ud800 fever", "\x00 fever \x00"]
    coder = coder_with(tokenizer=tokenizer())
    coded = coder(notes, batch_size=16, top_k=2)
    assert_spans_are_in(notes, coded)
    assert all(len(codes) == (2 if note.strip() else 0) for note, codes in zip(notes, coded, strict=True))


def assert_spans_are_in(notes, coded):
    for note, codes in zip(notes, coded, strict=True):
        for span in (span for code in codes for span in code["evidence"]):
            assert 0 <= span["start"] < span["end"] <= len(note)
            assert span["text"] == note[span["start"] : span["end"]] == span["text"].strip()
            assert 0 < span["weight"] <= 1 + 1e-6
            assert span["source"] in ("attention", "integrated_gradients")


@settings(max_examples=50)
@given(st.lists(st.text(st.characters(codec=None), max_size=40), max_size=5))
def test_any_strings_are_coded(notes):
    assert_spans_are_in(notes, coder_of_bytes()(notes, batch_size=3, top_k=1))


@functools.cache
def coder_of_bytes():
    return coder_with(tokenizer=byte_tokenizer())


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16", torch.float32])
def test_dtype_and_device_are_taken(dtype, tmp_path, coder):
    coder.model.save_pretrained(tmp_path)
    coder.tokenizer.save_pretrained(tmp_path)
    other = pipeline(
        "icd-coding", model=str(tmp_path), trust_remote_code=True, dtype=dtype, device=torch.device("cpu")
    )
    assert str(other.model.dtype) == f"torch.{str(dtype).removeprefix('torch.')}"
    for codes, exact in zip(
        other(invented_notes(), batch_size=4, top_k=5), coder(invented_notes(), top_k=5), strict=True
    ):
        scores = {code["code"]: code["score"] for code in exact}
        assert all(code["score"] == pytest.approx(scores[code["code"]], abs=0.05) for code in codes)
        assert all(isinstance(code["score"], float) and code["evidence"] for code in codes)
