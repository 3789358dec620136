"""Licenses that the user's own notes may be under, by their ids on the Hub: which of them let anyone have the notes.

A license is open here if anyone may have the data and may use and pass on what is made of them, for any purpose. One that
forbids commercial use or derived works (`-nc`, `-nd`) is not: what was learned from such notes could not be given out under
a license of its own. Nor is any license that has no row here, which is given as `other`.
"""

import difflib
import re
from typing import NamedTuple


class License(NamedTuple):
    """A license that lets anyone have the data.

    Args:
        name (`str`): In a sentence.
        url (`str`): Where its text is.
    """

    name: str
    url: str


def _creative_commons(kind: str, versions: str) -> dict[str, License]:
    return {
        f"cc-{kind}-{version}": License(
            f"CC {kind.upper()} {version}", f"https://creativecommons.org/licenses/{kind}/{version}/"
        )
        for version in versions.split()
    }


_SPDX = "https://spdx.org/licenses"
OPEN_LICENSES: dict[str, License] = {
    "cc0-1.0": License("CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
    **_creative_commons("by", "2.0 2.5 3.0 4.0"),
    **_creative_commons("by-sa", "2.0 2.5 3.0 4.0"),
    "pddl": License("Public Domain Dedication and License 1.0", "https://opendatacommons.org/licenses/pddl/1-0/"),
    "odc-by": License("Open Data Commons Attribution License 1.0", "https://opendatacommons.org/licenses/by/1-0/"),
    "odbl": License("Open Database License 1.0", "https://opendatacommons.org/licenses/odbl/1-0/"),
    "cdla-permissive-1.0": License("CDLA Permissive 1.0", "https://cdla.dev/permissive-1-0/"),
    "cdla-permissive-2.0": License("CDLA Permissive 2.0", "https://cdla.dev/permissive-2-0/"),
    "cdla-sharing-1.0": License("CDLA Sharing 1.0", "https://cdla.dev/sharing-1-0/"),
    "etalab-2.0": License("Etalab Open License 2.0", f"{_SPDX}/etalab-2.0.html"),
    "mit": License("MIT License", f"{_SPDX}/MIT.html"),
    "apache-2.0": License("Apache License 2.0", f"{_SPDX}/Apache-2.0.html"),
    "bsd-2-clause": License("BSD 2-Clause License", f"{_SPDX}/BSD-2-Clause.html"),
    "bsd-3-clause": License("BSD 3-Clause License", f"{_SPDX}/BSD-3-Clause.html"),
    "unlicense": License("Unlicense", f"{_SPDX}/Unlicense.html"),
}
# Those that are known and not open, and what the Hub calls any other.
CLOSED_LICENSES = (
    *(
        f"cc-by-{kind}-{version}"
        for kind in ("nc", "nd", "nc-sa", "nc-nd")
        for version in ("2.0", "2.5", "3.0", "4.0")
    ),
    *("other", "unknown"),
)
# What SPDX calls them, where the Hub has another id.
_OTHER_NAMES = {"pddl-1.0": "pddl", "odc-by-1.0": "odc-by", "odbl-1.0": "odbl"}


def read_license(given: str) -> str:
    """The id of a license as the Hub writes it, of one that may be written in capitals or as SPDX does.

    Raises:
        ValueError: where it is no id, but e.g. a sentence, or none that is known: a mistyped one would close an open model.
    """
    name = given.strip().lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,59}", name):
        raise ValueError(
            f"`data_license` must be the id of a license, as the Hub names it, such as cc-by-4.0, got {given[:60]!r}."
        )
    name = _OTHER_NAMES.get(name, name)
    if name not in OPEN_LICENSES and name not in CLOSED_LICENSES:
        near = difflib.get_close_matches(name, [*OPEN_LICENSES, *CLOSED_LICENSES], 1, 0.7)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"`data_license` {name} is not known.{meant} Licenses that let anyone have the notes: {', '.join(OPEN_LICENSES)}. Known, "
            f"and they leave the model one of restricted data: {', '.join(CLOSED_LICENSES)}. Give `other` for any other "
            "license, or one that only a URL names."
        )
    return name
