"""Training a generative coder: what it learns from, its stages, resuming, and the mistakes."""

import json
import shutil
from pathlib import Path

import datasets
import pytest
import torch
from safetensors.torch import load_file
from trl import TrlParser

from dataset_scripts.evidence import NoEvidenceError
from dataset_scripts.files import read_json
from modeling_icd.generative import examples
from modeling_icd.generative.arguments import ARGUMENTS, GenerativeArguments
from modeling_icd.generative.examples import draw_shots, in_order, learning_examples, marked, reward_of
from modeling_icd.generative.training import check_context
from modeling_icd.inference.model_folder import read_canaries
from modeling_icd.publishing.folder import ModelFolder
from modeling_icd.training.arguments import DataArguments
from modeling_icd.training.config_files import given_field
from modeling_icd.training.run import main, parse


NOTES = datasets.Dataset.from_dict(
    {
        "hadm_id": [1, 2, 3],
        "text": ["weak heart and pressure", "", "pressure\nweak heart"],
        "codes": [["401.9", "428.0", "999.9"], ["401.9"], ["428.0", "401.9"]],
    }
)
COUNTS = {"401.9": 9, "428.0": 2}


def test_codes_are_answered_in_the_order_of_their_evidence_then_of_their_frequency():
    assert in_order(["428.0", "401.9", "999.9"], COUNTS, None) == ["401.9", "428.0"]
    assert in_order(["401.9", "428.0"], COUNTS, {"401.9": [[20, 25]], "428.0": [[30, 34], [3, 8]]}) == [
        "428.0",
        "401.9",
    ]
    assert in_order(["401.9", "428.0"], COUNTS, {"428.0": [[3, 8]]}) == ["428.0", "401.9"]


def test_only_the_answer_and_its_end_are_learned(make_coder):
    coder = make_coder(["401.9", "428.0"])
    rows = learning_examples(NOTES, coder.prompter, coder.grammar, COUNTS)
    assert len(rows) == 2  # a note without text teaches nothing
    learned = [
        [token for token, is_learned in zip(row["input_ids"], row["completion_mask"], strict=True) if is_learned]
        for row in rows
    ]
    assert [coder.tokenizer.decode(tokens) for tokens in learned] == ["401.9; 428.0</s>"] * 2
    text = coder.tokenizer.decode(rows[0]["input_ids"])
    assert text == ("<s>system\nCodes?</s>\n<s>user\nweak heart and pressure</s>\n<s>assistant\n401.9; 428.0</s>")


def test_a_section_learns_the_codes_whose_evidence_is_in_it(make_coder):
    coder = make_coder(["401.9", "428.0"], max_note_tokens=10, long_notes="sections")
    evidence = [{}, {}, {"401.9": [[0, 8]], "428.0": [[9, 19]]}]
    rows = learning_examples(NOTES, coder.prompter, coder.grammar, COUNTS, evidence)
    texts = [coder.tokenizer.decode(row["input_ids"]).split("user\n")[1] for row in rows]
    assert texts[-2:] == ["pressure\n</s>\n<s>assistant\n401.9</s>", "weak heart</s>\n<s>assistant\n428.0</s>"]


def test_evidence_that_cannot_be_read_is_no_evidence_that_is_not_there(monkeypatch, tmp_path):
    assert marked(NOTES, str(tmp_path), "evidence") is None  # these mark none
    fault = ValueError("evidence.jsonl.gz is damaged")
    monkeypatch.setattr(examples, "gold_evidence", lambda *_: (_ for _ in ()).throw(fault))
    with pytest.raises(ValueError, match="is damaged"):
        marked(NOTES, str(tmp_path), "evidence")
    monkeypatch.setattr(examples, "gold_evidence", lambda *_: (_ for _ in ()).throw(NoEvidenceError("none")))
    assert marked(NOTES, str(tmp_path), "evidence") is None
    assert marked(NOTES, str(tmp_path), "frequency") is None


def test_the_reward_is_the_f1_of_the_note_less_a_penalty_for_codes_outside_the_set():
    assert reward_of([0, 1], 0, [1, 2], 0.1) == 0.5
    assert reward_of([0, 1], 2, [1, 2], 0.1) == pytest.approx(0.3)
    assert reward_of([1], 50, [1], 0.1) == 0.0
    assert reward_of([], 0, [], 0.1) == 1.0


