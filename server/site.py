"""A static site: the page, the engine and built models in a folder that any web server or CDN serves as it is."""

from __future__ import annotations

import html
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from build_wasm.errors import BuildError
from build_wasm.manifest import Manifest
from build_wasm.store import MANIFEST, artifact_folder, os_errors, verify
from server.api import ModelInfo, ModelList
from server.pages import chat_page, model_page, models_page, web_manifest
from server.security import CONTENT_SECURITY_POLICY, SECURITY_HEADERS
from server.static_files import STATIC, is_public

IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATE = "no-cache"


def export_site(models_dir: Path, names: Sequence[str], target: Path) -> list[Manifest]:
    """Writes the site with the verified artifacts `names`, the first one its default, to an empty or new folder.

    Raises BuildError for a folder that holds something, an artifact that is not intact, or missing bundles.
    """
    artifacts = [(artifact_folder(models_dir, name), name) for name in dict.fromkeys(names)]
    if not (STATIC / "vendor" / "LICENCES.txt").is_file():
        raise BuildError("The page's bundled packages are missing.", "Run `npm --prefix static run vendor`.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BuildError(f"{target} exists and is not an empty folder.")
    manifests = [verify(folder) for folder, _ in artifacts]
    with os_errors(target):
        target.mkdir(parents=True, exist_ok=True)
        _copy_page(target / "static")
        models = []
        for (folder, name), manifest in zip(artifacts, manifests, strict=True):
            place = target / "models" / name
            place.mkdir(parents=True)
            for file in manifest.files:
                shutil.copyfile(folder / file.path, place / file.path)
            # Last: a host never sees a manifest without its files.
            shutil.copyfile(folder / MANIFEST, place / MANIFEST)
            models.append(_info(name, manifest))
            _write(place / "index.html", model_page(models[-1], static="../../static"))
        _write(target / "models" / "index.html", models_page(models, static="../static"))
        listing = ModelList(default=models[0].name, models=models)
        _write(target / "api" / "models", listing.model_dump_json())
        _write(target / "index.html", chat_page(models[0].name, static="static", head=_meta_policy()))
        _write(target / "app.webmanifest", web_manifest(static="static"))
        hashed = [
            f"/models/{name}/{file.path}" for (_, name), m in zip(artifacts, manifests, strict=True) for file in m.files
        ]
        for path, text in hosting_files(hashed).items():
            _write(target / path, text)
    return manifests


def _copy_page(target: Path) -> None:
    for path in sorted(STATIC.rglob("*")):
        relative = PurePosixPath(path.relative_to(STATIC).as_posix())
        if path.is_file() and is_public(relative):
            place = target / relative
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)


def _info(name: str, manifest: Manifest) -> ModelInfo:
    return ModelInfo(
        name=name,
        title=manifest.title,
        state="ready",
        demo=manifest.demo,
        buildable=False,
        source=manifest.source.model,
        revision=manifest.source.revision,
        adapter=manifest.source.adapter,
        license=manifest.source.license,
        built_by=manifest.built_by,
        version=manifest.versions.webgemma,
        quantization=manifest.quantization,
        bytes=manifest.total_bytes(),
        context=manifest.context.maximum,
    )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def _meta_policy() -> str:
    """The content security policy in the page itself, for hosts without headers of one's own (GitHub Pages)."""
    # Browsers ignore frame-ancestors here, and say so on the console.
    kept = "; ".join(rule for rule in CONTENT_SECURITY_POLICY.split("; ") if not rule.startswith("frame-ancestors"))
    return f'<meta http-equiv="Content-Security-Policy" content="{html.escape(kept)}">'


def hosting_files(hashed: Sequence[str]) -> dict[str, str]:
    """Path below the site -> configuration with the headers that it wants, for each kind of host.

    hashed: addresses of the files whose content never changes.
    """
    return {
        ".nojekyll": "",  # GitHub Pages: serve the folder as it is
        "_headers": _netlify(hashed),
        "hosting/nginx.conf": _nginx(),
        "hosting/Caddyfile": _caddy(),
    }


def _netlify(hashed: Sequence[str]) -> str:
    """File by file: a pattern cannot say "has a hash in its name", and where two rules match both values are sent.
    What has no rule is revalidated, which is Netlify's default."""
    lines = ["/*", *(f"  {name}: {value}" for name, value in SECURITY_HEADERS.items())]
    lines += ["/api/models", "  Content-Type: application/json"]
    for path in hashed:
        lines += [path, f"  Cache-Control: {IMMUTABLE}"]
    return "\n".join(lines) + "\n"


def _nginx() -> str:
    headers = "\n".join(f'    add_header {name} "{value}" always;' for name, value in SECURITY_HEADERS.items())
    inner = headers.replace("    add_header", "        add_header")
    return f"""\
# nginx: inside http {{ }}. Put the site into /var/www/webgemma, set server_name and the certificate.
server {{
    listen 443 ssl;
    server_name example.org;
    ssl_certificate     /etc/ssl/example.org.pem;
    ssl_certificate_key /etc/ssl/example.org.key;
    root /var/www/webgemma;
    index index.html;
    gzip on;
    gzip_types text/css text/javascript application/javascript application/json application/wasm image/svg+xml;

{headers}
    add_header Cache-Control "{REVALIDATE}" always;

    # Names that carry their hash never change. add_header of an inner block replaces all of the outer one.
    location ~ "^/models/[^/]+/[^/]+\\.[0-9a-f]{{16}}\\.[a-z0-9]+$" {{
{inner}
        add_header Cache-Control "{IMMUTABLE}" always;
    }}

    location = /api/models {{
        default_type application/json;
    }}
}}
"""


def _caddy() -> str:
    headers = "\n".join(f'        {name} "{value}"' for name, value in SECURITY_HEADERS.items())
    return f"""\
# Caddy gets the certificate itself. Put the site into /var/www/webgemma.
example.org {{
    root * /var/www/webgemma
    encode zstd gzip
    @hashed path_regexp ^/models/[^/]+/[^/]+\\.[0-9a-f]{{16}}\\.[a-z0-9]+$
    @other not path_regexp ^/models/[^/]+/[^/]+\\.[0-9a-f]{{16}}\\.[a-z0-9]+$
    header {{
{headers}
    }}
    header @hashed Cache-Control "{IMMUTABLE}"
    header @other Cache-Control "{REVALIDATE}"
    header /api/models Content-Type application/json
    file_server
}}
"""
