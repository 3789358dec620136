"""What an experiment consists of: the file `experiments/NAME.yaml`, read and checked.

    title: Every model on the same notes
    asks: Which reads notes best?
    tasks:                       # what the models are trained and scored on
      cmc: {dataset: cmc2007, parts: [fold0, fold1], seeds: [0], options: {num_train_epochs: 20}}
      invented: {dataset: mimic3, parts: [top50], synthetic: {num_admissions: 400}}
    rows:                        # a configuration, or one for each task, and what differs from it
      caml: {config: peers/caml, options: {learning_rate: 1.0e-3}}
      ours: {config: {cmc: cmc_direct, invented: synthetic_direct}}
      ours x 3: {mean_of: ours}  # the mean of the logits of that row's seeds
      tfidf: {yardstick: tfidf}

    against: caml                # a row that the others are compared with, for a second table
    published:                   # figures of others on a task, for a third table
      cmc: {CAML: {f1_micro: 0.5, read_in: where}}

A value `{NAME}` of an option is filled by `--set NAME=VALUE`; a row that has one which is not given is left out.

A run is a row on one part (a fold, a code set) of a task, with one seed. Options of a task's row stand before those of its task, and
these before those of the configuration: `by_task: {cmc: {...}}` in a row gives those of one task.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml


FOLDER = Path(__file__).resolve().parent
CONFIGS = FOLDER.parent / "configs"
# `refitted`: on train and validation, and LinearSVC decides itself; else the threshold is chosen on validation, as a model's is.
# `terms`: the coder by terms that has read no note; `terms_weighed`: its terms weighed on train, with the evidence marked there.
YARDSTICKS = (
    *("frequencies", "tfidf", "tfidf_refitted", "tfidf_strong", "tfidf_strong_refitted"),
    *("terms", "terms_weighed"),
)


class Task(NamedTuple):
    """Data that models are trained and scored on.

    Args:
        dataset (`str`): one of the builders.
        parts (`list[str]`): configurations of the data set: folds, or a code set.
        seeds (`list[int]`): of training.
        options (`dict`): of training, where they differ from a row's configuration.
        synthetic (`dict`): how the corpus is invented, where it is one: arguments of `write_corpus`.
    """

    dataset: str
    parts: list[str]
    seeds: list[int]
    options: dict[str, Any]
    synthetic: dict[str, Any]


class Row(NamedTuple):
    """A model in the tables.

    Args:
        configs (`dict[str, str]`): a file in `configs/` for each task that the row has; empty for a yardstick.
        options (`dict[str, dict]`): for each task what differs from it.
        yardstick (`str`, *optional*): one of `YARDSTICKS`, which is fitted without training.
        mean_of (`str`, *optional*): the row whose seeds' logits are averaged; `configs` are that row's.
    """

    configs: dict[str, str]
    options: dict[str, dict[str, Any]]
    yardstick: str | None = None
    mean_of: str | None = None

    @property
    def has_seeds(self) -> bool:
        """Whether there is a run for every seed, and not one for all."""
        return self.yardstick is None and self.mean_of is None


class Run(NamedTuple):
    """A row on one part of a task with one seed."""

    task: str
    part: str
    row: str
    seed: int

    @property
    def name(self) -> str:
        return re.sub(r"[^\w.-]+", "_", f"{self.task}-{self.part}-{self.row}-seed{self.seed}")


class Plan(NamedTuple):
    """An experiment.

    Args:
        name (`str`): of its file.
        title (`str`): what is compared.
        asks (`str`): the question.
        tasks (`dict[str, Task]`): by name.
        rows (`dict[str, Row]`): by name.
        published (`dict[str, dict]`): figures of others for a task: by the name of their system its metrics, and where they
            were `read_in`.
        against (`str`, *optional*): the row that the others are compared with.
    """

    name: str
    title: str
    asks: str
    tasks: dict[str, Task]
    rows: dict[str, Row]
    published: dict[str, dict[str, dict[str, Any]]]
    against: str | None = None

    def filled(self, given: Mapping[str, str]) -> tuple["Plan", dict[str, list[str]]]:
        """The plan with `given` in place of `{NAME}`, without the rows that lack one; and what each of these lacks.

        Raises:
            ValueError: where no row has such a `{NAME}`.
        """
        rows, lacking, known = {}, {}, set()
        for name, row in self.rows.items():
            asked = sorted({word for options in row.options.values() for word in _placeholders(options)})
            known |= {*asked}
            missing = [word for word in asked if word not in given]
            if missing:
                lacking[name] = missing
                continue
            options = {
                task: {key: _fill(value, given) for key, value in of_task.items()}
                for task, of_task in row.options.items()
            }
            rows[name] = row._replace(options=options)
        if unknown := sorted(set(given) - known):
            left_open = ", ".join(sorted(known)) or "nothing"
            raise ValueError(f"{self.name} leaves {left_open} open, and not {', '.join(unknown)}: see --set.")
        return self._replace(rows=rows), lacking

    def runs(self, tasks: Sequence[str] = (), rows: Sequence[str] = (), seeds: Sequence[int] = ()) -> Iterator[Run]:
        """All runs, or those of some tasks, rows and seeds: first every row once, then every row again with the next part or
        seed, so that the rows can be compared whenever one stops. A mean of seeds comes when all of them are there."""
        for name in tasks or self.tasks:
            task = self.tasks[name]
            of_task = {row: self.rows[row] for row in rows or self.rows}
            of_task = {word: row for word, row in of_task.items() if row.yardstick is not None or name in row.configs}
            kept = [seed for seed in task.seeds if not seeds or seed in seeds]
            for seed in kept:
                for part in task.parts:
                    for word, row in of_task.items():
                        # No seed changes a yardstick, and a mean has all of them.
                        if row.has_seeds or (row.yardstick is not None and seed == task.seeds[0]):
                            yield Run(name, part, word, seed)
            means = [word for word, row in of_task.items() if row.mean_of is not None and kept == task.seeds]
            yield from (Run(name, part, word, task.seeds[0]) for part in task.parts for word in means)

    def options_of(self, run: Run) -> dict[str, Any]:
        """What differs in a run from its row's configuration."""
        return {**self.tasks[run.task].options, **self.rows[run.row].options[run.task]}

    def members(self, run: Run) -> list[Run]:
        """The runs whose logits a run averages."""
        row = self.rows[run.row].mean_of
        return [] if row is None else [run._replace(row=row, seed=seed) for seed in self.tasks[run.task].seeds]


