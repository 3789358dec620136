"""What is said of a data set comes from its row in `dataset_scripts/facts.py`."""

from dataset_scripts import BUILDERS
from dataset_scripts.facts import FACTS, INVENTED, Facts
from modeling_icd.publishing.card import describe_data


def test_every_data_set_has_a_row():
    assert FACTS.keys() == BUILDERS.keys()
    assert INVENTED.keys() <= BUILDERS.keys()
    for name, facts in FACTS.items():
        assert facts.hub_id == name
        assert all((facts.name, facts.license, facts.terms, facts.limits, facts.description))
        assert bool(facts.citation) == (name != "files")  # one's own notes have none that is known


def test_a_new_data_set_is_described_by_its_row_alone(monkeypatch):
    row = Facts("ward letters", "letters", "letter", "ICD-10", "CC BY 4.0", "anyone", "Short.", is_open=True)
    monkeypatch.setitem(FACTS, "letters", row)
    assert describe_data({"dataset": "letters", "config": "full", "open": True}) == row
    other = describe_data({"dataset": "letters", "config": "full", "open": False})
    assert other.terms == "not the published files of letters, so counted as restricted"
    assert describe_data({"dataset": "else"}).terms == "unknown to this project, so counted as restricted"


def test_the_code_system_is_that_of_the_configuration():
    systems = [describe_data({"dataset": "mimic4", "config": c}).code_system for c in ("icd9_top50", "icd10", None)]
    assert systems == ["ICD-9-CM", "ICD-10", "ICD-10"]
