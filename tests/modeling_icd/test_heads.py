import json

import pytest
import torch
from safetensors import safe_open
from torch import nn

from modeling_icd import LabelAttentionHead, MultiResCNNHead, PooledHead
from modeling_icd.multirescnn_icd import residual_channels


def make_heads() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    heads = {
        "last": PooledHead(12, 5),
        "mean": PooledHead(12, 5, pooling="mean"),
        "label_attention": LabelAttentionHead(12, 5),
        "multirescnn": MultiResCNNHead(12, 5, (3, 5), num_filter_maps=4, num_residual_layers=2, reduction_size=6),
    }
    return {name: head.eval() for name, head in heads.items()}


HEADS = list(make_heads())


@pytest.fixture(scope="module")
def golden(shared_dir):
    with safe_open(shared_dir / "golden" / "multirescnn_a.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["config"])


def original_weights(tensors):
    return {name.removeprefix("state."): value for name, value in tensors.items() if name.startswith("state.")}


def test_multirescnn_agrees_with_the_original(golden):
    tensors, config = golden
    filter_sizes = [int(size) for size in config["filter_sizes"].split(",")]
    head = MultiResCNNHead.from_original(original_weights(tensors), filter_sizes=filter_sizes).eval()
    features = tensors["features"]
    logits, attentions = head(features, torch.ones(features.shape[:2], dtype=torch.long))
    torch.testing.assert_close(logits, tensors["logits"], atol=1e-5, rtol=0)
    loss = nn.functional.binary_cross_entropy_with_logits(logits, tensors["target"])
    torch.testing.assert_close(loss.reshape(1), tensors["loss"], atol=1e-5, rtol=0)
    assert attentions.shape == (3, 50, 64)


def test_a_checkpoint_of_other_filters_is_refused(golden):
    with pytest.raises(ValueError, match=r"channels\.7\.base\.weight"):
        MultiResCNNHead.from_original(original_weights(golden[0]), filter_sizes=[7])


@pytest.mark.parametrize(
    ("layers", "channels"), [(1, [24, 10]), (2, [24, 100, 10]), (3, [24, 150, 100, 10]), (4, [24, 200, 150, 100, 10])]
)
def test_channels_of_the_residual_blocks_are_the_originals(layers, channels):
    assert residual_channels(24, 10, layers) == channels


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("garbage", [0.0, 50.0])
def test_padding_changes_no_logit(name, garbage):
    head = make_heads()[name]
    states, mask = torch.randn(2, 9, 12), torch.ones(2, 9, dtype=torch.long)
    mask[1, 4:] = 0
    states[1, 4:] = garbage
    logits, attentions = head(states, mask)
    alone, alone_attentions = head(states[1:, :4], mask[1:, :4])
    torch.testing.assert_close(logits[1:], alone, atol=1e-5, rtol=1e-5)
    if attentions is not None:
        torch.testing.assert_close(attentions[1:, :, :4], alone_attentions, atol=1e-5, rtol=1e-5)
        assert attentions[1, :, 4:].abs().max() == 0
        torch.testing.assert_close(attentions.sum(-1), torch.ones(2, 5))


def test_padding_changes_no_logit_in_training_either():
    head = make_heads()["multirescnn"].train()
    for module in head.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    states, mask = torch.randn(2, 9, 12), torch.ones(2, 9, dtype=torch.long)
    wide = torch.cat([states, torch.full((2, 6, 12), 9.0)], dim=1)
    wide_mask = torch.cat([mask, torch.zeros(2, 6, dtype=torch.long)], dim=1)
    torch.testing.assert_close(head(states, mask)[0], head(wide, wide_mask)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["label_attention", "multirescnn"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_extreme_scores_overflow_no_softmax(name, dtype):
    head = make_heads()[name]
    with torch.no_grad():
        head.queries.weight.fill_(4e4)  # times several states near 1: scores beyond fp16's 65504
    head = head.to(dtype)
    states = (torch.randn(2, 7, 12) * 100).to(dtype)
    logits, attentions = head(states, torch.ones(2, 7, dtype=torch.long))
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(attentions.sum(-1), torch.ones(2, 5))


@pytest.mark.parametrize("name", HEADS)
def test_a_gradient_reaches_every_weight(name):
    head = make_heads()[name].train()
    head(torch.randn(3, 9, 12), torch.ones(3, 9, dtype=torch.long))[0].square().sum().backward()
    for parameter_name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name


def test_last_and_mean_pool_the_real_tokens():
    states = torch.tensor([[[1.0], [2.0], [6.0], [99.0]]])
    mask = torch.tensor([[1, 1, 1, 0]])
    for pooling, expected in (("last", 6.0), ("mean", 3.0)):
        head = PooledHead(1, 1, pooling)
        with torch.no_grad():
            head.weight.fill_(1.0)
        assert head(states, mask)[0].item() == pytest.approx(expected)
