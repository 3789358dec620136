"""Numbers of things in messages, in good grammar."""


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with what it is of: `counted(1, "note")` is "1 note", `counted(2000, "note")` is "2,000 notes".

    Args:
        one (`str`): what is said of one, a verb with it where there is one: `"note is"`.
        many (`str`, *optional*): what is said of any other number; by default `one` with an s.
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
