"""What the sanitiser lets an answer be made of."""

from __future__ import annotations

TAGS = {
    *(
        "a",
        "blockquote",
        "br",
        "button",
        "code",
        "del",
        "div",
        "em",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "li",
        "ol",
    ),
    *("p", "pre", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"),
}
ATTRIBUTES = {
    *("align", "aria-label", "class", "data-language", "data-math", "data-task", "dir", "href", "rel", "role", "start"),
    *("tabindex", "target", "title", "type"),
}