def test_a_resumed_run_ends_where_an_uninterrupted_one_does_and_other_data_are_refused(arguments, tmp_path, capsys):
    options = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 5}
    assert main(arguments("sft", "whole", **options)) == 0
    whole = load_file(tmp_path / "whole/model.safetensors")
    shutil.copytree(tmp_path / "whole/checkpoint-2", tmp_path / "again/checkpoint-2")
    resumed = arguments("sft", "again", resume_from_checkpoint="last", **options)
    record = tmp_path / "again/checkpoint-2/config.json"
    kept = record.read_text()
    record.write_text(kept.replace('"files"', '"mimic3"'))
    assert main(resumed) == 2
    assert "is not of a run on these data" in capsys.readouterr().err
    record.write_text(kept)
    assert main(resumed) == 0
    again = load_file(tmp_path / "again/model.safetensors")
    assert whole.keys() == again.keys()
    for name, weights in whole.items():
        torch.testing.assert_close(again[name], weights, atol=1e-6, rtol=1e-5)
    assert not (tmp_path / "whole/README.md").exists()  # trl would write a card that names folders


def test_rewards_follow_the_learned_answers_and_the_notes_of_both_stages_stay_on_record(arguments, tmp_path, capsys):
    assert main(arguments("sft", canaries=2)) == 0
    options = {
        "num_generations": 2,
        "save_steps": 1,
        "save_total_limit": 5,
        "max_steps": 2,
        "backbone": tmp_path / "run",
    }
    assert main(arguments("grpo", "rewarded", **options)) == 0
    config = read_json(tmp_path / "rewarded/config.json", "")
    assert (
        config["training_data"]["earlier"]["weights"]
        == read_json(tmp_path / "run/config.json", "")["training_data"]["weights"]
    )
    assert config["generative"]["instruction"] == "Codes?"  # as it was learned
    planted = read_canaries(tmp_path / "run")
    assert len(planted) == 2 and read_canaries(tmp_path / "rewarded") == planted
    curve = [row["reward"] for row in read_json(tmp_path / "rewarded/run.json", "")["log"] if "reward" in row]
    assert len(curve) == 2 and all("kl" in row for row in read_json(tmp_path / "rewarded/run.json", "")["log"][:2])
    state = read_json(tmp_path / "rewarded/checkpoint-2/trainer_state.json", "")
    assert [row["reward"] for row in state["log_history"] if "reward" in row] == curve
    shutil.rmtree(tmp_path / "rewarded/checkpoint-2")
    (tmp_path / "rewarded/model.safetensors").unlink()
    assert main(arguments("grpo", "rewarded", resume_from_checkpoint="last", **options)) == 0
    assert f"resuming from {tmp_path}/rewarded/checkpoint-1" in capsys.readouterr().out
    (tmp_path / "run-private/canaries.json").unlink()
    assert main(arguments("prompt", "asked", backbone=tmp_path / "run")) == 2
    assert f"learned from 2 canaries, which are no longer in {tmp_path}/run-private" in capsys.readouterr().err


def test_notes_in_the_prompt_make_the_folder_confidential(arguments, tmp_path, capsys):
    assert main(arguments("prompt", shots=2, titles="true", codes_in_prompt="titles", max_codes=1)) == 0
    settings = read_json(tmp_path / "run/config.json", "")["generative"]
    assert len(settings["examples"]) == 2
    assert all("visit" in note and answer for note, answer in settings["examples"])
    assert (tmp_path / "run").stat().st_mode & 0o077 == 0
    with pytest.raises(ValueError, match="training notes in its prompt"):
        ModelFolder.read(tmp_path / "run")
    # A coder that is made of it has them, too, and so has its folder, also where it was there before.
    (tmp_path / "again").mkdir(mode=0o755)
    assert main(arguments("prompt", "again", backbone=tmp_path / "run", max_codes=1)) == 0
    assert "made with `codes_in_prompt`" not in capsys.readouterr().err
    assert read_json(tmp_path / "again/config.json", "")["generative"]["examples"] == settings["examples"]
    assert (tmp_path / "again").stat().st_mode & 0o077 == 0


