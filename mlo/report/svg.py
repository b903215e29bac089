"""What matplotlib saves as SVG, made fit for a page: small, tidy, and in its colours."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from mlo.report.style import PAPER, VARIABLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SVG = "http://www.w3.org/2000/svg"
_HREF = "{http://www.w3.org/1999/xlink}href"
_NUMBERS = ("d", "x", "y", "width", "height", "transform")
_DANGEROUS = ("script", "foreignObject", "metadata", "style", "a")


def save(figure: Figure) -> str:
    """Save a figure as matplotlib does it."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def standalone(figure: Figure, title: str) -> str:
    """A figure as an SVG document of its own, on white."""
    root = _tidied(save(figure), title, "")
    for name, inches in zip(("width", "height"), figure.get_size_inches(), strict=True):
        root.set(name, f"{72 * inches:.0f}pt")
    paper = ET.Element(_tag("rect"), {"width": "100%", "height": "100%", "fill": PAPER})
    root.insert(1, paper)  # after the title
    return '<?xml version="1.0" encoding="utf-8"?>\n' + _text(root) + "\n"


def inline(svg: str, title: str, prefix: str, *, themed: bool = True) -> str:
    """An SVG document as an element of a page.

    Args:
        svg: the document.
        title: said by screen readers.
        prefix: begins all ids, and no ids of other elements of the page.
        themed: put variables in the place of colours of `mlo.report.style`.

    Raises:
        xml.etree.ElementTree.ParseError: it is no XML.
    """
    root = _tidied(svg, title, prefix)
    width = root.get("viewBox", "0 0 0 0").split()[2]
    root.set("style", f"--width: {float(width):.0f}px")
    text = _text(root)
    if themed:
        for color, variable in VARIABLES.items():
            text = text.replace(color, f"var({variable})")
    return text


def _tidied(svg: str, title: str, prefix: str) -> ET.Element:
    root = ET.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in map(_tag, _DANGEROUS):
                parent.remove(child)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", svg))
    for element in root.iter():
        _tidy(element, used, prefix)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    # In place of the style element of matplotlib, whose rule would hold for the whole page.
    root.attrib |= {"role": "img", "aria-label": title, "stroke-linejoin": "round"}
    heading = ET.Element(_tag("title"))
    heading.text = title
    root.insert(0, heading)
    return root


def _tidy(element: ET.Element, used: set[str], prefix: str) -> None:
    """Keep ids that are used, links within the picture, and two decimals."""
    element.tail = None
    if element.text is not None and not element.text.strip():
        element.text = None
    for name, value in list(element.attrib.items()):
        if name == "id" and value not in used:
            del element.attrib[name]
        elif name == "id":
            element.set(name, prefix + value)
        elif name in ("href", _HREF):
            del element.attrib[name]
            _keep_link(element, value, prefix)
        elif name.lower().startswith("on"):
            del element.attrib[name]
        else:
            element.set(name, _tidy_value(name, value, prefix))


def _tidy_value(name: str, value: str, prefix: str) -> str:
    if name in _NUMBERS:
        value = re.sub(r"\d+\.\d{3,}", _rounded, value)
    elif name == "style":
        value = re.sub(r"'DejaVu Sans'[^;]*", "system-ui, sans-serif", value)
    return value.replace("url(#", f"url(#{prefix}")


def _keep_link(element: ET.Element, value: str, prefix: str) -> None:
    if value.startswith("#"):
        element.set("href", f"#{prefix}{value[1:]}")
    elif value.startswith("data:image/"):  # the pixels of an image
        element.set("href", value)


def _rounded(match: re.Match[str]) -> str:
    return f"{float(match.group()):.2f}".rstrip("0").rstrip(".")


def _text(root: ET.Element) -> str:
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{SVG}}}")
    root.set("xmlns", SVG)
    return ET.tostring(root, encoding="unicode")


def _tag(name: str) -> str:
    return f"{{{SVG}}}{name}"
