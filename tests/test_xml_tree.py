"""XML is parsed without anything that it could pull in."""

from __future__ import annotations

import pytest

from cloudnet.errors import SceneError
from cloudnet.xml_tree import elements, parse_xml, texts


def test_elements_are_found_whatever_their_prefix() -> None:
    root = parse_xml(b"<n:a xmlns:n='u'><n:b k='1'> x </n:b><c><b>y</b></c></n:a>", "a.xml")
    assert root.tag == "n:a"
    assert texts(root, "b") == ["x", "y"]
    assert [element.get("k") for element in elements(root, "b")] == ["1", None]


@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1", "utf-16"])
def test_encodings(encoding: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?><a>µm</a>'
    assert texts(parse_xml(text.encode(encoding), "a.xml"), "a") == ["µm"]


@pytest.mark.parametrize(
    "content",
    [b"", b"<a>", b"<a>&none;</a>", b"<a></b>", b"\xff\xfe", b"<a>\x00</a>", b"text"]
    + [f'<?xml version="1.0" encoding="{name}"?><a/>'.encode() for name in ("none", "rot13")],
)
def test_malformed(content: bytes) -> None:
    with pytest.raises(SceneError, match=r"^a\.xml is no well-formed XML \(.+\); get"):
        parse_xml(content, "a.xml")


@pytest.mark.parametrize(
    "declared",
    [
        '<!ENTITY e SYSTEM "file:///etc/passwd">',
        '<!ENTITY % p SYSTEM "http://127.0.0.1:1/x.dtd"> %p;',
        '<!ENTITY e "ha"><!ENTITY f "&e;&e;&e;">',
    ],
)
def test_a_document_type_is_refused(declared: str) -> None:
    with pytest.raises(SceneError, match=r"a\.xml declares a document type"):
        parse_xml(f"<!DOCTYPE a [{declared}]><a>&e;</a>".encode(), "a.xml")
    with pytest.raises(SceneError, match=r"a\.xml declares a document type"):
        parse_xml(b'<!DOCTYPE a SYSTEM "http://127.0.0.1:1/x.dtd"><a/>', "a.xml")
