"""How the user's own notes are divided: by code or by date, no subject in two splits, whatever the order of the rows."""

import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_tables import ids_of, make_rows, records_of, write_table

from dataset_scripts import load_builder
from dataset_scripts.builders import own_files
from dataset_scripts.builders.own_index import divide_in_order


@pytest.fixture(scope="module")
def rows():
    """Notes of a long tail of codes, of subjects who have one to four."""
    rng = random.Random(0)
    weights = [1 / rank for rank in range(1, 61)]
    rows, subject = [], 0
    while len(rows) < 600:
        subject += 1
        for _ in range(rng.choice((1, 1, 2, 4))):
            codes = {f"C{number:02}" for number in rng.choices(range(60), weights, k=5)}
            rows.append(
                {"id": f"n{len(rows)}", "patient_id": f"p{subject}", "text": "a", "codes": " ".join(sorted(codes))}
            )
    return rows


@pytest.mark.parametrize("at_once", [50, 10_000])
def test_every_split_has_its_share_of_every_code(tmp_path, build_own, rows, monkeypatch, at_once):
    monkeypatch.setattr(own_files, "SUBJECTS_AT_ONCE", at_once)
    splits = records_of(build_own(write_table(tmp_path / "a.csv", rows)))
    sizes = {split: len(records) for split, records in splits.items()}
    assert sum(sizes.values()) == len(rows)
    for split, share in own_files.FRACTIONS.items():
        assert abs(sizes[split] - share * len(rows)) <= 4
    total = Counter(code for row in rows for code in row["codes"].split())
    counts = {split: Counter(code for record in records for code in record[3]) for split, records in splits.items()}
    frequent = [code for code, count in total.items() if count >= own_files.LEAST_TO_STRATIFY]
    assert len(frequent) > 40
    # No code is further from its share than three of its notes, or two tenths of what it is due.
    for split, share in own_files.FRACTIONS.items():
        for code in frequent:
            assert abs(counts[split][code] - share * total[code]) <= max(3, 0.2 * share * total[code]), (split, code)


def test_no_subject_is_in_two_splits_and_no_order_changes_them(tmp_path, build_own, rows):
    shuffled = random.Random(1).sample(rows, len(rows))
    first = records_of(build_own(write_table(tmp_path / "a.csv", rows)))
    second = records_of(build_own(write_table(tmp_path / "b.jsonl", shuffled)))
    subjects = [{record[1] for record in records} for records in first.values()]
    assert sum(map(len, subjects)) == len(set().union(*subjects)) > 100
    assert {split: sorted(records) for split, records in first.items()} == {
        split: sorted(records) for split, records in second.items()
    }
    numbers = {row["id"]: place for place, row in enumerate(shuffled)}
    for records in second.values():  # in the order of the file
        assert [record[0] for record in records] == sorted((record[0] for record in records), key=numbers.__getitem__)


def test_another_seed_makes_other_splits(tmp_path, build_own, rows):
    path = write_table(tmp_path / "a.csv", rows)
    assert ids_of(build_own(path)) == ids_of(build_own(path, seed=0)) != ids_of(build_own(path, seed=1))


def test_chosen_codes_change_no_split(tmp_path, build_own, rows):
    path = write_table(tmp_path / "a.csv", rows)
    everything = ids_of(build_own(path))
    for choice in ({"num_codes": 3}, {"min_count": 60}, {"codes": ["C05", "C06", "C07"]}):
        for split, ids in ids_of(build_own(path, **choice)).items():
            assert set(ids) < set(everything[split])


