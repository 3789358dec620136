"""What goes out of a model folder's files, field by field, and what a broken one of them is answered with."""

import json

from huggingface_hub import ModelCard

from dataset_scripts.codes import icd10_hierarchy
from modeling_icd.evaluation.yardsticks import training_warning
from modeling_icd.publishing.card import build_card
from modeling_icd.publishing.cli import main
from modeling_icd.publishing.fields import CONFIG, RUN
from modeling_icd.publishing.folder import ModelFolder
from modeling_icd.publishing.release import outgoing_files, plan_release
from modeling_icd.sharing_icd import is_sealed


REPO = "someone/tiny-icd"
NO = object()
# File, field, and what it is broken to; NO takes it out.
BROKEN = [
    *(("config.json", "auto_map", value) for value in ([], "x.py", 5, {"AutoModel": None}, {"AutoModel": ["a", "b"]})),
    ("config.json", "auto_map", {"AutoModel": "other/repo--modeling_icd.LlamaForICDCoding"}),
    ("config.json", "auto_map", {"AutoTokenizer": "modeling_icd.LlamaForICDCoding"}),
    ("config.json", "custom_pipelines", {"icd-coding": {"impl": "other/repo--pipeline_icd.ICDCodingPipeline"}}),
    *(("config.json", "custom_pipelines", value) for value in ([], "x", {"icd-coding": None}, {"other": {}})),
    *(
        ("config.json", "training_data", value)
        for value in ([], "mimic3", 5, True, {"dataset": 3}, {"code_counts": []}, {"code_counts": {"2101-01-01": 3}})
    ),
    *(
        ("config.json", "training_data", {"yardsticks": {"model": {"map": 0.5}, "frequencies": {"map": 0.5}} | broken})
        for broken in (
            *({}, {"below": "tfidf"}, {"below": ["Smith"]}, {"below": [], "tfidf": {"f1_micro": 0.5}}),
            *({"below": [], "model": {"map": "0.5"}}, {"below": [], "note": "Smith"}),
        )
    ),
    ("config.json", "training_data", {"dataset": "mimic3", "earlier": "mimic3"}),
    ("config.json", "training_data", {"dataset": "mimic3", "earlier": {"dataset": []}}),
    *(("config.json", "id2label", value) for value in ([], "401.9", None, 5, {}, {"0": 401.9}, {"a": "401.9"})),
    ("config.json", "id2label", {"0": "401.9", "1": "John Smith", "2": "96.71"}),
    ("config.json", "id2label", {"0": "401.9", "2": "428.0"}),
    ("config.json", "id2label", NO),
    *(("config.json", "code_descriptions", value) for value in ([], "x", {"401.9": 5})),
    *(("config.json", "threshold", value) for value in ("0.5", None, [None], {})),
    ("config.json", "calibration", {"method": "platt"}),
    ("config.json", "architectures", []),
    ("config.json", "hidden_size", "8"),
    *(("results.json", "metrics", value) for value in ([], "0.5", None, 5, {"f1_micro": "0.5"}, {"f1_micro": [0.5]})),
    *(("results.json", "intervals", value) for value in ([], {"f1_micro": 0.5}, {"f1_micro": [0.1, None]})),
    *(("results.json", "strata", value) for value in ([], None, {"frequency": {}}, {"frequency": [5]})),
    *(("results.json", field, 5) for field in ("split", "config", "dataset", "threshold_source")),
    ("results.json", "num_notes", "four"),
    ("results.json", "thresholds", []),
    ("results.json", "training_warning", "Smith has a cough."),
    *(("run.json", "model", value) for value in ([], None, {}, {"backbone": 5, "freeze_backbone": True, "lora_r": 0})),
    *(("run.json", field, []) for field in ("data", "training")),
    *(("run.json", "log", value) for value in ({}, "x", [5], [{"train_runtime": "x"}])),
    ("tokenizer_config.json", "pad_token", ["x"]),
    *(
        ("tokenizer.json", "model", value)
        for value in (5, [], {"type": "WordLevel", "vocab": [1]}, {"vocab": {"a": "b"}})
    ),
    ("tokenizer.json", "model", {"type": "WordLevel", "vocab": {"[UNK]": 0, "fever": 2.5}, "unk_token": "[UNK]"}),
    ("tokenizer.json", "model", {}),
    ("tokenizer.json", "model", NO),
    *(("tokenizer.json", "added_tokens", value) for value in (5, "x", [5], [{"content": "Smith"}])),
    ("tokenizer.json", "padding", {"pad_id": "Smith"}),
    ("tokenizer.json", "post_processor", {"special_tokens": {"Smith": {"ids": ["x"]}}}),
    ("membership.json", "loss_interval", 5),
]


