"""From a GGUF file to a checkpoint: the mistakes, and (slow) a real Llama."""

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from modeling_icd.training.convert_gguf import convert_gguf, find_smollm2, main


def test_a_missing_file_is_one_message(tmp_path, capsys):
    assert main([str(tmp_path / "none.gguf"), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"error: No GGUF file at {tmp_path / 'none.gguf'}.\n"
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_gguf_leaves_nothing(tmp_path, capsys):
    (tmp_path / "model.gguf").write_bytes(b"not a model")
    assert main([str(tmp_path / "model.gguf"), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "model.gguf" in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_other_files_are_not_written_over_and_a_finished_folder_is_left_alone(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"not a model")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files: name a new folder"):
        convert_gguf(tmp_path / "model.gguf", folder)
    (folder / "config.json").write_text("{}")
    assert convert_gguf(tmp_path / "model.gguf", folder) == folder
    assert (folder / "config.json").read_text() == "{}"


@pytest.mark.slow
def test_smollm2_becomes_a_checkpoint_that_predicts_words(tmp_path):
    folder = convert_gguf(find_smollm2(), tmp_path / "smollm2")
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert convert_gguf(find_smollm2(), folder) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written
    tokenizer, model = AutoTokenizer.from_pretrained(folder), LlamaForCausalLM.from_pretrained(folder).eval()
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (30, 576)
    ids = tokenizer("The patient was admitted to the", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        best = model(ids).logits[0, -1].topk(5).indices
    assert " hospital" in [tokenizer.decode(token) for token in best]
