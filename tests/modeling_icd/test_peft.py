"""peft as its users call it: no target modules, no modules to save, the Auto classes."""

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification, IA3Config, LoraConfig, PeftModel, get_peft_model
from test_models import make, notes
from transformers import FalconConfig, FalconForCausalLM, LlamaConfig, LlamaForCausalLM

from modeling_icd import LlamaForICDCoding, LlamaICDConfig
from modeling_icd.inference.adapters import lora_targets


@pytest.mark.parametrize("name", ["last", "label_attention", "multirescnn"])
def test_lora_finds_its_layers_and_trains_and_saves_the_head(name, backbone, tmp_path):
    model = get_peft_model(make(name, backbone, head_dropout=0.0), LoraConfig(task_type="SEQ_CLS"))
    trained = {key for key, weight in model.named_parameters() if weight.requires_grad}
    assert {key.split(".")[-4] for key in trained if "lora" in key} == {"q_proj", "v_proj"}  # as for a Llama
    head = {key.split("score.")[1] for key, _ in make(name, backbone).named_parameters() if key.startswith("score.")}
    assert {key.split("modules_to_save.default.")[1] for key in trained if "lora" not in key} == head
    ids, mask = notes(9, 4)
    before = {key: weight.clone() for key, weight in model.named_parameters()}
    optimizer = torch.optim.SGD((weight for weight in model.parameters() if weight.requires_grad), lr=0.5)
    for _ in range(2):  # LoRA's A learns once its B is no longer zero
        optimizer.zero_grad()
        model(ids, mask, labels=torch.ones(2, 5)).loss.backward()
        optimizer.step()
    assert {key for key, weight in model.named_parameters() if not torch.equal(weight, before[key])} == trained
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make(name, backbone), tmp_path).eval()
    torch.testing.assert_close(again(ids, mask).logits, model.eval()(ids, mask).logits)


def test_ia3_finds_its_layers_too(backbone):
    model = get_peft_model(make("last", backbone), IA3Config(task_type="SEQ_CLS"))
    assert {key.split(".")[-3] for key, _ in model.named_parameters() if "ia3" in key} == {
        "k_proj",
        "v_proj",
        "down_proj",
    }


def test_an_adapter_in_a_frozen_backbone_learns(backbone):
    model = get_peft_model(make("mean", backbone, freeze_backbone=True), LoraConfig(task_type="SEQ_CLS")).train()
    model(*notes(9), labels=torch.ones(1, 5)).loss.backward()
    gradients = {key: weight.grad for key, weight in model.named_parameters() if weight.requires_grad}
    assert all(gradient is not None for gradient in gradients.values())
    assert model.base_model.model.model.training  # so that the adapter's dropout works


@pytest.mark.parametrize("name", ["last", "label_attention"])
@pytest.mark.parametrize("road", ["fields", "config"])
def test_an_adapter_over_a_bare_backbone_never_loads_as_a_stock_llama(name, road, backbone, tmp_path):
    model = make(name, backbone, window_size=8)
    if road == "config":
        model = type(model).from_pretrained(backbone, config=model.config)
    get_peft_model(model, LoraConfig(task_type="SEQ_CLS")).save_pretrained(tmp_path)
    with pytest.raises(
        OSError, match=r"with the head of LlamaForICDCoding .save that model with save_pretrained, then"
    ):
        AutoPeftModelForSequenceClassification.from_pretrained(tmp_path, num_labels=5)


def test_an_adapter_over_our_saved_model_loads_with_peft_auto_class(backbone, tmp_path):
    make("label_attention", backbone, window_size=8).save_pretrained(tmp_path / "base")
    model = LlamaForICDCoding.from_pretrained(tmp_path / "base")
    model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", init_lora_weights=False)).eval()
    model.save_pretrained(tmp_path / "adapter")
    again = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "adapter").eval()
    assert type(again.base_model.model) is LlamaForICDCoding
    ids, mask = notes(20, 5)
    torch.testing.assert_close(again(ids, mask).logits, model(ids, mask).logits)


def test_lora_goes_on_the_layers_that_are_chosen_and_on_none_of_a_head():
    sizes = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "vocab_size": 8,
    }
    llama = LlamaConfig(**sizes, num_key_value_heads=1)
    of_layer = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    coder = LlamaForICDCoding(
        LlamaICDConfig.from_backbone(llama, num_labels=2, pooling="label_attention", hidden_layer=2)
    )
    coder.score.layers = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
    for model, layers in ((coder, {"1"}), (LlamaForCausalLM(llama), {"1", "2"})):
        chosen = [name.split(".") for name in lora_targets(model, 1, "from")]
        expected = {("model", layer, part) for layer in layers for part in of_layer}
        assert {(name[0], name[2], name[-1]) for name in chosen} == expected
    falcon = FalconForCausalLM(FalconConfig(vocab_size=8, hidden_size=8, num_hidden_layers=2, num_attention_heads=2))
    assert {name[:16] for name in lora_targets(falcon, 1, "from")} == {"transformer.h.1."}
    with pytest.raises(ValueError, match=r"from \(2\) leaves none of the 2 layers"):
        lora_targets(coder, 2, "from")
