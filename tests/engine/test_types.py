"""What TypeScript makes of the engine: its generated declarations are sound, and its answers are OpenAI's types."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from scripts.node import command_for

USE = """
import type { ChatCompletion, ChatCompletionChunk } from "openai/resources/chat/completions";
import { Engine } from "./types/engine/engine.js";
import type * as ours from "./types/engine/openai_shapes.js";

// OpenAI's finish reasons know no "abort": only whoever aborted an answer sees it.
type Choice = { finish_reason: string | null };
type Known<C extends Choice> = Omit<C, "finish_reason"> & { finish_reason: Exclude<C["finish_reason"], "abort"> };
type OpenAIs<A extends { choices: Choice[] }> = Omit<A, "choices"> & { choices: Known<A["choices"][number]>[] };

export const chunkOf = (chunk: OpenAIs<ours.ChatCompletionChunk>): ChatCompletionChunk => chunk;
export const wholeOf = (whole: OpenAIs<ours.ChatCompletion>): ChatCompletion => whole;
// @ts-expect-error
export const aborted = (whole: ours.ChatCompletion): ChatCompletion => whole;

export async function use(signal: AbortSignal): Promise<string> {
  const engine = await Engine.load("/models/demo/", { signal });
  const messages = [{ role: "user" as const, content: "Hi" }];
  let text = "";
  const stream = await engine.chat.completions.create({ messages, stream: true, top_k: 5, signal });
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  const whole = await engine.chat.completions.create({ messages });
  // @ts-expect-error
  await engine.chat.completions.create({ messages, temprature: 1 });
  await engine.dispose();
  return text + (whole.choices[0]?.message.content ?? "");
}
"""
OPTIONS = {"strict": True, "noEmit": True, "target": "es2024", "module": "esnext", "moduleResolution": "bundler"}


def tsc(static: Path, *arguments: str) -> None:
    command = [*command_for("node"), str(static / "node_modules" / "typescript" / "bin" / "tsc"), *arguments]
    result = subprocess.run(command, cwd=static, capture_output=True, encoding="utf-8", timeout=120, check=False)
    if result.returncode != 0:
        pytest.fail(result.stdout + result.stderr, pytrace=False)


def test_declarations_are_sound_and_answers_are_openais_types(repository: Path, tmp_path: Path) -> None:
    static = repository / "static"
    tsc(static, "--project", "tsconfig.declarations.json", "--outDir", str(tmp_path / "types"))
    modules = static / "node_modules"
    paths = {"openai/*": [f"{modules}/openai/*"], "@mlc-ai/*": [f"{modules}/@mlc-ai/*"]}
    options = OPTIONS | {"paths": paths, "types": []}
    (tmp_path / "use.ts").write_text(USE)
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "include": ["use.ts"]}))
    tsc(static, "--project", str(tmp_path))
