"""Pages taken apart: whether tags are balanced, ids unique, and what tables and text say."""

from __future__ import annotations

import html.parser
import pathlib
from xml.etree import ElementTree as ET

VOID = {"meta", "link", "br", "hr", "img", "input"}
SVG = "{http://www.w3.org/2000/svg}"


class Parsed(html.parser.HTMLParser):
    """A page: its text, its tables as lists of rows of cells, ids, drawings."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open, self.ids, self.links, self.tags = [], [], [], []
        self.words, self.tables, self.bold = [], [], []
        self.feed(self.source)
        self.close()
        assert self.open == [], f"never closed: {self.open}"
        assert len(set(self.ids)) == len(self.ids), "ids are not unique"

    def handle_startendtag(self, tag, attrs):
        self._see(tag, dict(attrs))

    def handle_starttag(self, tag, attrs):
        self._see(tag, dict(attrs))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            if "strong" in (dict(attrs).get("class") or ""):
                self.bold.append((len(self.tables) - 1, len(self.tables[-1]) - 1))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data.strip()

    def _see(self, tag, attrs):
        self.tags.append(tag)
        if "id" in attrs:
            self.ids.append(attrs["id"])
        self.links += [attrs[name] for name in ("href", "src") if name in attrs]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    @property
    def drawings(self):
        """Every chart, read as XML."""
        parts = self.source.split("<svg")[1:]
        trees = [ET.fromstring("<svg" + part.split("</svg>")[0] + "</svg>") for part in parts]
        return [tree for tree in trees if tree.get("role") == "img"]

    def row(self, name):
        """The cells after the name of a row, in the first table that has it."""
        return next(row[1:] for table in self.tables for row in table if row[:1] == [name])
