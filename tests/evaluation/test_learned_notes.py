"""Whoever evaluates a model on notes that it learned from is told so."""

import stat

from modeling_icd.evaluation.learned_notes import FILE, warn_of_learned, write_learned


def test_notes_that_were_learned_from_are_counted_and_none_is_shown(tmp_path, capsys):
    private = tmp_path / "model-private"
    write_learned(["Fever and cough.", "Sepsis."], private)
    assert stat.S_IMODE((private / FILE).stat().st_mode) == 0o600
    assert "epsis" not in (private / FILE).read_text()
    assert warn_of_learned(tmp_path / "model", ["Sepsis.", "Pneumonia.", "Fever and cough."]) == 2
    said = capsys.readouterr().err
    assert "learned from 2 of these 3 notes" in said and "epsis" not in said
    assert warn_of_learned(tmp_path / "model", ["Pneumonia."]) == 0
    assert warn_of_learned(tmp_path / "another", ["Sepsis."]) == 0
    assert capsys.readouterr().err == ""
