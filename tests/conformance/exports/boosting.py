"""LightGBM and XGBoost."""

from __future__ import annotations

import lightgbm
import numpy as np
import xgboost
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType

from .case import Case, case
from .classifiers import BINARY, MANY, single
from .pipelines import GAPS
from .regressors import X, Y

RANDOM = np.random.default_rng(7)
LIGHT = {"n_estimators": 20, "num_leaves": 15, "verbose": -1, "random_state": 0}
EXTREME = {"n_estimators": 20, "max_depth": 4, "random_state": 0, "n_jobs": 1}


def types(x: np.ndarray) -> list:
    return [("X", FloatTensorType([None, x.shape[1]]))]


def light(model: object, x: np.ndarray, y: np.ndarray, *, zipmap: bool = False, **fit) -> Case:
    model.fit(x, y, **fit)
    exported = convert_lightgbm(model, initial_types=types(x), target_opset=15, zipmap=zipmap)
    return asked(exported, model, x)


def extreme(model: object, x: np.ndarray, y: np.ndarray) -> Case:
    model.fit(x, y)
    return asked(convert_xgboost(model, initial_types=types(x), target_opset=15), model, x)


def asked(exported: object, model: object, x: np.ndarray) -> Case:
    names = [output.name for output in exported.graph.output]
    expected = {names[0]: model.predict(x)}
    if hasattr(model, "predict_proba"):
        expected[names[1]] = model.predict_proba(x)
    return Case(exported, {"X": x}, expected, tolerance=1e-3, labels_may_differ=0.01)


@case("lightgbm_binary")
def lightgbm_binary() -> Case:
    return light(lightgbm.LGBMClassifier(**LIGHT), *single(BINARY))


@case("lightgbm_binary_zipmap")
def lightgbm_binary_zipmap() -> Case:
    return light(lightgbm.LGBMClassifier(**LIGHT), *single(BINARY), zipmap=True)


@case("lightgbm_multiclass")
def lightgbm_multiclass() -> Case:
    return light(lightgbm.LGBMClassifier(**LIGHT), *single(MANY))


@case("lightgbm_regression")
def lightgbm_regression() -> Case:
    return light(lightgbm.LGBMRegressor(**LIGHT), X, Y)


@case("lightgbm_poisson")
def lightgbm_poisson() -> Case:
    return light(lightgbm.LGBMRegressor(objective="poisson", **LIGHT), X, np.abs(Y))


@case("lightgbm_missing_values")
def lightgbm_missing_values() -> Case:
    return light(lightgbm.LGBMRegressor(**LIGHT), GAPS, Y)


@case("lightgbm_categorical_splits")
def lightgbm_categorical_splits() -> Case:
    x = X.copy()
    x[:, 0] = RANDOM.integers(0, 6, len(x))
    y = Y + 40 * np.isin(x[:, 0], [1, 4])
    return light(
        lightgbm.LGBMRegressor(min_child_samples=5, cat_smooth=1, **LIGHT), x, y,
        categorical_feature=[0])


@case("xgboost_binary")
def xgboost_binary() -> Case:
    return extreme(xgboost.XGBClassifier(**EXTREME), *single(BINARY))


@case("xgboost_multiclass")
def xgboost_multiclass() -> Case:
    return extreme(xgboost.XGBClassifier(**EXTREME), *single(MANY))


@case("xgboost_regression")
def xgboost_regression() -> Case:
    return extreme(xgboost.XGBRegressor(**EXTREME), X, Y)


@case("xgboost_missing_values")
def xgboost_missing_values() -> Case:
    return extreme(xgboost.XGBRegressor(**EXTREME), GAPS, Y)


@case("xgboost_poisson")
def xgboost_poisson() -> Case:
    return extreme(xgboost.XGBRegressor(objective="count:poisson", **EXTREME), X, np.abs(Y) // 10)
