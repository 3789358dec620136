"""Words that few training notes have do not go out, and all others are read as before."""

import json

import pytest
import torch
from huggingface_hub import constants
from planted import train_tokenizers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from dataset_scripts import load_split
from modeling_icd import LlamaForICDCoding, LlamaICDConfig
from modeling_icd.inference.model_folder import SMOLLM2, check_weights
from modeling_icd.publishing import tokens
from modeling_icd.publishing.card import build_card
from modeling_icd.publishing.cli import main
from modeling_icd.publishing.folder import ModelFolder, read_content
from modeling_icd.publishing.privacy import RARE_WORD, RECORD_ID, LocalNames, TrainingNotes, check_files
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
    # The same numbers, but for the rounding that depends on where in memory a weight lies.
    torch.testing.assert_close(logits, old_logits, rtol=1e-6, atol=1e-7)
    shorter, longer = logits_of(tmp_path / "copy", "fever smithson")[1], logits_of(word_model, "fever unheard-of")[1]
    torch.testing.assert_close(shorter, longer, rtol=1e-6, atol=1e-7)
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
        ({"type": "WordPiece", "continuing_subword_prefix": "##", "vocab": {"smithson": 0, "##s": 1}}, True),
        ({"type": "WordPiece", "continuing_subword_prefix": "##", "vocab": {"smith": 0, "##smithson": 1}}, False),
        ({"type": "BPE", "merges": [], "vocab": {"smithson": 0}}, True),
        ({"type": "BPE", "merges": [["\u0120smith", "son"]], "vocab": {"\u0120smithson": 0}}, True),
        ({"type": "Unigram", "vocab": [["\u2581Smithson", 0.0]]}, True),
        ({"type": "Unigram", "vocab": [["\u2581fever", 0.0], ["\u2581unheard", 0.0]]}, False),
    ],
)
def test_words_of_few_notes_are_found_in_every_kind_of_vocabulary(model, is_found):
    def kinds(**tokenizer):
        content = json.dumps({"model": model, **tokenizer}).encode()
        return {finding.kind for finding in check_files({"tokenizer.json": content}, LocalNames(), NOTES, 3)}

    assert kinds() == ({RARE_WORD} if is_found else set())
    assert kinds(added_tokens=[{"content": "Dr. Smithson", "special": False, "id": 9}]) == {RARE_WORD}


@pytest.mark.parametrize("content", ["[]", '"x"', "{", "[" * 100_000, "\xff\xfe{}"])
def test_a_tokenizer_file_that_is_no_json_object_is_one_message_that_names_it(content, model_dir, capsys):
    (model_dir / "tokenizer.json").write_bytes(content.encode("latin-1"))
    assert main([str(model_dir), "--repo_id", "someone/tiny-icd", "--dry_run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: tokenizer.json ") and error.count("\n") == 1


def test_a_token_without_an_embedding_is_refused(word_model, tmp_path, capsys):
    files = release_of(word_model)
    tokenizer = json.loads((word_model / "tokenizer.json").read_text())
    (word_model / "tokenizer.json").write_text(json.dumps(with_token(tokenizer, "Smith", 50)))
    assert main([str(word_model), "--repo_id", "someone/tiny-icd", "--dry_run"]) == 2
    error = capsys.readouterr().err
    assert "`added_tokens` of tokenizer.json has a token with the id 50" in error and "for 12 tokens" in error
    assert error.startswith("error: ") and error.count("\n") == 1 and "Smith" not in error
    with pytest.raises(ValueError, match="the id 50, and the model has embeddings for 12 tokens"):
        drop_rare_words({**files, "tokenizer.json": (word_model / "tokenizer.json").read_bytes()}, NOTES, 3, tmp_path)
    (word_model / "tokenizer.json").write_text(json.dumps(with_token(tokenizer, "Smith", 11)))
    assert "tokenizer.json" in release_of(word_model)


def with_token(tokenizer, content, i):
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        **tokenizer,
        "added_tokens": [*tokenizer["added_tokens"], {"id": i, "content": content, "special": True, **flags}],
    }


