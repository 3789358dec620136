"""A generative coder as a model: batches, scores, long notes, sampling, packing, LoRA."""

import math

import datasets
import pytest
import torch
from peft import LoraConfig, get_peft_model
from trl.data_utils import pack_dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from modeling_icd import GenerativeForICD
from modeling_icd.answers_icd import State
from modeling_icd.generative.training import merged
from modeling_icd.inference.loading import ReaderArguments, load_model
from modeling_icd.inference.loop import logits_of_notes
from modeling_icd.inference.tokens import tokenize_notes


NOTES = ["weak heart", "high blood pressure, and a long story of it", "x", "lung infection, weak heart"]


def test_a_batch_gives_what_each_note_gets_alone(make_coder):
    coder = make_coder()
    alone = [logits_of_notes(coder, coder.tokenizer, [note]) for note in NOTES]
    together = logits_of_notes(coder, coder.tokenizer, NOTES, batch_size=4)
    torch.testing.assert_close(
        torch.tensor(together), torch.cat([torch.tensor(row) for row in alone]), atol=1e-4, rtol=1e-4
    )
    again = logits_of_notes(coder, coder.tokenizer, NOTES, batch_size=4)
    assert (again == together).all()  # greedy decoding draws nothing


@pytest.mark.parametrize("num_beams", [1, 3])
def test_just_the_codes_of_the_answer_score_above_one_half(make_coder, num_beams):
    coder = make_coder(num_beams=num_beams)
    ids = tokenize_notes(coder.tokenizer, NOTES)
    answers, _ = coder.answer([coder.prompter.prompt(note) for note in ids])
    logits = coder.code_logits(ids)
    assert [row.nonzero().flatten().tolist() for row in logits > 0] == [sorted(answer) for answer in answers]
    assert any(answers)


def test_the_score_of_a_code_is_its_probability_by_the_language_model(make_coder):
    coder = make_coder()
    (note,) = tokenize_notes(coder.tokenizer, NOTES[:1])
    prompt, grammar = coder.prompter.prompt(note), coder.grammar
    ((answer,), _) = coder.answer([prompt])

    def walk(tokens, state):
        """Log probabilities of what may come next, by a whole pass over the text so far."""
        logits = coder.model(torch.tensor([tokens])).logits[0, -1].double()
        ways = grammar.next_states(state)
        total = logits[list(ways)].logsumexp(0)
        return {token: (after, (logits[token] - total).item()) for token, after in ways.items()}

    code = coder.config.label2id["V12.71"]  # which begins as no other
    best = 0.0
    with torch.no_grad():
        for number in range(min(len(answer), 2) + 1):  # the places where a code may come: an answer has three at most
            if code in answer[:number]:
                continue
            state, tokens = State(), list(prompt)
            for token in grammar.tokens_of(answer[:number]):
                state, tokens = grammar.next_states(state)[token], [*tokens, token]
            piece, total = (grammar.later_tokens if number else grammar.first_tokens)[code], 0.0
            for token in piece:
                state, log_prob = walk(tokens, state)[token]
                tokens, total = [*tokens, token], total + log_prob
            best = max(best, math.exp(total))
        score = coder.code_logits([note]).sigmoid()[0, code].item()
    assert answer
    assert score == pytest.approx(((code in answer) + best) / 2, rel=1e-4)


def test_with_fewer_tokens_read_beside_the_answer_its_codes_have_the_same_scores(make_coder):
    coder, quick = make_coder(), make_coder(tree_tokens=1)
    ids = tokenize_notes(coder.tokenizer, NOTES)
    whole, less = coder.code_logits(ids), quick.code_logits(ids)
    assert torch.equal(whole > 0, less > 0)
    assert not torch.allclose(whole, less)


def test_samples_are_drawn_from_the_seed_and_counted(make_coder):
    coder = make_coder(num_samples=5, temperature=2.0)
    ids = tokenize_notes(coder.tokenizer, NOTES[:2])
    scores = coder.code_logits(ids).sigmoid()
    assert torch.equal(scores, coder.code_logits(ids).sigmoid())
    assert coder.counts["answers"] == 20
    times = (scores * 6).floor()  # (t + p) / 6 with t answers of 5
    assert times.sum() == coder.counts["codes"] / 2 and (times % 5 > 0).any()
    assert not torch.equal(scores, make_coder(num_samples=5, temperature=2.0, seed=1).code_logits(ids).sigmoid())


def test_free_answers_count_what_is_no_code_of_the_set(make_coder, monkeypatch):
    coder = make_coder(constrained=False)
    said = "999.9; 428.0; 428.0"
    end = [coder.tokenizer.eos_token_id]
    monkeypatch.setattr(
        coder.model,
        "generate",
        lambda ids, **_: torch.cat([ids, torch.tensor([coder.prompter.tokens(said) + end])], dim=1),
    )
    logits = logits_of_notes(coder, coder.tokenizer, NOTES[:1])
    assert (logits > 0).nonzero()[1].tolist() == [1]
    figures = coder.say_counts(2.0)
    assert (figures["invalid_rate"], figures["repeated_rate"], figures["notes_per_second"]) == (1 / 3, 1 / 3, 0.5)


