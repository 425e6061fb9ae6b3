"""Classifiers of scikit-learn."""

from __future__ import annotations

import numpy as np
from sklearn import (
    calibration,
    datasets,
    discriminant_analysis,
    ensemble,
    linear_model,
    multiclass,
    naive_bayes,
    neighbors,
    neural_network,
    svm,
    tree,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .case import Case, case, sklearn_case

BINARY = datasets.make_classification(300, 10, n_informative=6, random_state=1)
MANY = datasets.make_classification(300, 10, n_informative=6, n_classes=4, random_state=2)
IRIS = datasets.load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])
PLAIN = {"zipmap": False}


def single(data: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Training data as the export sees it: trees then split where both see the same."""
    return data[0].astype(np.float32), data[1]


def plain(model: object) -> dict:
    return {id(model): PLAIN}


def both(name: str, make, **tolerances: float) -> None:
    """Registers a classifier for two classes and for four."""

    for kind, data in (("binary", BINARY), ("multiclass", MANY)):

        def build(data: tuple = data) -> Case:
            model = make()
            return sklearn_case(model, *single(data), options=plain(model), **tolerances)

        case(f"{name}_{kind}")(build)


both("logistic", lambda: linear_model.LogisticRegression(max_iter=500))
# scikit-learn 1.9 tells other probabilities for two classes than the export of skl2onnx 1.20.
both("lda", lambda: discriminant_analysis.LinearDiscriminantAnalysis(), tolerance=0.2)
both("sgd_log_loss", lambda: linear_model.SGDClassifier(loss="log_loss", random_state=0),
     labels_may_differ=0.05)
both("svc_probability", lambda: calibration.CalibratedClassifierCV(
    svm.SVC(random_state=0), ensemble=False, cv=2), tolerance=1e-3)
both("knn", lambda: neighbors.KNeighborsClassifier(5))
both("gaussian_nb", lambda: naive_bayes.GaussianNB())
both("tree", lambda: tree.DecisionTreeClassifier(max_depth=6, random_state=0))
both("forest", lambda: ensemble.RandomForestClassifier(20, max_depth=6, random_state=0))
both("extra_trees", lambda: ensemble.ExtraTreesClassifier(20, max_depth=6, random_state=0))
both("gradient_boosting", lambda: ensemble.GradientBoostingClassifier(
    n_estimators=15, random_state=0))
# HistGradientBoosting: skl2onnx 1.20 fails on the trees of scikit-learn 1.9.
both("adaboost", lambda: ensemble.AdaBoostClassifier(n_estimators=10, random_state=0))
both("calibrated", lambda: calibration.CalibratedClassifierCV(
    linear_model.LogisticRegression(max_iter=500), cv=3))
both("voting_soft", lambda: ensemble.VotingClassifier(
    [("a", linear_model.LogisticRegression(max_iter=500)),
     ("b", tree.DecisionTreeClassifier(max_depth=4, random_state=0))], voting="soft", flatten_transform=False))
both("stacking", lambda: ensemble.StackingClassifier(
    [("a", linear_model.LogisticRegression(max_iter=500)),
     ("b", tree.DecisionTreeClassifier(max_depth=4, random_state=0))], cv=2))
both("bagging", lambda: ensemble.BaggingClassifier(
    tree.DecisionTreeClassifier(max_depth=4), n_estimators=5, random_state=0))
both("mlp", lambda: neural_network.MLPClassifier((16, 8), max_iter=100, random_state=0))
both("one_vs_rest", lambda: multiclass.OneVsRestClassifier(
    linear_model.LogisticRegression(max_iter=500)))


@case("svc_libsvm_probability")
def svc_libsvm_probability() -> Case:
    model = svm.SVC(probability=True, random_state=0)
    return sklearn_case(
        model, *single(MANY), options=plain(model), tolerance=5e-2, labels_may_differ=0.02
    )


for kernel in ("linear", "poly", "rbf", "sigmoid"):
    for kind, data in (("binary", BINARY), ("multiclass", MANY)):
        def build(kernel: str = kernel, data: tuple = data) -> Case:
            model = svm.SVC(kernel=kernel, random_state=0)
            outputs = {"label": "predict"}
            return sklearn_case(
                model,
                *single(data),
                options=plain(model),
                outputs=outputs,
                labels_may_differ=0.01,
                rounding=2e-5,
            )

        case(f"svc_{kernel}_{kind}")(build)


def labels_only(name: str, make, data: tuple, *, zipmap: bool = False, **tolerances: float) -> None:
    """Registers a classifier that tells no probabilities."""

    def build() -> Case:
        model = make()
        options = None if zipmap else plain(model)
        return sklearn_case(
            model, *single(data), options=options, outputs={"label": "predict"}, **tolerances
        )

    case(name)(build)


labels_only("linear_svc", lambda: svm.LinearSVC(random_state=0), BINARY, zipmap=True)
labels_only("linear_svc_multiclass", lambda: svm.LinearSVC(random_state=0), MANY, zipmap=True)
labels_only("nu_svc", lambda: svm.NuSVC(nu=0.3, random_state=0), BINARY, labels_may_differ=0.01)
labels_only("perceptron", lambda: linear_model.Perceptron(random_state=0), MANY)
labels_only("ridge_classifier", lambda: linear_model.RidgeClassifier(), MANY)
labels_only("sgd_hinge", lambda: linear_model.SGDClassifier(random_state=0), MANY)


@case("logistic_zipmap_integers")
def logistic_zipmap_integers() -> Case:
    return sklearn_case(linear_model.LogisticRegression(max_iter=500), *single(IRIS))


@case("logistic_zipmap_strings")
def logistic_zipmap_strings() -> Case:
    x, y = single(IRIS)
    return sklearn_case(linear_model.LogisticRegression(max_iter=500), x, NAMES[y])


@case("logistic_zipmap_columns")
def logistic_zipmap_columns() -> Case:
    model = linear_model.LogisticRegression(max_iter=500)
    return sklearn_case(
        model,
        *single(IRIS),
        options={id(model): {"zipmap": "columns"}},
        outputs={"output_label": "predict"},
    )


@case("forest_zipmap_strings")
def forest_zipmap_strings() -> Case:
    x, y = single(IRIS)
    return sklearn_case(ensemble.RandomForestClassifier(10, random_state=0), x, NAMES[y])


@case("tree_negative_labels")
def tree_negative_labels() -> Case:
    x, y = single(BINARY)
    model = tree.DecisionTreeClassifier(max_depth=5, random_state=0)
    return sklearn_case(model, x, np.where(y == 0, -1, 1), options=plain(model))


@case("forest_labels_from_seven")
def forest_labels_from_seven() -> Case:
    x, y = single(MANY)
    model = ensemble.RandomForestClassifier(10, max_depth=5, random_state=0)
    return sklearn_case(model, x, y * 3 + 7, options=plain(model))


@case("knn_distance_weights")
def knn_distance_weights() -> Case:
    model = neighbors.KNeighborsClassifier(5, weights="distance")
    # A neighbour at no distance: scikit-learn takes it alone, the export divides by almost zero.
    return sklearn_case(
        model, *single(IRIS), options=plain(model), tolerance=1.0, labels_may_differ=0.05
    )


@case("bernoulli_nb")
def bernoulli_nb() -> Case:
    x, y = single(MANY)
    model = naive_bayes.BernoulliNB()
    return sklearn_case(model, (x > 0).astype(np.float32), y, options=plain(model))


@case("multinomial_nb")
def multinomial_nb() -> Case:
    x, y = single(MANY)
    model = naive_bayes.MultinomialNB()
    return sklearn_case(model, np.abs(np.round(x)), y, options=plain(model))


@case("voting_hard")
def voting_hard() -> Case:
    model = ensemble.VotingClassifier(
        [
            ("a", linear_model.LogisticRegression(max_iter=500)),
            ("b", tree.DecisionTreeClassifier(max_depth=4, random_state=0)),
            ("c", naive_bayes.GaussianNB()),
        ],
        flatten_transform=False,
    )
    return sklearn_case(
        model, *single(BINARY), options=plain(model), outputs={"label": "predict"}
    )


@case("logistic_doubles")
def logistic_doubles() -> Case:
    model = make_pipeline(StandardScaler(), linear_model.LogisticRegression(max_iter=500))
    return sklearn_case(
        model, *BINARY, options={id(model[-1]): PLAIN}, double=True
    )


@case("forest_doubles")
def forest_doubles() -> Case:
    model = ensemble.RandomForestClassifier(10, max_depth=6, random_state=0)
    return sklearn_case(model, *single(MANY), options=plain(model), double=True)


@case("qda")
def qda() -> Case:
    model = discriminant_analysis.QuadraticDiscriminantAnalysis()
    return sklearn_case(model, *single(IRIS), options=plain(model), tolerance=1e-3)
