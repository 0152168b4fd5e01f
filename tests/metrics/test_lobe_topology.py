import numpy as np
import pytest

from pulmozoo.metrics.lobe_topology import boundary, contacts_cm2, largest_part, topology_numbers

SPACING_MM = (1.0, 2.0, 5.0)


@pytest.fixture
def lobes() -> np.ndarray:
    """Two blocks with a gap of one voxel between them, cut as lungs are into lobes."""
    chest = np.zeros((23, 20, 12), dtype=np.uint8)
    left, right = chest[1:11], chest[12:22]
    left[:, 2:18, 1:11] = 2
    left[:, 2:18, 6:11] = 1
    right[:, 2:18, 1:11] = 4
    right[:, 8:18, 4:11] = 5
    right[:, 5:18, 8:11] = 3
    return chest


def test_border_by_hand():
    row = np.array([0, 1, 1, 2, 3, 5, 4, 4], dtype=np.uint8).reshape(1, 1, 8)
    assert boundary(row).astype(int).ravel().tolist() == [0, 0, 1, 1, 1, 1, 1, 0]  # lung to lung does not count
    assert boundary(row, ((1, 2),)).astype(int).ravel().tolist() == [0, 0, 1, 1, 0, 0, 0, 0]


def test_contacts_are_areas_of_faces(lobes):
    found = contacts_cm2(lobes, SPACING_MM)
    assert found[1, 2] == pytest.approx(10 * 16 * 1 * 2 / 100)  # voxel faces of 1 x 2 mm
    assert found[3, 5] == pytest.approx(10 * 10 * 1 * 2 / 100)
    # RUL over RLL three voxels deep, and 3 voxels high behind it; RML 4 high in front of RLL, and above it.
    assert found[3, 4] == pytest.approx(10 * (3 * 1 * 2 + 3 * 1 * 5) / 100)
    assert found[4, 5] == pytest.approx(10 * (10 * 1 * 2 + 4 * 1 * 5) / 100)
    assert sum(found.values()) == pytest.approx(sum(found[pair] for pair in ((1, 2), (3, 5), (3, 4), (4, 5))))


def test_largest_part_counts_corners_as_joined():
    mask = np.zeros((6, 6, 6), dtype=bool)
    assert largest_part(mask) is None
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = mask[5, 5, 5] = True
    assert largest_part(mask) == 0.75


def test_lobes_in_their_places_are_right(lobes):
    numbers = topology_numbers(lobes, SPACING_MM)
    assert numbers["connected_lobes"] == 5
    assert numbers["missing_neighbours"] == numbers["wrong_neighbours"] == ""
    assert numbers["rml_largest_part_percent"] == 100


def test_a_lobe_in_two_pieces_or_in_the_wrong_place_shows(lobes):
    lobes[lobes == 5] = 4
    numbers = topology_numbers(lobes, SPACING_MM)
    assert (numbers["connected_lobes"], numbers["rml_largest_part_percent"]) == (4, None)
    assert numbers["missing_neighbours"] == "rul-rml rll-rml"
    assert numbers["wrong_neighbours"] == ""
    lobes[1:11, 2:6, 1:4] = 3
    numbers = topology_numbers(lobes, SPACING_MM)
    assert numbers["connected_lobes"] == 3
    assert numbers["wrong_neighbours"] == "lll-rul"
    right_upper = 10 * 13 * 3
    assert numbers["rul_largest_part_percent"] == pytest.approx(100 * right_upper / (right_upper + 10 * 4 * 3))