def test_tokens_that_the_tokenizer_puts_around_a_text_stay_and_are_renumbered(word_model, tmp_path):
    files = release_of(word_model)
    tokenizer = json.loads((word_model / "tokenizer.json").read_text())
    around = {"type": "BertProcessing", "sep": ["smithson", 4], "cls": ["[CLS]", 9]}
    padding = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_type_id": 0}
    tokenizer["padding"] = {**padding, "pad_id": 1, "pad_token": "quibbleford"}
    tokenizer["post_processor"] = {"type": "Sequence", "processors": [around]}
    changed, num_dropped = drop_rare_words(
        {**files, "tokenizer.json": json.dumps(tokenizer).encode()}, NOTES, 3, tmp_path
    )
    shorter = json.loads(changed["tokenizer.json"])
    assert num_dropped == 1 and "zanzibarian" not in shorter["model"]["vocab"]
    assert shorter["post_processor"]["processors"] == [{**around, "sep": ["smithson", 4], "cls": ["[CLS]", 8]}]
    assert shorter["padding"]["pad_id"] == 1
    tokenizer["padding"]["pad_id"] = 77
    with pytest.raises(ValueError, match="names the id 77, which no token has"):
        drop_rare_words({**files, "tokenizer.json": json.dumps(tokenizer).encode()}, NOTES, 3, tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", {"pad_token": "[PAD]", "additional_special_tokens": ["<note_143336>"]}),
        ("added_tokens.json", {"<a>": 1, "<note_143336>": 2}),
        ("tokenizer.json", {"model": {}, "added_tokens": [{"content": "n143336", "id": 1, "special": True}]}),
    ],
)
def test_an_id_among_the_tokens_is_found_in_the_file_and_line_that_has_it(name, content):
    notes = TrainingNotes([{"text": "", "hadm_id": 143336, "subject_id": 1}])
    data = json.dumps(content, indent=1)
    other = {} if name == "tokenizer.json" else {"tokenizer.json": b'{"model": {}}'}
    (finding,) = check_files({**other, name: data.encode()}, LocalNames(), notes)
    line = data.count("\n", 0, data.index("143336")) + 1
    assert (finding.file, finding.kind, finding.place) == (name, RECORD_ID, f"line {line}") and line > 1


def sentencepiece(*pieces):
    """A SentencePiece model, of which only the pieces are written."""
    inner = [b"\x0a" + bytes([len(piece.encode())]) + piece.encode() + b"\x15\0\0\0\0" for piece in pieces]
    return b"".join(b"\x0a" + bytes([len(piece)]) + piece for piece in inner)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", {"model": {}, "added_tokens": [{"content": "<smithson>", "special": True, "id": 9}]}),
        ("added_tokens.json", {"smithson": 9}),
        ("special_tokens_map.json", {"additional_special_tokens": ["[SMITHSON]"]}),
        ("special_tokens_map.json", {"mask_token": {"content": "smithson", "lstrip": False}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"9": {"content": "smithson"}}}),
        ("tokenizer_config.json", {"extra_special_tokens": {"person_token": "<|smithson|>"}}),
        ("vocab.json", {"fever": 0, "\u0120smithson": 1}),
        ("vocab.txt", "fever\nsmithson\n##ing"),
        ("merges.txt", "#version: 0.2\n\u0120smith son"),
        ("tokenizer.model", sentencepiece("\u2581fever", "\u2581smithson")),
    ],
)
def test_words_of_few_notes_are_found_in_every_file_of_a_tokenizer(name, content):
    data = json.dumps(content).encode() if isinstance(content, dict) else content
    data = data.encode() if isinstance(data, str) else data
    found = {finding.kind for finding in check_files({name: data}, LocalNames(), NOTES, 3)}
    assert found == {RARE_WORD}
    harmless = data.replace(b"smithson", b"thinking").replace(b"SMITHSON", b"THINKING").replace(b"smith", b"think")
    assert check_files({name: harmless}, LocalNames(), NOTES, 3) == []


@pytest.mark.parametrize("kind", ["byte_level", "pieces", "unigram", "words"])
def test_a_tokenizer_that_was_trained_on_notes_is_found(kind, corpus, tmp_path):
    texts = load_split("mimic3", "all", "full", data_dir=corpus, cache_dir=tmp_path)["text"][:12]
    texts[0] += " Zanzibarian Quibbleford." * 6
    notes = TrainingNotes([{"text": text, "hadm_id": i, "subject_id": i} for i, text in enumerate(texts)])
    content = train_tokenizers(texts)[kind].to_str().encode()
    assert RARE_WORD in {finding.kind for finding in check_files({"tokenizer.json": content}, LocalNames(), notes)}


def test_words_of_the_backbones_own_tokenizer_pass_and_where_it_is_not_there_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    own = {"model": {"type": "BPE", "merges": [], "vocab": {"\u0120smithson": 0}}}
    files = {"tokenizer.json": json.dumps(own).encode()}
    (finding,) = check_files(files, LocalNames(), NOTES, 3, base_model="someone/llama")
    assert finding.kind.startswith(RARE_WORD) and "hf download someone/llama" in finding.kind
    snapshot = tmp_path / "models--someone--llama" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("1")
    (snapshot / "tokenizer.json").write_bytes(files["tokenizer.json"])
    assert check_files(files, LocalNames(), NOTES, 3, base_model="someone/llama") == []
    own["added_tokens"] = [{"content": "quibbleford", "special": True, "id": 1}]
    (finding,) = check_files({"tokenizer.json": json.dumps(own).encode()}, LocalNames(), NOTES, 3, "someone/llama")
    assert (finding.kind, finding.times) == (RARE_WORD, 1)


def test_words_of_the_converted_smollm2_pass_without_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(tokens, "SMOLLM2_DIR", tmp_path)
    content = json.dumps({"model": {"type": "BPE", "merges": [], "vocab": {"\u0120smithson": 0}}}).encode()
    assert check_files({"tokenizer.json": content}, LocalNames(), NOTES, 3, base_model=SMOLLM2)
    (tmp_path / "tokenizer.json").write_bytes(content)
    assert check_files({"tokenizer.json": content}, LocalNames(), NOTES, 3, base_model=SMOLLM2) == []


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
