"""The pages: the chat page, and plain ones about the models, rendered for the server and for an exported site alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from gettext import NullTranslations
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from build_wasm.progress import size_text
from server.api import ModelInfo

# The page's background, --paper in static/chat.css, which the browser's own bars take on.
PAPER = {"light": "#fbfbf9", "dark": "#111413"}
TEMPLATES = Path(__file__).resolve().parent / "templates"
# Of the texts in the templates, and in static/chat/strings.js.
LANGUAGE = "en"


def environment(translations: NullTranslations) -> Environment:
    """How templates are rendered. Their texts are gettext's: a catalogue, loaded here, is another language."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        extensions=["jinja2.ext.i18n"],
    )
    made.install_gettext_translations(translations, newstyle=True)  # type: ignore[attr-defined]
    made.filters["size"] = size_text
    return made


_environment = environment(NullTranslations())


def chat_page(default: str, *, static: str, head: str = "") -> str:
    """The chat page, with the model `default` at first. static: the page's files; head: more meta elements, as HTML."""
    return _render("index.html", model=default, static=static, head=head, paper=PAPER)


def web_manifest(*, static: str) -> str:
    """app.webmanifest, at the site's root: with it a browser can install the page. static: the page's files."""
    icons = [
        {"src": f"{static}/icons/webgemma.svg", "type": "image/svg+xml", "sizes": "any", "purpose": "any"},
        {"src": f"{static}/icons/maskable.svg", "type": "image/svg+xml", "sizes": "any", "purpose": "maskable"},
        # For systems that show no SVG; made of the SVGs by scripts/screenshots.py.
        {"src": f"{static}/icons/icon-192.png", "type": "image/png", "sizes": "192x192", "purpose": "any"},
        {"src": f"{static}/icons/icon-512.png", "type": "image/png", "sizes": "512x512", "purpose": "any"},
        {"src": f"{static}/icons/maskable-512.png", "type": "image/png", "sizes": "512x512", "purpose": "maskable"},
    ]
    manifest = {
        "name": "WebGemma",
        "short_name": "WebGemma",
        "description": "A private chat: the language model runs in the browser, on your own GPU.",
        "lang": LANGUAGE,
        "start_url": "./",
        "scope": "./",
        "display": "standalone",
        "background_color": PAPER["light"],
        "theme_color": PAPER["light"],
        "categories": ["productivity", "utilities"],
        "icons": icons,
    }
    return json.dumps(manifest, indent=2) + "\n"


def models_page(models: Sequence[ModelInfo], *, static: str, root: str = "../") -> str:
    """The list of models, at models/. root: the way from there to the site's first page."""
    return _render("models.html", models=models, static=static, root=root, single=False)


def model_page(model: ModelInfo, *, static: str, root: str = "../../") -> str:
    """All about one model, at models/NAME/."""
    return _render("models.html", models=[model], static=static, root=root, single=True)


def error_page(status: int, message: str, *, static: str) -> str:
    """What a person sees in place of a page. static: the page's files."""
    return _render("error.html", status=status, message=message, static=static)


def _render(template: str, **values: Any) -> str:
    return _environment.get_template(template).render(version=version("webgemma"), language=LANGUAGE, **values)
