"""The downloaded list: valid by the models of FHIR R4, and harmless in a spreadsheet."""

import csv
import io
import json

import pytest
from fhirclient.models.bundle import Bundle
from fhirclient.models.condition import Condition
from fhirclient.models.fhirabstractbase import FHIRValidationError
from fhirclient.models.procedure import Procedure
from hypothesis import given
from hypothesis import strategies as st

from modeling_icd.space.fhir import codes_bundle, codes_csv


def code(code="I10", title="Essential (primary) hypertension", kind="diagnosis", system="ICD-10-CM", **more):
    more = {"score": 0.5, "decision": "review", "status": "accepted", **more}
    return {"code": code, "title": title, "kind": kind, "system": system, **more}


CODES = [
    code(),
    code("0BH17EZ", "", "procedure", "ICD-10-PCS", status="added", score=None, decision=None),
    code("401.9", "Hypertension NOS", system="ICD-9-CM"),
    code("96.71", "Ventilation", "procedure", "ICD-9-CM"),
    code("fever", None, "other", "other"),
]


def test_a_bundle_is_valid_and_says_which_code_is_what():
    sent = json.loads(json.dumps(codes_bundle(CODES)))
    bundle = Bundle(sent, strict=True)
    assert bundle.type == "collection"
    resources = [entry.resource for entry in bundle.entry]
    assert [type(resource) for resource in resources] == [Condition, Procedure, Condition, Procedure, Condition]
    coded = [resource.code.coding[0] for resource in resources]
    assert [(coding.system, coding.code, coding.display) for coding in coded] == [
        ("http://hl7.org/fhir/sid/icd-10-cm", "I10", "Essential (primary) hypertension"),
        ("http://www.cms.gov/Medicare/Coding/ICD10", "0BH17EZ", None),
        ("http://hl7.org/fhir/sid/icd-9-cm", "401.9", "Hypertension NOS"),
        ("http://hl7.org/fhir/sid/icd-9-cm", "96.71", "Ventilation"),
        (None, "fever", None),
    ]
    for entry, sent_entry in zip(bundle.entry, sent["entry"], strict=True):
        assert entry.fullUrl == f"urn:uuid:{entry.resource.id}"
        assert entry.resource.as_json() == sent_entry["resource"]  # nothing is dropped
    assert len({entry.fullUrl for entry in bundle.entry}) == len(CODES)


def test_no_patient_is_invented_and_no_condition_is_confirmed_unless_a_person_says_so():
    resources = [entry["resource"] for entry in codes_bundle(CODES)["entry"]]
    for resource in resources:
        assert set(resource["subject"]) == {"extension", "display"}
        assert resource["subject"]["extension"][0]["valueCode"] == "unknown"
        assert "encounter" not in resource and "recordedDate" not in resource
    statuses = [r["verificationStatus"]["coding"][0]["code"] for r in resources if r["resourceType"] == "Condition"]
    assert statuses == ["provisional"] * 3
    assert not any("clinicalStatus" in resource for resource in resources)
    confirmed = codes_bundle(CODES, confirmed=True)["entry"][0]["resource"]
    assert confirmed["verificationStatus"]["coding"][0]["code"] == "confirmed"
    procedures = [r["status"] for r in resources if r["resourceType"] == "Procedure"]
    assert procedures == ["unknown"] * 2


def test_an_empty_list_is_a_valid_bundle():
    assert Bundle(codes_bundle([]), strict=True).entry is None


def test_the_models_of_fhir_refuse_what_is_wrong():
    """So that the tests above can fail."""
    bundle = codes_bundle(CODES)
    del bundle["entry"][0]["resource"]["subject"]
    with pytest.raises(FHIRValidationError):
        Bundle(bundle, strict=True)


def test_csv_has_a_row_for_each_code():
    rows = list(csv.DictReader(io.StringIO(codes_csv(CODES), newline="")))
    assert [row["code"] for row in rows] == ["I10", "0BH17EZ", "401.9", "96.71", "fever"]
    assert rows[0] == {**{name: str(value) for name, value in CODES[0].items()}}
    assert (rows[1]["score"], rows[1]["decision"], rows[1]["status"]) == ("", "", "added")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.sampled_from("=+-@\t\r"))
def test_no_cell_of_csv_is_a_formula(rest, start):
    written = codes_csv([code(title=start + rest, code="=1+1")])
    (row,) = csv.DictReader(io.StringIO(written, newline=""))
    assert row["code"] == "'=1+1"
    title = row["title"]
    if title == start + rest:  # a number, such as -3
        float(title)
    else:
        assert title == f"'{start}{rest}"
