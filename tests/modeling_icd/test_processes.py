"""Training in two processes that talk over gloo, as `torchrun --nproc_per_node 2 train.py` starts them."""

import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from modeling_icd import LlamaForICDCoding, ModelForICDCoding
from modeling_icd.evaluation import decide
from modeling_icd.evaluation.cli import main as evaluate
from modeling_icd.inference.state_shards import Shard
from modeling_icd.training.run import main
from modeling_icd.training.trainer import ICDTrainer


MODES = {
    "frozen": {"pooling": "mean", "freeze_backbone": True, "learning_rate": 0.01},
    "full": {"pooling": "mean"},
    # Adam divides a gradient by its own size: one of nearly 0 would be made of rounding alone.
    "lora": {
        "pooling": "label_attention",
        "lora_r": 2,
        "learning_rate": 0.01,
        "head_learning_rate": 0.02,
        "adam_epsilon": 1e-4,
        "loss_reduction": "mean",
    },
}
# Batch norm and dropout see other notes and draw other numbers in each process; without them, two processes that share a
# batch compute what one does. 16 notes make whole batches: a short last one would be filled up with notes of the first.
COMMON = {
    "model": "direct",
    "head_dropout": 0.0,
    "window_size": 32,
    "window_stride": 24,
    "dataset": "mimic3",
    "max_train_notes": 16,
    "logging_steps": 1,
    "use_cpu": True,
    "tfidf_yardstick": False,
}


@pytest.fixture
def arguments(corpus, backbone, tmp_path):
    def make(output, batch_size, **options):
        given = {**COMMON, "num_train_epochs": 2, **options}
        given |= {"backbone": backbone, "data_dir": corpus, "data_cache_dir": tmp_path / "cache"}
        given |= {"output_dir": tmp_path / output, "per_device_train_batch_size": batch_size}
        return [f"--{name}={value}" for name, value in given.items()]

    return make


# What `accelerate launch --config_file configs/accelerate/fsdp2.yaml` tells its processes.
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}


def divide_weights_without_a_gpu():
    """accelerate divides weights among GPUs alone; its code for that, and torch's below it, work over gloo, too."""
    from accelerate import state
    from accelerate.utils import DistributedType

    make = state.AcceleratorState.__init__

    def make_fsdp(self, *args, fsdp_plugin=None, **options):
        make(self, *args, fsdp_plugin=fsdp_plugin, **options)
        if plugin := fsdp_plugin or self._shared_state.get("fsdp_plugin"):
            self._shared_state |= {"fsdp_plugin": plugin, "distributed_type": DistributedType.FSDP}

    state.AcceleratorState.__init__ = make_fsdp


def train_divided(arguments, rank, port, log):
    os.environ.update(FSDP2)
    divide_weights_without_a_gpu()
    ModelForICDCoding.tokens_per_pass = (
        64  # which would let a process with longer notes make more passes than the other
    )
    train_as_process(arguments, rank, port, log)


def evaluate_as_process(arguments, rank, port, log):
    train_as_process(arguments, rank, port, log, evaluate)


def decide_as_process(arguments, rank, port, log):
    """Its log says which files it has written."""
    write = decide.write_json
    decide.write_json = lambda content, path: [write(content, path), print("wrote", path.name, file=sys.stderr)]
    train_as_process(arguments, rank, port, log, decide.main)


def train_as_process(arguments, rank, port, log, command=main):
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}.items():
        os.environ[name] = str(value)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), HF_HUB_OFFLINE="1")
    torch.set_num_threads(1)
    with open(log, "w", buffering=1) as file, contextlib.redirect_stderr(file), contextlib.redirect_stdout(file):
        code = command(arguments)
    sys.exit(code)


def start(context, arguments, folder, train=train_as_process):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    logs = [folder / f"process{rank}.log" for rank in range(2)]
    processes = [context.Process(target=train, args=(arguments, rank, port, log)) for rank, log in enumerate(logs)]
    for process in processes:
        process.start()
    return processes, logs


def finish(processes, logs):
    """Exit codes and what the processes printed."""
    for process in processes:
        process.join(300)
        if process.is_alive():
            process.kill()
    return [process.exitcode for process in processes], [log.read_text() for log in logs]


