"""A coder that asks a language model about the candidates of a retriever: what is asked, how it is scored and learned."""

import datasets
import pytest
import torch

from modeling_icd import GenerativeForICD, ModelForICDCoding
from modeling_icd.generative.training import check_context
from modeling_icd.generative.verifying import verifying_examples
from modeling_icd.inference.loop import logits_of_notes
from modeling_icd.prompts_icd import VERIFY_INSTRUCTION
from modeling_icd.verify_icd import NOT_ASKED, Candidate, Retriever, Row
from modeling_icd.windows_icd import pad_rows


PRESSURE, HEART, LUNG = range(3)  # class ids of the codes
NOTES = ["first visit: weak heart", "nothing", "second visit: lung infection and high blood pressure", "no weak heart"]


def said(coder, tokens) -> str:
    return coder.tokenizer.decode(tokens)


def test_a_prompt_holds_the_passage_and_the_code_with_its_title(make_verifier):
    coder = make_verifier(question="Is it {code}?")
    start = [*coder.prompter.before, *coder.prompter.text_tokens("weak heart")]
    assert said(coder, [*start, *coder.verifier.question(HEART), *coder.verifier.answer(True)]) == (
        f"<s>system\n{VERIFY_INSTRUCTION}</s>\n<s>user\nweak heart\n\nIs it 428.0, Congestive heart failure?</s>\n<s>assistant\nyes</s>"
    )
    assert said(coder, coder.verifier.question(LUNG)).startswith("\n\nIs it 486?</s>")  # which has no title here


@torch.no_grad()
def test_the_odds_of_yes_are_those_of_its_tokens_by_the_language_model(make_verifier):
    coder = make_verifier()
    rows = [
        Row(
            [*coder.prompter.before, *coder.prompter.text_tokens(text)],
            [coder.verifier.question(c) for c in class_ids],
        )
        for text, class_ids in (("weak heart", [HEART, PRESSURE]), ("x", [LUNG]), ("high blood pressure", [0, 1, 2]))
    ]

    def log_prob(prompt, answer) -> float:
        told = coder.model(torch.tensor([[*prompt, *answer]])).logits[0].double().log_softmax(dim=-1)
        return sum(told[len(prompt) + i - 1, token].item() for i, token in enumerate(answer))

    found = coder.verifier.log_odds(coder.model, rows)
    assert [len(odds) for odds in found] == [2, 1, 3]
    for row, odds in zip(rows, found, strict=True):
        for question, value in zip(row.questions, odds, strict=True):
            yes, no = (log_prob([*row.start, *question], coder.prompter.tokens(word)) for word in ("yes", "no"))
            assert value == pytest.approx(yes - no, abs=1e-3)
    assert len({round(value, 3) for odds in found for value in odds}) == 6


def test_a_batch_gives_what_each_note_gets_alone_and_other_codes_are_below(make_verifier):
    coder = make_verifier()
    alone = [logits_of_notes(coder, coder.tokenizer, [note]) for note in NOTES]
    together = torch.tensor(logits_of_notes(coder, coder.tokenizer, NOTES, batch_size=4))
    torch.testing.assert_close(together, torch.cat([torch.tensor(row) for row in alone]), atol=1e-4, rtol=1e-4)
    # Who says visit is asked about a lung infection, too; what is denied is no candidate.
    assert (together > NOT_ASKED + 1).tolist() == [
        [False, True, True],
        [False, False, False],
        [True, False, True],
        [False, False, False],
    ]
    figures = coder.verifier.say_counts(2.0)
    assert (figures["notes"], figures["candidates"], figures["notes_per_second"]) == (8, 8, 4.0)


def test_codes_that_are_not_asked_about_keep_the_order_of_the_retriever(make_verifier):
    coder = make_verifier(num_candidates=1)
    text = "second visit: lung infection and high blood pressure"
    (proposed,) = coder.verifier.propose([text])
    logits = torch.tensor(logits_of_notes(coder, coder.tokenizer, [text]))[0]
    assert len(proposed.candidates) == 1
    best, second, third = proposed.scores.argsort(descending=True).tolist()
    assert logits[best] > -14 > logits[second] > logits[third]
    (of_retriever,) = make_verifier(retriever_weight=1.0, num_candidates=1).verifier.code_logits(coder.model, [text])
    assert of_retriever[best].sigmoid().item() == pytest.approx(proposed.scores[best].item(), abs=1e-5)


