import json

from pulmozoo.bundle.show import number_lines, print_results


def test_densities_become_a_table_of_parts_and_lists_are_left_out():
    numbers = {
        "disease_percent": 3.5,
        "areas_cm2": [1.0, 2.0],
        "left_lung_volume_ml": 2000.5,
        "left_lung_mean_hu": None,
        "lungs_volume_ml": 4100.0,
        "side": None,
    }
    first, second, head, *rows = number_lines(numbers)
    assert first.split() == ["disease", "percent", "3.5"]
    assert second.split() == ["side", "-"]
    assert head.split() == ["volume", "ml", "mean", "hu"]
    assert [row.split() for row in rows] == [["left", "lung", "2000.5", "-"], ["lungs", "4100.0", "-"]]
    assert len({len(line) for line in (head, *rows)}) == 1


def test_numbers_without_densities_have_no_table():
    assert [line.split() for line in number_lines({"side": "left"})] == [["side", "left"]]


def test_limits_of_the_weights_are_shown(tmp_path, capsys):
    results = {"scan": "a", "seconds": {"total": 1.0}, "device": "cpu", "numbers": {}, "files": {}}
    results["weights"] = {"tier": "phantom", "sha256": "12ab", "limits": "not learnt yet"}
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "results.json").write_text(json.dumps(results))
    print_results(tmp_path)
    assert "\n  beware    not learnt yet\n" in capsys.readouterr().out
