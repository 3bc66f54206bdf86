"""A grid search of scikit-learn in isolated workers, through joblib.

    python -m invokerpool.examples.grid_search
"""

from __future__ import annotations

from typing import Any


def search(backend: str) -> Any:
    """Returns a fitted search."""
    import joblib
    from sklearn.datasets import load_digits
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    import invokerpool.joblib  # noqa: F401  registers the backend

    images, digits = load_digits(return_X_y=True)
    grid = {"C": [0.1, 1, 10], "gamma": [1e-4, 1e-3]}
    with joblib.parallel_config(backend, n_jobs=2):
        return GridSearchCV(SVC(), grid, cv=3).fit(images[:600], digits[:600])


def main() -> None:
    """Compares the results with those of loky."""
    ours, lokys = search("invokerpool"), search("loky")
    same = (ours.cv_results_["mean_test_score"] == lokys.cv_results_["mean_test_score"]).all()
    print(f"best: {ours.best_params_}, score {ours.best_score_:.4f}; the same as with loky: {bool(same)}")


if __name__ == "__main__":
    main()
