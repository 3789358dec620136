import pytest

from dataset_scripts.codes.icd10 import add_dot, kind_of


@pytest.mark.parametrize(
    ("code", "kind", "dotted"),
    [
        ("I10", "diagnosis", "I10"),
        ("E119", "diagnosis", "E11.9"),
        ("S72141A", "diagnosis", "S72.141A"),
        ("W19XXXA", "diagnosis", "W19.XXXA"),
        ("C7A010", "diagnosis", "C7A.010"),
        ("E11.9", "diagnosis", "E11.9"),
        ("0BH17EZ", "procedure", "0BH17EZ"),
        ("5A1955Z", "procedure", "5A1955Z"),
        ("BW20", "procedure", "BW20"),  # cut to four, as CodiEsp does
    ],
)
def test_dot(code, kind, dotted):
    assert add_dot(code, kind) == dotted
    assert kind_of(dotted) == kind


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("4019", "diagnosis", "'4019' is not an ICD-10-CM diagnosis code such as E119"),
        ("e119", "diagnosis", "'e119' is not"),
        ("E1.19", "diagnosis", "'E1.19' is not"),
        ("E1191234", "diagnosis", "'E1191234' is not"),
        ("E11.", "diagnosis", r"'E11\.' is not"),
        ("210093", "procedure", "'210093' is not an ICD-10-PCS procedure code .* leading zeros were lost"),
        ("0BH17IZ", "procedure", "'0BH17IZ' is not"),  # no I and no O
        ("BH1", "procedure", "'BH1' is not"),
        ("a note that slipped in", "procedure", "A value of 22 characters is not"),
        ("I10", "drug", "Unknown kind of code 'drug'"),
    ],
)
def test_what_is_no_code(code, kind, message):
    with pytest.raises(ValueError, match=message):
        add_dot(code, kind)


@pytest.mark.parametrize("code", ["E119", "401.9", "96.71", ""])
def test_kind_of_wants_the_dot(code):
    if code == "E119":  # four characters without a dot are a procedure, cut short
        assert kind_of(code) == "procedure"
    else:
        with pytest.raises(ValueError, match="not a dotted ICD-10 code"):
            kind_of(code)
