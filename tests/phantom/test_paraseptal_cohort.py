from pulmozoo.phantom.diseases import disease_names
from pulmozoo.phantom.fields import Draws
from pulmozoo.phantom.paraseptal_cohort import draw_paraseptal


def test_most_have_paraseptal_emphysema_and_many_centrilobular_beside_it():
    drawn = [[disease.percent for disease in draw_paraseptal(Draws(seed))] for seed in range(300)]
    with_pse = [paraseptal for paraseptal, _ in drawn if paraseptal]
    assert 0.78 < len(with_pse) / 300 < 0.9
    assert min(with_pse) >= 1
    assert max(with_pse) <= 15
    assert 0.4 < sum(bool(paraseptal and centrilobular) for paraseptal, centrilobular in drawn) / 300 < 0.65


def test_names_are_those_of_the_label_folders():
    assert disease_names("paraseptal") == ["paraseptal", "centrilobular"]
