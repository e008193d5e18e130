"""The benchmark's figures as text: of one run, and of several models against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

Result = Mapping[str, Any]


def summary(result: Result) -> str:
    """The figures that matter, one a line."""
    adapter, stats, load = result["adapter"], result["stats"], result["load"]
    memory, allocations = result["memory"], result["allocations"]
    heap = allocations["heapBytesPerToken"]
    created = sum(allocations["created"].values())
    lines = [
        f"{result['model']}, {result['build']} build, {adapter['vendor']} {adapter['architecture']}, "
        f"page {result['visible']}",
        f"{result['browser']}",
        f"load               {load['total'] / 1000:.1f} s: create {load['create'] / 1000:.1f}, "
        f"weights {load['weights'] / 1000:.1f}, compile after them {load['compile'] / 1000:.1f}; "
        f"upload alone {load['uploadBytesPerSecond'] / 1e9:.2f} GB/s",
        *(
            f"visit {number}            {visit['firstToken'] / 1000:.2f} s to the first token, "
            f"{visit['networkBytes'] / 1e6:.0f} MB from the network, {visit['cachedBytes'] / 1e6:.0f} MB stored; "
            f"then {visit['tokensPerSecond'] or 0:.0f} tokens/s with {visit['gpuBytes'] / 1e6:.0f} MB of the GPU"
            for number, visit in enumerate(result["visits"], 1)
        ),
        f"GPU memory         {stats['gpuBytes'] / 1e6:.0f} MB: weights {memory['weights'] / 1e6:.0f}, "
        f"per-layer embeddings {memory['embeddings'] / 1e6:.0f}, K/V {memory['cache'] / 1e6:.0f}, "
        f"other {memory['other'] / 1e6:.0f}",
        f"a token            {stats['dispatchesPerToken']} dispatches, {created} GPU objects created in "
        f"{allocations['tokens']} tokens, {'?' if heap is None else format(heap, '.0f')} bytes of JavaScript each",
    ]
    for length, speed in result["prefill"].items():
        lines.append(f"prefill at {length:>6}  {speed['tokensPerSecond']:8.1f} tokens/s   {_range(speed)}")
    lines += [f"decode at {length:>7}  {_decoding(speed)}" for length, speed in result["decode"].items()]
    lines += [f"sampled at {length:>6}  {_decoding(speed)}" for length, speed in result["sampled"].items()]
    for name, step in result["kernels"].items():
        lines += ["", f"{name}: {step['microseconds']:.0f} us, floor {step['floorMicroseconds']:.0f} us"]
        lines.append(f"  {'kernel':40} {'times':>5} {'alone us':>9} {'chain us':>9} {'floor us':>9} {'share':>6}")
        lines += [
            f"  {kernel['name']:40} {kernel['count']:5} {kernel['microseconds']:9.2f} "
            f"{kernel['chainMicroseconds']:9.2f} {kernel['floorMicroseconds']:9.2f} {100 * kernel['share']:5.1f}%"
            for kernel in step["kernels"]
        ]
    return "\n".join(lines)


def _decoding(speed: Mapping[str, Any]) -> str:
    gpu = "?" if speed["gpuMicroseconds"] is None else format(speed["gpuMicroseconds"], ".0f")
    times = f"wall {speed['wallMicroseconds']:.0f} us, GPU {gpu} us a token"
    return f"{speed['tokensPerSecond']:8.1f} tokens/s   {_range(speed)}; {times}"


def _range(speed: Mapping[str, float]) -> str:
    return f"{speed['median']:.1f} ms ({speed['min']:.1f} to {speed['max']:.1f})"


def comparison(results: Mapping[str, Sequence[Result]]) -> str:
    """Every model after the first against the first, by the median of its rounds; less is better throughout.

    A difference counts when no round of the one lies within the range of the other's.
    """
    (first, baseline), *others = results.items()
    lines = []
    for name, rounds in others:
        lines += [f"{name} against {first}, {len(rounds)} and {len(baseline)} rounds; less is better"]
        lines.append(f"  {'':34} {first[-20:]:>20} {name[-20:]:>20} {'change':>8}")
        for metric, before, after in _shared(baseline, rounds):
            change = median(after) / median(before) - 1 if median(before) else 0.0
            verdict = "beyond the spread" if exceeds_spread(before, after) else "within the spread"
            lines.append(f"  {metric:34} {_figure(before):>20} {_figure(after):>20} {100 * change:+7.1f}%  {verdict}")
    return "\n".join(lines)


def medians(rounds: Sequence[Result]) -> str:
    """Every metric of some rounds: its median and half its range."""
    rows = list(_shared(rounds, []))
    return "\n".join(
        [
            f"medians of {len(rounds)}, and half their range",
            *(f"  {metric:34} {_figure(values):>20}" for metric, values, _ in rows),
        ]
    )


def exceeds_spread(before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether the ranges are apart; one round each shows no spread, and so nothing."""
    if min(len(before), len(after)) < 2:
        return False
    return min(after) > max(before) or max(after) < min(before)


def _figure(values: Sequence[float]) -> str:
    spread = (max(values) - min(values)) / 2
    return f"{median(values):.4g} ± {spread:.2g}"


def _shared(before: Sequence[Result], after: Sequence[Result]) -> Iterator[tuple[str, list[float], list[float]]]:
    """(metric, its value in each round of the one, of the other) of what every round measured."""
    tables = [metrics(result) for result in (*before, *after)]
    for metric in tables[0]:
        values = [table[metric] for table in tables if metric in table]
        if len(values) == len(tables):
            yield metric, values[: len(before)], values[len(before) :]


def metrics(result: Result) -> dict[str, float]:
    """Figures of one run by name, all of them better when less."""
    found: dict[str, float] = {}
    for length, speed in result["prefill"].items():
        found[f"first token after {length}, ms"] = speed["median"]
    for length, speed in result["sampled"].items():
        found[f"a sampled token at {length}, ms"] = speed["wallMicroseconds"] / 1000
    for length, speed in result["decode"].items():
        found[f"a token at {length}, ms"] = speed["wallMicroseconds"] / 1000
        if speed["gpuMicroseconds"] is not None:
            found[f"its GPU time at {length}, ms"] = speed["gpuMicroseconds"] / 1000
    if result["visits"]:
        found["first visit, first token, s"] = result["visits"][0]["firstToken"] / 1000
    if later := [visit["firstToken"] / 1000 for visit in result["visits"][1:]]:
        found["later visits, first token, s"] = median(later)
    if speeds := [visit["tokensPerSecond"] for visit in result["visits"] if visit["tokensPerSecond"]]:
        found["a token of the visits' answers, ms"] = 1000 / median(speeds)
    found["load, s"] = result["load"]["total"] / 1000
    found["GPU memory, MB"] = result["stats"]["gpuBytes"] / 1e6
    found["dispatches a token"] = result["stats"]["dispatchesPerToken"]
    return found
