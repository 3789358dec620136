"""Documents that people drop on the page: their text, or one clear message; nothing is written anywhere."""

import io
import os
import sys
import zipfile

import docx
import pypdf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from modeling_icd.space import documents, pdf_text
from modeling_icd.space.documents import DocumentError, read_document, safe_name


def word_document() -> bytes:
    document = docx.Document()
    document.sections[0].header.paragraphs[0].text = "General Hospital"
    document.add_heading("Discharge summary")
    document.add_paragraph("Fever and c\u00f6ugh \U0001f600.")
    table = document.add_table(rows=2, cols=2)
    for i, text in enumerate(["Creatinine", "2.4", "Potassium", "4.1"]):
        table.rows[i // 2].cells[i % 2].text = text
    table.add_row().cells[0].merge(table.rows[2].cells[1]).text = "merged"
    document.add_paragraph("Sepsis.")
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def add_page(writer: pypdf.PdfWriter, operators: bytes) -> None:
    """Add a page with these operators, compressed."""
    font = DictionaryObject({NameObject("/Type"): NameObject("/Font"), NameObject("/Subtype"): NameObject("/Type1")})
    font[NameObject("/BaseFont")] = NameObject("/Helvetica")
    page = writer.add_blank_page(300, 300)
    page[NameObject("/Resources")] = DictionaryObject(
        {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
    )
    stream = DecodedStreamObject()
    stream.set_data(operators)
    page[NameObject("/Contents")] = writer._add_object(stream.flate_encode())


def pdf_document(*pages: str, password: str | None = None) -> bytes:
    """A PDF with a line of text on each page; an empty one stands for a scanned page."""
    writer = pypdf.PdfWriter()
    for text in pages:
        add_page(writer, f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode())
    if password is not None:
        writer.encrypt(password, algorithm="RC4-128")
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def bomb(declared: int | None = None) -> bytes:
    """A Word document that unpacks to 200 MB; with `declared`, its directory says that it has fewer bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("word/document.xml", "w") as stream:
        for _ in range(200):
            stream.write(b"\0" * (1 << 20))
    content = file.getvalue()
    if declared is not None:
        content = content.replace((200 << 20).to_bytes(4, "little"), declared.to_bytes(4, "little"))
    return content


def heavy_pdf(content: bytes) -> bytes:
    """A small file with one page, whose operators unpack to far more."""
    writer = pypdf.PdfWriter()
    add_page(writer, content)
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_plain_text_in_unicode(encoding):
    text = "Fi\u00e8vre et toux\nSepsis \U0001f600 \u05d7\u05d5\u05dc\u05d4\tx\n"
    assert read_document("note.txt", text.replace("\n", "\r\n").encode(encoding)) == (text, [])


def test_plain_text_in_latin_1_is_read_with_a_warning():
    text, warnings = read_document("note.txt", "Fi\u00e8vre, h\u00e9morragie".encode("latin-1"))
    assert text == "Fi\u00e8vre, h\u00e9morragie"
    assert warnings == ["The text is not UTF-8 and was read as Western European (Windows-1252): check its accents."]


def test_control_characters_are_replaced_and_counted():
    text, warnings = read_document("note.txt", b"fever\x00 and\x07 cough " + b"sepsis " * 40)
    assert text.startswith("fever\ufffd and\ufffd cough")
    assert warnings == ["2 characters that are no text were replaced by \ufffd."]


def test_a_word_document_in_its_order_with_its_tables():
    text, warnings = read_document("note.docx", word_document())
    assert text.split("\n") == [
        "General Hospital", "Discharge summary", "Fever and c\u00f6ugh \U0001f600.", "Creatinine\t2.4", "Potassium\t4.1",
        "merged", "Sepsis.",
    ]  # fmt: skip
    assert warnings == []


def test_a_pdf_with_text_and_a_page_without():
    text, warnings = read_document("note.pdf", pdf_document("Fever and cough", "", "Sepsis"))
    assert [page.strip() for page in text.split("\n\n") if page.strip()] == ["Fever and cough", "Sepsis"]
    assert warnings == ["1 of 3 pages have no text: they may be scanned, and were left out."]
    assert (
        read_document("note.pdf", pdf_document("Fever", password=""))[0].strip() == "Fever"
    )  # one that anyone may open


# What takes long to make is made by the test that reads it.
FAULTS = {
    "empty": (b"", "is empty"),
    "blank": (b" \n ", "is empty"),
    "binary": (bytes(range(256)) * 40, "is no text"),
    "random": (os.urandom(5000), "is no text"),
    "scan": (pdf_document("", ""), "holds pictures of pages and no text"),
    "heavy": (
        lambda: heavy_pdf(b"BT /F1 12 Tf " + b"(x)Tj " * 1_000_000),
        "takes more than 2 seconds or too much memory to read",
    ),
    "pdf bomb": (lambda: heavy_pdf(bytes(100 << 20)), "takes more than 2 seconds or too much memory to read"),
    "encrypted": (pdf_document("Fever", password="secret"), "is encrypted"),
    "cut pdf": (pdf_document("Fever")[:200], "is damaged, or is no PDF"),
    "cut docx": (word_document()[:2000], "is damaged, or is no Word document"),
    "zip": (b"PK\x03\x04 and more", "is damaged, or is no Word document"),
    "bomb": (bomb, "unpacks to more than 100 MB"),
    "lying bomb": (lambda: bomb(declared=1000), "is damaged|unpacks to more than"),
    "doc": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "is an old Word file"),
    "rtf": (b"{\\rtf1 fever}", "is in Rich Text Format"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(100), "is a picture"),
    "long": (b"a " * 1_100_000, "holds more than 2,000,000 characters"),
    "large": (b"a" * (documents.MAX_DOCUMENT_BYTES + 1), "has 20 MB, and at most 20 MB are read"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_read_is_one_message_that_names_the_file(fault, monkeypatch):
    monkeypatch.setattr(pdf_text, "MAX_SECONDS", 1)
    monkeypatch.setitem(documents.PDF_FAULTS, "limits", documents.PDF_FAULTS["limits"].replace("20", "2"))
    content, expected = FAULTS[fault]
    content = content() if callable(content) else content
    with pytest.raises(DocumentError, match=f"^my note.pdf ({expected})") as error:
        read_document("C:\\ward\\my note.pdf", content)
    message = str(error.value)
    assert message.endswith(".") and "\n" not in message
    assert error.value.__cause__ is None and (error.value.__suppress_context__ or error.value.__context__ is None)


def test_a_zip_that_is_no_word_document():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("xl/workbook.xml", "<x/>")
    with pytest.raises(DocumentError, match="is no Word document"):
        read_document("table.docx", file.getvalue())


@given(st.binary(max_size=300), st.sampled_from([b"", b"%PDF-1.7\n", b"PK\x03\x04", b"\xff\xfe"]))
def test_any_bytes_give_a_text_or_a_message(content, start):
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(documents, "pages_in_child", pdf_text.pages_of)  # a process for each would take minutes
            text, _ = read_document("x", start + content)
    except DocumentError as error:
        assert str(error)
    else:
        assert text.strip() and not documents.UNREADABLE.search(text)


def test_a_pdf_that_takes_too_much_leaves_no_process_and_no_file(tmp_path, monkeypatch):
    heavy = heavy_pdf(b"BT /F1 12 Tf " + b"(x)Tj " * 1_000_000)
    monkeypatch.setattr(pdf_text, "MAX_MEMORY_BYTES", 120 << 20)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for _ in ("memory", "time"):
        # The same process with the same limits reads what is usual.
        assert pdf_text.pages_in_child(pdf_document("Fever"), 1000) == {"pages": ["Fever"]}
        assert pdf_text.pages_in_child(heavy, 1000) == {"fault": "limits"}
        monkeypatch.setattr(pdf_text, "MAX_MEMORY_BYTES", 4 << 30)
        monkeypatch.setattr(pdf_text, "MAX_SECONDS", 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("program", ["exit 3", "echo '{'", None])
def test_where_pdfs_cannot_be_read_at_all_the_message_speaks_of_no_limit(program, tmp_path, monkeypatch, caplog):
    python = tmp_path / "python"
    if program is not None:
        python.write_text(f"#!/bin/sh\n{program}\n")
        python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(
        DocumentError, match=r"^note.pdf cannot be read here, since the program that reads PDFs does not work: "
    ):
        read_document("note.pdf", pdf_document("Fever"))
    (record,) = caplog.records
    assert record.getMessage().startswith("The program that reads PDFs ") and "Fever" not in caplog.text


def test_names_are_shown_short_and_without_folders():
    assert safe_name("/home/x/a\x00b\n.txt") == "ab .txt"
    assert safe_name("report\u202efdp.exe") == "reportfdp.exe"  # and not "reportexe.pdf"
    assert safe_name("") == "The file"
    assert len(safe_name("x" * 500)) == 63
