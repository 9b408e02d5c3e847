"""XML from elsewhere, parsed without anything that it could pull in."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from cloudnet.errors import SceneError


def parse_xml(content: bytes, name: str) -> Element:
    """Return the root of a document; tags keep their prefixes.

    A document type is refused as such: products have none, and external entities, and entities
    that unfold to gigabytes, cannot be declared anywhere else.

    Raises
    ------
    SceneError
        When it is malformed or has a document type.
    """
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def refuse(*_: object) -> None:
        raise SceneError(
            f"{name} declares a document type, which could pull in other files, and no product "
            "has one; get the file again"
        )

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise SceneError(f"{name} is no well-formed XML ({error}); get the file again") from error
    return builder.close()


def elements(root: Element, *tags: str) -> Iterator[Element]:
    """Yield the elements that bear one of the tags, whatever their prefix, in order."""
    for element in root.iter():
        if element.tag.rpartition(":")[2] in tags:
            yield element


def texts(root: Element, *tags: str) -> list[str]:
    """Return what stands in the elements that bear one of the tags."""
    return [(element.text or "").strip() for element in elements(root, *tags)]
