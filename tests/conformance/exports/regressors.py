"""Regressors, decompositions, clusters and detectors of scikit-learn."""

from __future__ import annotations

import numpy as np
from sklearn import (
    cluster,
    datasets,
    decomposition,
    ensemble,
    linear_model,
    mixture,
    multioutput,
    neighbors,
    neural_network,
    svm,
    tree,
)

from .case import Case, case, sklearn_case

X, Y = datasets.make_regression(300, 8, n_informative=6, noise=3.0, random_state=3)
X = X.astype(np.float32)
Y2 = np.stack([Y, Y * 0.5 - X[:, 0]], axis=1)


def regressor(name: str, make, y: np.ndarray = Y, **tolerances: float) -> None:
    case(name)(lambda: sklearn_case(make(), X, y, **tolerances))


regressor("linear_regression", lambda: linear_model.LinearRegression())
regressor("ridge", lambda: linear_model.Ridge())
regressor("lasso", lambda: linear_model.Lasso())
regressor("elastic_net_two_targets", lambda: linear_model.MultiTaskElasticNet(), Y2)
regressor("sgd_regressor", lambda: linear_model.SGDRegressor(random_state=0))
regressor("huber", lambda: linear_model.HuberRegressor(max_iter=500))
regressor("poisson", lambda: linear_model.PoissonRegressor(max_iter=500), np.abs(Y) / 100)
regressor("svr", lambda: svm.SVR(C=10.0))
regressor("nu_svr", lambda: svm.NuSVR(kernel="poly"), tolerance=1e-2)
regressor("linear_svr", lambda: svm.LinearSVR(random_state=0, max_iter=5000))
regressor("knn_regressor", lambda: neighbors.KNeighborsRegressor(4))
regressor("knn_regressor_two_targets", lambda: neighbors.KNeighborsRegressor(4), Y2)
regressor("tree_regressor", lambda: tree.DecisionTreeRegressor(max_depth=7, random_state=0))
regressor("tree_regressor_two_targets",
          lambda: tree.DecisionTreeRegressor(max_depth=5, random_state=0), Y2)
regressor("forest_regressor",
          lambda: ensemble.RandomForestRegressor(20, max_depth=8, random_state=0))
regressor("extra_trees_regressor",
          lambda: ensemble.ExtraTreesRegressor(20, max_depth=8, random_state=0))
regressor("gradient_boosting_regressor",
          lambda: ensemble.GradientBoostingRegressor(n_estimators=20, random_state=0))
# HistGradientBoosting: skl2onnx 1.20 fails on the trees of scikit-learn 1.9.
regressor("adaboost_regressor",
          lambda: ensemble.AdaBoostRegressor(n_estimators=8, random_state=0))
regressor("bagging_regressor", lambda: ensemble.BaggingRegressor(n_estimators=5, random_state=0))
regressor("voting_regressor", lambda: ensemble.VotingRegressor(
    [("a", linear_model.Ridge()), ("b", tree.DecisionTreeRegressor(max_depth=4, random_state=0))]))
regressor("stacking_regressor", lambda: ensemble.StackingRegressor(
    [("a", linear_model.Ridge()), ("b", tree.DecisionTreeRegressor(max_depth=4, random_state=0))],
    cv=2))
regressor("mlp_regressor",
          lambda: neural_network.MLPRegressor(hidden_layer_sizes=(16, 8), max_iter=100, random_state=0),
          tolerance=1e-3)
regressor("multi_output", lambda: multioutput.MultiOutputRegressor(linear_model.Ridge()), Y2)
regressor("pca", lambda: decomposition.PCA(3, random_state=0), None, tolerance=1e-3)
regressor("truncated_svd", lambda: decomposition.TruncatedSVD(3, random_state=0), None,
          tolerance=1e-3)


@case("kmeans")
def kmeans() -> Case:
    model = cluster.KMeans(4, n_init=2, random_state=0)
    return sklearn_case(model, X, outputs={"label": "predict", "scores": "transform"})


@case("gaussian_mixture")
def gaussian_mixture() -> Case:
    model = mixture.GaussianMixture(3, random_state=0)
    return sklearn_case(
        model, X, outputs={"label": "predict", "probabilities": "predict_proba"}, tolerance=1e-3
    )


@case("isolation_forest")
def isolation_forest() -> Case:
    model = ensemble.IsolationForest(n_estimators=10, random_state=0)
    return sklearn_case(model, X, outputs={"label": "predict"}, labels_may_differ=0.01)


@case("one_class_svm")
def one_class_svm() -> Case:
    model = svm.OneClassSVM(nu=0.2)
    return sklearn_case(model, X, outputs={"label": "predict"}, labels_may_differ=0.01)


# A forest's regression of doubles: ONNX Runtime refuses what skl2onnx 1.20 makes of it.
