"""NIH ChestX-ray14: films with findings mined from reports, no masks; for evaluation at image level.

Reads the table as published (``Data_Entry_2017*.csv``) and as on the shelf (``labels.csv``).
Source: Wang et al., "ChestX-ray8", CVPR 2017.
"""

from pathlib import Path

from ..bundle.errors import BadInput
from .film_list import LeftOut, read_table
from .films import find_films

TABLES = {"labels.csv": ("file", "nih_finding_labels"), "Data_Entry_2017*.csv": ("Image Index", "Finding Labels")}
FINDING = "Pneumothorax"


def nih_films(data_dir: Path) -> tuple[list[dict[str, str | int]], list[LeftOut]]:
    """Each film as ``{"image": path, "label": 1 or 0}``, 1 where Pneumothorax is among its findings; and the rest."""
    found = [(path, columns) for name, columns in TABLES.items() for path in sorted(data_dir.glob(name))]
    if len(found) != 1:
        raise BadInput(f"{data_dir} holds {len(found)} tables: expected one, {' or '.join(TABLES)}")
    table, (file_column, findings_column) = found[0]
    findings = {Path(row[file_column]).name: row[findings_column] for row in read_table(table, found[0][1])}
    films: list[dict[str, str | int]] = []
    left_out: list[LeftOut] = []
    for film in find_films(data_dir):
        path = Path(film["image"]).absolute()
        listed = findings.pop(path.name, None)
        if listed is None:
            left_out.append(LeftOut(str(path), "it has no row in the table, or stands there twice"))
        else:
            films.append({"image": str(path), "label": int(FINDING in listed.split("|"))})
    left_out += [LeftOut(name, "there is no film for this row of the table") for name in findings]
    return films, left_out
