"""How one subject of a cohort is scanned."""

from dataclasses import dataclass

from .scanner import Scanner, Triple


@dataclass(frozen=True)
class Exam:
    """One subject's scan: its grid along x, y, z, how it is made and in which axes it is stored."""

    shape: tuple[int, int, int]
    spacing_mm: Triple
    scanner: Scanner
    axes: str
