//! The operators of the domain `ai.onnx.ml`: what scikit-learn, LightGBM and XGBoost export.
//!
//! tract ships five of them, some with other answers than the specification's, so all are ours:
//! one file an operator or family, with the specification's name in its head. Answers are those of
//! ONNX Runtime where the specification leaves a choice, since that is what models were tested
//! with before they came here.

mod array_feature_extractor;
mod binarizer;
mod category_mapper;
mod feature_vectorizer;
mod imputer;
mod label_encoder;
mod linear;
mod normalizer;
mod one_hot_encoder;
mod post_transform;
mod rows;
mod scaler;
mod svm;
mod trees;
mod zip_map;

use tract_onnx::model::{OnnxOpRegister, ParsingContext};

use super::kernel::{
    Builder, ByRow, Element, Form, Inputs, Kernel, NUMBERS, Operand, Outputs, Rejected, build,
    expect_type, only,
};
pub(super) use zip_map::replace_zip_maps;

/// The domain's name.
pub(super) const DOMAIN: &str = "ai.onnx.ml";

/// Operators that take or give maps, which no tensor of the protocol can carry.
pub(super) const WITH_MAPS: [&str; 2] = ["CastMap", "DictVectorizer"];

/// Every operator here, with what builds it.
const OPERATORS: [(&str, Builder); 17] = [
    ("ArrayFeatureExtractor", build::<array_feature_extractor::ArrayFeatureExtractor>),
    ("Binarizer", build::<binarizer::Binarizer>),
    ("CategoryMapper", build::<category_mapper::CategoryMapper>),
    ("FeatureVectorizer", build::<feature_vectorizer::FeatureVectorizer>),
    ("Imputer", build::<imputer::Imputer>),
    ("LabelEncoder", build::<label_encoder::LabelEncoder>),
    ("LinearClassifier", build::<linear::LinearClassifier>),
    ("LinearRegressor", build::<linear::LinearRegressor>),
    ("Normalizer", build::<normalizer::Normalizer>),
    ("OneHotEncoder", build::<one_hot_encoder::OneHotEncoder>),
    ("SVMClassifier", build::<svm::SvmClassifier>),
    ("SVMRegressor", build::<svm::SvmRegressor>),
    ("Scaler", build::<scaler::Scaler>),
    ("TreeEnsemble", build::<trees::TreeEnsemble>),
    ("TreeEnsembleClassifier", build::<trees::TreeEnsembleClassifier>),
    ("TreeEnsembleRegressor", build::<trees::TreeEnsembleRegressor>),
    ("ZipMap", build::<zip_map::ZipMap>),
];

/// Puts the operators into tract's table, in place of its own of the same names.
pub(super) fn register(table: &mut OnnxOpRegister) {
    for (name, builder) in OPERATORS {
        table.insert(name, builder);
    }
}

/// Whether `name` is an operator of this domain that is here.
pub(super) fn has(name: &str) -> bool {
    OPERATORS.iter().any(|(operator, _)| *operator == name)
}

/// The version of this domain's operators that the model imports; 1 where it does not say.
fn opset(context: &ParsingContext<'_>) -> i64 {
    let imports = &context.model.opset_import;
    imports.iter().find(|import| import.domain == DOMAIN).map_or(1, |import| import.version)
}
