"""Finds credentials in text: keys, tokens and passwords, and also e-mail addresses and places in a network.

Keys are found by detect-secrets. Only its detectors of a fixed form are used; those that measure how random a text is would
take every digest for a key. Its checks whether a key is live, which would send it away, are never called. The patterns
here are for the keys that it does not know.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from huggingface_hub import get_token


SECRET = "token or key"
EMAIL = "e-mail address"
NETWORK = "place in a network"

# These take digests, words and numbers for keys and addresses.
UNUSED_DETECTORS = {"Base64HighEntropyString", "HexHighEntropyString", "KeywordDetector", "IPPublicDetector"}
OTHER_KEYS = re.compile(
    r"\bhf_[A-Za-z0-9]{20,}|\bsk-[A-Za-z0-9_-]{20,}|\bgithub_pat_\w{30,}|\bnpm_[A-Za-z0-9]{36}\b|\bdckr_[po]at_[\w-]{20,}"
    r"|\bAIza[\w-]{30,}|\bya29\.[\w-]{20,}|\bGOCSPX-[\w-]{20,}|\bdapi[0-9a-f]{32}\b|\bdop_v1_[0-9a-f]{64}\b"
    r"|\bpypi-[\w-]{50,}|\bxox[abeoprs]-[\w-]{10,}|-----BEGIN [A-Z0-9 ]*PRIVATE KEY|[?&]sig=[\w%+/-]{30,}"
    r"|\br8_[A-Za-z0-9]{30,}|\bgsk_[A-Za-z0-9]{40,}|\bnvapi-[\w-]{40,}|\bpplx-[A-Za-z0-9]{40,}"
    r"|\busername[\"']?\s*[:=]\s*[\"']?[\w.-]+[\"']?\s*,?\s*[\"']?key[\"']?\s*[:=]\s*[\"']?[0-9a-f]{32}\b"
    r"|\bkey[\"']?\s*[:=]\s*[\"']?[0-9a-f]{32}[\"']?\s*,?\s*[\"']?username[\"']?\s*[:=]"
    r"|\bsha256~[\w-]{43}\b|\"auth\"\s*:\s*\"[A-Za-z0-9+/]{16,}={0,2}\""
)
BEARER = re.compile(r"(?i)\b(?:bearer|basic|token)[ \n]+([A-Za-z0-9._~+/-]{20,}=*)")
# What follows a word for a secret, by a sign or on the next line of what was JSON.
NAMED = re.compile(
    r"(?i)(?:api_?key|secret(?:_?(?:access_?)?key)?|account_?key|passw(?:or)?d|passphrase|access_?token|auth_?token|hub_?token"
    r"|client_?secret|\w_key|\w_token|(?<![a-z])token)[\"']?\s*[:=\n]\s*[\"']?([^\s\"',;<>{}()\[\]]{8,})"
)
PASSWORD = re.compile(
    r"(?i)\b(?:passw(?:or)?d|passphrase|pwd)[\"']?\s*[:=]\s*[\"']?([^\s\"',;<>{}()\[\]]{6,})(?![\w.(\[])"
)
# A line of a file of logins: `machine HOST login NAME password VALUE`.
NETRC = re.compile(
    r"\b(?:machine\s+\S+|default)\s+(?:(?:login|user|account)\s+\S+\s+){1,2}passw(?:or)?d\s+([^\s\"',;<>{}()\[\]]{4,})"
)
USER_AT_HOST = re.compile(r"(?<![\w/@.])[A-Za-z][\w.+-]{0,64}+:[^\s:@/\"'<>]{3,}@[A-Za-z0-9][\w-]*(?:\.[\w-]+)+")
PLACEHOLDER = re.compile(
    r"(?i)your|example|placeholder|change_?me|dummy|redacted|\.\.\.|x{6}|\*{3}|^[$%<{]|^(?:none|null|true|false|os\.|self\.|getenv)"
)
ADDRESS = re.compile(
    r"(?<![\w.+@/-])(?=[\d.+_-]{0,40}[A-Za-z])[\w.+-]++@(?:[A-Za-z0-9][\w-]*\.)+[A-Za-z]{2,12}(?![\w@])"
)
PUBLIC_ADDRESS = re.compile(
    r"(?i)(?:^(?:git|noreply|no-reply)@|@(?:[\w-]+\.)*(?:example\.(?:org|com|net)|\w+\.(?:example|test|invalid))$)"
)
SERVICE = re.compile(
    r"(?i)\b(?:s3[an]?|gs|gcs|abfss?|wasbs?|adl|az|hdfs|dbfs|oss|cos|r2|smb|cifs|nfs|sftp|ftps?|ssh|scp|rsync"
    r"|mongodb(?:\+srv)?|postgres(?:ql)?|mysql|redis|amqps?|jdbc:\w+):(?:/(?=\w)[\w.@:-]{3,}|//(?=\w)[\w.@:-]+)"
    r"|https?://(?:localhost|127\.|10\.\d|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|[\w.-]+\.(?:internal|local|lan|corp|intranet)\b)"
)
SHARE = re.compile(r"(?<![\\\w])(?:\\\\[A-Za-z][\w.-]{2,}\\|\\\\\\\\[A-Za-z][\w.-]{2,}\\\\)[\w$.-]{2,}")
# The same with slashes; a host with a public name may be that of an address without its `https:`.
SLASHED_SHARE = re.compile(
    r"(?<![\w:/.\\)\]}>*-])//[A-Za-z][\w-]+(?:(?:\.[\w-]+)*\.(?:internal|local|lan|corp|intranet))?/[\w$.-]{2,}"
)
HOST_PATH = re.compile(
    r"(?<![\w./:@-])(?:[\w.-]+@[A-Za-z0-9][\w.-]+:[~/\w]|[A-Za-z0-9][\w-]*[A-Za-z0-9](?:\.[\w-]+)*:/(?!/)[\w.-]+/[\w.-]+)"
)


@cache
def detectors() -> list[Any]:
    """The detectors, made when they are first needed."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    known: Iterable[Any] = get_mapping_from_secret_type_to_class().values()
    return [detector() for detector in known if detector.__name__ not in UNUSED_DETECTORS]


