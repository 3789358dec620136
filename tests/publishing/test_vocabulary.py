"""Words that few training notes have do not go out, and all others are read as before."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from modeling_icd import LlamaForICDCoding, LlamaICDConfig
from modeling_icd.publishing.card import build_card
from modeling_icd.publishing.cli import main
from modeling_icd.publishing.folder import ModelFolder, check_weights, read_content
from modeling_icd.publishing.privacy import RARE_WORD, LocalNames, TrainingNotes, check_files
from modeling_icd.publishing.release import outgoing_files, plan_release
from modeling_icd.publishing.vocabulary import drop_rare_words


# Rare words among the others, so that those behind them are renumbered; the last one is in no note at all.
VOCABULARY = ["[PAD]", "quibbleford", "fever", "x-ray", "smithson", "cough", "[UNK]", "zanzibarian", "no", "[CLS]"]
RARE = {"quibbleford", "smithson", "zanzibarian"}
NOTES = TrainingNotes(
    [
        *({"text": "Fever cough no X-ray", "hadm_id": i, "subject_id": i} for i in range(3)),
        {"text": "Smithson Smithson Smithson fever", "hadm_id": 3, "subject_id": 3},
        *({"text": "Quibbleford no", "hadm_id": i, "subject_id": i} for i in range(4, 6)),
    ]
)


def word_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, "[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", VOCABULARY.index("[CLS]"))]
    )
    return tokenizer


@pytest.fixture
def word_model(model_dir, edit):
    """The copy of the run with a vocabulary of words, two of them of one or two notes."""
    size = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    backbone = LlamaConfig(vocab_size=12, **size, max_position_embeddings=64, pad_token_id=0, eos_token_id=[4, 9])
    old = LlamaICDConfig.from_pretrained(model_dir)
    kept = {name: getattr(old, name) for name in ("id2label", "label2id", "pooling", "threshold", "training_data")}
    torch.manual_seed(0)
    model = LlamaForICDCoding(LlamaICDConfig.from_backbone(backbone, **kept))
    model.model.embed_tokens.weight.data.normal_()
    (model_dir / "model.safetensors").unlink()
    model.save_pretrained(model_dir)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=word_tokenizer(), pad_token="[PAD]", unk_token="[UNK]")
    tokenizer.add_special_tokens({"cls_token": "[CLS]"})
    tokenizer.save_pretrained(model_dir)
    (model_dir / "vocab.txt").write_text("\n".join(VOCABULARY))
    edit("config.json", training_data=kept["training_data"])
    return model_dir


def release_of(path, **options):
    folder = ModelFolder.read(path)
    release = plan_release(folder, "someone/tiny-icd", **options)
    return outgoing_files(folder, release, build_card(folder, release))


def logits_of(folder, note):
    ids = AutoTokenizer.from_pretrained(folder)(note, return_tensors="pt")["input_ids"]
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return ids, model(ids).logits


@pytest.mark.parametrize("is_sharded", [False, True])
def test_the_copy_scores_as_before_and_holds_no_rare_word(is_sharded, word_model, edit, tmp_path):
    if is_sharded:
        model = AutoModelForSequenceClassification.from_pretrained(word_model)
        (word_model / "model.safetensors").unlink()
        model.save_pretrained(word_model, max_shard_size=800)
        edit("config.json", training_data={"dataset": "mimic3", "config": "top50", "synthetic": True})
        assert (word_model / "model.safetensors.index.json").is_file()
    own = {path: path.read_bytes() for path in word_model.iterdir() if path.is_file()}
    (tmp_path / "work").mkdir()
    files, num_dropped = drop_rare_words(release_of(word_model), NOTES, 3, tmp_path / "work")
    assert num_dropped == len(RARE)
    assert own == {path: path.read_bytes() for path in word_model.iterdir() if path.is_file()}
    (tmp_path / "copy").mkdir()
    for name, content in files.items():
        assert not [word for word in RARE if word.encode() in read_content(content).lower()], name
        (tmp_path / "copy" / name).write_bytes(read_content(content))

    ids, logits = logits_of(tmp_path / "copy", "cough no FEVER x-ray")
    old_ids, old_logits = logits_of(word_model, "cough no FEVER x-ray")
    assert not torch.equal(ids, old_ids) and ids[0, 0] == 6  # [CLS] was 9
    assert torch.equal(logits, old_logits)
    assert torch.equal(logits_of(tmp_path / "copy", "fever smithson")[1], logits_of(word_model, "fever unheard-of")[1])
    config = json.loads(files["config.json"])
    assert (config["vocab_size"], config["pad_token_id"], config["eos_token_id"]) == (7, 0, [6])
    check_weights(config["training_data"], tmp_path / "copy")
    if is_sharded:
        totals = [
            json.loads((folder / "model.safetensors.index.json").read_text())["metadata"]["total_size"]
            for folder in (word_model, tmp_path / "copy")
        ]
        assert totals[0] - totals[1] == 5 * 8 * 4  # bytes of five rows, two of them of no token


def test_pieces_of_words_and_frequent_words_stay(word_model, bpe, tmp_path):
    files = release_of(word_model)
    assert drop_rare_words(files, NOTES, 3, tmp_path) == (files, 0)


def test_an_adapter_and_a_tokenizer_without_unknown_words_are_refused(word_model, tmp_path):
    files = {**release_of(word_model), "adapter_model.safetensors": b""}
    with pytest.raises(ValueError, match="3 words of the adapter's vocabulary"):
        drop_rare_words(files, NOTES, 3, tmp_path)
    tokenizer = json.loads((word_model / "tokenizer.json").read_text())
    tokenizer["model"]["unk_token"] = "[NONE]"
    with pytest.raises(ValueError, match="no token for unknown words"):
        drop_rare_words({**files, "tokenizer.json": json.dumps(tokenizer).encode()}, NOTES, 3, tmp_path)


@pytest.mark.parametrize(
    ("model", "is_found"),
    [
        ({"type": "WordPiece", "continuing_subword_prefix": "##", "vocab": {"smithson": 0}}, True),
        ({"type": "WordPiece", "continuing_subword_prefix": "##", "vocab": {"smithson": 0, "##s": 1}}, False),
        ({"type": "BPE", "merges": [], "vocab": {"smithson": 0}}, True),
        ({"type": "Unigram", "vocab": [["smithson", 0.0]]}, False),
    ],
)
def test_other_vocabularies_of_words_are_found(model, is_found):
    def kinds(**tokenizer):
        content = json.dumps({"model": model, **tokenizer}).encode()
        return {finding.kind for finding in check_files({"tokenizer.json": content}, LocalNames(), NOTES, 3)}

    assert kinds() == ({RARE_WORD} if is_found else set())
    assert kinds(added_tokens=[{"content": "Dr. Smithson", "special": False, "id": 9}]) == {RARE_WORD}


def test_a_push_says_how_many_words_left_and_never_which(word_model, restricted, notes, hub, capsys):
    permission = ["--i_have_written_permission", "letter of 2026-03-01"]
    command = [str(word_model), "--repo_id", "someone/tiny-icd", "--data_dir", str(notes), *permission]
    assert main([*command, "--min_notes_of_word", "0"]) == 2
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "words that fewer than 10 training notes have do not go out" in printed.out
    assert not [word for word in RARE if word in printed.out + printed.err]
    files = hub.files("someone/tiny-icd")
    assert not [name for name, content in files.items() if any(word.encode() in content for word in RARE)]
    assert b"words that fewer than 10 training notes have" in files["README.md"]
    assert "vocab.txt" not in files
