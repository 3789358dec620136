"""Builds the 2007 Computational Medicine Center challenge: radiology reports with ICD-9-CM codes.

The challenge is that of Pestian et al., BioNLP 2007. A document holds a clinical history, an impression, the codes of
three coding companies, and the codes that a majority of them gave. The last are a record's codes.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers.expat import ErrorString

import datasets
import numpy as np

from ..codes.icd9 import add_dot
from ..facts import FACTS
from .records import ICDBuilder, ICDConfig, record_features
from .sources import find_xml
from .stratify import check_enough, hold_out


FOLDS = 5
VALIDATION_SIZE = 0.12  # of the documents outside of the test fold
SEED = 2007
MAJORITY = "CMC_MAJORITY"
COMPANIES = ("COMPANY1", "COMPANY2", "COMPANY3")
SECTIONS = {
    "CLINICAL_HISTORY": "CLINICAL HISTORY",
    "IMPRESSION": "IMPRESSION",
}  # type in the file, heading in the text


# Long titles of CMS (version 32); those of codes that were divided before version 32 are the older ICD-9-CM titles.
TITLES = {
    "079.99": "Unspecified viral infection",
    "277.00": "Cystic fibrosis without mention of meconium ileus",
    "279.12": "Wiskott-Aldrich syndrome",
    "462": "Acute pharyngitis",
    "486": "Pneumonia, organism unspecified",
    "493.90": "Asthma, unspecified type, unspecified",
    "511.9": "Unspecified pleural effusion",
    "518.0": "Pulmonary collapse",
    "591": "Hydronephrosis",
    "592.0": "Calculus of kidney",
    "593.1": "Hypertrophy of kidney",
    "593.5": "Hydroureter",
    "593.70": "Vesicoureteral reflux unspecified or without reflux nephropathy",
    "593.89": "Other specified disorders of kidney and ureter",
    "596.54": "Neurogenic bladder NOS",
    "596.8": "Other specified disorders of bladder",
    "599.0": "Urinary tract infection, site not specified",
    "599.7": "Hematuria",
    "741.90": "Spina bifida without mention of hydrocephalus, unspecified region",
    "753.0": "Renal agenesis and dysgenesis",
    "753.21": "Congenital obstruction of ureteropelvic junction",
    "753.3": "Other specified anomalies of kidney",
    "758.6": "Gonadal dysgenesis",
    "759.89": "Other specified congenital anomalies",
    "780.6": "Fever",
    "783.0": "Anorexia",
    "785.6": "Enlargement of lymph nodes",
    "786.05": "Shortness of breath",
    "786.07": "Wheezing",
    "786.09": "Other respiratory abnormalities",
    "786.2": "Cough",
    "786.50": "Chest pain, unspecified",
    "786.59": "Other chest pain",
    "787.03": "Vomiting alone",
    "788.30": "Urinary incontinence, unspecified",
    "788.41": "Urinary frequency",
    "789.00": "Abdominal pain, unspecified site",
    "789.09": "Abdominal pain, other specified site",
    "791.0": "Proteinuria",
    "795.5": "Nonspecific reaction to tuberculin skin test without active tuberculosis",
    "V13.02": "Personal history, urinary (tract) infection",
    "V13.09": "Personal history of other specified urinary system disorders",
    "V42.0": "Kidney replaced by transplant",
    "V67.09": "Follow-up examination, following other surgery",
    "V72.5": "Radiological examination, not elsewhere classified",
}


class CMC2007(ICDBuilder):
    """Build the challenge's data set from its XML file; `data_dir` is the file, or the folder that holds it alone.

    `default` divides the documents into train (88%) and validation. `fold0` to `fold4` set a fifth of them apart as
    test, no document in two of them, and divide the rest likewise. Folds are stratified by code and depend on the
    documents' ids and codes alone, not on their order in the file.

    The text is `CLINICAL HISTORY: ...` and `IMPRESSION: ...` with an empty line in between, an empty section left out, and so is a document with no other;
    the document's id is both `subject_id` and `hadm_id`. The columns `codes_company1` to `codes_company3` hold what
    each company wrote, as it wrote it: some of it is outside of the code set or not a code.

    See [`ICDBuilder`] for the arguments and [`ICDConfig`] for the options.
    """

    BUILDER_CONFIGS = [
        ICDConfig(name="default", description="Train and validation."),
        *(ICDConfig(name=f"fold{fold}", description=f"Test is fold {fold} of {FOLDS}.") for fold in range(FOLDS)),
    ]
    ABOUT = FACTS["cmc2007"]
    PUBLIC_CONTENT = frozenset({
        # 780 of the challenge's 978 training reports, as its file came through a public repository.
        "5191b68f0e6b26db2fd9463fb4ff8e36d407ef12d535e68055715d3eb41b910a",
    })  # fmt: skip

    def _find_sources(self, config: ICDConfig) -> list[Path]:
        self.xml_file = find_xml(str(config.data_dir))
        return [self.xml_file]

    @property
    def code_descriptions(self) -> dict[str, str]:
        """Long titles of the 45 codes of the challenge."""
        return dict(TITLES)

    def _describe(self) -> str:
        divided = "One split of every document." if self.config.unsplit else str(self.config.description)
        return f"The reports of Pestian et al. (BioNLP 2007), as far as the file has them; splits of our own, stratified by code. {divided}"

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        found = read_documents(self.xml_file)
        documents = sorted((document for document in found if document.text), key=lambda document: document.doc_id)
        if not documents:
            raise ValueError(
                f"{self.xml_file}: none of its {len(found):,} documents has a text. Restore the original file."
            )
        names = sorted({code for document in documents for code in document.codes})
        self.info.features = record_features(names)
        for company in COMPANIES:
            self.info.features[f"codes_{company.lower()}"] = datasets.List(datasets.Value("string"))
        splits = {"unsplit": np.arange(len(documents))} if self.config.unsplit else self._divide(documents, names)
        chosen = {name: tuple(documents[i] for i in indices) for name, indices in splits.items()}
        self._report(
            {
                "left out, documents without a text": len(found) - len(documents),
                "left out, sections of another type": sum(document.other_sections for document in documents),
                "documents with the text of another one": len(documents) - len({doc.text for doc in documents}),
            },
            {name: [document.codes for document in split] for name, split in chosen.items()},
        )
        return [datasets.SplitGenerator(name=name, gen_kwargs={"documents": split}) for name, split in chosen.items()]

    def _generate_examples(self, documents: "Sequence[Document]") -> Iterator[tuple[int, dict[str, Any]]]:
        for document in documents:
            yield (
                document.doc_id,
                {
                    "subject_id": document.doc_id,
                    "hadm_id": document.doc_id,
                    "text": document.text,
                    "codes": sorted(self.code2id[code] for code in document.codes),
                    **{f"codes_{company.lower()}": codes for company, codes in document.company_codes.items()},
                },
            )

    def _divide(self, documents: "Sequence[Document]", names: Sequence[str]) -> dict[str, np.ndarray]:
        """Give each split the indices of its documents."""
        from iterstrat.ml_stratifiers import MultilabelStratifiedKFold  # here: it brings scikit-learn

        check_enough(f"{self.xml_file}: {len(documents)} documents", len(documents), len(names), 2 * FOLDS)
        labels = np.array([[name in document.codes for name in names] for document in documents], dtype=int)
        rest, splits = np.arange(len(documents)), {}
        if self.config.name != "default":
            folds = MultilabelStratifiedKFold(n_splits=FOLDS, shuffle=True, random_state=SEED).split(labels, labels)
            rest, splits["test"] = list(folds)[int(self.config.name.removeprefix("fold"))]
        train, validation = hold_out(labels[rest], VALIDATION_SIZE, SEED)
        return {"train": rest[train], "validation": rest[validation], **splits}


@dataclass
class Document:
    """One report, shown without its text, which is `""` where its sections are empty."""

    doc_id: int
    text: str = field(repr=False)
    codes: list[str]
    company_codes: dict[str, list[str]]
    other_sections: int


def read_documents(path: Path) -> list[Document]:
    """Read every document of a challenge file."""
    root, fault = None, ""
    try:
        root = ET.fromstring(path.read_bytes())
    except ET.ParseError as error:
        fault = f"line {error.position[0]}, column {error.position[1]}: {ErrorString(error.code)}"
    if root is None:
        raise ValueError(f"{path} is not well-formed XML, {fault}. Restore the original file.")
    elements = root.findall("doc")
    if root.tag != "docs" or not elements:
        raise ValueError(f"{path} is not a file of the challenge: expected <docs> with one <doc> a report.")
    documents = [_read_document(element, number, path) for number, element in enumerate(elements, start=1)]
    ids = {document.doc_id for document in documents}
    if len(ids) < len(documents):
        raise ValueError(
            f"{path}: {len(documents) - len(ids)} documents have an id that another one has. Remove them."
        )
    return documents


def _read_document(element: ET.Element, number: int, path: Path) -> Document:
    doc_id = element.get("id", "").strip()
    if not re.fullmatch(r"[0-9]{1,18}", doc_id):
        raise ValueError(
            f"{path}: document {number} has no id, or one that is not a whole number. Restore the original file."
        )
    where = f"{path}: document {doc_id}"

    sections = [(text.get("type"), (text.text or "").strip()) for text in element.iterfind("texts/text")]
    texts = {section: text for section, text in sections if section in SECTIONS}
    other_sections = sum(section not in SECTIONS for section, _ in sections)
    if len(texts) + other_sections < len(sections):
        raise ValueError(f"{where} has two <text> of one type. Restore the original file.")
    missing = [section for section in SECTIONS if section not in texts]
    if missing:
        raise ValueError(f"{where} has no <text> of type {' and '.join(missing)}. Restore the original file.")
    text = "\n\n".join(f"{heading}: {texts[section]}" for section, heading in SECTIONS.items() if texts[section])

    codes: dict[str, list[str]] = {origin: [] for origin in (MAJORITY, *COMPANIES)}
    for code in element.iterfind("codes/code"):
        origin = code.get("origin", "")
        if origin not in codes:
            raise ValueError(f"{where} has a <code> of unknown origin: expected one of {', '.join(codes)}.")
        if code.get("type", "ICD-9-CM") != "ICD-9-CM":
            raise ValueError(f"{where} has a <code> whose type is not ICD-9-CM. Use the challenge's file.")
        codes[origin].append((code.text or "").strip())
    majority = codes.pop(MAJORITY)
    if not majority:
        raise ValueError(f"{where} has no <code> of origin {MAJORITY}. Use the challenge's file with codes.")
    for name in majority:
        try:
            dotted = add_dot(name, "diagnosis")
        except ValueError as error:
            raise ValueError(f"{where}, origin {MAJORITY}: {error}") from None
        if dotted != name:
            raise ValueError(f"{where}, origin {MAJORITY}: {name!r} lacks its dot, expected {dotted!r}.")
    return Document(int(doc_id), text, sorted(set(majority)), codes, other_sections)