NOTES = st.lists(
    st.tuples(st.integers(0, 30), st.sets(st.sampled_from("ABCDEFG"), min_size=1)), min_size=60, max_size=120
)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(notes=NOTES, split_by=st.sampled_from(["codes", "date"]), data=st.data())
def test_any_notes_in_any_order(tmp_path_factory, notes, split_by, data):
    folder = tmp_path_factory.mktemp("notes")
    rows = [
        {
            "id": f"{number}",
            "subject_id": f"{subject}",
            "date": f"20{subject:02}-01-01",
            "text": "a",
            "codes": ";".join(codes),
        }
        for number, (subject, codes) in enumerate(notes)
    ]
    splits = []
    for name, order in (("a", rows), ("b", data.draw(st.permutations(rows)))):
        path = write_table(folder / f"{name}.jsonl", order)
        try:
            splits.append(
                records_of(load_builder("files", data_dir=path, cache_dir=folder / "cache", split_by=split_by))
            )
        except ValueError as error:  # a few subjects with many notes each
            splits.append(str(error).replace(str(path), ""))
    if isinstance(splits[0], str):
        assert splits[0] == splits[1] and "would be in split" in splits[0]
        return
    first, second = ({split: sorted(records) for split, records in of_order.items()} for of_order in splits)
    assert first == second
    subjects = [{record[1] for record in records} for records in first.values()]
    assert sum(map(len, subjects)) == len(set().union(*subjects))


# ---- by date


def test_the_newest_notes_are_for_testing(tmp_path, build_own):
    rows = make_rows(40, per_subject=1)
    expected = {
        "train": [f"n{number}" for number in range(32)],
        "validation": [f"n{number}" for number in range(32, 36)],
        "test": [f"n{number}" for number in range(36, 40)],
    }
    path = write_table(tmp_path / "a.csv", random.Random(0).sample(rows, 40))
    ids = ids_of(build_own(path, split_by="date"))
    assert {split: sorted(of_split, key=lambda name: int(name[1:])) for split, of_split in ids.items()} == expected


def test_a_subject_goes_where_its_newest_note_goes(tmp_path, build_own):
    rows = make_rows(20, per_subject=1)
    rows[0]["subject_id"] = rows[19]["subject_id"]  # the oldest note and the newest
    ids = ids_of(build_own(write_table(tmp_path / "a.csv", rows), split_by="date"))
    assert ids["test"] == ["n0", "n19"]


def test_dates_are_compared_as_points_in_time(tmp_path, build_own):
    rows = make_rows(10, per_subject=1)
    for row, when in zip(rows, ["2020-01-01"] * 8 + ["2020-01-02T23:00:00-05:00", "2020-01-03 01:00"], strict=True):
        row["date"] = when  # the last but one is 04:00 of the third in UTC: it is the newest
    ids = ids_of(build_own(write_table(tmp_path / "a.csv", rows), split_by="date"))
    assert (ids["validation"], ids["test"]) == (["n9"], ["n8"])


def test_validation_is_cut_from_the_newest_of_train(tmp_path, build_own):
    train = write_table(tmp_path / "a.csv", make_rows(20, per_subject=1))
    test = write_table(tmp_path / "b.csv", make_rows(5, start=20))
    assert ids_of(build_own(train_file=train, test_file=test, split_by="date"))["validation"] == ["n18", "n19"]


def test_notes_that_are_not_divided_need_no_date(tmp_path, build_own):
    rows = [{name: value for name, value in row.items() if name != "date"} for row in make_rows(20)]
    path = write_table(tmp_path / "a.csv", rows)
    assert len(ids_of(build_own(test_file=path, split_by="date"))["test"]) == 20
    assert len(ids_of(build_own(path, split_by="date", unsplit=True))["unsplit"]) == 20


def test_division_in_order_by_hand():
    # 10 notes: 8 for the first. Subject 3 has the notes 7 to 9 of them: its middle, 8, is just within the first 8.
    subjects = [(1, 4), (2, 2), (3, 4)]
    assert dict(divide_in_order(subjects, {0: 0.8, 1: 0.2}, 10)) == {1: 0, 2: 0, 3: 0}
    assert dict(divide_in_order(subjects, {0: 0.7, 1: 0.3}, 10)) == {1: 0, 2: 0, 3: 1}
    assert dict(divide_in_order([(1, 1)] * 1, {0: 0.1, 1: 0.9}, 1)) == {1: 1}