def find_credentials(text: str, is_vocabulary: bool = False) -> Iterator[tuple[str, int]]:
    """Yield the kind of each finding and the place in the text where it begins, or 0 where its detector does not say.

    Args:
        text (`str`): Of a file.
        is_vocabulary (`bool`): Whether it is pieces of words by the thousand: there, only keys of a known form count.
    """
    for detector in detectors():
        for found in detector.analyze_string(text):
            if not PLACEHOLDER.search(found):
                yield SECRET, max(text.find(found), 0)
    for match in OTHER_KEYS.finditer(text):
        if not re.search(r"(?i)(?:x{6}|your)", match[0]):
            yield SECRET, match.start()
    if (token := get_token()) is not None and token in text:
        yield SECRET, text.index(token)
    if is_vocabulary:
        return
    for pattern in (BEARER, NAMED, PASSWORD, NETRC, USER_AT_HOST):
        for match in pattern.finditer(text):
            if _is_secret(match[pattern.groups], pattern):
                yield SECRET, match.start()
    for match in ADDRESS.finditer(text):
        if not PUBLIC_ADDRESS.search(match[0]):
            yield EMAIL, match.start()
    for pattern in (SERVICE, SHARE, SLASHED_SHARE, HOST_PATH):
        for match in pattern.finditer(text):
            if not match[0].startswith("git@"):
                yield NETWORK, match.start()


def _is_secret(value: str, pattern: re.Pattern[str]) -> bool:
    """Whether what follows a word for a secret is one, and no name, word or placeholder."""
    if PLACEHOLDER.search(value):
        return False
    if pattern in (USER_AT_HOST, PASSWORD, NETRC):
        return True
    has_digit, has_letter = any(c.isdigit() for c in value), any(c.isalpha() for c in value)
    return len(value) >= 16 and has_digit and has_letter and re.fullmatch(r"[\w+/=.~-]+", value) is not None
