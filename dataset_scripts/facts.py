"""One row of facts about each data set: its name, access terms, license, codes, limits and citation.

The builders copy them into their `DatasetInfo`; model cards and releases use them to describe a model's training data. To
add a data set, write its builder, a row here and a row of `BUILDERS` in `dataset_scripts/__init__.py`.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple


PHYSIONET_LICENSE = "PhysioNet Credentialed Health Data License 1.5.0"
PHYSIONET_LICENSE_ID = "physionet-credentialed-health-data-license-1.5.0"
PHYSIONET_LICENSE_URL = "https://physionet.org/about/licenses/physionet-credentialed-health-data-license-150/"


class Facts(NamedTuple):
    """A data set.

    Args:
        name (`str`): In a sentence.
        hub_id (`str`): In the front matter of a card.
        note_kind (`str`): What one of its notes is.
        code_system (`str`): Which ICD codes it has.
        license (`str`): Under which the data are given out.
        terms (`str`): Who may have the data, as a card says it.
        limits (`str`): What a reader of a model's card should know of its notes and codes.
        description (`str`): One sentence on its records.
        homepage (`str`): Where the data come from.
        citation (`str`): BibTeX of the data.
        further_citations (`str`): BibTeX of the work whose conventions the builder follows.
        code_systems (`dict`): Those of configurations that have other codes, by the beginning of their names.
        is_open (`bool`): Whether anyone may have the published files, so that a model may be trained on notes that lie
            under this name and are others.
        marks_evidence (`bool`): Whether the data, or a corpus in their format, mark the spans that justify a code.
    """

    name: str
    hub_id: str
    note_kind: str
    code_system: str
    license: str
    terms: str
    limits: str
    description: str = ""
    homepage: str = ""
    citation: str = ""
    further_citations: str = ""
    code_systems: Mapping[str, str] = {}
    is_open: bool = False
    marks_evidence: bool = False

    def of_config(self, config: object, options: Collection[str] = ()) -> "Facts":
        """The same with the code system of one of its configurations, and of its options (`NAME=VALUE`)."""
        systems = [system for start, system in self.code_systems.items() if str(config).startswith(start)]
        if "to_icd10=true" in options:
            systems = ["ICD-10-CM"]
        return self._replace(code_system=systems[0]) if systems else self

    @property
    def all_citations(self) -> str:
        return "\n".join(filter(None, (self.citation, self.further_citations)))


_PHYSIONET_TERMS = (
    f"credentialed users of PhysioNet under its data use agreement ([{PHYSIONET_LICENSE}]({PHYSIONET_LICENSE_URL})); "
    "none of its records is in this repository"
)
_BILLING = (
    "The codes are those that one hospital's coders assigned for billing: habit and reimbursement are in them, and so in the "
    "model."
)

FACTS = {
    "mimic3": Facts(
        name="MIMIC-III v1.4",
        hub_id="mimic3",
        note_kind="discharge summary",
        code_system="ICD-9-CM",
        license=PHYSIONET_LICENSE,
        terms=_PHYSIONET_TERMS,
        limits=f"{_BILLING} The notes are of intensive care, 2001 to 2012.",
        description="Discharge summaries of MIMIC-III v1.4 and the ICD-9-CM codes of their admissions, one record an admission.",
        homepage="https://physionet.org/content/mimiciii/1.4/",
        citation="""\
@article{johnson2016mimic,
  title={{MIMIC-III}, a freely accessible critical care database},
  author={Johnson, Alistair E. W. and Pollard, Tom J. and Shen, Lu and others},
  journal={Scientific Data}, volume={3}, pages={160035}, year={2016}
}""",
        further_citations="""\
@inproceedings{mullenbach2018explainable,
  title={Explainable Prediction of Medical Codes from Clinical Text},
  author={Mullenbach, James and Wiegreffe, Sarah and Duke, Jon and Sun, Jimeng and Eisenstein, Jacob},
  booktitle={NAACL-HLT}, year={2018}
}""",
        marks_evidence=True,
    ),
    "mimic4": Facts(
        name="MIMIC-IV and MIMIC-IV-Note v2.2",
        hub_id="mimic4",
        note_kind="discharge summary",
        code_system="ICD-10",
        code_systems={"icd9": "ICD-9-CM"},
        license=PHYSIONET_LICENSE,
        terms=_PHYSIONET_TERMS,
        limits=f"{_BILLING} The notes are of hospital admissions, 2008 to 2019.",
        description="Discharge summaries of MIMIC-IV-Note v2.2 and the ICD codes of their admissions in MIMIC-IV, one record an admission.",
        homepage="https://physionet.org/content/mimic-iv-note/2.2/",
        citation="""\
