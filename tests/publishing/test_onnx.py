"""ONNX files hold the model's own logits. Skipped without `pip install modeling-icd[onnx]`."""

import json
import sys

import numpy as np
import pytest
import torch

from modeling_icd import CAMLForICD, LlamaForICDCoding, LlamaMultiResCNNForICD, WordReader, WordReaderConfig
from modeling_icd.extras.onnx import export_onnx, main, require_refusal
from modeling_icd.graph_icd import give_neighbours


CNN = {"filter_sizes": [3, 5], "num_filter_maps": 4, "reduction_size": 8, "hidden_layer": 1}
MODELS = {
    "last": (LlamaForICDCoding, {"pooling": "last"}),
    "mean": (LlamaForICDCoding, {"pooling": "mean", "normalize_hidden_states": True}),
    "label_attention": (LlamaForICDCoding, {"pooling": "label_attention"}),
    "multirescnn": (LlamaMultiResCNNForICD, CNN),
    "several_queries": (LlamaForICDCoding, {"pooling": "laat", "num_queries": 4}),
    "ensemble": (LlamaMultiResCNNForICD, {**CNN, "head_ensemble_size": 2, "freeze_backbone": True}),
}


@pytest.mark.parametrize(
    "name", [name if name == "multirescnn" else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_model_and_head_give_the_models_logits(name, backbone, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model_class, fields = MODELS[name]
    torch.manual_seed(1)
    model = model_class.from_pretrained(backbone, num_labels=5, window_size=16, window_stride=12, **fields).eval()
    model.save_pretrained(tmp_path / "model")
    assert main([str(tmp_path / "model"), "--output_dir", str(tmp_path / "onnx")]) == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "onnx" / "config.json").read_text())["window_size"] == 16

    def run(file, notes, mask):
        session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / file), providers=["CPUExecutionProvider"])
        return session.run(["logits"], {session.get_inputs()[0].name: notes.numpy(), "attention_mask": mask.numpy()})[
            0
        ]

    with torch.no_grad():
        # a batch of five with padding, of a shape that the export did not see
        ids = torch.randint(1, 40, (5, 11), generator=torch.Generator().manual_seed(3))
        mask = (torch.arange(11) < torch.tensor([11, 1, 5, 8, 2])[:, None]).long()
        np.testing.assert_allclose(run("model.onnx", ids, mask), model(ids, mask).logits, atol=1e-4)
        # and a note of three windows, whose stitched states go into the head
        ids = torch.randint(1, 40, (1, 37), generator=torch.Generator().manual_seed(4))
        states = model.read_hidden_states(ids, torch.ones_like(ids))
        np.testing.assert_allclose(
            run("head.onnx", states, torch.ones_like(ids)), model(ids, torch.ones_like(ids)).logits, atol=1e-4
        )
    # A note that is longer than the window has other logits in one pass than in windows: the graph gives none.
    for length in (17, 32):
        ids = torch.randint(1, 40, (2, length), generator=torch.Generator().manual_seed(5))
        for mask in (torch.ones_like(ids), (torch.arange(length) < 3).long().expand(2, -1)):
            with pytest.raises(Exception, match="note_longer_than_the_window"):
                run("model.onnx", ids, mask)


def word_model(folder, **reader):
    """With a graph of codes, which an ONNX graph does without."""
    WordReader(WordReaderConfig(vocab_size=30, embedding_size=8, **reader)).save_pretrained(folder)
    model = CAMLForICD.from_pretrained(
        folder,
        num_labels=3,
        head_options={"num_filter_maps": 4},
        label_graph={"sources": ["hierarchy"], "neighbours": 1},
    )
    give_neighbours(model.score, {"hierarchy": torch.tensor([[2], [-1], [0]])})
    torch.nn.init.normal_(model.score.output.graph.weight)
    return model.eval()


@pytest.mark.slow
def test_the_graph_of_a_word_model_reads_notes_of_any_length(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    ids = torch.randint(1, 30, (2, 99), generator=torch.Generator().manual_seed(6))
    mask = (torch.arange(99) < torch.tensor([99, 5])[:, None]).long()
    model = word_model(tmp_path / "reader")
    export_onnx(model, tmp_path / "onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx/model.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    np.testing.assert_allclose(logits, model(ids, mask).logits.detach(), atol=1e-4)
    assert model.score.output.graph is not None
    assert json.loads((tmp_path / "onnx" / "config.json").read_text())["label_graph"] is None


@pytest.mark.parametrize("rnn", ["lstm", "gru"])
def test_a_recurrent_reader_is_refused(rnn, tmp_path):
    with pytest.raises(ValueError, match=f"has a recurrent network .`rnn` '{rnn}'.*only readers without one"):
        export_onnx(word_model(tmp_path / "reader", rnn=rnn, rnn_size=4), tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_a_graph_that_answers_a_note_longer_than_its_window_is_not_kept():
    class Answers:
        def run(self, names, inputs):
            return [np.zeros((len(inputs["input_ids"]), 5))]

    class Fails:
        def run(self, names, inputs):
            raise RuntimeError("out of memory")

    with pytest.raises(ValueError, match="answers a note of 17 tokens, one more than it can read"):
        require_refusal(Answers(), 17)
    with pytest.raises(RuntimeError, match="out of memory"):  # which is no refusal
        require_refusal(Fails(), 17)


def test_without_the_libraries_it_says_what_to_install(finished_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main([str(finished_run), "--output_dir", str(tmp_path / "onnx")]) == 2
    assert "pip install modeling-icd[onnx]" in capsys.readouterr().err
    assert not (tmp_path / "onnx").exists()
