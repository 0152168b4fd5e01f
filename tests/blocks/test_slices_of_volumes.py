import pytest
import torch
from torch import nn

from pulmozoo.blocks.plane_size import check_plane_size
from pulmozoo.blocks.slice_by_slice import slice_by_slice


@pytest.mark.parametrize(
    ("plane", "multiple", "fitting"), [((64, 61), 8, (64, 64)), ((3, 40), 16, (16, 48)), ((100, 129), 32, (128, 160))]
)
def test_wrong_plane_names_the_next_that_works(plane, multiple, fitting):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole sentence is compared
        check_plane_size(plane, multiple)
    assert str(caught.value) == f"height and width must be divisible by {multiple}, got {plane}: pad to {fitting}"
    check_plane_size(fitting, multiple)


def test_volume_is_its_slices_in_order():
    body = nn.Conv2d(2, 5, kernel_size=3, padding=1)
    volume = torch.rand(3, 2, 4, 6, 7)
    with torch.no_grad():
        answer = slice_by_slice(body, volume)
        assert answer.shape == (3, 5, 4, 6, 7)
        for index in range(4):
            assert torch.allclose(answer[:, :, index], slice_by_slice(body, volume[:, :, index]), atol=1e-6)


def test_other_numbers_of_axes_are_refused():
    with pytest.raises(ValueError, match=r"\(B, C, H, W\) or \(B, C, D, H, W\), got \(6, 7\)"):
        slice_by_slice(nn.Identity(), torch.zeros(6, 7))