def test_a_passage_lies_around_the_words_and_is_shared_by_codes_of_the_same_place(make_verifier):
    coder = make_verifier(passage_tokens=16)
    text = "x" * 30 + " weak heart " + "y" * 30
    place = (text.index("weak"), text.index("heart") + 5)
    passages = coder.verifier.passages(text, [Candidate(HEART, 0.0, place), Candidate(LUNG, 0.0, place)])
    ((tokens, candidates),) = passages
    assert said(coder, tokens) == "xx weak heart yy" and [c.class_id for c in candidates] == [HEART, LUNG]
    for span, expected in (((0, 2), "x" * 16), ((70, 72), "y" * 16)):  # at the ends of a note
        ((tokens, _),) = coder.verifier.passages(text, [Candidate(HEART, 0.0, span)])
        assert said(coder, tokens) == expected
    short = coder.verifier.passages("weak heart", [Candidate(HEART, 0.0, (0, 4)), Candidate(LUNG, 0.0, (5, 10))])
    assert [(said(coder, tokens), len(of_place)) for tokens, of_place in short] == [("weak heart", 2)]


def test_where_no_words_are_told_the_whole_note_is_read_and_never_cut(make_verifier):
    text = "weak heart\n" * 12  # 132 tokens
    coder = make_verifier()
    parts = coder.verifier.passages(text, [Candidate(HEART, 0.0, None)])
    assert "".join(said(coder, tokens) for tokens, _ in parts) == text and len(parts) == 2
    whole = make_verifier(passage_tokens=0)
    with pytest.raises(ValueError, match="1 of 1 notes have more than 100 tokens"):
        logits_of_notes(whole, whole.tokenizer, [text])
    in_parts = make_verifier(passage_tokens=0, long_notes="sections")
    ids = in_parts.prompter.text_tokens(text)
    halves = [in_parts.prompter.text_of(part) for part in in_parts.prompter.sections(ids)]
    found = in_parts.verifier.code_logits(in_parts.model, [text, *halves])
    assert found[0, HEART].item() == pytest.approx(found[1:, HEART].max().item(), abs=1e-4)


@pytest.mark.parametrize(("head", "tells"), [("label_attention", True), ("last", False)])
def test_a_classifier_proposes_codes_and_tells_their_words_if_it_can(make_verifier, language_model, head, tells):
    torch.manual_seed(0)
    labels = {0: "486", 1: "E950.1", 2: "428.0"}
    model = ModelForICDCoding.from_pretrained(language_model, id2label=labels, head=head).eval()
    bare = make_verifier()
    coder = make_verifier(Retriever(model, bare.tokenizer), candidate_threshold=0.0, passage_tokens=4)
    assert coder.reads_passages is tells
    expected = torch.tensor(logits_of_notes(model, bare.tokenizer, NOTES)).sigmoid().double()
    for proposed, scores in zip(coder.verifier.propose(NOTES), expected, strict=True):
        torch.testing.assert_close(proposed.scores[[LUNG, HEART]], scores[[0, 2]], atol=1e-5, rtol=1e-5)
        assert proposed.scores[PRESSURE] == 0  # which the classifier does not know, nor the coder E950.1
        found = [LUNG, HEART] if scores[0] > scores[2] else [HEART, LUNG]
        assert [candidate.class_id for candidate in proposed.candidates] == found
        assert [candidate.span is not None for candidate in proposed.candidates] == [tells] * 2


SPLIT = datasets.Dataset.from_dict(
    {
        "hadm_id": [1, 2, 3],
        "text": ["visit: weak heart", "visit", ""],
        "codes": [["428.0", "999.9", "401.9"], ["401.9"], ["486"]],
    }
)


def test_right_and_wrong_candidates_are_learned_from(make_verifier, capsys):
    coder = make_verifier(question="{code}?")
    rows = verifying_examples(SPLIT, coder, 3.0, "training")
    texts = [said(coder, row["input_ids"]).split("user\n")[1] for row in rows]
    assert texts == [
        "visit: weak heart\n\n428.0, Congestive heart failure?</s>\n<s>assistant\nyes</s>",
        "visit: weak heart\n\n486?</s>\n<s>assistant\nno</s>",
        "visit\n\n486?</s>\n<s>assistant\nno</s>",
    ]
    learned = [
        [token for token, is_learned in zip(row["input_ids"], row["completion_mask"], strict=True) if is_learned]
        for row in rows
    ]
    assert [said(coder, tokens) for tokens in learned] == ["yes</s>", "no</s>", "no</s>"]
    assert [row["length"] for row in rows] == [len(row["input_ids"]) for row in rows]
    assert "Of 4 codes of the training notes 1 (25.0%) are among the candidates" in capsys.readouterr().err
    with pytest.raises(ValueError, match="proposes no code of any training note"):
        verifying_examples(SPLIT, make_verifier(candidate_threshold=1.0), 3.0, "training")


