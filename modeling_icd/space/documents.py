"""Reads the text of an uploaded document: plain text, Word (.docx), or a PDF that holds text. Everything stays in memory."""

import codecs
import io
import re
import zipfile
from collections.abc import Callable, Iterator

import docx
from docx.table import Table
from docx.text.paragraph import Paragraph

from .pdf_text import MAX_PAGES, MAX_SECONDS, pages_in_child


MAX_DOCUMENT_BYTES = 20 << 20
MAX_CHARACTERS = 2_000_000
MAX_UNPACKED_BYTES = 100 << 20  # of a .docx, which is a zip archive

BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
# Control characters but tab and line feed, and halves of surrogate pairs: no text of a note, and harmful to other programs.
UNREADABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
# Marks that turn the direction of the text around them: in a file's name they would make it look like another one.
DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
REPLACEMENT = "\ufffd"
PDF, ZIP = b"%PDF-", b"PK\x03\x04"
# Of other formats that people try: the beginning of such a file, and what to do with it.
REFUSED = (
    (b"\xd0\xcf\x11\xe0", "is an old Word file (.doc): save it as .docx or as plain text"),
    (b"{\\rtf", "is in Rich Text Format: save it as .docx or as plain text"),
    (b"\x89PNG", "is a picture: give the text, or a PDF that holds text"),
    (b"\xff\xd8\xff", "is a picture: give the text, or a PDF that holds text"),
    (b"II*\x00", "is a picture: give the text, or a PDF that holds text"),
    (b"MM\x00*", "is a picture: give the text, or a PDF that holds text"),
)

PDF_FAULTS = {
    "encrypted": "is encrypted: open it with its password, and save it without one.",
    "unknown encryption": "is encrypted: open it, and save it without encryption.",
    "pages": f"has more than {MAX_PAGES:,} pages, which is no single note: divide it.",
    "limits": f"takes more than {MAX_SECONDS} seconds or too much memory to read, which no usual note does: paste its text.",
    "failed": "cannot be read here, since the program that reads PDFs does not work: paste its text.",
    "damaged": "is damaged, or is no PDF: save it again, or paste its text.",
}
"""What to say of a PDF by its fault, behind its name."""


class DocumentError(ValueError):
    """A document that cannot be read; the message names it and says what to do, and holds nothing of its text."""


def read_document(name: str, content: bytes) -> tuple[str, list[str]]:
    """The text of a document.

    Args:
        name (`str`): of the file, for messages.
        content (`bytes`): of the file; what it is shows by its first bytes, not by its name.

    Returns:
        The text, its lines ended by a line feed, and warnings: sentences that say what was mended or left out.

    Raises:
        DocumentError: where the file is too large, empty, damaged, encrypted, of another format, or has no text.
    """
    name = safe_name(name)
    if len(content) > MAX_DOCUMENT_BYTES:
        raise DocumentError(
            f"{name} has {len(content) / (1 << 20):.0f} MB, and at most {MAX_DOCUMENT_BYTES >> 20} MB are read: paste the text of "
            "the note, or save the document without pictures."
        )
    if not content.strip():
        raise DocumentError(f"{name} is empty: choose another file.")
    for start, what in REFUSED:
        if content.startswith(start):
            raise DocumentError(f"{name} {what}.")
    warnings: list[str] = []
    read: Callable[[str, bytes, list[str]], str] = _read_text
    if PDF in content[:1024]:
        read = _read_pdf
    elif content.startswith(ZIP):
        read = _read_docx
    text = _clean(read(name, content, warnings), warnings)
    if not text.strip():
        raise DocumentError(f"{name} has no text: choose another file.")
    if len(text) > MAX_CHARACTERS:
        raise _too_long(name)
    return text, warnings


def safe_name(name: str) -> str:
    """A file's name as it may be shown: without its folders and control characters, and shortened."""
    shown = DIRECTIONS.sub(
        "", UNREADABLE.sub("", name.replace("\n", " ").replace("\\", "/").rpartition("/")[2])
    ).strip()
    return f"{shown[:60]}..." if len(shown) > 60 else shown or "The file"


def _too_long(name: str) -> DocumentError:
    return DocumentError(
        f"{name} holds more than {MAX_CHARACTERS:,} characters, which is no single note: divide it, or use the batch."
    )


def _clean(text: str, warnings: list[str]) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x0c", "\n").replace("\x0b", "\n")
    text, replaced = UNREADABLE.subn(REPLACEMENT, text)
    if replaced:
        count = (
            "1 character that is no text was" if replaced == 1 else f"{replaced:,} characters that are no text were"
        )
        warnings.append(f"{count} replaced by {REPLACEMENT}.")
    return text


