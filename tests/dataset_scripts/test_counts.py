import pytest

from dataset_scripts.counts import counted


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((1, "note"), "1 note"),
        ((0, "note"), "0 notes"),
        ((2000, "note"), "2,000 notes"),
        ((1, "row was", "rows were"), "1 row was"),
        ((2, "row was", "rows were"), "2 rows were"),
    ],
)
def test_a_number_agrees_with_what_it_is_of(words, said):
    assert counted(*words) == said
