"""`modeling-icd try`: one note coded on the console, by a model folder or by a coder that comes with the package."""

import io
import json
import sys

import pytest
from rich.console import Console
from safetensors import safe_open
from test_pipeline import save_coder
from transformers import AutoConfig

from modeling_icd.coders import CODERS, CODERS_DIR, DEFAULT_CODER, NOTICE, find_coder, notice_of
from modeling_icd.heads import head_of_config
from modeling_icd.inference.try_note import EXAMPLE, main, marked


NOTE = "fever and cough [bold]today[/bold] <b>x</b>"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_coder(tmp_path_factory.mktemp("model"))


def test_the_codes_and_the_note_are_printed(model, capsys):
    assert main([NOTE, "--model", model, "--top_k", "2"]) == 0
    printed = capsys.readouterr().out
    config = AutoConfig.from_pretrained(model)
    assert sum(code in printed for code in config.id2label.values()) >= 2
    plain = printed.replace("[1]", "").replace("[2]", "").replace("[1,2]", "").replace("\n", " ")
    assert NOTE.split() == plain.split()[: len(NOTE.split())]  # as it is: nothing in it is markup
    assert "check each code" in " ".join(printed.split())


def test_without_a_code_above_the_threshold_the_nearest_are_shown(model, capsys):
    assert main([NOTE, "--model", model, "--threshold", "1"]) == 0
    printed = capsys.readouterr().out
    assert "No code reaches the threshold. The 3 nearest are:" in printed and printed.count("below the") == 3


def test_without_a_note_an_invented_one_is_coded(model, capsys):
    assert main(["--model", model, "--top_k", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("No note was given, so an invented one is coded.")
    assert EXAMPLE.split()[-1] in printed


def test_a_note_comes_from_a_file_or_a_pipe(model, tmp_path, capsys, monkeypatch):
    file = tmp_path / "note.txt"
    file.write_text("\ufefffever", encoding="utf-8")
    assert main(["--file", str(file), "--model", model, "--top_k", "1"]) == 0
    assert "\ufeff" not in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"cough")))
    assert main(["--file", "-", "--model", model, "--top_k", "1"]) == 0
    assert "cough" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["  "], "The note is blank"),
        (["fever", "--file", "x"], "not both"),
        (["--file", "nothing.txt"], "nothing.txt"),
        (["note.txt"], "note.txt is a file: give it as `--file note.txt`"),
        (["fever", "--threshold", "7"], "`threshold` must be a number in [0, 1]"),
        (["fever", "--model", "no/such/folder/here"], "no/such/folder/here"),
    ],
)
def test_mistakes_are_one_message(arguments, message, model, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "note.txt").write_text("fever")
    assert main([*arguments, *([] if "--model" in arguments else ["--model", model])]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and error.count("error:") == 1


def test_a_file_in_another_encoding_is_one_message(model, tmp_path, capsys):
    file = tmp_path / "note.txt"
    file.write_bytes("fi\xe8vre".encode("latin-1"))
    assert main(["--file", str(file), "--model", model]) == 2
    assert "note.txt is not UTF-8 text (byte 2)" in capsys.readouterr().err


def test_words_are_marked_where_the_evidence_is():
    codes = [
        {"evidence": [{"start": 10, "end": 15}]},
        {"evidence": [{"start": 0, "end": 5}, {"start": 10, "end": 15}]},
    ]
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=80)
    text = marked("fever and cough", codes)
    assert text.plain == "fever[2] and cough[1,2]"
    console.print(text)
    assert "\x1b[1;4;38;2;" in console.file.getvalue()
    assert marked("fever", [{"evidence": None}]).plain == "fever"


@pytest.mark.parametrize("name", CODERS)
def test_a_coder_of_the_package_is_whole(name):
    folder = CODERS_DIR / name
    config = AutoConfig.from_pretrained(folder)
    assert config.backbone_source["name"] == "smollm2" and config.freeze_backbone
    assert not hasattr(config, "auto_map") or config.auto_map is None  # its code is the package
    with safe_open(folder / "model.safetensors", "pt") as file:
        stored = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no dictionary
    own = {f"score.{key}": tuple(weight.shape) for key, weight in head_of_config(config).state_dict().items()}
    assert stored == own
    assert len(config.code_descriptions) > 0.9 * config.num_labels
    assert config.training_data["dataset"] == "codiesp" and config.training_data["open"] is True
    results = json.loads((folder / "results.json").read_text())
    card = (folder / "README.md").read_text()
    assert results["dataset"] == "codiesp" and results["split"] == "test" and results["num_notes"] == 125
    assert f"value: {round(results['metrics']['f1_micro'], 4)}" in card
    assert "cc-by-4.0" in card.casefold() or "CC BY 4.0" in card
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10 * 2**20
    assert notice_of(name) == NOTICE


def test_a_folder_of_the_same_name_goes_first(tmp_path, monkeypatch):
    assert find_coder(DEFAULT_CODER) == str(CODERS_DIR / DEFAULT_CODER)
    assert find_coder("runs/mine") == "runs/mine" and notice_of("runs/mine") is None
    (tmp_path / DEFAULT_CODER).mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_coder(DEFAULT_CODER) == DEFAULT_CODER


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "code"), [("codiesp-en", "R50.9"), ("codiesp-en-top50", "R50.9"), ("codiesp-es", "R50.9")]
)
def test_a_coder_of_the_package_codes_a_note(name, code, capsys):
    note = "Paciente con fiebre, dolor abdominal y v\u00f3mitos." if name.endswith("es") else EXAMPLE
    assert main([note, "--model", name, "--top_k", "5"]) == 0
    assert code in capsys.readouterr().out