def test_a_coder_that_is_asked_in_other_words_than_it_learned_is_warned_of(arguments, tmp_path, capsys):
    assert main(arguments("prompt")) == 0
    options = {"backbone": tmp_path / "run", "codes_in_prompt": "titles", "max_codes": 1}
    assert main(arguments("prompt", "other", **options)) == 0
    assert "made with `codes_in_prompt` 'none' and is now asked with 'titles'" in capsys.readouterr().err


@pytest.mark.parametrize(("window", "layers"), [(649, None), (649, ["full_attention", "sliding_attention"])])
def test_notes_that_a_sliding_window_cuts_are_refused(make_coder, window, layers):
    coder = make_coder(tree_tokens=500)  # with a note of 100 tokens, the prompt and the answer
    coder.model.config.sliding_window = window
    coder.model.config.layer_types = ["full_attention"]
    check_context(coder)
    coder.model.config.layer_types = layers
    with pytest.raises(ValueError, match="attend within 649 tokens"):
        check_context(coder)


def test_too_many_shots_are_refused(make_coder):
    coder = make_coder()
    with pytest.raises(ValueError, match=r"`shots` \(3\) is more than the 2 training notes"):
        draw_shots(NOTES, coder.prompter, COUNTS, None, 3, 0)


@pytest.mark.parametrize(
    ("stage", "options", "message"),
    [
        ("sft", {"max_note_tokens": 30}, "8 of 12 notes have more than 30 tokens (`max_note_tokens`)"),
        ("sft", {"max_note_tokens": 600}, "leaves no room for the prompt"),
        ("sft", {"instruction": "x" * 500}, "and the answer (up to 22): the language model reads 512 tokens"),
        ("sft", {"packing": "true", "max_length": 40}, "longer than a pack"),
        ("sft", {"packing": "true", "packing_strategy": "wrapped", "max_length": 99}, "`packing_strategy` 'wrapped'"),
        ("sft", {"max_length": 99}, "`packing` and `max_length`"),
        ("sft", {"shots": 1}, "give `stage` 'prompt'"),
        ("sft", {"load_in_4bit": "true"}, "cannot take up what was learned"),
        ("grpo", {"attn_implementation": "flash_attention_2"}, "needs `attn_implementation` sdpa or eager"),
        ("sft", {"push_to_hub": "true"}, "push it with `modeling-icd publish`"),
        ("grpo", {"log_completions": "true", "num_generations": 2}, "writes notes to the model's folder"),
        ("sft", {"freeze_backbone": "true"}, "no option --freeze_backbone"),
        ("dpo", {}, "must be one of prompt, sft, grpo, got 'dpo'"),
    ],
)
def test_a_mistake_is_one_message(arguments, capsys, stage, options, message):
    assert main(arguments(stage, **options)) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert message in said
    assert "visit" not in said


def test_validation_notes_that_cannot_be_scored_are_told_of_before_training(arguments, notes_dir, tmp_path, capsys):
    folder = shutil.copytree(notes_dir, tmp_path / "notes")
    with (folder / "validation.csv").open("a") as file:
        file.write(f"long,{'weak heart ' * 20},428.0\n")
    assert main(arguments("sft", data_dir=folder, threshold_rule="global")) == 2
    assert "1 of 5 notes have more than 100 tokens" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_a_file_names_the_model_and_its_stage(arguments, tmp_path, capsys):
    given = arguments("prompt")
    fields = dict(zip([name[2:] for name in given[::2]], given[1::2], strict=True))
    path = tmp_path / "run.yaml"
    path.write_text(
        json.dumps(
            {
                **fields,
                "max_steps": 4,
                "max_codes": 3,
                "max_note_tokens": 100,
                "dataset_options": ["code_system=icd9cm"],
            }
        )
    )
    assert main([str(path), "--threshold_rule", "global"]) == 0
    config = read_json(tmp_path / "run/config.json", "")
    assert config["threshold_rule"] == "global" and config["architectures"] == ["LlamaForCausalLM"]


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "configs").glob("generative_*.yaml")), ids=lambda path: path.stem
)
def test_the_configurations_are_ones_of_their_stage(path):
    stage = given_field(["--config", str(path)], "stage")
    parser = TrlParser([GenerativeArguments, DataArguments, ARGUMENTS[stage]])
    own, data_args, args = parse(parser, ["--config", str(path), "--data_dir", "x"])
    assert own.stage == stage
    assert data_args.dataset and args.output_dir == f"runs/{path.stem}"
