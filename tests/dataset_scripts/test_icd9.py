import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.codes.damage import UNDIVIDED
from dataset_scripts.codes.icd9 import add_dot, kind_of


CODES = {
    "diagnosis": st.from_regex(r"(([0-9]{3}|V[0-9]{2})[0-9]{0,2}|E[0-9]{3}[0-9]?)", fullmatch=True),
    "procedure": st.from_regex(r"[0-9]{2,4}", fullmatch=True),
}


@pytest.mark.parametrize(
    ("code", "kind", "dotted"),
    [
        ("0389", "diagnosis", "038.9"),  # leading zero kept
        ("4019", "diagnosis", "401.9"),
        ("25000", "diagnosis", "250.00"),
        ("486", "diagnosis", "486"),
        ("V4581", "diagnosis", "V45.81"),
        ("V29", "diagnosis", "V29"),
        ("E8859", "diagnosis", "E885.9"),  # after 4 characters
        ("E849", "diagnosis", "E849"),
        ("0066", "procedure", "00.66"),
        ("9671", "procedure", "96.71"),
        ("966", "procedure", "96.6"),
        ("4019", "procedure", "40.19"),  # the same digits, another meaning
        ("401.9", "diagnosis", "401.9"),
    ],
)
def test_dot_goes_in_by_kind(code, kind, dotted):
    assert add_dot(code, kind) == dotted
    assert kind_of(dotted) == kind


@pytest.mark.parametrize("kind", ["diagnosis", "procedure"])
@given(data=st.data())
def test_dot_round_trip(kind, data):
    code = data.draw(CODES[kind])
    dotted = add_dot(code, kind)
    assert dotted.replace(".", "") == code
    assert add_dot(dotted, kind) == dotted
    assert kind_of(dotted) == kind


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("38", "diagnosis"),  # 038 read as a number
        ("389.0", "procedure"),
        ("40.19", "diagnosis"),
        ("E88599", "diagnosis"),
        ("4019\n", "diagnosis"),
        ("401.", "diagnosis"),
        ("4.0.19", "procedure"),
        ("٤٠١٩", "diagnosis"),  # digits, but not 0 to 9
        ("v4581", "diagnosis"),
        ("", "diagnosis"),
        ("V4581", "procedure"),
    ],
)
def test_wrong_code_is_refused(code, kind):
    with pytest.raises(ValueError, match=f"not an ICD-9-CM {kind} code"):
        add_dot(code, kind)


def test_wrong_kind_is_refused():
    with pytest.raises(ValueError, match="Unknown kind of code 'symptom': expected one of 'diagnosis', 'procedure'"):
        add_dot("4019", "symptom")


@pytest.mark.parametrize("code", ["4019", "401.999", "E88.59", "E885.99", ".4", "96.711", "1"])
def test_kind_of_wants_the_dot(code):
    with pytest.raises(ValueError, match="not a dotted ICD-9-CM code"):
        kind_of(code)


def test_message_quotes_no_long_value():
    with pytest.raises(ValueError) as error:
        add_dot("An invented sentence.", "diagnosis")
    assert "invented" not in str(error.value)


def test_published_codes(shared_dir):
    """Each of the 8,929 dotted codes of MIMIC-III passes."""
    lines = (shared_dir / "data/mimic3_published/mimic3_code_distribution.csv").read_text().splitlines()[1:]
    codes = [line.split(",")[0] for line in lines]
    assert len(codes) == 8929
    for code in codes:
        assert add_dot(code.replace(".", ""), kind_of(code)) == code


def test_the_categories_without_a_digit_behind_a_dot_are_those_of_the_classification(shared_dir):
    listed = (shared_dir / "data/icd9/CMS32_DESC_LONG_DX.txt").read_text(encoding="latin-1").splitlines()
    codes = {line.split()[0] for line in listed if line.strip()}
    assert {code for code in codes if len(code) == 3 and code.isdecimal()} == UNDIVIDED
