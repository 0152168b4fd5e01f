from pulmozoo.bundle.run import write_csv


def test_lists_stay_in_results_json(tmp_path):
    rows = [
        {"scan": "a", "percent": 1.5, "areas_cm2": [0.1, 0.2], "status": "done", "reason": ""},
        {"scan": "b", "status": "failed", "reason": "no lungs"},
    ]
    write_csv(rows, tmp_path / "results.csv")
    assert (tmp_path / "results.csv").read_text().splitlines() == [
        "scan,percent,status,reason",
        "a,1.5,done,",
        "b,,failed,no lungs",
    ]
