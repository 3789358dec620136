"""The Python files that a repository carries, read as syntax: what they must not contain."""

import ast
from pathlib import Path

import pytest

import modeling_icd
from modeling_icd import LlamaForICDCoding
from modeling_icd.base_configuration_icd import FLAT_FILES
from modeling_icd.publishing.folder import ModelFolder
from modeling_icd.publishing.release import outgoing_files, plan_release


PACKAGE = Path(modeling_icd.__file__).parent
REMOTE = sorted(PACKAGE / name for name in (*FLAT_FILES, "handler.py"))
# All that these files may take from other packages: a name that is not here may open a file, however harmless its module.
ALLOWED = {
    *(
        "collections.Counter",
        "collections.abc.Callable",
        "collections.abc.Iterable",
        "collections.abc.Iterator",
        "collections.abc.Mapping",
        "collections.abc.Sequence",
        "collections.abc.Set",
        "collections.abc.Sized",
        "dataclasses.dataclass",
        "dataclasses.field",
        "dataclasses.fields",
        "functools.partial",
        "itertools.islice",
        "itertools.pairwise",
        "logging.getLogger",
        "math.ceil",
        "math.isfinite",
        "numbers.Integral",
        "numbers.Real",
        "typing.Any",
        "typing.ClassVar",
        "typing.TYPE_CHECKING",
    ),
    *("re.compile", "re.findall", "re.finditer", "re.match", "re.sub"),
    *("torch.FloatTensor", "torch.LongTensor", "torch.Tensor", "torch.float32", "torch.long", "torch.finfo"),
    *("torch.double", "torch.int32", "torch.searchsorted", "torch.zeros"),
    *("torch.utils", "torch.utils.data", "torch.utils.data.Dataset", "torch.utils.data.IterableDataset"),
    *("torch.arange", "torch.as_tensor", "torch.cat", "torch.einsum", "torch.ones", "torch.stack", "torch.tanh"),
    *("torch.tensor", "torch.zeros_like", "torch.autocast", "torch.no_grad", "torch.is_grad_enabled"),
    *(
        "torch.nn",
        "torch.nn.BatchNorm1d",
        "torch.nn.Conv1d",
        "torch.nn.Dropout",
        "torch.nn.Embedding",
        "torch.nn.GRU",
        "torch.nn.Identity",
        "torch.nn.LSTM",
        "torch.nn.LayerNorm",
        "torch.nn.Linear",
        "torch.nn.Parameter",
        "torch.nn.Sequential",
        "torch.nn.Tanh",
    ),
    *("torch.Size", "torch.log1p", "torch.nn.functional.logsigmoid", "torch.sigmoid", "torch.unique"),
    *("torch.set_grad_enabled", "torch.compiler", "torch.compiler.is_compiling"),
    *("transformers.utils.logging", "transformers.utils.logging.get_logger"),
    *("torch.maximum", "torch.where", "torch.nn.functional.layer_norm", "torch.nn.functional.pad"),
    *("torch.nn.functional.scaled_dot_product_attention", "torch.nn.functional.conv2d"),
    *("torch.eye", "torch.nn.functional.normalize", "torch.randperm", "torch.bool"),
    *("torch.nn.functional.embedding_bag", "transformers.initialization.constant_"),
    *("torch.nn.Module", "torch.nn.ModuleDict", "torch.nn.ModuleList"),
    *("torch.nn.functional", "torch.nn.functional.binary_cross_entropy_with_logits", "torch.nn.functional.linear"),
    *("torch.nn.utils", "torch.nn.utils.rnn", "torch.nn.utils.rnn.pad_sequence"),
    *("torch.nn.utils.rnn.pack_padded_sequence", "torch.nn.utils.rnn.pad_packed_sequence"),
    *("transformers.AutoConfig", "transformers.AutoConfig.from_pretrained", "transformers.AutoConfig.for_model"),
    *("transformers.AutoModel", "transformers.AutoModel.from_config", "transformers.MODEL_MAPPING"),
    *(
        "transformers.PreTrainedConfig",
        "transformers.PreTrainedConfig.get_config_dict",
        "transformers.PreTrainedModel",
        "transformers.PreTrainedModel.save_pretrained",
    ),
    *("transformers.LlamaConfig", "transformers.LlamaModel", "transformers.LlamaPreTrainedModel"),
    *(
        "transformers.Pipeline",
        "transformers.pipeline",
        "transformers.utils.ModelOutput",
        "transformers.initialization",
        "transformers.modeling_outputs.BaseModelOutput",
    ),
    *("transformers.initialization.xavier_uniform_", "transformers.initialization.zeros_"),
    *("transformers.initialization.normal_", "transformers.initialization.ones_"),
}
MODULES = {"torch.nn", "transformers.initialization"}
NAMES = {
    *(
        "eval",
        "exec",
        "compile",
        "open",
        "__import__",
        "__builtins__",
        "__loader__",
        "__spec__",
        "input",
        "breakpoint",
    ),
    *("getattr", "setattr", "delattr", "globals", "locals", "vars"),
}
# Of any object, whatever it is called: a tensor, a path, a module behind another name.
ATTRIBUTES = {
    *("load", "loads", "save", "dump", "dumps", "hub", "classes", "ops", "jit", "os", "sys"),
    *("system", "popen", "run", "Popen", "urlopen", "request", "urlretrieve", "load_state_dict_from_url"),
    *("open", "read_text", "read_bytes", "write", "writelines", "write_text", "write_bytes", "tofile", "fromfile"),
    *("unlink", "rename", "mkdir", "rmtree", "remove", "connect", "push_to_hub", "upload_file", "upload_folder"),
    *("create_commit", "_upload_modified_files", "glob", "iterdir"),
    *("f_back", "f_builtins", "f_code", "f_globals", "f_locals", "gi_frame", "tb_frame"),
}
# The guard against pushes stands in front of the library's own ones, asks who called it, and reads the digests of weights
# that were just saved. What it may take is in no other file.
GUARD = "sharing_icd.py"
ALLOWED_TO_GUARD = {
    *("hashlib.sha256", "json.JSONEncoder", "typing.Literal", "pathlib.Path", "glob"),
    *("huggingface_hub.CommitOperationAdd", "inspect.currentframe", "f_back", "f_code", "f_locals"),
    *("push_to_hub", "_upload_modified_files", "transformers.Trainer", "inspect.signature", "re.fullmatch"),
}
# Every adapter library asks a configuration which model it belongs to, and has a table of the layers of each: ours are
# entered there, where that library is loaded already.
# Where a folder holds the head alone, this file reads the weights of the backbone that was put under it, to say whether they
# are the right ones. It takes the files that transformers has just loaded, opens them as safetensors, and writes none.
ALLOWED_TO_BACKBONE = {
    *("safetensors.SafetensorError", "torch.int64", "transformers.utils.CONFIG_NAME"),
    "transformers.utils.hub.extract_commit_hash",
    *("copy.deepcopy", "hashlib.sha256", "pathlib.Path", "re.Pattern", "safetensors.safe_open"),
    *("huggingface_hub.constants", "huggingface_hub.constants.HF_HOME", "torch.equal", "torch.uint8"),
    *("transformers.utils.SAFE_WEIGHTS_INDEX_NAME", "transformers.utils.SAFE_WEIGHTS_NAME"),
    *("transformers.utils.hub.cached_file", "transformers.utils.hub.get_checkpoint_shard_files"),
}
# Of the head, run again with the weights of some codes alone, gradients are taken.
ALLOWED_TO_EVIDENCE = {
    *(
        "contextlib.nullcontext",
        "torch.autograd",
        "torch.autograd.grad",
        "torch.nn.RNNBase",
    ),
    *("torch.backends", "torch.backends.cudnn", "torch.backends.cudnn.flags", "torch.enable_grad"),
    "torch.inference_mode",
}
# A copy of a model without weights is run once, to count its operations.
ALLOWED_TO_DESCRIBE = {
    *("copy.deepcopy", "torch.device", "torch.ones_like"),
    "torch.utils.flop_counter.FlopCounterMode",
}
# A language model and its tokenizer are loaded as the library's own Auto classes load them; answers may be drawn by a seed.
ALLOWED_TO_GENERATE = {
    *("transformers.AutoModelForCausalLM", "transformers.AutoModelForCausalLM.from_pretrained"),
    *("transformers.AutoTokenizer", "transformers.AutoTokenizer.from_pretrained", "transformers.LogitsProcessorList"),
    "transformers.GenerationConfig",
    *("torch.full", "torch.manual_seed", "torch.random", "torch.random.fork_rng", "vars"),
}
ALLOWED_BY_FILE = {
    "answers_icd.py": {
        *(
            "torch.full",
            "torch.full_like",
            "torch.inf",
            "torch.isin",
            "transformers.LogitsProcessor",
            "typing.NamedTuple",
        ),
    },
    "generative_icd.py": ALLOWED_TO_GENERATE,
    "prompts_icd.py": {"re.split"},
    # The tokenizer of a retriever lies beside the language model's.
    "verify_icd.py": {
        *("transformers.AutoTokenizer", "transformers.AutoTokenizer.from_pretrained", "typing.NamedTuple"),
    },
    "describe_icd.py": ALLOWED_TO_DESCRIBE,
    # A model whose weights FSDP divides is saved as of the class that FSDP made its own of.
    "modeling_icd.py": {"__class__", "__mro__"},
    "backbone_icd.py": ALLOWED_TO_BACKBONE,
    "evidence_icd.py": ALLOWED_TO_EVIDENCE,
    GUARD: ALLOWED_TO_GUARD,
    "base_configuration_icd.py": {"sys", "sys.modules", "sys.modules.get", "vars"},
    "attention_icd.py": {"vars"},
    "comparators_icd.py": {"vars"},
    "graph_icd.py": {"vars"},
    "configuration_icd.py": {"vars"},
    "reading_icd.py": {"copy.copy"},
    # Terms are integers, looked up by their stems.
    "terms_icd.py": {"torch.int16", "typing.NamedTuple", "vars"},
    # Words are looked up in tables of integers and numbers, some of which are kept as the bits of integers.
    "fusion_icd.py": {"torch.dtype", "torch.float64", "torch.uint8"},
    "fusion_features_icd.py": {"math.log", "math.log1p", "typing.NamedTuple", "torch.full", "torch.float"},
    "fusion_tables_icd.py": {"typing.NamedTuple", "torch.uint8", "torch.sparse_coo_tensor"},
    "fusion_words_icd.py": {"math.log", "torch.full"},
    "fusion_text_icd.py": {"typing.NamedTuple", "unicodedata", "unicodedata.combining", "unicodedata.normalize"},
    # A reader of words is entered among the backbones that are known by name.
    "words_icd.py": {"transformers.AutoConfig.register", "transformers.AutoModel.register"},
}
DUNDERS = {"__setattr__", "__call__", "__init__", "__post_init__", "__name__"}


