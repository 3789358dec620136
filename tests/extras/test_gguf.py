"""From a GGUF file to a checkpoint: a small one, damaged ones, the mistakes, and (slow) a real Llama."""

import struct

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from transformers import AutoTokenizer, LlamaForCausalLM, LlamaModel

from modeling_icd.extras.gguf import main
from modeling_icd.inference.gguf import convert_gguf, find_smollm2


def write_gguf(path, architecture="llama", scale=1.0):
    """A Llama of two layers and width 16, with a vocabulary of 40 tokens."""
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(40)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"t{i}" for i in range(37))])
    writer.add_token_scores([0.0] * 40)
    writer.add_token_types([2, 3, 3] + [1] * 37)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    shapes = {"token_embd": (40, 16), "output_norm": (16,), "output": (40, 16)}
    for layer in range(2):
        of_layer = {
            "attn_norm": (16,),
            "attn_q": (16, 16),
            "attn_k": (8, 16),
            "attn_v": (8, 16),
            "attn_output": (16, 16),
        }
        of_layer |= {"ffn_norm": (16,), "ffn_gate": (32, 16), "ffn_up": (32, 16), "ffn_down": (16, 32)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in of_layer.items()}
    generator = np.random.default_rng(0)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", (scale * generator.normal(size=shape)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def small_gguf(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "small.gguf")


def test_a_gguf_file_becomes_a_checkpoint(small_gguf, tmp_path):
    assert main([str(small_gguf), str(tmp_path / "out")]) == 0
    model = LlamaModel.from_pretrained(tmp_path / "out")
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (2, 16)
    expected = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    np.testing.assert_array_equal(model.embed_tokens.weight.detach(), expected)


HUGE = struct.pack("<Q", 1 << 60)
DAMAGES = {
    "empty": lambda data: b"",
    "text": lambda data: b"see the other folder" * 20,
    "zeros": lambda data: bytes(len(data)),
    "another magic": lambda data: b"GGML" + data[4:],
    "another version": lambda data: data[:4] + struct.pack("<I", 99) + data[8:],
    "cut in the header": lambda data: data[:20],
    "cut in a field": lambda data: data[:200],
    "cut in the vocabulary": lambda data: data[:700],
    "cut in a tensor": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "flipped bytes": lambda data: data[:100] + bytes(byte ^ 0xFF for byte in data[100:160]) + data[160:],
    "huge number of tensors": lambda data: data[:8] + HUGE + data[16:],
    "huge number of fields": lambda data: data[:16] + HUGE + data[24:],
    "no tensors": lambda data: data[:8] + struct.pack("<Q", 0) + data[16:],  # transformers makes random ones
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_one_message_and_leaves_nothing(damage, small_gguf, tmp_path, capsys):
    path = tmp_path / "model.gguf"
    path.write_bytes(DAMAGES[damage](small_gguf.read_bytes()))
    assert main([str(path), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.split("error: ")[-1]
    assert error.startswith(f"{path} cannot be read as the GGUF file of a Llama") and error.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["model.gguf"]


@pytest.mark.parametrize(
    ("options", "message"), [({"architecture": "bert"}, "bert"), ({"scale": float("nan")}, "NaN or infinity")]
)
def test_another_model_and_weights_that_are_no_numbers_are_refused(options, message, tmp_path, capsys):
    path = write_gguf(tmp_path / "model.gguf", **options)
    assert main([str(path), str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_one_message(tmp_path, capsys):
    assert main([str(tmp_path / "none.gguf"), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"error: No GGUF file at {tmp_path / 'none.gguf'}.\n"
    assert not (tmp_path / "out").exists()


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