def test_a_long_note_is_refused_or_read_in_sections(make_coder):
    note = "weak heart\n" * 3 + "high blood pressure\n" + "x" * 30
    with pytest.raises(
        ValueError, match=r"1 of 2 notes have more than 40 tokens \(`max_note_tokens`\), the longest 83"
    ):
        logits_of_notes(make_coder(max_note_tokens=40), make_coder().tokenizer, ["x", note])
    coder = make_coder(max_note_tokens=40, long_notes="sections")
    ids = tokenize_notes(coder.tokenizer, [note])[0]
    parts = coder.prompter.sections(ids)
    assert [coder.tokenizer.decode(part) for part in parts] == [
        "weak heart\n" * 3,
        "high blood pressure\n" + "x" * 20,
        "x" * 10,
    ]
    of_parts = coder.code_logits(parts)
    torch.testing.assert_close(coder.code_logits([ids])[0], of_parts.max(dim=0).values, atol=1e-5, rtol=1e-5)


def test_the_sections_of_a_note_are_scored_one_by_one_however_many_answers_are_drawn(make_coder, monkeypatch):
    coder = make_coder(max_note_tokens=10, long_notes="sections", num_samples=2)
    # The code is in one of two answers to either section: so it is likely in neither, though every pair of answers has it.
    monkeypatch.setattr(coder, "answer", lambda prompts: ([[0], [], [], [0]], [prompts[0]] * 2 + [prompts[1]] * 2))
    monkeypatch.setattr(coder, "code_probs", lambda prompts, answers: torch.zeros(4, 6, dtype=torch.double))
    (scores,) = coder.code_logits([coder.prompter.text_tokens("pressure\nweak heart")]).sigmoid()
    assert scores[0].item() == pytest.approx(1 / 3, abs=1e-4) and scores[1:].max() < 1e-4


def test_what_the_language_model_recommends_for_chats_does_not_shape_answers(make_coder):
    coder, again = make_coder(num_samples=5), make_coder(num_samples=5)
    recommended = {"repetition_penalty": 9.0, "top_k": 1, "top_p": 0.1, "temperature": 0.01, "no_repeat_ngram_size": 1}
    for name, value in recommended.items():
        setattr(again.model.generation_config, name, value)
    again = GenerativeForICD(again.config, again.model, again.tokenizer)
    ids = tokenize_notes(coder.tokenizer, NOTES)
    assert torch.equal(again.code_logits(ids), coder.code_logits(ids))
    assert again.model.generation_config.repetition_penalty in (None, 1.0)


def test_an_attention_that_takes_no_mask_of_ours_is_refused(make_coder, tmp_path):
    coder = make_coder()
    coder.save_pretrained(tmp_path)
    coder.tokenizer.save_pretrained(tmp_path)
    message = "needs `attn_implementation` sdpa or eager, got 'flash_attention_2'"
    with pytest.raises(ValueError, match=message):
        GenerativeForICD.from_pretrained(tmp_path, attn_implementation="flash_attention_2")
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path, reader=ReaderArguments(attn_implementation="flash_attention_2"))
    coder.model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match=message):
        GenerativeForICD(coder.config, coder.model, coder.tokenizer)


def test_packed_notes_do_not_see_each_other(make_coder):
    model = make_coder().model
    rows = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]
    packed = pack_dataset(datasets.Dataset.from_dict({"input_ids": rows, "labels": rows}), 16, "bfd")
    assert len(packed) == 1
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(list(packed))
    with torch.no_grad():
        together = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits[0]
        order = sorted(rows, key=len, reverse=True)
        alone = torch.cat([model(torch.tensor([row])).logits[0] for row in order])
    assert batch["input_ids"][0].tolist() == [token for row in order for token in row]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_merging_lora_changes_no_logit_and_the_folder_is_a_language_model(make_coder, tmp_path):
    coder = make_coder()
    tuned = get_peft_model(coder.model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear"))
    for name, weights in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.1)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = tuned(ids).logits.clone()
        with tuned.disable_adapter():
            before = tuned(ids).logits.clone()
    coder.model = merged(tuned)
    coder.save_pretrained(tmp_path)
    coder.tokenizer.save_pretrained(tmp_path)
    again = GenerativeForICD.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(coder.model(ids).logits, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(again.model(ids).logits, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before, expected)


def test_what_is_asked_in_vain_is_said(make_coder):
    coder = make_coder()
    with pytest.raises(ValueError, match="trained by `modeling-icd train`"):
        coder(torch.tensor([[5]]), labels=torch.ones(1, 6))
    with pytest.raises(ValueError, match="`num_beams` searches and `num_samples` draws"):
        make_coder(num_beams=2, num_samples=2)
    with pytest.raises(ValueError, match="has no setting 'beams'"):
        make_coder(beams=2)
    with pytest.raises(ValueError, match="such as 'A00-A09', are not written as codes of ICD"):
        make_coder(["A00-A09", "B00-B09"], constrained=False)
    refuses = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception(m.content) }}{% endif %}{% endfor %}"
    )
    for template, message in (
        (refuses, "refuses a turn of the system"),
        ("{% for m in messages %}{{ m.content + m.content }}{% endfor %}", "does not have each note of a prompt once"),
        (None, "no chat template"),
    ):
        coder.tokenizer.chat_template = template
        with pytest.raises(ValueError, match=message):
            GenerativeForICD(coder.config, coder.model, coder.tokenizer)