def faults(source: str) -> set[str]:
    """What in a file could run other code, read or write files, or reach the network."""
    found, bound = set(), {}
    nodes = list(ast.walk(ast.parse(source)))
    for node in nodes:
        if isinstance(node, ast.Import):
            bound |= {alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            bound |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    packages = {allowed.rsplit(".", 1)[0] for allowed in ALLOWED}
    found |= {full for full in bound.values() if full not in ALLOWED | packages}
    modules = {name for name, full in bound.items() if full in packages & (MODULES | {full.split(".")[0]})}
    # Names of a module are taken one by one: the module itself is not passed on, where it could be called anything.
    behind = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    # `getattr` with an attribute's name written out is no more than the attribute.
    written_out = {}
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            name = node.args[1]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                written_out[id(node.func)] = name.value
    found |= {name for name in written_out.values() if name in ATTRIBUTES or name.startswith("_")}
    for node in nodes:
        if isinstance(node, ast.Name) and id(node) not in written_out:
            if node.id in NAMES or (node.id in modules and id(node) not in behind):
                found.add(node.id)
        elif isinstance(node, ast.Attribute):
            full = full_name(node, bound)
            if full is not None and full not in ALLOWED:
                found.add(full)
            if node.attr in ATTRIBUTES or (node.attr.startswith("__") and node.attr not in DUNDERS):
                found.add(node.attr)
    return found


def full_name(node: ast.expr, bound: dict[str, str]) -> str | None:
    """`nn.Linear` as `torch.nn.Linear`, of what was imported; of anything else nothing."""
    if isinstance(node, ast.Name):
        return bound.get(node.id)
    prefix = full_name(node.value, bound) if isinstance(node, ast.Attribute) else None
    return None if prefix is None else f"{prefix}.{node.attr}"


@pytest.mark.parametrize("path", REMOTE, ids=lambda path: path.name)
def test_remote_code_runs_nothing_and_touches_no_file_or_network(path):
    assert faults(path.read_text()) == ALLOWED_BY_FILE.get(path.name, set())


def test_the_guard_pushes_nothing_of_its_own():
    nodes = list(ast.walk(ast.parse((PACKAGE / GUARD).read_text())))
    uploads = [
        node
        for node in nodes
        if isinstance(node, ast.Attribute) and node.attr in ("push_to_hub", "_upload_modified_files")
    ]
    pushes = {ast.unparse(node) for node in uploads}
    # Those of the class that it stands in front of, and what a Trainer's arguments say.
    assert pushes == {
        *("super().push_to_hub", "super()._upload_modified_files", "caller.args.push_to_hub"),
        *("tokenizer.push_to_hub", "tokenizer._upload_modified_files"),  # which are taken away
        *("part.push_to_hub", "part._upload_modified_files"),  # these too
    }
    assert {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute) and node.attr == "f_locals"} == {
        "frame.f_locals"
    }


