"""The final list of codes as CSV and as FHIR R4."""

import csv
import io
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dataset_scripts.files import safe_cell


COLUMNS = ("code", "title", "kind", "system", "score", "decision", "status")

SYSTEM_URIS = {
    "ICD-10-CM": "http://hl7.org/fhir/sid/icd-10-cm",
    "ICD-9-CM": "http://hl7.org/fhir/sid/icd-9-cm",
    "ICD-10-PCS": "http://www.cms.gov/Medicare/Coding/ICD10",
}
"""The URIs of https://terminology.hl7.org for these code systems, by their names."""

VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
CATEGORY = "http://terminology.hl7.org/CodeSystem/condition-category"
DATA_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"


def codes_csv(codes: Sequence[Mapping[str, Any]]) -> str:
    """The codes as a table with the columns `COLUMNS`, one a row; no cell is taken for a formula by a spreadsheet."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    for code in codes:
        writer.writerow([safe_cell("" if code.get(name) is None else code[name]) for name in COLUMNS])
    return file.getvalue()


def codes_bundle(
    codes: Sequence[Mapping[str, Any]], confirmed: bool = False, time: datetime | None = None
) -> dict[str, Any]:
    """The codes as a FHIR R4 `Bundle` of type `collection`: a `Condition` for each diagnosis, a `Procedure` for each procedure,
    and a `Condition` for a code of which neither is known.

    The page knows nothing of the patient. So `subject`, which both resources must have, says that it is unknown, by
    the extension that FHIR has for this, and whoever imports the bundle puts the reference in. A condition is
    `provisional` unless the user says that the codes are confirmed. Nobody has said that a procedure is finished, or when, so its
    `status` is `unknown`.

    Args:
        codes (`Sequence[Mapping]`): `code`, `title`, `kind`, `system`, `status`, as the page exports them.
        confirmed (`bool`): whether the user has said that the conditions are confirmed.
        time (`datetime`, *optional*): of the bundle, with its zone; now if left out.
    """
    stamp = (time or datetime.now(UTC)).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    entries = [_entry(code, confirmed) for code in codes]  # FHIR knows no empty lists
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "timestamp": stamp,
        **({"entry": entries} if entries else {}),
    }


def _entry(code: Mapping[str, Any], confirmed: bool) -> dict[str, Any]:
    identifier = str(uuid.uuid4())
    resource = _procedure(code) if code["kind"] == "procedure" else _condition(code, confirmed)
    return {"fullUrl": f"urn:uuid:{identifier}", "resource": {**resource, "id": identifier}}


def _condition(code: Mapping[str, Any], confirmed: bool) -> dict[str, Any]:
    # There is no `clinicalStatus`: R4 asks for one in a problem list alone (its rule con-3), and nobody has said whether the
    # condition goes on.
    return {
        "resourceType": "Condition",
        "verificationStatus": _concept(VERIFICATION, "confirmed" if confirmed else "provisional"),
        "category": [_concept(CATEGORY, "encounter-diagnosis", "Encounter Diagnosis")],
        "code": _coded(code),
        "subject": _unknown_subject(),
    }


def _procedure(code: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "resourceType": "Procedure",
        "status": "unknown",
        "code": _coded(code),
        "subject": _unknown_subject(),
    }


def _coded(code: Mapping[str, Any]) -> dict[str, Any]:
    coding = {"code": code["code"]}
    if (uri := SYSTEM_URIS.get(code["system"])) is not None:
        coding["system"] = uri
    title = code.get("title")
    if title:
        coding["display"] = title
    return {"coding": [coding], "text": title or code["code"]}


def _concept(system: str, code: str, display: str | None = None) -> dict[str, Any]:
    coding = {"system": system, "code": code}
    return {"coding": [coding if display is None else {**coding, "display": display}]}


def _unknown_subject() -> dict[str, Any]:
    return {"extension": [{"url": DATA_ABSENT, "valueCode": "unknown"}], "display": "Not known to the coding page"}
