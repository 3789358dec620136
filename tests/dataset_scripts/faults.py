"""What the tests of faulty files check alike: that no message holds a note, and that nothing is left in the cache."""

import re


SECRET = "Xylophonia"  # a word of the invented notes that no message may hold
REMEDY = re.compile(r"[Rr]estore|download (it|the file) again|go back to|[Ee]xpected|Remove|Use |free some space|\?$")


def cached_files(tmp_path):
    return [file for file in (tmp_path / "cache").rglob("*") if file.is_file() and file.suffix != ".lock"]


def assert_clean(error, path, tmp_path, secrets=(SECRET,)):
    """The message names the file and a remedy, nothing in the chain of errors quotes a note, nothing is cached."""
    assert str(path) in str(error.value)
    assert REMEDY.search(str(error.value))
    exception = error.value
    while exception is not None:
        assert not any(secret in str(exception) for secret in secrets)
        exception = exception.__cause__ or exception.__context__
    assert cached_files(tmp_path) == []
