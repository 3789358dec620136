"""Word models: the reader that is made of the training notes, and the models that `modeling-icd train` makes of it."""

import gzip
import json
import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_models import CLEAN_PROCESS, run_clean
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, BertConfig, pipeline
from trl import TrlParser

from dataset_scripts import load_split
from dataset_scripts.builders.note_text import caml_text
from modeling_icd.evaluation.cli import main as evaluate_main
from modeling_icd.evaluation.decide import main as decide_main
from modeling_icd.modeling_icd import MODELS
from modeling_icd.training import word_reader, word_vectors
from modeling_icd.training.arguments import DataArguments, ICDTrainingArguments, ModelArguments
from modeling_icd.training.config_files import configs
from modeling_icd.training.models import configuration_fields
from modeling_icd.training.run import main
from modeling_icd.training.word_reader import WordReaderOptions, find_word_reader, word_tokenizer


NOTES = [
    "Fever, and a cough. 12 b12",
    "FEVER! Given b12; no cough",
    "fever ruled out",
]
# In three notes: fever; in two: b12, cough; in one: a, and, given, no, out, ruled.
VECTORS = "2 3\nfever 0 3 4\nsepsis 1 1 1\n"


def words_of(tokenizer, text) -> list[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


def tokenizer_for(*texts, **options):
    words = sorted({word for text in texts for word in caml_text(text).split()})
    return word_tokenizer({word: i for i, word in enumerate(("<pad>", "<unk>", *words))}, **options)


def make(folder, texts=NOTES, seed=0, **options):
    """The folder of a small reader."""
    given = {"min_count": 2, "embedding_size": 3, "vectors": "random", **options}
    return find_word_reader(WordReaderOptions.of(given), lambda: iter(texts), folder, seed, say=False)


@pytest.mark.parametrize(
    "text",
    [
        "Pt. is a 45yo M, BP 120/80; K+ 3.4\n\n____ b12_ 12_3 it's",
        "Élève: DIABÈTE de type-2, 38½ ²x x² ١٢ 糖尿病",
        "",
        " 1 2 3 ___ ",
    ],
)
def test_tokens_are_the_words_of_caml(text):
    assert words_of(tokenizer_for(text), text) == caml_text(text).split()


# Characters that this Python does not know yet may be letters for the tokenizer; a final sigma is another one in Python alone.
KNOWN = st.characters(exclude_categories=["Cn", "Cs"], exclude_characters="Σ").filter(
    lambda sign: all(unicodedata.category(low) != "Cn" for low in sign.lower())
)


@given(st.text(st.one_of(KNOWN, st.sampled_from("aB1_ .\n")), max_size=30))
def test_tokens_are_the_words_of_caml_whatever_the_script(text):
    assert words_of(tokenizer_for(text), text) == caml_text(text).split()


def test_offsets_are_those_of_the_note_as_it_is():
    note = "Fever?  10 mg B12, COUGH"
    encoded = tokenizer_for(note)(note, return_offsets_mapping=True)
    assert [note[start:end] for start, end in encoded["offset_mapping"]] == ["Fever", "mg", "B12", "COUGH"]


def test_unknown_words_and_padding(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(make(tmp_path))
    batch = tokenizer(["fever sepsis", "cough"], padding=True)
    assert batch["input_ids"] == [[2, 1], [4, 0]]
    assert batch["attention_mask"] == [[1, 1], [1, 0]]


@pytest.mark.parametrize("max_words", [1, 3, 4, 4000])
def test_a_note_is_cut_whoever_reads_it_with_the_saved_tokenizer(max_words, tmp_path):
    note = "12 A, 7 fever of 38.5; and _ a b_1 cough. the end"
    tokenizer_for(note, max_words=max_words).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    expected = caml_text(note).split()[:max_words]
    for options in ({}, {"truncation": False}, {"truncation": True}, {"padding": True}):
        assert tokenizer.convert_ids_to_tokens(tokenizer(note, **options)["input_ids"]) == expected
    offsets = tokenizer(note, return_offsets_mapping=True)["offset_mapping"]
    assert [note[start:end].lower() for start, end in offsets] == expected


def test_the_words_are_those_of_enough_notes_most_frequent_first(tmp_path):
    vocabulary = AutoTokenizer.from_pretrained(make(tmp_path)).get_vocab()
    assert sorted(vocabulary, key=vocabulary.get) == ["<pad>", "<unk>", "fever", "b12", "cough"]
    # Words of one note are not counted twice.
    assert "fever" not in AutoTokenizer.from_pretrained(make(tmp_path, ["fever fever", "b b", "b"])).get_vocab()


def test_no_frequent_word_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="min_count"):
        make(tmp_path, min_count=4)
    assert not (tmp_path / "word_reader").exists()


def test_the_reader_is_a_backbone(tmp_path):
    reader = AutoModel.from_pretrained(make(tmp_path, rnn="gru", rnn_size=4, max_words=5))
    assert (reader.config.vocab_size, reader.config.hidden_size, reader.config.max_position_embeddings) == (5, 8, 5)
    assert torch.equal(reader.embeddings.weight[0], torch.zeros(3))
    torch.testing.assert_close(reader.embeddings.weight[1:].norm(dim=1), torch.ones(4))
    assert reader(torch.tensor([[2, 3]])).last_hidden_state.shape == (1, 2, 8)


@pytest.mark.parametrize("vectors", ["random", "word2vec"])
def test_a_rebuild_gives_the_same_bytes(vectors, tmp_path):
    made = [make(tmp_path / name, NOTES * 5, vectors=vectors, rnn="lstm") for name in ("a", "b")]
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        first, second = ((tmp_path / folder / "word_reader" / name).read_bytes() for folder in ("a", "b"))
        assert first == second
    other = load_file(f"{make(tmp_path / 'c', NOTES * 5, vectors=vectors, rnn='lstm', seed=1)}/model.safetensors")
    same = load_file(f"{made[0]}/model.safetensors")
    assert not any(torch.equal(same[name], weight) for name, weight in other.items())


def test_word2vec_reads_the_notes(tmp_path):
    """Words that stand beside one another are alike, those of other notes are not."""
    draw = np.random.default_rng(0)
    texts = [" ".join(f"{draw.choice(list('abcdefgh'))}{topic}" for _ in range(40)) for topic in [*range(30)] * 20]
    folder = make(tmp_path, texts, vectors="word2vec", embedding_size=16, word2vec_epochs=20)
    vectors, ids = load_file(f"{folder}/model.safetensors")["embeddings.weight"], AutoTokenizer.from_pretrained(folder)
    first, beside, other = vectors[ids.convert_tokens_to_ids(["a1", "b1", "b2"])]
    assert first @ beside > 0.9 and first @ other < 0.7


def test_long_notes_are_not_cut_by_gensim():
    notes = word_vectors.TrainingWords.read(["a b " * 7_000], caml_text)
    parts = list(word_vectors._Sentences(notes))
    assert [len(part) for part in parts] == [10_000, 4_000]


@pytest.mark.parametrize("form", ["header", "no header", "gzip", "gensim", "gensim model"])
def test_vectors_from_a_file(form, tmp_path, capsys):
    path = tmp_path / "vectors"
    if form == "gzip":
        path.write_bytes(gzip.compress(VECTORS.encode()))
    elif form.startswith("gensim"):
        models = pytest.importorskip("gensim.models")
        saved = models.KeyedVectors(3)
        saved.add_vectors(["fever", "sepsis"], np.array([[0, 3, 4], [1, 1, 1]], np.float32))
        if form == "gensim model":
            saved = models.Word2Vec([["fever", "sepsis"]] * 9, vector_size=3, min_count=1)
            saved.wv.vectors[saved.wv.key_to_index["fever"]] = [0, 3, 4]
        saved.save(str(path))
    else:
        path.write_text(VECTORS if form == "header" else VECTORS.partition("\n")[2])
    options = WordReaderOptions.of(
        {"min_count": 2, "embedding_size": 3, "vectors": str(path), "normalize_vectors": False}
    )
    folder = find_word_reader(options, lambda: iter(NOTES), tmp_path, 0)
    weights = load_file(f"{folder}/model.safetensors")["embeddings.weight"]
    assert weights[2].tolist() == [0, 3, 4]
    assert weights[1].norm() > 0 and weights[3].norm() > 0
    assert "has vectors of 1 of them" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("fever 0.5 0.25\n", "2 wide.*embedding_size=2"),
        ("2 4\nsepsis 1 2 3 4\n", "4 wide.*embedding_size=4"),
        ("fever 0 3 4\nno vectors here at all\n", "line 2"),
        ("fever 0 3 x\n", "line 1"),
        (b"\x80\x04damaged", "gensim"),
        (gzip.compress(VECTORS.encode(), mtime=0)[:-9], "gzip"),
    ],
)
def test_a_file_that_does_not_fit_is_one_message(content, message, tmp_path):
    path = tmp_path / "vectors"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as raised:
        make(tmp_path, vectors=str(path))
    assert str(path) in str(raised.value)
    assert "sepsis" not in str(raised.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("min_count", 0),
        ("max_words", 0),
        ("max_words", 200_000),
        ("vectors", 3),
        ("word2vec_epochs", "many"),
        ("word2vec_window", 0),
        ("skip_gram", 1),
        ("normalize_vectors", "no"),
        ("embedding_size", 1.5),
        ("embedding_dropout", 1),
        ("embedding_dropout", "high"),
        ("rnn", "transformer"),
        ("rnn_size", 4),  # without `rnn`
        ("min_counts", 3),
    ],
)
def test_a_wrong_option_is_named(option, value):
    with pytest.raises(ValueError, match=rf"\b{option}\b"):
        WordReaderOptions.of({option: value})


