"""The results of a run for people who look at a terminal."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..transforms.densitometry import QUANTITIES


def print_results(output_dir: str | Path) -> None:
    """Show the numbers and the files of every scan in an output folder, for people who look at a terminal."""
    for file in sorted([*Path(output_dir).glob("*/results.json"), *Path(output_dir).glob("*_results.json")]):
        results = json.loads(file.read_text(encoding="utf-8"))
        sys.stdout.write(f"\n{results['scan']} ({results['seconds']['total']:.1f} s on {results['device']})\n")
        sys.stdout.writelines(f"  {line}\n" for line in number_lines(results["numbers"]))
        for kind, name in results["files"].items():
            sys.stdout.write(f"  {kind:9} {file.parent / name}\n")
        weights = results["weights"]
        sys.stdout.write(f"  weights   {weights.get('tier')}, sha256 {weights['sha256']}\n")
        if "limits" in weights:
            sys.stdout.write(f"  beware    {weights['limits']}\n")


def number_lines(numbers: Mapping[str, Any]) -> list[str]:
    """A scan's numbers one a line, those of densitometry as a table of the parts of the lungs; no lists."""
    table: dict[str, dict[str, Any]] = {}
    lines = []
    for name, value in numbers.items():
        quantity = next((quantity for quantity in QUANTITIES if name.endswith(f"_{quantity}")), None)
        if quantity is not None:
            table.setdefault(name.removesuffix(f"_{quantity}"), {})[quantity] = value
        elif not isinstance(value, list):
            lines.append(f"{as_words(name):36} {shown(value)}")
    if not table:
        return lines
    columns = [quantity for quantity in QUANTITIES if any(quantity in row for row in table.values())]
    head = f"{'':18}" + "".join(f"{as_words(quantity):>16}" for quantity in columns)
    rows = [
        f"{as_words(part):18}" + "".join(f"{shown(row.get(quantity)):>16}" for quantity in columns)
        for part, row in table.items()
    ]
    return [*lines, head, *rows]


def as_words(name: str) -> str:
    return name.replace("_", " ")


def shown(value: Any) -> str:
    return "-" if value is None else str(value)
