"""Variants in turn, ratios of one round, medians: machines are noisy, ratios are not.

Absolute figures mean nothing and are shown only so that one can see the noise.
"""

import gc
import statistics
import sys
from collections.abc import Callable

#: A figure is seconds (or bytes) for the same amount of work: smaller is better.
Variant = Callable[[], float]


def compare(
    title: str,
    floor: str,
    variants: dict[str, Variant],
    rounds: int = 7,
    goals: dict[str, float] | None = None,
    invert: bool = False,
) -> dict[str, float]:
    """Run all variants ``rounds`` times in turn and print each against the floor.

    Each begins a round now and then: who comes first may find the machine warmer.

    ``goals``: the ratio that a variant is held to; at most, or at least where
    ``invert`` (then the ratio is that of speeds).  Gives the median ratios.
    """
    seen: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds):
        names = list(variants)
        first = number % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()
            seen[name].append(variants[name]())
            print(
                f"\r{title}: round {number + 1} of {rounds} {name:40.40}",
                end="",
                file=sys.stderr,
            )
    print("\r" + " " * 100 + "\r", end="", file=sys.stderr)
    print(f"\n{title}\n{'-' * len(title)}")
    print(f"{'variant':46} {'ratio':>8} {'goal':>8}   {'median':>10} {'min':>10}")
    ratios = {}
    for name, figures in seen.items():
        pairs = zip(figures, seen[floor], strict=True)
        ratio = statistics.median(
            base / figure if invert else figure / base for figure, base in pairs
        )
        ratios[name] = ratio
        goal = (goals or {}).get(name)
        verdict = ""
        if goal is not None:
            good = ratio >= goal if invert else ratio <= goal
            verdict = "ok" if good else "MISSED"
        print(
            f"{name:46} {ratio:8.3f} {'' if goal is None else goal:>8}"
            f"   {statistics.median(figures):10.3g} {min(figures):10.3g} {verdict}"
        )
    return ratios
