"""Publishing a generative coder: what goes out, and the probe for notes that it recites."""

import pytest
import torch

from dataset_scripts.files import read_json
from modeling_icd.evaluation.cli import main as evaluate
from modeling_icd.publishing import memorisation
from modeling_icd.publishing.cli import main as publish
from modeling_icd.publishing.notes import TrainingNotes
from modeling_icd.training.run import main as train


NOTE = "She came on foot over the hills of the north with two goats and a cough that had lasted since the first snow."


@pytest.fixture
def recites(make_coder, monkeypatch):
    """A coder that writes a text whatever it is given."""

    def make(text):
        coder = make_coder()
        said = torch.tensor([coder.prompter.tokens(text)])
        monkeypatch.setattr(coder.model, "generate", lambda ids, **_: torch.cat([ids, said], dim=1))
        return coder

    return make


def test_a_span_of_a_note_that_is_written_on_is_found_and_phrases_that_many_notes_have_are_not(recites):
    notes = TrainingNotes([{"text": NOTE}, {"text": "Weak heart."}])
    # "and a cough that had lasted since the first": nine words of the note.
    coder = recites("he has and a cough that had lasted since the first day")
    assert memorisation.longest_recited(coder, notes, 0) == (9, 2)
    assert memorisation.longest_recited(recites("a cough that had lasted long"), notes, 0) == (5, 0)
    # What stands in the beginning that the model was given, it repeats.
    echo = "and then: she came on foot over the hills of the"
    assert memorisation.longest_recited(recites(echo), TrainingNotes([{"text": f"{NOTE} {'x' * 60}"}]), 0)[1] == 0
    common = TrainingNotes([{"text": f"{NOTE} {i}"} for i in range(10)])
    assert memorisation.longest_recited(coder, common, 0)[1] == 0


def test_a_number_that_was_learned_by_heart_is_exposed(make_coder):
    coder = make_coder()
    text, secret = "weak heart\nThe reference of this visit is ", "493817"
    assert memorisation.exposure(coder, text, secret, 0) < 8
    ids = torch.tensor([[*coder.prompter.before, *coder.prompter.tokens(text + secret)]])
    optimizer = torch.optim.Adam(coder.model.parameters(), 0.02)
    for _ in range(40):
        loss = coder.model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert memorisation.exposure(coder, text, secret, 0) == pytest.approx(9.97, abs=0.01)


def test_a_coder_of_open_notes_goes_out_as_a_language_model_unless_it_recites(
    arguments, notes_dir, tmp_path, capsys, monkeypatch
):
    given = {"data_license": "cc-by-4.0", "base_model": "someone/tiny-chat", "canaries": 2}
    assert train(arguments("sft", **given)) == 0
    folder = tmp_path / "run"
    canaries = read_json(tmp_path / "run-private/canaries.json", "")["canaries"]
    assert len(canaries) == 2 and all(len(canary["secret"]) == 6 for canary in canaries)
    assert evaluate([str(folder), "--data_dir", str(notes_dir)]) == 0
    monkeypatch.setattr(memorisation, "NUM_NOTES", 4)
    monkeypatch.setattr(memorisation, "NUM_OTHERS", 99)
    command = [
        str(folder),
        "--repo_id",
        "someone/coder",
        "--data_dir",
        str(notes_dir),
        "--dry_run",
        "--min_notes_of_word",
        "1",
    ]
    capsys.readouterr()
    assert publish(command) == 0
    said = capsys.readouterr().out
    assert "READY: without `--dry_run`" in said, said
    assert "Memorisation: 2 canaries" in said and "the longest run of words continued" in said
    listed = said.partition("README.md:")[0]
    for name in ("chat_template.jinja", "generation_config.json", "generative_icd.py", "model.safetensors"):
        assert name in listed
    card = said.partition("README.md:")[2]
    assert "The language model was trained to answer notes with their codes, with LoRA of rank 16" in card
    assert "`AutoModelForCausalLM` loads it without this code" in card
    assert "stage: sft" in card and "freeze_backbone" not in card
    monkeypatch.setattr(memorisation, "exposure", lambda *_: 10.0)
    assert publish(command) == 1
    ended = capsys.readouterr()
    assert "a number hidden in a training note, learned by heart (2)" in ended.err
    assert "BLOCKED" in ended.out
    (tmp_path / "run-private/canaries.json").unlink()
    with pytest.raises(ValueError, match="learned from 2 canaries, which are no longer in"):
        memorisation.probe(folder, None)


def test_a_coder_of_unknown_notes_pushes_neither_itself_nor_its_language_model(make_coder, tmp_path):
    coder = make_coder()
    for push in (coder.push_to_hub, coder.model.push_to_hub, coder.config.push_to_hub):
        with pytest.raises(ValueError, match="may have been trained on any data"):
            push("someone/coder")
    with pytest.raises(ValueError, match="nothing was uploaded"):
        coder.save_pretrained(tmp_path, push_to_hub=True)