MEMBERSHIP = {
    **{"weights": "0" * 64, "split": "test", "num_members": 2, "num_unseen": 2, "loss_auc": 0.5, "reference_auc": 0.5},
    **{"loss_interval": [0.4, 0.6], "reference_interval": [0.4, 0.6]},
}


def change(folder, name, field, value):
    path = folder / name
    content = json.loads(path.read_text()) if path.is_file() else dict(MEMBERSHIP)
    content[field] = value
    if value is NO:
        del content[field]
    path.write_text(json.dumps(content))


def test_a_field_of_the_wrong_type_is_one_message_that_names_it(finished_run, model_dir, capsys):
    for name, field, value in BROKEN:
        before = (model_dir / name).read_text() if (model_dir / name).is_file() else None
        change(model_dir, name, field, value)
        case = f"{name}: {field} = {value!r}"
        assert main([str(model_dir), "--repo_id", REPO, "--dry_run"]) == 2, case
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1, case
        assert field in error and name in error, (case, error)
        assert "Smith" not in error and "Traceback" not in error
        (model_dir / name).unlink() if before is None else (model_dir / name).write_text(before)
    assert len(BROKEN) >= 50
    assert main([str(model_dir), "--repo_id", REPO, "--dry_run"]) == 0


def release_of(path):
    folder = ModelFolder.read(path)
    release = plan_release(folder, REPO)
    return outgoing_files(folder, release, build_card(folder, release))


def test_an_unknown_field_stays_at_home_and_is_named(model_dir, edit, capsys):
    record = json.loads((model_dir / "config.json").read_text())["training_data"]
    edit("config.json", note_example="seen at home", training_data={**record, "first_note": "seen at home"})
    edit("tokenizer_config.json", auto_map={"AutoTokenizer": ["other/repo--file.Class", None]}, notes="seen at home")
    edit("results.json", best_note="seen at home")
    run = json.loads((model_dir / "run.json").read_text())
    edit("run.json", model={**run["model"], "remark": "home"})
    assert main([str(model_dir), "--repo_id", REPO, "--dry_run"]) == 0
    shown = capsys.readouterr().out
    assert "Left out of config.json: note_example, training_data.first_note (unknown fields)." in shown
    assert "Left out of tokenizer_config.json: auto_map, notes (unknown fields)." in shown
    files = release_of(model_dir)
    written = b"".join(content for content in files.values() if isinstance(content, bytes))
    assert b"seen at home" not in written and b"other/repo" not in written and b"remark" not in written
    assert is_sealed(json.loads(files["config.json"])["training_data"])


def test_yardsticks_and_their_warning_go_out(model_dir, edit):
    record = json.loads((model_dir / "config.json").read_text())["training_data"]
    found = {
        "model": {"map": 0.25, "f1_micro": 0.5},
        "frequencies": {"map": 0.125},
        "tfidf": {"map": 0.5, "f1_micro": 0.75},
    }
    record["yardsticks"] = {**found, "below": ["tfidf"]}
    edit("config.json", training_data=record)
    warning = training_warning(record)
    edit("results.json", training_warning=warning)
    files = release_of(model_dir)
    published = json.loads(files["config.json"])["training_data"]
    assert published["yardsticks"] == record["yardsticks"] and is_sealed(published)
    assert json.loads(files["results.json"])["training_warning"] == warning