def test_of_wrong_candidates_the_best_are_taken_at_the_ratio_that_is_asked_for(make_verifier, language_model):
    torch.manual_seed(0)
    model = ModelForICDCoding.from_pretrained(
        language_model, id2label={0: "401.9", 1: "428.0", 2: "486"}, head="label_attention"
    ).eval()
    bare = make_verifier()
    coder = make_verifier(Retriever(model, bare.tokenizer), candidate_threshold=0.0)
    one = datasets.Dataset.from_dict({"hadm_id": [1], "text": ["weak heart"], "codes": [["428.0"]]})
    (proposed,) = coder.verifier.propose(one["text"])
    best_wrong = next(c for c in proposed.candidates if c.class_id != HEART)
    rows = verifying_examples(one, coder, 1.0, "training")
    asked = [said(coder, row["input_ids"]) for row in rows]
    assert len(asked) == 2 and coder.config.id2label[best_wrong.class_id] in asked[1]
    assert len(verifying_examples(one, coder, 2.0, "training")) == 3


def test_it_learns_which_candidates_are_right(make_verifier):
    coder = make_verifier(question="{code}?", instruction="?", passage_tokens=40)
    texts = ["visit: weak heart", "visit: lung infection", "visit: high blood pressure"] * 4
    codes = [["428.0"], ["486"], ["401.9"]] * 4
    split = datasets.Dataset.from_dict({"hadm_id": range(12), "text": texts, "codes": codes})
    rows = verifying_examples(split, coder, 3.0, "training")
    assert len(rows) == 20  # of a lung infection the word visit is no other code
    optimizer = torch.optim.Adam(coder.model.parameters(), 0.02)
    ids = [torch.tensor(row["input_ids"]) for row in rows]
    labels = [
        torch.where(torch.tensor(row["completion_mask"]) > 0, row_ids, -100)
        for row, row_ids in zip(rows, ids, strict=True)
    ]
    batch, mask = pad_rows(ids, 0)
    for _ in range(60):
        coder.model(batch, attention_mask=mask, labels=pad_rows(labels, -100)[0]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    logits = torch.tensor(logits_of_notes(coder, coder.tokenizer, texts[:3]))
    assert (logits > 0).tolist() == [[False, True, False], [False, False, True], [True, False, False]]


def test_half_precision_changes_little_and_overflows_nowhere(make_verifier):
    coder, half = make_verifier(), make_verifier()
    half.model.to(torch.bfloat16)
    exact, rounded = (one.verifier.code_logits(one.model, NOTES) for one in (coder, half))
    assert rounded.isfinite().all()
    torch.testing.assert_close(rounded, exact, atol=0.5, rtol=0.1)


def test_questions_that_a_sliding_window_would_cut_are_refused(make_verifier):
    coder = make_verifier(num_candidates=3)
    question = max(len(coder.verifier.question(class_id)) for class_id in range(3)) + len("yes") + len("no")
    window = len(coder.prompter.before) + 100 + 3 * question
    coder.model.config.layer_types = ["full_attention", "sliding_attention"]
    coder.model.config.sliding_window = window
    check_context(coder)
    coder.model.config.sliding_window = window - 1
    with pytest.raises(ValueError, match=f"attend within {window - 1} tokens, and all candidates"):
        check_context(coder)


def test_what_does_not_fit_the_mode_is_said(make_coder, make_verifier):
    for settings, message in (
        ({"mode": "ask"}, "`mode` must be list or verify"),
        ({"mode": "list"}, "`passage_tokens` has no effect with `mode` 'list'"),
        ({"titles": True}, "`titles` has no effect with `mode` 'verify'"),
        ({"question": "Is it so?"}, "must say with {code} where"),
        ({"passage_tokens": 101}, "must be between 0"),
        ({"retriever_weight": 1.5}, r"`retriever_weight` must be in \[0, 1\]"),
        ({"num_candidates": 0}, "`num_candidates`"),
    ):
        with pytest.raises(ValueError, match=message):
            make_verifier(**settings)
    coder = make_verifier()
    with pytest.raises(ValueError, match="A retriever belongs to `mode` verify, and `mode` is 'verify'"):
        GenerativeForICD(coder.config, coder.model, coder.tokenizer)
    bare = make_coder()
    with pytest.raises(ValueError, match="A retriever belongs to `mode` verify, and `mode` is 'list'"):
        GenerativeForICD(bare.config, bare.model, bare.tokenizer, coder.retriever)