def _read_text(name: str, content: bytes, warnings: list[str]) -> str:
    for mark, encoding in BOMS:
        if content.startswith(mark):
            return content.decode(encoding, errors="replace")
    zeros = content[:4096].count(0)
    if zeros > min(len(content), 4096) // 4:  # every second byte of Latin text in UTF-16
        encoding = "utf-16-le" if content[1:4096:2].count(0) >= content[0:4096:2].count(0) else "utf-16-be"
        text = content.decode(encoding, errors="replace")
        if _share_unreadable(text) < 0.05:
            return text
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
        if _share_unreadable(text) < 0.05:
            warnings.append(
                "The text is not UTF-8 and was read as Western European (Windows-1252): check its accents."
            )
    if _share_unreadable(text) >= 0.05:
        raise DocumentError(f"{name} is no text: give plain text, a .docx, or a PDF that holds text.")
    return text


def _share_unreadable(text: str) -> float:
    """The share of characters, among the first ones, that no text has."""
    start = text[:20_000]
    return (len(UNREADABLE.findall(start)) + start.count(REPLACEMENT)) / max(1, len(start))


def _read_docx(name: str, content: bytes, warnings: list[str]) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = archive.infolist()
            if sum(file.file_size for file in files) > MAX_UNPACKED_BYTES or len(files) > 10_000:
                raise DocumentError(
                    f"{name} unpacks to more than {MAX_UNPACKED_BYTES >> 20} MB: save it without pictures, or paste the text."
                )
            if "word/document.xml" not in archive.namelist():
                raise DocumentError(f"{name} is no Word document: give plain text, a .docx, or a PDF that holds text.")
            _check_sizes(name, archive, files)
        parts = _docx_lines(docx.Document(io.BytesIO(content)))
        text = "\n".join(_bounded(name, parts))
    except DocumentError:
        raise
    except Exception:  # zipfile, lxml and python-docx each have errors of their own for a damaged file
        raise DocumentError(f"{name} is damaged, or is no Word document: save it again, or paste its text.") from None
    return text


def _check_sizes(name: str, archive: zipfile.ZipFile, files: list[zipfile.ZipInfo]) -> None:
    """Raise a `DocumentError` where a file of the archive is larger than its directory says, as in a zip bomb."""
    left = MAX_UNPACKED_BYTES
    for file in files:
        with archive.open(file) as stream:
            while block := stream.read(min(left + 1, 1 << 20)):
                left -= len(block)
                if left < 0:
                    raise DocumentError(f"{name} unpacks to more than {MAX_UNPACKED_BYTES >> 20} MB: paste the text.")


def _docx_lines(document) -> Iterator[str]:
    """Headers, then paragraphs and tables in their order, then footers; a row of a table is a line, its cells divided by tabs."""
    for section in document.sections:
        if not section.header.is_linked_to_previous:
            yield from _blocks(section.header)
    yield from _blocks(document)
    for section in document.sections:
        if not section.footer.is_linked_to_previous:
            yield from _blocks(section.footer)


def _blocks(container) -> Iterator[str]:
    for block in container.iter_inner_content():
        if isinstance(block, Paragraph):
            yield block.text
        elif isinstance(block, Table):
            for row in block.rows:
                cells = {id(cell._tc): cell for cell in row.cells}  # a merged cell stands in each place that it covers
                yield "\t".join(" ".join(_blocks(cell)) for cell in cells.values())


def _bounded(name: str, parts: Iterator[str]) -> Iterator[str]:
    """The same parts, as long as they are not too long together."""
    size = 0
    for part in parts:
        size += len(part)
        if size > MAX_CHARACTERS:
            raise _too_long(name)
        yield part


def _read_pdf(name: str, content: bytes, warnings: list[str]) -> str:
    read = pages_in_child(content, MAX_CHARACTERS)
    if (fault := read.get("fault")) == "long":
        raise _too_long(name)
    if fault is not None:
        raise DocumentError(f"{name} {PDF_FAULTS[fault]}")
    pages = read["pages"]
    empty = sum(not page.strip() for page in pages)
    if empty == len(pages):
        raise DocumentError(
            f"{name} holds pictures of pages and no text, as a scan does: give a PDF after text recognition (OCR), or the text."
        )
    if empty:
        warnings.append(f"{empty} of {len(pages)} pages have no text: they may be scanned, and were left out.")
    return "\n\n".join(pages)
