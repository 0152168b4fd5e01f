from pulmozoo.phantom.cohort import draw_exam
from pulmozoo.phantom.diseases import disease_names
from pulmozoo.phantom.fields import Draws
from pulmozoo.phantom.paraseptal_cohort import draw_paraseptal, thin_slab


def test_most_have_paraseptal_emphysema_and_many_centrilobular_beside_it():
    drawn = [[disease.percent for disease in draw_paraseptal(Draws(seed))] for seed in range(300)]
    with_pse = [paraseptal for paraseptal, _ in drawn if paraseptal]
    assert 0.78 < len(with_pse) / 300 < 0.9
    assert min(with_pse) >= 1
    assert max(with_pse) <= 15
    assert 0.4 < sum(bool(paraseptal and centrilobular) for paraseptal, centrilobular in drawn) / 300 < 0.65


def test_names_are_those_of_the_label_folders():
    assert disease_names("paraseptal") == ["paraseptal", "centrilobular"]


def test_a_slab_is_thin_and_lies_in_the_chest():
    for seed in range(20):
        exam = draw_exam(seed, None)
        slab = thin_slab(exam, Draws(seed))
        assert slab.spacing_mm == (1.0, 1.0, 1.5)
        assert slab.shape[2] == 24
        assert 280 <= slab.shape[0] == slab.shape[1] <= 340
        assert slab.scanner.slice_mm == 1.5
        assert abs(slab.scanner.centre_mm[2]) + 18 < exam.shape[2] * exam.spacing_mm[2] / 2
        assert slab.scanner.centre_mm[:2] == exam.scanner.centre_mm[:2]
    assert thin_slab(exam, Draws(0)).scanner.centre_mm != thin_slab(exam, Draws(1)).scanner.centre_mm