def assert_same_model(folder: Path, expected: Path):
    weights, expected_weights = (load_file(path / "model.safetensors") for path in (folder, expected))
    assert weights.keys() == expected_weights.keys()
    # AdamW divides a gradient by its own size, so that the rounding of one that is nearly 0 is seen; it differs between processors.
    for name, weight in expected_weights.items():
        torch.testing.assert_close(
            weights[name], weight, rtol=1e-4, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
    config, expected_config = (json.loads((path / "config.json").read_text()) for path in (folder, expected))
    assert config["threshold"] == pytest.approx(expected_config["threshold"], abs=1e-4)
    log, expected_log = (json.loads((path / "run.json").read_text())["log"] for path in (folder, expected))
    assert len(log) == len(expected_log)
    # transformers averages `eval_loss` over batches that were filled up, which the metrics leave out again, and the
    # last `train_loss` over the steps since a restart; the work depends on how a batch is padded.
    others = ("eval_loss", "train_loss", "total_flos", "runtime", "per_second")
    for row, expected_row in zip(log, expected_log, strict=True):
        for name, value in expected_row.items():
            if not any(part in name for part in others):
                assert row[name] == pytest.approx(value, rel=1e-3, abs=1e-4), (name, row["step"])


@pytest.mark.parametrize("mode", MODES)
def test_two_processes_train_what_one_does(mode, context, arguments, tmp_path):
    assert main(arguments("one", 4, **MODES[mode])) == 0
    codes, printed = finish(*start(context, arguments("two", 2, **MODES[mode]), tmp_path))
    assert codes == [0, 0], printed
    assert_same_model(tmp_path / "two", tmp_path / "one")
    names = [{path.name for path in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert names[0] == names[1]
    if mode == "frozen":  # each process has computed the hidden states of other notes
        shares = [list(Shard(path, 16 * 2).keys()) for path in (tmp_path / "two-private").rglob("*.states")]
        keys = [key for share in shares for key in share]
        assert len(shares) == 2 and all(shares) and len(keys) == len(set(keys))
        assert_same_evaluation(context, arguments("two", 2), tmp_path)
        assert_first_process_decides(context, arguments("two", 2), tmp_path / "two")


def assert_same_evaluation(context, arguments, folder):
    """Two processes that share the notes find what one does, and one of them says so."""
    options = [option for option in arguments if option.startswith("--data_")]
    assert evaluate([str(folder / "two"), *options, f"--output_dir={folder / 'by_one'}"]) == 0
    both = [str(folder / "two"), *options, f"--output_dir={folder / 'by_two'}"]
    codes, printed = finish(*start(context, both, folder, evaluate_as_process))
    assert codes == [0, 0], printed
    assert "f1_micro" in printed[0] and "f1_micro" not in printed[1]
    one, two = (json.loads((folder / name / "results.json").read_text()) for name in ("by_one", "by_two"))
    assert one["metrics"] == pytest.approx(two["metrics"], abs=1e-6, nan_ok=True)


def assert_first_process_decides(context, arguments, model):
    """Two processes that share the notes find the decision that one has found, and the first one alone writes it."""
    options = [option for option in arguments if option.startswith("--data_dir")]
    expected = json.loads((model / "config.json").read_text())["threshold"]
    codes, printed = finish(*start(context, [str(model), *options], model.parent, decide_as_process))
    assert codes == [0, 0], printed
    assert "threshold" in printed[0] and "wrote run.json" in printed[0] and "wrote config.json" in printed[0]
    assert "threshold" not in printed[1] and "wrote" not in printed[1]
    assert json.loads((model / "config.json").read_text())["threshold"] == pytest.approx(expected, abs=1e-4)


def test_two_processes_with_divided_weights_train_what_one_does(context, arguments, tmp_path):
    assert main(arguments("one", 4, **MODES["full"])) == 0
    codes, printed = finish(*start(context, arguments("two", 2, **MODES["full"]), tmp_path, train_divided))
    assert codes == [0, 0], printed
    assert_same_model(tmp_path / "two", tmp_path / "one")
    names = [{path.name for path in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert names[0] == names[1]  # the code that goes with the model among them
    weights = load_file(tmp_path / "two" / "model.safetensors")
    model = LlamaForICDCoding.from_pretrained(tmp_path / "two")
    assert all(torch.equal(weights[name], weight) for name, weight in model.state_dict().items())


def test_weights_of_a_frozen_backbone_are_not_divided(context, arguments, tmp_path):
    codes, printed = finish(*start(context, arguments("two", 2, **MODES["frozen"]), tmp_path, train_divided))
    assert codes == [2, 2] and "FSDP divides the weights of a model that is trained whole" in printed[0], printed


def test_an_error_of_the_first_process_ends_all_with_one_message(context, arguments, tmp_path):
    codes, printed = finish(*start(context, [*arguments("two", 2), f"--data_dir={tmp_path / 'none'}"], tmp_path))
    assert codes == [2, 2], printed
    assert printed[0].count("error: ") == 1 and str(tmp_path / "none") in printed[0]
    assert printed[1] == ""


class EndsInItsSecondEpoch(TrainerCallback):
    def on_epoch_end(self, args, state, control, **kwargs):
        if round(state.epoch) == 2:  # whose gradients are of both processes: the first has saved a checkpoint before
            os.kill(os.getpid(), signal.SIGKILL)


def train_and_lose_a_process(arguments, rank, port, log):
    if rank == 1:
        make = ICDTrainer.__init__

        def make_ending(self, *args, **kwargs):
            make(self, *args, **kwargs)
            self.add_callback(EndsInItsSecondEpoch())

        ICDTrainer.__init__ = make_ending
    train_as_process(arguments, rank, port, log)


def test_a_run_that_lost_a_process_goes_on_to_the_same_model(context, arguments, tmp_path):
    options = {**MODES["frozen"], "num_train_epochs": 3}
    assert main(arguments("one", 4, **options)) == 0
    codes, printed = finish(*start(context, arguments("two", 2, **options), tmp_path, train_and_lose_a_process))
    assert codes == [2, -signal.SIGKILL], printed
    assert "another process of this training has ended" in printed[0] and "Traceback" not in printed[0]
    assert list((tmp_path / "two").glob("checkpoint-*/trainer_state.json"))
    assert not (tmp_path / "two" / "model.safetensors").exists()
    resumed = [*arguments("two", 2, **options), "--resume_from_checkpoint=last"]
    codes, printed = finish(*start(context, resumed, tmp_path))
    assert codes == [0, 0], printed
    assert "resuming from" in printed[0]
    assert_same_model(tmp_path / "two", tmp_path / "one")