def test_a_reader_is_made_once_and_again_where_something_has_changed(tmp_path, monkeypatch):
    made = []
    save = word_reader.save_reader
    monkeypatch.setattr(word_reader, "save_reader", lambda *args: [made.append(args), save(*args)])
    folder = make(tmp_path)
    state = torch.get_rng_state()
    assert make(tmp_path) == folder and len(made) == 1
    make(tmp_path, min_count=1)
    make(tmp_path, [*NOTES[:2], "fever b12"], min_count=1)
    make(tmp_path, [*NOTES[:2], "fever b12"], min_count=1, seed=1)
    assert len(made) == 4
    # Whether it was made or found changes nothing of what follows.
    assert torch.equal(torch.get_rng_state(), state)


def test_an_interrupted_reader_is_made_again_whole(tmp_path, monkeypatch):
    folder = make(tmp_path)
    expected = AutoTokenizer.from_pretrained(make(tmp_path / "other", min_count=1)).get_vocab()

    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(word_reader, "word_tokenizer", interrupt)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, min_count=1)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert make(tmp_path, min_count=1) == folder
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == expected


def test_the_cut_is_said_each_time(tmp_path, capsys):
    options = WordReaderOptions.of({"min_count": 2, "max_words": 4, "vectors": "random"})
    for _ in range(2):
        find_word_reader(options, lambda: iter(NOTES), tmp_path, 0)
        # 5, 5 and 3 words
        assert "cuts 2 of 3 notes (66.7%), by 15.4% of all words" in capsys.readouterr().out