def names() -> list[str]:
    """The experiments that there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_plan(name: str) -> Plan:
    """The experiment `experiments/NAME.yaml`.

    Raises:
        ValueError: where there is none of that name, or a field of it is unknown or missing; the message names the field.
    """
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"There is no experiment {name!r}: choose from {', '.join(names())}.")
    try:
        given = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from None
    must = {"title", "asks", "tasks", "rows"}
    _check(path, "", given, {*must, "published", "against"}, must=must)
    for part in ("tasks", "rows"):
        if not isinstance(given[part], dict):
            raise ValueError(f"{path}: {part} must hold fields by name.")
    tasks = {}
    for word, fields in given["tasks"].items():
        _check(
            path,
            f"tasks: {word}",
            fields,
            {"dataset", "parts", "seeds", "options", "synthetic"},
            must={"dataset", "parts"},
        )
        for listed in ("parts", "seeds"):
            if not isinstance(fields.get(listed, []), list):
                raise ValueError(f"{path}: tasks: {word}: `{listed}` must be a list, got {fields[listed]!r}.")
        tasks[word] = Task(**{"seeds": [0], "options": {}, "synthetic": {}, **fields})
    rows = {}
    for word, fields in given["rows"].items():
        _check(path, f"rows: {word}", fields, {"config", "options", "by_task", "yardstick", "mean_of"})
        rows[word] = _row(path, word, fields, list(tasks))
    for word, row in rows.items():
        if row.mean_of is not None:
            if row.mean_of not in rows or not rows[row.mean_of].has_seeds:
                raise ValueError(
                    f"{path}: rows: {word}: `mean_of` must be a row with a `config`, got {row.mean_of!r}."
                )
            rows[word] = rows[row.mean_of]._replace(mean_of=row.mean_of)
    against = given.get("against")
    if against is not None and against not in rows:
        raise ValueError(f"{path}: `against` must be one of the rows, {', '.join(rows)}, got {against!r}.")
    return Plan(name, given["title"], given["asks"], tasks, rows, given.get("published", {}), against)


def _row(path: Path, word: str, fields: Mapping[str, Any], tasks: list[str]) -> Row:
    kinds = ("config", "yardstick", "mean_of")
    if sum(kind in fields for kind in kinds) != 1:
        raise ValueError(f"{path}: rows: {word} must have one of {', '.join(f'`{kind}`' for kind in kinds)}.")
    yardstick, config = fields.get("yardstick"), fields.get("config")
    if yardstick is not None and yardstick not in YARDSTICKS:
        raise ValueError(
            f"{path}: rows: {word}: `yardstick` must be one of {', '.join(YARDSTICKS)}, got {yardstick!r}."
        )
    configs = dict.fromkeys(tasks, config) if isinstance(config, str) else dict(config or {})
    by_task = fields.get("by_task", {})
    for name in (*configs, *by_task):
        if name not in tasks:
            raise ValueError(f"{path}: rows: {word}: there is no task {name!r}, only {', '.join(tasks)}.")
    for config in configs.values():
        if not (CONFIGS / f"{config}.yaml").is_file():
            raise ValueError(f"{path}: rows: {word}: there is no configuration {CONFIGS / f'{config}.yaml'}.")
    options = {name: {**fields.get("options", {}), **by_task.get(name, {})} for name in tasks}
    return Row(configs, options, yardstick, fields.get("mean_of"))


def _placeholders(options: Mapping[str, Any]) -> list[str]:
    texts = (text for value in options.values() for text in (value if isinstance(value, list) else [value]))
    return [word for text in texts if isinstance(text, str) for word in re.findall(r"\{(\w+)\}", text)]


def _fill(value: Any, given: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_fill(one, given) for one in value]
    return re.sub(r"\{(\w+)\}", lambda found: given[found[1]], value) if isinstance(value, str) else value


def _check(path: Path, place: str, fields: Any, known: set[str], must: Sequence[str] | set[str] = ()) -> None:
    where = f"{path}: {place}" if place else str(path)
    if not isinstance(fields, dict):
        raise ValueError(f"{where} must hold fields, e.g. `{min(known)}: ...`.")
    unknown, missing = sorted(set(fields) - known), sorted(set(must) - set(fields))
    if unknown:
        raise ValueError(f"{where} has no field {', '.join(unknown)}: it takes {', '.join(sorted(known))}.")
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}.")
