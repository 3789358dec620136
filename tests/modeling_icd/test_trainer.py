"""Our models in transformers' own Trainer, with nothing but its own arguments."""

import pytest
import torch
from datasets import Dataset
from test_processes import finish, start, train_as_process
from transformers import Trainer, TrainingArguments, default_data_collator

from modeling_icd import LlamaForICDCoding


PLAIN = (Trainer, TrainingArguments)


def four_notes() -> Dataset:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(1, 40, (4, 12), generator=generator)
    labels = torch.randint(0, 2, (4, 5), generator=generator).float()
    return Dataset.from_dict(
        {"input_ids": ids.tolist(), "attention_mask": [[1] * 12] * 4, "labels": labels.tolist()},
    )


def make_model(backbone, **fields):
    torch.manual_seed(1)
    fields = {"pooling": "label_attention", "window_size": 8, **fields}
    return LlamaForICDCoding.from_pretrained(backbone, num_labels=5, **fields)


def our_trainer():
    from modeling_icd.training.arguments import ICDTrainingArguments
    from modeling_icd.training.trainer import ICDTrainer

    return ICDTrainer, ICDTrainingArguments


def one_update(classes, backbone, output_dir, batch_size, accumulation):
    """Weights of the head after one step of SGD over four notes, and the loss that was logged."""
    trainer_class, arguments_class = classes
    arguments = arguments_class(
        output_dir=str(output_dir),
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        optim="sgd",
        learning_rate=0.5,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        logging_steps=1,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    model = make_model(backbone)
    trained = trainer_class(model, arguments, default_data_collator, four_notes())
    trained.train()
    return model.score.state_dict(), next(row["loss"] for row in trained.state.log_history if "loss" in row)


@pytest.mark.parametrize("trainer", ["plain", "ours"])
def test_the_same_notes_give_the_same_update_in_whatever_batches(trainer, backbone, tmp_path):
    model = make_model(backbone)
    loss = model(**four_notes().with_format("torch")[:]).loss  # the mean over the four notes and five codes
    loss.backward()
    expected = {name: weight - 0.5 * weight.grad for name, weight in model.score.named_parameters()}
    # The last one: three notes, then one, which must weigh a third of the three.
    for batch_size, accumulation in ((4, 1), (2, 2), (1, 4), (3, 2)):
        classes = PLAIN if trainer == "plain" else our_trainer()
        weights, logged = one_update(classes, backbone, tmp_path, batch_size, accumulation)
        torch.testing.assert_close(weights, expected, atol=1e-6, rtol=1e-5)
        assert logged == pytest.approx(loss.item(), abs=1e-4)


def test_the_loss_of_a_part_is_its_share_of_the_whole(backbone):
    model = make_model(backbone, head_ensemble_size=2).eval()
    notes = four_notes().with_format("torch")
    whole = model(**notes[:]).loss
    for num_items in (20, torch.tensor(20), torch.tensor([20, 20])):  # a row for each device, as DataParallel has it
        parts = [model(**notes[rows], num_items_in_batch=num_items).loss for rows in (range(3), range(3, 4))]
        torch.testing.assert_close(sum(parts), whole)


def save_updates(arguments) -> int:
    backbone, folder = arguments
    updates = [one_update(PLAIN, backbone, folder, size, steps) for size, steps in ((2, 1), (1, 2))]
    assert torch.distributed.get_world_size() == 2
    if torch.distributed.get_rank() == 0:
        torch.save(updates, folder / "updates.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()  # or gloo's threads may still run at the end, which aborts the process
    return 0


def update_as_process(arguments, rank, port, log):
    train_as_process(arguments, rank, port, log, save_updates)


def test_two_processes_make_the_update_of_one(context, backbone, tmp_path):
    codes, printed = finish(*start(context, (backbone, tmp_path), tmp_path, update_as_process))
    assert codes == [0, 0], printed
    expected, loss = one_update(PLAIN, backbone, tmp_path, 4, 1)
    for weights, logged in torch.load(tmp_path / "updates.pt"):
        torch.testing.assert_close(weights, expected, atol=1e-6, rtol=1e-5)
        assert logged == pytest.approx(loss, abs=1e-4)


def test_plain_trainer_evaluates_predicts_and_loads_the_best_model_without_being_told_the_labels(backbone, tmp_path):
    seen = []

    def compute_metrics(prediction):
        seen.append((prediction.predictions.shape, prediction.label_ids.shape))
        return {"mean_label": float(prediction.label_ids.mean())}

    arguments = TrainingArguments(
        str(tmp_path),
        num_train_epochs=2,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        learning_rate=1e-2,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    notes = four_notes().add_column("subject_id", [1, 2, 3, 4])  # which `forward` does not know: Trainer drops it
    trainer = Trainer(make_model(backbone), arguments, None, notes, notes, compute_metrics=compute_metrics)
    assert trainer.label_names == ["labels"]
    trainer.train()
    evaluations = [row for row in trainer.state.log_history if "eval_loss" in row]
    assert len(evaluations) == 2
    assert trainer.state.best_metric == min(row["eval_loss"] for row in evaluations)
    prediction = trainer.predict(notes)
    assert prediction.label_ids.tolist() == notes["labels"]
    assert prediction.metrics["test_loss"] == pytest.approx(trainer.state.best_metric, abs=1e-5)
    assert seen == [((4, 5), (4, 5))] * 3


def test_a_misspelt_argument_of_forward_is_named_with_those_it_takes(backbone):
    model = make_model(backbone)
    with pytest.raises(TypeError, match=r"does not know output_label_attention.* It takes .*output_label_attentions"):
        model(torch.ones(1, 3, dtype=torch.long), output_label_attention=True)
    with pytest.raises(ValueError, match="`output_label_attentions=True` gives the head's"):
        model(torch.ones(1, 3, dtype=torch.long), output_attentions=True)


def test_what_libraries_pass_on_changes_nothing(backbone):
    model, ids = make_model(backbone).eval(), torch.ones(1, 3, dtype=torch.long)
    passed_on = {"token_type_ids": torch.zeros_like(ids), "use_cache": False, "output_attentions": None}
    assert torch.equal(model(ids, **passed_on).logits, model(ids).logits)