def arguments(corpus, output_dir, *more, **options) -> list[str]:
    """Of `modeling-icd train` for a tiny word model."""
    given = {
        "model": "generic", "head": "label_attention", "backbone": "words", "dataset": "mimic3", "data_dir": corpus,
        "output_dir": output_dir, "num_train_epochs": 2, "learning_rate": 0.01, "use_cpu": True, "disable_tqdm": True,
        "tfidf_yardstick": False, **options,
    }  # fmt: skip
    reader = ["min_count=2", "embedding_size=8", "rnn=gru", "rnn_size=4", "vectors=random", *more]
    return [*(f"--{name}={value}" for name, value in given.items()), "--reader_options", *reader]


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """A word model whose notes are cut at 60 words."""
    folder = tmp_path_factory.mktemp("runs") / "words"
    assert main(arguments(corpus, folder, "max_words=60", num_train_epochs=3)) == 0
    return folder


def test_a_trained_word_model_reads_notes_in_every_way(trained, corpus, tmp_path):
    split = load_split("mimic3", "test", data_dir=corpus, cache_dir=tmp_path / "cache")
    note = split["text"][0]
    model = AutoModelForSequenceClassification.from_pretrained(trained)
    tokenizer = AutoTokenizer.from_pretrained(trained)
    assert len(tokenizer(note)["input_ids"]) == 60
    assert model.config.backbone_config.max_position_embeddings == 60
    (coded,) = pipeline("icd-coding", model=model, tokenizer=tokenizer)([note], top_k=5)
    end_of_cut = tokenizer(note, return_offsets_mapping=True)["offset_mapping"][-1][1]
    spans = [span for code in coded for span in code["evidence"]]
    assert len(coded) == 5 and spans
    for span in spans:
        assert note[span["start"] : span["end"]] == span["text"]
        assert span["start"] < end_of_cut
    # Words behind the cut change nothing.
    assert pipeline("icd-coding", model=model, tokenizer=tokenizer)(note + " sepsis", top_k=5) == coded
    (result,) = run_clean(CLEAN_PROCESS, note, tmp_path, trained)
    expected = model(**tokenizer(note, return_tensors="pt")).logits[0]
    for logits in result["logits"]:
        torch.testing.assert_close(torch.tensor(logits), expected, atol=1e-5, rtol=1e-5)