@article{johnson2023mimic,
  title={{MIMIC-IV}, a freely accessible electronic health record dataset},
  author={Johnson, Alistair E. W. and Bulgarelli, Lucas and Shen, Lu and others},
  journal={Scientific Data}, volume={10}, pages={1}, year={2023}
}""",
        further_citations="""\
@misc{johnson2023note,
  title={{MIMIC-IV-Note}: Deidentified free-text clinical notes (version 2.2)},
  author={Johnson, Alistair and Pollard, Tom and Horng, Steven and Celi, Leo Anthony and Mark, Roger},
  howpublished={PhysioNet}, year={2023}, doi={10.13026/1n74-ne17}
}
@inproceedings{edin2023automated,
  title={Automated Medical Coding on {MIMIC-III} and {MIMIC-IV}: A Critical Review and Replicability Study},
  author={Edin, Joakim and Junge, Alexander and Havtorn, Jakob D. and Borgholt, Lasse and Maistro, Maria and others},
  booktitle={SIGIR}, year={2023}
}""",
        marks_evidence=True,
    ),
    "cmc2007": Facts(
        name="the radiology reports of the 2007 Computational Medicine Center challenge",
        hub_id="cmc2007",
        note_kind="radiology report",
        code_system="ICD-9-CM",
        license="Free for non-commercial research use.",
        terms="free for non-commercial research; none of its records is in this repository",
        limits="The codes are those that two of three coding companies gave to paediatric radiology reports, short ones and of "
        "one hospital.",
        description="Paediatric radiology reports of the 2007 Computational Medicine Center challenge and their ICD-9-CM codes.",
        citation="""\
@inproceedings{pestian2007shared,
  title={A shared task involving multi-label classification of clinical free text},
  author={Pestian, John P. and Brew, Chris and Matykiewicz, Pawel and Hovermale, D. J. and Johnson, Neil and
    Cohen, K. Bretonnel and Duch, Wlodzislaw},
  booktitle={BioNLP}, year={2007}
}""",
        is_open=True,
    ),
    "codiesp": Facts(
        name="the clinical cases of CodiEsp v3",
        hub_id="codiesp",
        note_kind="clinical case",
        code_system="ICD-10",
        license="CC BY 4.0",
        terms="CC BY 4.0 ([zenodo.org/records/3837305](https://zenodo.org/records/3837305))",
        limits="The notes are published case reports, not hospital notes; the English ones are machine translations from Spanish.",
        description="Clinical cases of CodiEsp (CLEF eHealth 2020) and their ICD-10-CM diagnoses and ICD-10-PCS procedures.",
        homepage="https://temu.bsc.es/codiesp/",
        citation="""\
@inproceedings{miranda2020overview,
  title={Overview of Automatic Clinical Coding: Annotations, Guidelines, and Solutions for non-English Clinical Cases
    at {CodiEsp} Track of {CLEF eHealth} 2020},
  author={Miranda-Escalada, Antonio and Gonzalez-Agirre, Aitor and Armengol-Estap{\\'e}, Jordi and Krallinger, Martin},
  booktitle={CLEF (Working Notes)}, year={2020}
}""",
        is_open=True,
        marks_evidence=True,
    ),
    # Whoever has them knows more of them than can be said here.
    "files": Facts(
        name="notes of its maker's own",
        hub_id="files",
        note_kind="note",
        code_system="ICD",
        license="unknown",
        terms="notes of whoever trained it, unknown to this project, so counted as restricted",
        limits="The notes and who coded them are unknown.",
        description="Notes of the user's own files and their codes.",
    ),
}

# Corpora in the format of a data set, by its name.
INVENTED = {
    "mimic3": Facts(
        name="an invented corpus in MIMIC-III's table format",
        hub_id="synthetic-mimic3-format",
        note_kind="discharge summary",
        code_system="ICD-9-CM",
        license="none needed",
        terms="no patient, hospital or note in it is real; `modeling-icd synthetic` writes it again from its seed",
        limits="The codes were drawn first and the notes were written to show them: results do not carry over to real notes.",
    )
}
INVENTED["mimic4"] = INVENTED["mimic3"]._replace(
    name="an invented corpus in MIMIC-IV's table format",
    hub_id="synthetic-mimic4-format",
    code_system="ICD-10",
    code_systems={"icd9": "ICD-9-CM"},
    terms="no patient, hospital or note in it is real; `modeling-icd synthetic --format mimic4` writes it again from its "
    "seed",
)
