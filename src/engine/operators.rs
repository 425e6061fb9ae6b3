//! Which operators a model uses, and which of them the engine does not have.

use std::collections::BTreeMap;
use std::fmt;

use tract_onnx::pb;

use super::graph::subgraphs;
use super::onnx::FRAMEWORK;
use super::{guards, ml};

/// One operator of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// The domain; empty for the default one.
    pub domain: String,
    /// The operator's name.
    pub name: String,
    /// The operator set version that the model imports for the domain; 0 where it imports none.
    pub opset: i64,
    /// Nodes that use it.
    pub nodes: usize,
    /// The name of the first node that does.
    pub first_node: String,
    /// Why no node may use it; nothing where the engine has it.
    pub refusal: Option<&'static str>,
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let domain = if self.domain.is_empty() { "ai.onnx" } else { &self.domain };
        write!(f, "{domain}.{} (opset {}, node '{}'", self.name, self.opset, self.first_node)?;
        match self.nodes {
            1 => f.write_str(")")?,
            n_nodes => write!(f, " and {} more)", n_nodes - 1)?,
        }
        self.refusal.map_or(Ok(()), |refusal| write!(f, ": {refusal}"))
    }
}

/// All operators of the model, subgraphs included, sorted by domain and name.
pub(super) fn operators(proto: &pb::ModelProto) -> Vec<Operator> {
    let mut found = BTreeMap::new();
    let mut graphs: Vec<&pb::GraphProto> = proto.graph.iter().collect();
    while let Some(graph) = graphs.pop() {
        for node in &graph.node {
            graphs.extend(subgraphs(node));
            let domain = if node.domain == "ai.onnx" { "" } else { node.domain.as_str() };
            found
                .entry((domain, node.op_type.as_str()))
                .and_modify(|operator: &mut Operator| operator.add(node))
                .or_insert_with(|| operator(proto, domain, node));
        }
    }
    found.into_values().collect()
}

fn operator(proto: &pb::ModelProto, domain: &str, node: &pb::NodeProto) -> Operator {
    let opset = proto
        .opset_import
        .iter()
        .find(|import| import.domain == domain || (domain.is_empty() && import.domain == "ai.onnx"))
        .map_or(0, |import| import.version);
    Operator {
        domain: domain.to_owned(),
        name: node.op_type.clone(),
        opset,
        nodes: 1,
        first_node: name(node),
        refusal: refusal(domain, node, opset),
    }
}

fn name(node: &pb::NodeProto) -> String {
    match (node.name.is_empty(), node.output.first()) {
        (true, Some(output)) => format!("computing {output}"),
        _ => node.name.clone(),
    }
}

impl Operator {
    /// Counts another node, which may be refused where those before were not.
    fn add(&mut self, node: &pb::NodeProto) {
        self.nodes += 1;
        if self.refusal.is_none() {
            self.refusal = refusal(&self.domain, node, self.opset);
            if self.refusal.is_some() {
                self.first_node = name(node);
            }
        }
    }
}

/// Why the engine cannot run `node`. tract keeps one table for all domains; the names of ours
/// stand for our domain only.
fn refusal(domain: &str, node: &pb::NodeProto, opset: i64) -> Option<&'static str> {
    let name = node.op_type.as_str();
    let is_there = match domain {
        ml::DOMAIN if ml::WITH_MAPS.contains(&name) => {
            return Some("takes maps, which no tensor carries");
        }
        ml::DOMAIN => ml::has(name),
        _ => !ml::has(name) && FRAMEWORK.op_register.0.contains_key(name),
    };
    if is_there { guards::refusal(node, opset) } else { Some("is not there") }
}