def test_the_words_are_those_of_the_notes_that_are_learned_from(trained, corpus, tmp_path, capsys):
    vocabulary = set(AutoTokenizer.from_pretrained(trained).get_vocab())
    assert set(AutoTokenizer.from_pretrained(f"{trained}-private/word_reader").get_vocab()) == vocabulary
    assert main(arguments(corpus, tmp_path / "refitted", refit_on_validation=True, num_train_epochs=1)) == 0
    assert "training note" not in capsys.readouterr().out  # where validation notes are among them
    refitted = set(AutoTokenizer.from_pretrained(tmp_path / "refitted").get_vocab())
    counts = {}
    for name in ("train", "validation"):
        split = load_split("mimic3", name, data_dir=corpus, cache_dir=tmp_path / "cache")
        for text in split["text"]:
            for word in set(caml_text(text).split()):
                counts.setdefault(word, {"train": 0, "validation": 0})[name] += 1
    special = {"<pad>", "<unk>"}
    assert vocabulary == special | {word for word, count in counts.items() if count["train"] >= 2}
    assert refitted == special | {word for word, count in counts.items() if sum(count.values()) >= 2}
    assert refitted > vocabulary


def test_a_word_model_resumes(corpus, tmp_path):
    whole = arguments(corpus, tmp_path / "whole", num_train_epochs=2)
    assert main(whole) == 0
    parted = arguments(corpus, tmp_path / "parted", num_train_epochs=2, save_total_limit=2)
    assert main(parted) == 0
    for path in (tmp_path / "parted").glob("model*.safetensors"):
        path.unlink()
    first, last = sorted((tmp_path / "parted").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for path in last.iterdir():
        path.unlink()
    last.rmdir()
    assert main([*parted, f"--resume_from_checkpoint={first}"]) == 0
    expected, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parted"))
    for name, weight in expected.items():
        torch.testing.assert_close(resumed[name], weight)


def test_a_frozen_reader_learns_nothing(corpus, tmp_path):
    assert main(arguments(corpus, tmp_path / "m", freeze_backbone=True, num_train_epochs=1)) == 0
    made = load_file(tmp_path / "m-private/word_reader/model.safetensors")
    model = load_file(tmp_path / "m/model.safetensors")
    for name, weight in made.items():
        assert torch.equal(model[f"model.{name}"], weight)


def test_fixed_vectors_stay_while_the_network_over_them_learns(corpus, tmp_path, capsys):
    options = {"num_train_epochs": 1, "weight_decay": 0.1}
    assert main(arguments(corpus, tmp_path / "m", "train_vectors=false", **options)) == 0
    made = load_file(tmp_path / "m-private/word_reader/model.safetensors")
    weights = load_file(tmp_path / "m/model.safetensors")
    assert torch.equal(weights["model.embeddings.weight"], made["embeddings.weight"])
    assert not torch.equal(weights["model.rnn.weight_hh_l0"], made["rnn.weight_hh_l0"])
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")
    assert [name for name, weight in model.named_parameters() if not weight.requires_grad] == [
        "model.embeddings.weight"
    ]
    learns = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert f"{learns:,} trained weights" in capsys.readouterr().out
    with pytest.raises(ValueError, match="`reader_options train_vectors` must be true or false, got 'no'"):
        WordReaderOptions.of({"train_vectors": "no"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "direct", "head": None}, "`model` 'direct' stands on a Llama"),
        ({"lora_r": 4}, "lora_r"),
        ({"reader_options": ["min_count"]}, "NAME=VALUE"),
        ({"reader_options": ["vectors=nowhere.txt"]}, "nowhere.txt"),
        ({"backbone": "someone/llama"}, "give `backbone` 'words'"),
        ({"bidirectional_attention": True}, "`bidirectional_attention` lifts the causal mask"),
        ({"model": "laat", "head": None, "context_size": 3}, "The head 'laat' has no option `context_size`"),
        ({"head": "mean", "start_titles": True}, "and the head 'mean' has no queries: leave it out"),
    ],
)
def test_a_mistake_is_one_message_before_notes_are_read(options, message, tmp_path, capsys):
    given = {"model": "generic", "head": "label_attention", "backbone": "words", **options}
    reader = given.pop("reader_options", ["min_count=2"])
    command = [f"--{name}={value}" for name, value in given.items() if value is not None]
    command += ["--reader_options", *reader, "--dataset=mimic3", "--data_dir=nowhere", f"--output_dir={tmp_path}"]
    assert main(command) == 2
    assert message in capsys.readouterr().err