def test_only_official_titles_go_out(model_dir, edit, capsys):
    titles = {"401.9": "Unspecified essential hypertension", "428.0": "Mr Smith's heart", "000.0": "Asthma"}
    edit("config.json", code_descriptions=titles)
    assert main([str(model_dir), "--repo_id", REPO, "--dry_run"]) == 0
    shown = capsys.readouterr().out
    assert "Left out of config.json: 2 code_descriptions that are no official titles (428.0)." in shown
    assert "Smith" not in shown
    assert json.loads(release_of(model_dir)["config.json"])["code_descriptions"] == {
        "401.9": "Unspecified essential hypertension"
    }


def test_titles_of_icd10_are_those_of_its_tabular_list(model_dir, edit, monkeypatch):
    # The list itself takes seconds to load.
    monkeypatch.setattr(icd10_hierarchy, "_block_of", dict)
    monkeypatch.setattr(icd10_hierarchy, "_tabular_titles", lambda: {"I10": "Essential (primary) hypertension"})
    codes = ["I10", "E11.9", "J18.9"]
    titles = {"I10": "Essential (primary) hypertension", "E11.9": "Sugar of Mrs Smith"}
    edit("config.json", id2label=dict(enumerate(codes)), label2id={c: i for i, c in enumerate(codes)})
    edit("config.json", code_descriptions=titles)
    config = json.loads(release_of(model_dir)["config.json"])
    assert config["code_descriptions"] == {"I10": "Essential (primary) hypertension"}
    assert config["label2id"] == {"I10": 0, "E11.9": 1, "J18.9": 2}


BAD_NAME = "x` | <script>alert(1)</script>\n\n---\n# Heading [a](http://b) ![i](j) {{ title }} *b*"


def test_names_from_the_files_are_escaped_in_the_card(model_dir, edit):
    results = json.loads((model_dir / "results.json").read_text())
    band = {**results["strata"]["frequency"][0], "stratum": BAD_NAME}
    edit(
        "results.json",
        dataset=BAD_NAME,
        config=BAD_NAME,
        split=BAD_NAME,
        threshold_source=BAD_NAME,
        strata={"frequency": [band]},
    )
    edit("config.json", training_data={"dataset": BAD_NAME, "config": BAD_NAME, "synthetic": True})
    folder = ModelFolder.read(model_dir)
    card = build_card(folder, plan_release(folder, REPO))
    content = ModelCard(card)
    assert content.data.eval_results[0].dataset_split == " ".join(BAD_NAME.split())
    text = content.text
    assert "<script>" not in text and "](http://b)" not in text and "\n# Heading" not in text and "x`" not in text
    assert "&#60;script&#62;" in text
    assert [line.count("|") for line in text.splitlines() if "&#60;script" in line and line.startswith("|")] == [3, 7]
    assert "\n---\n" not in text


def test_names_of_unknown_data_are_escaped_in_the_card(model_dir, edit):
    edit("config.json", training_data={"dataset": BAD_NAME, "config": BAD_NAME, "synthetic": False})
    folder = ModelFolder.read(model_dir)
    card = build_card(folder, plan_release(folder, REPO, permission="a <b>letter</b> | of\n# 2026"))
    text = ModelCard(card).text
    assert "<script>" not in text and "<b>" not in text and "x`" not in text and "\n# 2026" not in text


def test_a_graph_of_codes_may_go_out():
    graph = {"sources": ["hierarchy", "co_occurrence"], "layers": 1, "neighbours": 16, "threshold": 0.4}
    assert CONFIG["label_graph"].accepts(graph) and CONFIG["label_graph"].accepts(None)
    assert not CONFIG["label_graph"].accepts(graph | {"sources": ["the notes of John Smith"]})
    assert not CONFIG["label_graph"].accepts(graph | {"comment": 1})
    settings = {"backbone": "words", "freeze_backbone": False, "lora_r": 0, "label_graph": ["hierarchy"]}
    assert RUN["model"].accepts(settings)
    assert not RUN["model"].accepts(settings | {"label_graph": ["John"]})
