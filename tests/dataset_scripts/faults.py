"""What the tests of faulty files check alike: that no message holds a note, and that nothing is left in the cache."""

SECRET = "Xylophonia"  # a word of the invented notes that no message may hold


def cached_files(tmp_path):
    return [file for file in (tmp_path / "cache").rglob("*") if file.is_file() and file.suffix != ".lock"]


def assert_clean(error, path, tmp_path):
    """The message names the file, nothing in the chain of errors quotes a note, nothing is cached."""
    assert str(path) in str(error.value)
    exception = error.value
    while exception is not None:
        assert SECRET not in str(exception)
        exception = exception.__cause__ or exception.__context__
    assert cached_files(tmp_path) == []