def test_without_gensim_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setattr(word_vectors, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"modeling-icd\[words\].*vectors=random"):
        word_vectors.check_vectors("word2vec")
    word_vectors.check_vectors("random")


def test_what_a_reader_was_made_from_holds_no_text(tmp_path):
    made = json.loads((tmp_path / make(tmp_path) / "made_from.json").read_text())
    assert not [word for word in ("fever", "cough") if word in json.dumps(made)]


@pytest.mark.parametrize("name", [name for name in configs() if name.startswith("peers/")])
def test_the_configurations_of_published_models_are_whole(name):
    """Each is read, and gives a configuration of its model."""
    over_bert = "plm" in name or "bert" in name
    given = ["--config", str(configs()[name]), "--dataset=cmc2007", "--data_dir=DIR"]
    parser = TrlParser([ModelArguments, DataArguments, ICDTrainingArguments])
    model_args, _, args = parser.parse_args_and_config([*given, *(["--backbone=someone/bert"] if over_bert else [])])
    reader = model_args.parsed_reader_options()
    assert (reader is None) == over_bert
    backbone = BertConfig(num_hidden_layers=1) if reader is None else reader.config(vocab_size=9)
    config_class = MODELS[model_args.model].config_class
    config = config_class.from_backbone(
        backbone, id2label={0: "401.9", 1: "428.0"}, **configuration_fields(model_args, backbone)
    )
    assert config.loss_reduction == "mean"
    assert {name: str(config.head_options[name]) for name in model_args.parsed_head_options()} == {
        name: str(value) for name, value in model_args.parsed_head_options().items()
    }
    assert args.output_dir == f"runs/{name.removeprefix('peers/')}"
    assert model_args.head_start == "random"


def test_notes_without_a_word_in_files_of_the_users_own_are_counted(tmp_path, capsys):
    """A number is no word of CAML's, and white space no text: neither ends training, evaluation or a decision."""
    for name, size in (("train", 24), ("validation", 12), ("test", 10)):
        texts = ["12 / 80", " ", "140", *["fever and a cough", "no fever"] * size][:size]
        rows = [f'{name}{i},"{text}",{("486", "401.9")[i % 2]}\n' for i, text in enumerate(texts)]
        (tmp_path / f"{name}.csv").write_text("id,text,codes\n" + "".join(rows))
    given = {"model": "generic", "head": "cnn", "backbone": "words", "num_train_epochs": 1, "use_cpu": True}
    given |= {"train_file": tmp_path / "train.csv", "validation_file": tmp_path / "validation.csv"}
    given |= {"output_dir": tmp_path / "model", "report_to": "none"}
    options = [f"--{name}={value}" for name, value in given.items()]
    assert main([*options, "--reader_options", "embedding_size=8", "vectors=random", "min_count=1"]) == 0
    said = capsys.readouterr()
    assert "warning: 2 training notes have no text: they are left out." in said.err
    assert "warning: 2 validation notes have no text" in said.err
    assert (
        "22 notes" not in said.out and "21 notes to train on" in said.out
    )  # 24, less the blank row and two of numbers
    assert evaluate_main([str(tmp_path / "model"), f"--test_file={tmp_path / 'test.csv'}"]) == 0
    assert (
        "2 of 9 notes are empty (2 of them with text, but without a word that the model knows)"
        in capsys.readouterr().out
    )
    results = json.loads((tmp_path / "model/evaluation/test/results.json").read_text())
    assert (results["num_notes"], results["num_empty_notes"]) == (9, 2)
    files = [f"--{split}_file={tmp_path / split}.csv" for split in ("train", "validation")]
    assert decide_main([str(tmp_path / "model"), *files]) == 0
    said = "Validation: 2 of 11 notes are empty (2 of them with text, but without a word that the model knows); the decision is"
    assert said in capsys.readouterr().out
    assert decide_main([str(tmp_path / "model"), *files, "--threshold_rule=conformal", "--target_recall=0.5"]) == 2
    assert "2 of 11 validation notes are empty, so no decision" in capsys.readouterr().err
    (tmp_path / "numbers.csv").write_text("id,text,codes\n" + "".join(f"n{i},{i},486\n" for i in range(5)))
    assert evaluate_main([str(tmp_path / "model"), f"--test_file={tmp_path / 'numbers.csv'}"]) == 2
    assert "gives no token for 5 of 5 notes that have text" in capsys.readouterr().err
