"""Preprocessing, alone and before a model, with one input and with several."""

from __future__ import annotations

import numpy as np
from sklearn import linear_model, preprocessing
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType

from .case import OPSETS, ROWS, Case, case, sklearn_case
from .regressors import X, Y

RANDOM = np.random.default_rng(5)
COLOURS = np.array(["red", "green", "blue", "grün", ""])
GAPS = X.copy()
GAPS[RANDOM.random(GAPS.shape) < 0.1] = np.nan


def scaled(name: str, scaler: object, x: np.ndarray = X) -> None:
    case(f"{name}_alone")(lambda: sklearn_case(scaler, x))


scaled("standard_scaler", preprocessing.StandardScaler())
scaled("min_max_scaler", preprocessing.MinMaxScaler())
scaled("min_max_scaler_clipped", preprocessing.MinMaxScaler((-1, 1), clip=True))
scaled("robust_scaler", preprocessing.RobustScaler())
scaled("max_abs_scaler", preprocessing.MaxAbsScaler())
scaled("normalizer_l1", preprocessing.Normalizer("l1"))
scaled("normalizer_l2", preprocessing.Normalizer("l2"))
scaled("normalizer_max", preprocessing.Normalizer("max"), np.abs(X))
scaled("imputer_mean", SimpleImputer(), GAPS)
scaled("imputer_most_frequent", SimpleImputer(strategy="most_frequent"), np.round(GAPS))
scaled("imputer_indicator", SimpleImputer(strategy="median"), GAPS)
scaled("polynomial", preprocessing.PolynomialFeatures(2))
scaled("polynomial_interactions", preprocessing.PolynomialFeatures(3, interaction_only=True), X[:, :4])
scaled("k_bins", preprocessing.KBinsDiscretizer(
    4, encode="ordinal", strategy="uniform", subsample=None))
scaled("k_bins_one_hot", preprocessing.KBinsDiscretizer(
    4, encode="onehot-dense", strategy="uniform", subsample=None))
scaled("binarizer", preprocessing.Binarizer(threshold=0.25))
scaled("power_transformer", preprocessing.PowerTransformer())


@case("pipeline_imputer_scaler_ridge")
def pipeline_imputer_scaler_ridge() -> Case:
    model = make_pipeline(SimpleImputer(), preprocessing.StandardScaler(), linear_model.Ridge())
    return sklearn_case(model, GAPS, Y)


@case("pipeline_select_polynomial_logistic")
def pipeline_select_polynomial_logistic() -> Case:
    model = make_pipeline(
        SelectKBest(k=4), preprocessing.PolynomialFeatures(2), preprocessing.StandardScaler(),
        linear_model.LogisticRegression(max_iter=1000))
    return sklearn_case(
        model, X, Y > 0, options={id(model[-1]): {"zipmap": False}}, tolerance=1e-3)


def exported(model: object, x: np.ndarray, kind: object, asked: np.ndarray) -> Case:
    """A transformer of strings or integers."""
    model.fit(x)
    types = [("X", kind([None, x.shape[1]]))]
    onnx_model = to_onnx(model, initial_types=types, target_opset=OPSETS)
    name = onnx_model.graph.output[0].name
    result = model.transform(asked)
    return Case(onnx_model, {"X": asked}, {name: np.asarray(result)})


def strings(unknown: bool) -> np.ndarray:
    palette = np.append(COLOURS, "never seen") if unknown else COLOURS
    return RANDOM.choice(palette, (ROWS, 2)).astype(object)


def whole(unknown: bool) -> np.ndarray:
    return RANDOM.integers(0, 7 if unknown else 5, (ROWS, 2)).astype(np.int64)


@case("one_hot_strings")
def one_hot_strings() -> Case:
    model = preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return exported(model, strings(False), StringTensorType, strings(True))


@case("one_hot_integers")
def one_hot_integers() -> Case:
    model = preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return exported(model, whole(False), Int64TensorType, whole(True))


@case("ordinal_strings")
def ordinal_strings() -> Case:
    return exported(preprocessing.OrdinalEncoder(), strings(False), StringTensorType, strings(False))


@case("ordinal_integers")
def ordinal_integers() -> Case:
    return exported(preprocessing.OrdinalEncoder(), whole(False), Int64TensorType, whole(False))


@case("ordinal_unknown")
def ordinal_unknown() -> Case:
    model = preprocessing.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    return exported(model, strings(False), StringTensorType, strings(True))


def columns() -> tuple[object, object, dict[str, np.ndarray]]:
    """Named columns of three types, as a frame and as the inputs of the export."""
    import pandas

    data = {
        "age": RANDOM.normal(40, 12, ROWS).astype(np.float32),
        "income": RANDOM.lognormal(10, 1, ROWS).astype(np.float32),
        "colour": RANDOM.choice(COLOURS, ROWS).astype(object),
        "visits": RANDOM.integers(0, 5, ROWS).astype(np.int64),
    }
    target = (data["age"] + 5 * data["visits"] + 9 * (data["colour"] == "red") > 50).astype(int)
    inputs = {name: column.reshape(-1, 1) for name, column in data.items()}
    return pandas.DataFrame(data), target, inputs


def column_transformer(model: object) -> Case:
    frame, target, inputs = columns()
    pipeline = make_pipeline(
        ColumnTransformer([
            ("numbers", preprocessing.StandardScaler(), ["age", "income"]),
            ("colours", preprocessing.OneHotEncoder(handle_unknown="ignore"), ["colour"]),
            ("counts", preprocessing.OneHotEncoder(handle_unknown="ignore"), ["visits"]),
        ]),
        model)
    pipeline.fit(frame, target)
    kinds = {"O": StringTensorType, "i": Int64TensorType, "f": FloatTensorType}
    types = [(name, kinds[column.dtype.kind]([None, 1])) for name, column in inputs.items()]
    onnx_model = to_onnx(
        pipeline, initial_types=types, target_opset=OPSETS, options={id(model): {"zipmap": False}})
    names = [output.name for output in onnx_model.graph.output]
    expected = {names[0]: pipeline.predict(frame), names[1]: pipeline.predict_proba(frame)}
    return Case(onnx_model, inputs, expected, tolerance=1e-3, labels_may_differ=0.01)


@case("columns_logistic")
def columns_logistic() -> Case:
    return column_transformer(linear_model.LogisticRegression(max_iter=500))


@case("columns_gradient_boosting")
def columns_gradient_boosting() -> Case:
    return column_transformer(GradientBoostingClassifier(n_estimators=10, random_state=0))
