"""A cell is divided into codes, and each code is checked and written as its system writes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.codes.systems import CODE_SYSTEMS, LONGEST_CODE, split_codes


CODE = st.from_regex(r"[A-Z0-9][A-Z0-9.+-]{0,8}", fullmatch=True)


@given(codes=st.lists(CODE), data=st.data())
def test_codes_are_found_whatever_divides_them(codes, data):
    separators = st.text(";,| \t\n", min_size=1, max_size=3)
    cell = "".join(code + data.draw(separators) for code in codes)
    assert split_codes(cell) == split_codes(data.draw(separators) + cell) == codes
    assert split_codes(str(codes)) == codes  # as data frames write a list into a csv
    assert split_codes(" / ".join(codes), "/") == codes


def test_a_given_separator_is_the_only_one():
    assert split_codes(" heart failure; acute // x, y /", "/") == ["heart failure; acute", "x, y"]
    assert split_codes("{401.9,486}") == split_codes("('401.9' '486')") == ["401.9", "486"]
    assert split_codes("[b]x y[/b") == ["[b]x", "y[/b"]
    assert split_codes("") == split_codes(" ;, ") == split_codes("[]") == []


@pytest.mark.parametrize(
    "system, kind, code, expected",
    [
        ("icd9cm", None, "4019", "401.9"),
        ("icd9cm", None, "401.", "401"),
        ("icd9cm", None, "v4581", "V45.81"),
        ("icd9cm", "procedure", "4019", "40.19"),
        ("icd9cm", None, "40.19", "40.19"),  # its dot says that it is a procedure
        ("icd9cm", "procedure", "401.9", "401.9"),
        ("icd9cm", None, "40199999", None),
        ("icd9cm", None, "E11", None),
        ("icd9cm", "procedure", "1", None),
        ("icd10cm", None, "e119", "E11.9"),
        ("icd10cm", None, "S72.141A", "S72.141A"),
        ("icd10cm", None, "I1.0", None),
        ("icd10cm", None, "0BH17EZ", None),
        ("icd10cm", "procedure", "0BH17EZ", "0BH17EZ"),
        ("icd10pcs", None, "0bh17ez", "0BH17EZ"),
        ("icd10pcs", None, "0BH17E", None),
        ("other", None, "any string", "any string"),
        ("other", None, "x" * LONGEST_CODE, "x" * LONGEST_CODE),
        ("other", None, "x" * (LONGEST_CODE + 1), None),
    ],
)
def test_a_code_is_read_as_its_system_writes_it(system, kind, code, expected):
    assert CODE_SYSTEMS[system].read_code(code, kind) == expected


@given(
    code=st.text(max_size=12),
    system=st.sampled_from(sorted(CODE_SYSTEMS)),
    kind=st.sampled_from(["diagnosis", "procedure"]),
)
def test_a_code_that_was_read_is_read_again_as_it_is(code, system, kind):
    once = CODE_SYSTEMS[system].read_code(code, kind)
    assert once is None or CODE_SYSTEMS[system].read_code(once, kind) == once
