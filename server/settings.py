"""Settings: command line options over WEBGEMMA_ environment variables over defaults. README.md lists them all."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Annotated

import platformdirs
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from build_wasm.errors import BuildError
from build_wasm.store import artifact_name


def _list_of(value: object) -> object:
    """A comma-separated environment variable as a tuple; other values as they are."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


class Settings(BaseSettings):
    """What an operator may choose. A field's description is its documentation."""

    model_config = SettingsConfigDict(env_prefix="WEBGEMMA_", env_ignore_empty=True, frozen=True, extra="ignore")

    home: Path = Field(
        default_factory=lambda: platformdirs.user_cache_path("webgemma", appauthor=False),
        description="folder of everything WebGemma keeps: built models and compiler caches",
    )
    models_dir: Path | None = Field(default=None, description="folder of built models (default: HOME/models)")
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("demo",),
        min_length=1,
        description="models the page offers and may have built, the first one by default, separated by commas: "
        "names of built models, hub ids, checkpoint folders, or demo",
    )
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="further host names under which browsers may reach this server, separated by commas"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="origins whose pages may use the engine and the models from here, separated by commas; * for all",
    )
    build_command: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(sys.executable, "-m", "build_wasm"),
        min_length=1,
        description="command that builds a model, for example with nice or on another machine",
    )
    build_at_start: bool = Field(
        default=True,
        description="at the start, build the first model if it is missing, and compile again what is older",
    )
    log_level: str = Field(
        default="info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error"
    )

    @field_validator("models", "allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return _list_of(value)

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s?#@]+", origin):
                raise ValueError(f"{origin!r} is not an origin such as https://example.org, or *")
        return origins

    @field_validator("models")
    @classmethod
    def _one_name_each(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        """Each model has a name in addresses, and no two the same."""
        names: dict[str, str] = {}
        for model in models:
            try:
                name = artifact_name(model)
            except BuildError as error:
                raise ValueError(f"{model!r} gives no usable name: {error}") from None
            other = names.setdefault(name, model)
            if other != model:
                raise ValueError(f"{other} and {model} would have the same name {name}")
        return models

    @field_validator("build_command", mode="before")
    @classmethod
    def _split_words(cls, value: object) -> object:
        return tuple(shlex.split(value)) if isinstance(value, str) else value

    @property
    def artifacts(self) -> Path:
        """Folder that holds one folder per built model."""
        return (self.models_dir or self.home / "models").expanduser()
