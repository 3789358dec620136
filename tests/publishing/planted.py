"""What a user may leave in a release by accident, made from an invented note in the way in which it really comes about.

Each variant is a file's name and its content; its name says what it is.
"""

import base64
import csv
import gzip
import html
import io
import json
import pprint
import random
import re
import textwrap
import unicodedata
from collections import Counter
from urllib.parse import quote

import yaml
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers


def train_tokenizers(texts):
    """A tokenizer of each kind, trained on notes."""
    byte_level = Tokenizer(models.BPE())
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    byte_level.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    )
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer()
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.decoder = decoders.WordPiece()
    pieces.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=700, special_tokens=["[PAD]", "[UNK]"], show_progress=False)
    )
    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    unigram.train_from_iterator(
        texts,
        trainers.UnigramTrainer(vocab_size=600, show_progress=False, unk_token="<unk>", special_tokens=["<unk>"]),
    )
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=["[PAD]", "[UNK]"], show_progress=False))
    return {"byte_level": byte_level, "pieces": pieces, "unigram": unigram, "words": words}


def spans_of_note(note, tokenizers):
    """Yield (what it is, file, content): a piece of a note in every form."""
    flat = " ".join(note.split())
    words = flat.split()
    piece = " ".join(words[10:60])
    bare = re.findall(r"[A-Za-z]+", piece)
    sentence = " ".join(words[20:34])
    yield "a note in the card", "README.md", f"# Example\n\n{note}\n"
    yield "a note with its line breaks in a code block", "README.md", f"```\n{note}\n```\n"
    yield "a sentence in the card", "README.md", f"For example, {sentence} is coded well.\n"
    yield "a sentence as a quotation", "README.md", textwrap.indent(textwrap.fill(piece, 40), "> ")
    yield "a sentence in capitals", "README.md", sentence.upper()
    yield "a sentence in lower case without punctuation", "README.md", re.sub(r"[^\w\s]", "", piece).lower()
    yield "a sentence with every word emphasised", "README.md", " ".join(f"**{word}**" for word in words[20:34])
    yield "a sentence with underscores", "README.md", piece.replace(" ", "_")
    yield "a sentence with two spaces and tabs", "README.md", piece.replace(" ", " \t ")
    yield "a widget example in the front matter", "README.md", f"---\nwidget:\n- text: {json.dumps(piece)}\n---\n"
    yield "a note in a comment of the code", "modeling_icd.py", textwrap.indent(textwrap.fill(piece, 70), "# ")
    yield "a note as a string of the code", "handler.py", f"EXAMPLE = {note!r}\n"
    yield (
        "a note as adjacent strings",
        "handler.py",
        "X = (\n" + "".join(f"    {line + chr(10)!r}\n" for line in textwrap.wrap(piece, 30)) + ")\n",
    )
    yield "a note in a doctest", "pipeline.py", f'"""\n>>> pipe({piece!r})\n"""\n'
    yield "a note in the chat template", "chat_template.jinja", "{% set example = " + json.dumps(piece) + " %}"
    yield "a note in a YAML file", "train.yaml", yaml.safe_dump({"example": note})
    yield (
        "a note in a folded YAML file",
        "train.yaml",
        "example: >-\n" + textwrap.indent(textwrap.fill(piece, 50), "  "),
    )
    yield "a note in a text file of requirements", "requirements.txt", f"# {piece}\ntransformers\n"
    yield "a note as a value of JSON", "config.json", json.dumps({"example": note})
    yield "a note as a nested value of JSON", "results.json", json.dumps({"worst": [{"note": {"text": piece}}]})
    yield "a note as a key of JSON", "results.json", json.dumps({piece: 0.3})
    yield "a note as code descriptions", "config.json", json.dumps({"code_descriptions": {"401.9": piece}})
    yield "a note in id2label", "config.json", json.dumps({"id2label": {"0": piece, "1": "401.9"}})
    yield "words of a note as id2label", "config.json", json.dumps({"id2label": dict(enumerate(words[10:60]))})
    yield (
        "words of a note as label2id",
        "config.json",
        json.dumps({"label2id": {word: i for i, word in enumerate(words[10:60])}}),
    )
    yield "sentences of a note as a JSON list", "results.json", json.dumps(note.split("\n"), indent=1)
    yield (
        "a note in JSON lines",
        "examples.jsonl",
        json.dumps({"text": piece}) + "\n" + json.dumps({"text": "x"}) + "\n",
    )
    yield "a note in cut-off JSON", "results.json", json.dumps({"text": piece})[:-2]
    yield (
        "a note in JSON with its letters escaped",
        "results.json",
        '{{"text": "{}"}}'.format("".join(f"\\u{ord(c):04x}" for c in piece)),
    )
    yield "a note in JSON with a key twice", "results.json", f'{{"text": {json.dumps(piece)}, "text": "x"}}'
    yield "a note in the metadata of weights", "model.safetensors", {"format": "pt", "note": piece}
    # Token lists, as a tokenizer gives them.
    for kind, tokenizer in tokenizers.items():
        encoding = tokenizer.encode(piece)
        tokens = encoding.tokens
        yield f"tokens of {kind} in JSON", "results.json", json.dumps({"tokens": tokens})
        yield (
            f"tokens of {kind} in JSON, not escaped",
            "results.json",
            json.dumps({"tokens": tokens}, ensure_ascii=False, indent=1),
        )
        yield f"tokens of {kind} in the card", "README.md", " ".join(tokens)
        yield f"tokens of {kind} printed", "README.md", repr(tokens)
        yield f"tokens of {kind} one a line", "tokens.txt", "\n".join(tokens)
        yield (
            f"tokens of {kind} with their attention",
            "results.json",
            json.dumps([[token, round(0.1 + i / 77, 4)] for i, token in enumerate(tokens)]),
        )
        yield (
            f"tokens of {kind} with their scores as objects",
            "results.json",
            json.dumps([{"token": t, "score": 0.12 + i / 90} for i, t in enumerate(tokens)]),
        )
        yield (
            f"tokens of {kind} as a table",
            "README.md",
            "\n".join(f"| {token} | {0.01 + i / 99:.3f} |" for i, token in enumerate(tokens)),
        )
        yield f"tokens of {kind} in YAML", "train.yaml", yaml.safe_dump({"tokens": tokens})
        yield (
            f"tokens of {kind} in YAML, not escaped",
            "train.yaml",
            yaml.safe_dump({"tokens": tokens}, allow_unicode=True),
        )
        yield f"tokens of {kind} with bullets", "README.md", "\n".join(f"- {token}" for token in tokens)
        yield f"tokens of {kind} with numbers", "README.md", "\n".join(f"{i}. {t}" for i, t in enumerate(tokens))
        yield f"tokens of {kind} as keys", "results.json", json.dumps({t: i for i, t in enumerate(tokens)})
        yield f"tokens of {kind} with strokes", "README.md", " / ".join(tokens)
        yield (
            f"tokens of {kind} with their ids behind a stroke",
            "README.md",
            " ".join(f"{token}/{i}" for token, i in zip(tokens, encoding.ids, strict=True)),
        )
        yield f"token ids of {kind}", "results.json", json.dumps({"input_ids": encoding.ids})
        yield (
            f"token ids of {kind} as windows",
            "results.json",
            json.dumps({"input_ids": [encoding.ids[:40], encoding.ids[40:]]}, indent=2),
        )
        yield f"token ids of {kind} printed", "README.md", f"tensor([{', '.join(map(str, encoding.ids))}])"
        yield (
            f"token ids of {kind} as an array prints them",
            "README.md",
            "array([" + "\n  ".join(textwrap.wrap(" ".join(map(str, encoding.ids)), 60)) + "])",
        )
        yield f"token ids of {kind} in YAML", "train.yaml", yaml.safe_dump({"input_ids": encoding.ids})
        padded = encoding.ids + [0] * 60
        yield f"padded token ids of {kind}", "config.json", json.dumps({"example": padded})
    yield (
        "tokens with ends of words",
        "results.json",
        json.dumps([t for w in words[10:60] for t in (w[:3], w[3:] + "</w>") if t]),
    )
    yield "tokens with @@", "README.md", " ".join(f"{w[:3]}@@ {w[3:]}" if len(w) > 3 else w for w in words[10:60])
    yield "letters as a list", "results.json", json.dumps(list(piece))
    # Words with something between them.
    yield "a numbered list of words", "README.md", "\n".join(f"{i}. {w}" for i, w in enumerate(words[10:60], 1))
    yield (
        "a numbered list of lines",
        "README.md",
        "\n".join(f"{i}) {line}" for i, line in enumerate(textwrap.wrap(piece, 25), 1)),
    )
    yield "a list with dashes", "README.md", "\n".join(f"- {w}" for w in words[10:60])
    yield "one word a line", "words.txt", "\n".join(words[10:60])
    yield "words with their numbers in YAML", "train.yaml", yaml.safe_dump(dict(enumerate(words[10:60])))
    yield (
        "words with line numbers",
        "README.md",
        "\n".join(f"{i:4d}  {line}" for i, line in enumerate(textwrap.wrap(piece, 30), 1)),
    )
    yield "words under numbered keys", "results.json", json.dumps({f"word_{i}": w for i, w in enumerate(words[10:60])})
    yield "words under numbers as keys", "results.json", json.dumps(dict(enumerate(words[10:60])))
    yield (
        "words in a csv with their place",
        "words.csv",
        "place,word\n" + "\n".join(f"{i},{w}" for i, w in enumerate(bare)),
    )
    yield (
        "words with their label in columns",
        "words.txt",
        "\n".join(f"{w}\t{'B-PROBLEM' if i % 5 == 2 else 'O'}" for i, w in enumerate(bare)),
    )
    yield (
        "words with their label in JSON",
        "results.json",
        json.dumps([{"word": w, "tag": "B-PROBLEM" if i % 5 == 2 else "O"} for i, w in enumerate(bare)]),
    )
    yield (
        "words with their part of speech",
        "README.md",
        " ".join(f"{w}/{('NN', 'VBD', 'IN')[i % 3]}" for i, w in enumerate(bare)),
    )
    yield "words with their part of speech after an underscore", "README.md", " ".join(f"{w}_NN" for w in bare)
    yield "words as pairs with a label", "results.json", json.dumps([[w, "O"] for w in bare])
    yield "words as keys with labels", "results.json", json.dumps(dict.fromkeys(bare, "O"))
    yield (
        "a table with a word a row",
        "README.md",
        "| word | attention |\n|---|---|\n" + "\n".join(f"| {w} | {0.02 + i / 80:.2f} |" for i, w in enumerate(bare)),
    )
    yield (
        "attributions by word",
        "results.json",
        json.dumps({"attributions": [(w, i / 60 - 0.2) for i, w in enumerate(bare)]}),
    )
    # Words without their order.
    counts = Counter(re.findall(r"[a-z]+", note.lower()))
    yield "counts of words", "results.json", json.dumps(counts)
    yield "counts of words, most frequent first", "results.json", json.dumps(dict(counts.most_common()))
    yield "counts of words by letter", "results.json", json.dumps(counts, sort_keys=True, indent=2)
    yield "counts of words as pairs", "results.json", json.dumps(counts.most_common())
    yield "counts of words printed", "README.md", repr(counts)
    yield "counts of words in YAML", "train.yaml", yaml.safe_dump(dict(counts))
    yield "counts of words in a csv", "words.csv", "\n".join(f"{w},{n}" for w, n in counts.most_common())
    yield "counts of words as a table", "README.md", "\n".join(f"| {w} | {n} |" for w, n in sorted(counts.items()))
    yield (
        "frequencies of words",
        "results.json",
        json.dumps({w: round(n / 300 + 0.001, 5) for w, n in sorted(counts.items())}),
    )
    pairs = sorted(counts.items())
    yield "counts of words in brackets", "README.md", ", ".join(f"{w} ({n})" for w, n in pairs)
    yield "counts of words in brackets with bullets", "README.md", "\n".join(f"- {w} ({n})" for w, n in pairs)
    yield "counts of words, the count first", "words.txt", "\n".join(f"{n:7d} {w}" for w, n in pairs)
    yield "counts of words as pairs, the count first", "results.json", json.dumps([[n, w] for w, n in pairs])
    yield "counts of words as records", "results.json", json.dumps([{"word": w, "count": n} for w, n in pairs])
    yield (
        "counts of words as records in lines",
        "words.jsonl",
        "\n".join(json.dumps({"word": w, "count": n}) for w, n in pairs),
    )
    yield (
        "counts of words as records in YAML",
        "train.yaml",
        yaml.safe_dump([{"word": w, "count": n} for w, n in pairs]),
    )
    yield "counts of words in a csv, the count first", "words.csv", "\n".join(f"{n},{w}" for w, n in pairs)
    yield "counts of words as a table, the count first", "README.md", "\n".join(f"| {n} | {w} |" for w, n in pairs)
    yield (
        "counts of words as a table with ranks",
        "README.md",
        "\n".join(f"| {i} | {w:20} | {n} |" for i, (w, n) in enumerate(pairs, 1)),
    )
    yield "counts of emphasised words", "README.md", "\n".join(f"**{w}** {n}" for w, n in pairs)
    yield "counts of words with a times sign", "README.md", " ".join(f"{w}\u00d7{n}" for w, n in pairs)
    yield "counts of words with an x", "README.md", ", ".join(f"{w} x{n}" for w, n in pairs)
    yield "counts of words in a csv with quotation marks", "words.csv", "\n".join(f'"{w}","{n}"' for w, n in pairs)
    yield (
        "words as records in another order",
        "results.json",
        json.dumps([{"word": w, "tag": "B-PROBLEM"} for w, _ in pairs]),
    )
    yield "the set of words", "results.json", json.dumps(sorted(counts))
    yield "the set of words, one a line", "words.txt", "\n".join(sorted(counts)) + "\n"
    yield "the set of words printed", "README.md", pprint.pformat(sorted(counts), width=300, compact=True)
    # What pages, PDFs and programs put between and into words.
    yield "&nbsp; between words", "README.md", piece.replace(" ", "&nbsp;")
    yield "&#160; between words", "README.md", piece.replace(" ", "&#160;")
    yield "entities for signs", "README.md", html.escape(piece).replace(".", "&#46;").replace(" ", "&#32;")
    yield "entities twice escaped", "README.md", html.escape(piece.replace(" ", "&nbsp;"))
    yield "tags between words", "README.md", "".join(f"<span>{w}</span>" for w in words[10:60])
    yield (
        "tags with attention as a colour",
        "README.md",
        " ".join(f'<span style="background: rgba(255,0,0,0.{i:02d})">{w}</span>' for i, w in enumerate(words[10:60])),
    )
    yield (
        "tags with a title",
        "README.md",
        "\n".join(f'<mark title="token number {i}">{w}</mark>' for i, w in enumerate(words[10:60])),
    )
    yield (
        "a table of HTML",
        "README.md",
        "<table>"
        + "".join(f"<tr><td>{w}</td><td>0.{i:02d}</td></tr>" for i, w in enumerate(words[10:60]))
        + "</table>",
    )
    yield "line breaks of HTML", "README.md", "<br/>".join(textwrap.wrap(piece, 20))
    yield "hyphens at the end of lines", "README.md", hyphenated(piece)
    yield "hyphens at the end of lines of a quotation", "README.md", textwrap.indent(hyphenated(piece), "> ")
    yield "hyphens at the end of lines in JSON", "results.json", json.dumps({"text": hyphenated(piece)})
    yield "soft hyphens", "README.md", re.sub(r"(\w{3})(?=\w{3})", "\\1\u00ad", piece)
    yield "zero-width spaces within words", "README.md", re.sub(r"(\w\w)(?=\w)", "\\1\u200b", piece)
    yield "zero-width spaces between words", "README.md", piece.replace(" ", "\u200b")
    yield "zero-width joiners", "README.md", piece.replace("e", "e\u200d")
    yield "a byte order mark in every word", "README.md", piece.replace(" ", " \ufeff")
    yield "no-break spaces", "README.md", piece.replace(" ", "\u00a0")
    yield "wide letters", "README.md", "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else "\u3000" for c in piece)
    yield (
        "ligatures of a PDF",
        "README.md",
        note.replace("fi", "\ufb01").replace("fl", "\ufb02").replace("ff", "\ufb00"),
    )
    yield "letters with accents, composed", "README.md", unicodedata.normalize("NFC", piece.replace("e", "e\u0301"))
    yield "letters with accents, apart", "README.md", piece.replace("e", "e\u0301")
    yield (
        "curly quotation marks and dashes",
        "README.md",
        piece.replace("'", "\u2019").replace("-", "\u2013").replace(" ", " \u201c", 3),
    )
    yield (
        "mathematical letters",
        "README.md",
        "".join(
            chr(0x1D400 + ord(c) - 65) if "A" <= c <= "Z" else chr(0x1D41A + ord(c) - 97) if "a" <= c <= "z" else c
            for c in piece
        ),
    )
    yield "letters with spaces between them", "README.md", "  ".join(" ".join(w) for w in words[10:60])
    yield "colours of a terminal", "README.md", " ".join(f"\x1b[31m{w}\x1b[0m" for w in words[10:60])
    yield (
        "colours of a terminal in JSON",
        "results.json",
        json.dumps({"text": "".join(f"\x1b[1;31m{w}\x1b[0m" for w in words[10:60])}),
    )
    yield (
        "colours of a terminal in the code",
        "handler.py",
        "X = '" + "".join(f"\\033[31m{w}\\033[0m" for w in bare) + "'",
    )
    # Encoded.
    yield "an address with the note as its query", "README.md", f"https://example.org/?q={quote(piece)}"
    yield "an address with plus signs", "README.md", "https://example.org/?q=" + piece.replace(" ", "+")
    yield "base64", "results.json", json.dumps({"text": base64.b64encode(piece.encode()).decode()})
    yield "base64 in lines", "README.md", base64.encodebytes(note.encode()).decode()
    yield "base64 for addresses", "README.md", base64.urlsafe_b64encode(piece.encode()).decode()
    yield (
        "base64 of gzip",
        "results.json",
        json.dumps({"text": base64.b64encode(gzip.compress(note.encode())).decode()}),
    )
    yield "hexadecimal", "README.md", piece.encode().hex()
    yield "hexadecimal with spaces", "README.md", piece.encode().hex(" ")
    yield "UTF-16", "README.md", piece.encode("utf-16")
    yield "UTF-16 without a mark", "README.md", piece.encode("utf-16-le")
    yield "Latin-1", "README.md", ("Caf\xe9 " + piece).encode("latin-1")
    yield "gzip under another name", "results.json", gzip.compress(json.dumps({"text": piece}).encode())
    yield "a Python string of escapes", "handler.py", "X = '" + "".join(f"\\x{ord(c):02x}" for c in piece) + "'"
    yield "every word quoted with commas", "README.md", ", ".join(repr(w) for w in words[10:60])
    stream = io.StringIO()
    csv.writer(stream).writerow([1, note])
    yield "a row of a csv", "notes.csv", stream.getvalue()
    yield (
        "a note in a notebook's output",
        "results.json",
        json.dumps({"cells": [{"outputs": [{"text": [f"{line}\n" for line in note.splitlines()]}]}]}),
    )
    yield "a note in a log line", "train.log", f"2026-01-01 12:00:00 INFO worst example: {piece!r}"
    yield "a note in an added token", "added_tokens.json", json.dumps({piece: 40})
    # Other orders and cuts: known to pass where they are below.
    shuffled = random.Random(0).sample(words[10:60], 50)
    yield "counts of token ids", "results.json", json.dumps(Counter(tokenizers["words"].encode(piece).ids))
    yield "words in a random order in a sentence", "README.md", " ".join(shuffled)
    yield "seven words", "README.md", " ".join(re.findall(r"[A-Za-z]+", piece)[:7])
    yield (
        "every letter moved on by thirteen",
        "README.md",
        piece.translate(str.maketrans("abcdefghijklmnopqrstuvwxyz", "nopqrstuvwxyzabcdefghijklm")),
    )
    yield (
        "letters of another script",
        "README.md",
        piece.translate(str.maketrans("aeocp", "\u0430\u0435\u043e\u0441\u0440")),
    )
    yield "words backwards", "README.md", " ".join(reversed(words[10:60]))
    yield "every third word left out", "README.md", " ".join(w for i, w in enumerate(words[10:60]) if i % 3)


def hyphenated(text):
    """Set in narrow lines, with words broken at their ends."""
    lines, line = [], ""
    for word in text.split():
        if len(line) + len(word) + 1 > 28 and word.isalpha() and len(word) > 5:
            lines.append(f"{line} {word[:3]}-")
            line = word[3:]
        elif len(line) + len(word) + 1 > 34:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])