@pytest.mark.parametrize(
    "source",
    [
        "exec('x')",
        "f = eval",
        "import pickle",
        "from os import system",
        "import torch; torch.load('x')",
        "import torch.hub",
        "open('x', 'w')",
        "().__class__.__base__.__subclasses__()",
        "getattr(torch, 'lo' + 'ad')('x')",
        "getattr(torch, 'load')('x')",
        "getattr(x, '__class__')",
        "x.write_text('')",
        "import socket",
        "def f():\n    import subprocess",
        "import importlib; importlib.import_module('os')",
        "__import__('os')",
        "from pathlib import Path; Path('x').read_text()",
        "from torch import load; load('x')",
        "from torch import *",
        "from torch import serialization",
        "import torch; torch.from_file('x')",
        "import torch; torch.os.fork()",
        "import torch; torch.utils.cpp_extension.load_inline('x', '')",
        "import torch; t = torch; t.from_file('x')",
        "from torch import nn; [nn][0].init",
        "from transformers.utils import cached_file",
        "import transformers; transformers.dynamic_module_utils.get_class_from_dynamic_module('x', 'y')",
        "x.__class__",
        "__builtins__['eval']('x')",
        "@property\ndef f(self, path=open): pass",
        "lambda note: note.to_file or note.write(note)",
        "model.push_to_hub('x')",
        "import inspect; inspect.currentframe()",
        "frame.f_back.f_globals",
        "from huggingface_hub import HfApi",
        "from pathlib import Path; Path('x').glob('*')",
    ],
)
def test_the_walk_finds(source):
    assert faults(source)


def test_remote_code_is_flat_and_all_of_it_goes_out(finished_run):
    folder = ModelFolder.read(finished_run)
    outgoing = outgoing_files(folder, plan_release(folder, "someone/tiny-icd"), "")
    code = {name: content for name, content in outgoing.items() if name.endswith(".py")}
    assert {name: content.read_text() for name, content in code.items()} == {p.name: p.read_text() for p in REMOTE}
    names = {path.stem for path in REMOTE}
    for path in REMOTE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1
                assert node.module in names


def test_the_list_of_flat_files_is_what_saving_a_model_writes(backbone, tmp_path):
    LlamaForICDCoding.from_pretrained(backbone, num_labels=2).save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.py")) == sorted(FLAT_FILES)
    in_package = {path.name for path in PACKAGE.glob("*.py")}
    assert in_package == {*FLAT_FILES, "__init__.py", "__main__.py", "handler.py"}


def test_publishing_imports_no_training_code():
    for path in (PACKAGE / "publishing").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert "training" not in (node.module or "")
            elif isinstance(node, ast.Import):
                assert not any("training" in alias.name for alias in node.names)
