"""Dataclasses for the entries of the YAML files of this folder; the files themselves explain each field."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Literal, NamedTuple


Kind = Literal["chronic", "imaging", "metabolic", "infection", "event", "status", "external", "procedure"]
CHRONIC: Kind = "chronic"
IMAGING: Kind = "imaging"
METABOLIC: Kind = "metabolic"
INFECTION: Kind = "infection"
EVENT: Kind = "event"
STATUS: Kind = "status"
EXTERNAL: Kind = "external"
PROCEDURE: Kind = "procedure"


@dataclass(frozen=True)
class Concept:
    """One code and its ways into a note; the fields are explained in concepts.yaml."""

    code: str
    short_title: str
    long_title: str
    kind: Kind
    share: float
    terms: tuple[str, ...]
    icd10: str = ""
    icd10_title: str = ""
    themes: tuple[str, ...] = ()
    rare: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    rejects: tuple[str, ...] = ()
    drugs: tuple[str, ...] = ()
    treated_with: tuple[str, ...] = ()
    lab: str = ""
    sex: Literal["", "M", "F"] = ""
    min_age: int = 18
    max_age: int = 120

    @property
    def is_procedure(self) -> bool:
        return self.kind == PROCEDURE

    @property
    def undotted(self) -> str:
        """The code as MIMIC-III's tables write it."""
        return self.code.replace(".", "")

    @property
    def lab_result(self) -> tuple[str, str]:
        """Name and direction of the laboratory result that shows it."""
        name, _, direction = self.lab.partition(":")
        return name, direction

    def befalls(self, sex: str, age: int) -> bool:
        """Whether a patient can have it."""
        return self.sex in ("", sex) and self.min_age <= age <= self.max_age


@dataclass(frozen=True)
class ConceptFile:
    """What concepts.yaml holds."""

    procedure_tables: dict[str, str]
    concepts: tuple[Concept, ...]


Groups = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Rules:
    """Which codes come together; the fields are explained in rules.yaml."""

    themes: dict[str, float]
    exclusive: Groups
    requires: dict[str, tuple[str, ...]]
    combines: tuple[tuple[str, str, str], ...]
    kin: Groups
    social_codes: tuple[str, ...]
    familial_codes: tuple[str, ...]
    family_codes: tuple[str, ...]
    not_familial_codes: tuple[str, ...]
    past_has_code: tuple[str, ...]
    min_days: dict[str, int]

    @cached_property
    def groups_of(self) -> dict[str, list[int]]:
        """Each code with its groups of `exclusive`, by their numbers."""
        numbers: dict[str, list[int]] = {}
        for number, group in enumerate(self.exclusive):
            for code in group:
                numbers.setdefault(code, []).append(number)
        return numbers

    @cached_property
    def neighbours(self) -> dict[str, set[str]]:
        """Each code with the codes that it shares a group of `exclusive` with."""
        return _groups_of(self.exclusive)

    @cached_property
    def not_denied_beside(self) -> dict[str, set[str]]:
        """Each code with the codes that no note denies when it is assigned."""
        return _groups_of((*self.exclusive, *self.kin))


def _groups_of(groups: Groups) -> dict[str, set[str]]:
    """Each code with all the codes that it shares a group with."""
    together: dict[str, set[str]] = {}
    for group in groups:
        for code in group:
            together.setdefault(code, set()).update(group)
    return together


@dataclass(frozen=True)
class Lab:
    """A laboratory result: how it is printed, and which values are normal; explained in labs_and_drugs.yaml."""

    names: tuple[str, ...]
    normal: tuple[float, float]
    abnormal: dict[Literal["high", "low", "rise", "drop"], tuple[float, float]] = field(default_factory=dict)
    decimals: int = 0
    trend: bool = False
    shifted_by: tuple[str, ...] = ()
    shifted: tuple[float, float] = (0, 0)


@dataclass(frozen=True)
class LabsAndDrugs:
    """What labs_and_drugs.yaml holds."""

    labs: dict[str, Lab]
    doses: dict[str, str]


class Holds(NamedTuple):
    """Which braces each sentence of a field must hold and which it may, how many `{n}`, and whether any general one."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    most_n: int | None = None
    general: bool = True


Sentences = tuple[str, ...]
SentencesBy = dict[str, Sentences]
AS_IT_IS = Holds(general=False)
_DOSING = ("dose", "frequency")


@dataclass(frozen=True)
class Phrases:
    """The sentences, and what stands for their braces; the fields are explained in phrases.yaml."""

    positive: Annotated[dict[Kind, Sentences], Holds(("p",))]
    negative: Annotated[dict[Kind, Sentences], Holds(("n",))]
    mixed: Annotated[dict[Kind, Sentences], Holds(("p", "n"))]
    rather: Annotated[Sentences, Holds(("p", "n"), most_n=1)]
    list_positive: Annotated[SentencesBy, Holds(("p",))]
    list_negative: Annotated[SentencesBy, Holds(("n",), most_n=1)]
    family_negative: Annotated[Sentences, Holds(("n",), most_n=2)]
    relatives: Annotated[Sentences, AS_IT_IS]
    drug_positive: Annotated[Sentences, Holds(("p",), _DOSING)]
    drug_negative: Annotated[Sentences, Holds(("n",), _DOSING, most_n=1)]
    allergy_negative: Annotated[Sentences, Holds(("n",), _DOSING, most_n=1)]
    frequencies: Annotated[Sentences, AS_IT_IS]
    prescriptions: Annotated[Sentences, Holds(("drug",), ("frequency",))]
    lab_positive: Annotated[Sentences, Holds(("p",))]
    openings: Annotated[Sentences, Holds()]
    opening_links: Annotated[Sentences, Holds(("history", "complaint"))]
    openings_plain: Annotated[Sentences, Holds(("complaint",))]
    complaints: Annotated[SentencesBy, AS_IT_IS]
    services: Annotated[SentencesBy, AS_IT_IS]
    plain: Annotated[SentencesBy, Holds()]
    progress: Annotated[Sentences, Holds()]
    addendum_openings: Annotated[Sentences, Holds()]
    nursing: Annotated[Sentences, Holds(optional=("age", "sex"), general=False)]
    radiology: Annotated[Sentences, Holds(optional=("age", "sex"), general=False)]
    choices: Annotated[SentencesBy, Holds()]
    numbers: dict[str, tuple[int, int]]
    by_sex: dict[str, tuple[str, str]]
    later_dates: dict[str, tuple[int, int]]
    shorthand: tuple[tuple[str, str], ...]
    headings: Annotated[SentencesBy, AS_IT_IS]
    orders: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class Content:
    """All that the corpus can say; concepts by code, in the order of their file. It equals itself alone."""

    concepts: dict[str, Concept]
    procedure_tables: dict[str, str]
    rules: Rules
    labs: dict[str, Lab]
    doses: dict[str, str]
    phrases: Phrases
