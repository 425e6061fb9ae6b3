//! Which of a model's versions answers, which ones take a share or get copies: from settings, from
//! what steers the model instead, and from what can serve.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{self, Primary, Target};
use crate::tensor::{Signature, Specs, TensorSpec};
use crate::traffic::{Policy, Steering, split};

/// What the policy is made of.
pub(super) struct Wanted<'a> {
    pub(super) model: &'a str,
    pub(super) settings: &'a config::Model,
    pub(super) steering: Option<&'a Steering>,
    /// The policy of the table before.
    pub(super) before: Option<&'a Policy>,
}

/// A policy, and what of the wishes could not be done.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    /// Nothing where no version can answer.
    pub(super) policy: Option<Policy>,
    /// What is wrong with the model's wishes.
    pub(super) problems: Vec<String>,
    /// Versions that serve, and do not get what they should; why.
    pub(super) unfit: Vec<(u64, String)>,
}

impl Wanted<'_> {
    /// Versions that are named for traffic, and so serve besides those that `versions` selects.
    pub(super) fn named(&self) -> BTreeSet<u64> {
        match self.steering {
            Some(steering) => steering.versions().collect(),
            None => self.apart(),
        }
    }

    /// Versions that the configuration names as canaries and shadows.
    fn apart(&self) -> BTreeSet<u64> {
        let traffic = &self.settings.traffic;
        let targets = traffic.canaries.iter().chain(&traffic.shadows).map(|(target, _)| target);
        let numbers = targets.flat_map(|target| match target {
            Target::Version(number) => vec![*number],
            // Where it cannot move, it stays where it was.
            Target::Alias(alias) => {
                let stands = self.before.and_then(|policy| policy.aliases.get(alias));
                self.settings.aliases.get(alias).into_iter().chain(stands).copied().collect()
            }
        });
        numbers.collect()
    }

    /// The policy with these versions live, ascending. An alias, and a primary that is named, only
    /// ever mean a live version: one that is not live leaves what stood before, and without that
    /// there is none. A canary or a shadow that is not live, or that `signature` shows to take other
    /// requests than the primary, gets nothing.
    pub(super) fn choose<'s>(
        &self,
        live: &[u64],
        signature: impl Fn(u64) -> Option<&'s Signature>,
    ) -> Chosen {
        let mut chosen = Chosen::default();
        let aliases = self.aliases(live, &mut chosen.problems);
        let Some(primary) = self.primary(live, &aliases, &mut chosen.problems) else {
            return chosen;
        };
        let number = |target: &Target| match target {
            Target::Version(number) => Some(*number),
            Target::Alias(alias) => aliases.get(alias).copied(),
        };
        let of_settings = |shares: &[(Target, f64)]| -> Vec<(u64, f64)> {
            shares.iter().filter_map(|(t, share)| Some((number(t)?, *share))).collect()
        };
        let traffic = &self.settings.traffic;
        let (canaries, shadows) = match self.steering {
            Some(steering) => (steering.canaries.clone(), steering.shadows.clone()),
            None => (of_settings(&traffic.canaries), of_settings(&traffic.shadows)),
        };
        let mut fit = |what: &str, shares: Vec<(u64, f64)>| {
            let mut fitting: Vec<(u64, f64)> = Vec::new();
            for (version, share) in shares {
                if !live.contains(&version) || share <= 0.0 {
                    continue;
                }
                let refusal = if version == primary {
                    Some(format!("it is the primary, and so no {what} of it"))
                } else if fitting.iter().any(|(other, _)| *other == version) {
                    Some(format!("named twice as a {what}; the first share counts"))
                } else {
                    let pair = signature(primary).zip(signature(version));
                    let differs = pair.and_then(|(of, own)| difference(of, own));
                    differs.map(|why| format!("named as a {what} of version {primary}, but {why}"))
                };
                match refusal {
                    Some(reason) => chosen.unfit.push((version, reason)),
                    None => fitting.push((version, share)),
                }
            }
            fitting.sort_unstable_by_key(|(version, _)| *version);
            fitting
        };
        let (canaries, shadows) = (fit("canary", canaries), fit("shadow", shadows));
        chosen.policy = Some(Policy {
            primary,
            aliases,
            canaries,
            shadows,
            sticky: traffic.sticky.clone(),
            salt: split::salt(self.model),
            is_steered: self.steering.is_some(),
        });
        chosen
    }

    fn aliases(&self, live: &[u64], problems: &mut Vec<String>) -> BTreeMap<String, u64> {
        let is_live = |version: &u64| live.contains(version);
        let mut aliases = BTreeMap::new();
        for (alias, version) in &self.settings.aliases {
            let kept = self.before.and_then(|policy| policy.aliases.get(alias)).copied();
            let kept = kept.filter(is_live);
            let target = Some(*version).filter(is_live).or(kept);
            if target != Some(*version) {
                let stays =
                    kept.map_or_else(String::new, |kept| format!("; it stays at version {kept}"));
                problems.push(format!("alias '{alias}': version {version} does not serve{stays}"));
            }
            aliases.extend(target.map(|target| (alias.clone(), target)));
        }
        aliases
    }

    fn primary(
        &self,
        live: &[u64],
        aliases: &BTreeMap<String, u64>,
        problems: &mut Vec<String>,
    ) -> Option<u64> {
        let is_live = |version: &u64| live.contains(version);
        let kept = self.before.map(|policy| policy.primary).filter(is_live);
        let stays = match kept {
            Some(kept) => format!("version {kept} stays primary"),
            None => "no version serves in its place".to_owned(),
        };
        if let Some(steering) = self.steering {
            if live.contains(&steering.primary) {
                return Some(steering.primary);
            }
            if !live.is_empty() {
                let number = steering.primary;
                let stays = if kept.is_some() { stays.as_str() } else { "the highest is primary" };
                problems.push(format!("primary {number} (steered) does not serve; {stays}"));
            }
            return kept.or_else(|| live.last().copied());
        }
        let Some(named) = &self.settings.primary else {
            // A candidate that stands beside the primary is not meant to be it.
            let apart = self.apart();
            let others = live.iter().rev().find(|version| !apart.contains(version));
            return others.or(live.last()).copied();
        };
        let target = match named {
            Primary::Version(version) => Some(*version).filter(is_live),
            Primary::Alias(alias) => aliases.get(alias).copied(),
        };
        if target.is_none() && !live.is_empty() {
            problems.push(format!("primary {named} does not serve; {stays}"));
        }
        target.or(kept)
    }
}

/// Why a version cannot take the requests of another, in whose place it should answer; nothing
/// where it can: it takes and gives the same tensors in the same order, and any shape that the other
/// one takes.
fn difference(primary: &Signature, candidate: &Signature) -> Option<String> {
    let differs = |what: &str, primary: &[TensorSpec], candidate: &[TensorSpec]| {
        let is_same = |(of, own): (&TensorSpec, &TensorSpec)| {
            (&of.name, of.datatype) == (&own.name, own.datatype) && fits(of, own)
        };
        let same = primary.len() == candidate.len() && primary.iter().zip(candidate).all(is_same);
        let (own, of) = (Specs(candidate), Specs(primary));
        (!same).then(|| format!("its {what} are {own}, the primary's are {of}"))
    };
    let of_inputs = differs("inputs", &primary.inputs, &candidate.inputs);
    of_inputs.or_else(|| differs("outputs", &primary.outputs, &candidate.outputs))
}

/// Whether every shape that the primary declares is one that the candidate takes.
fn fits(primary: &TensorSpec, candidate: &TensorSpec) -> bool {
    let dims = primary.shape.iter().zip(&candidate.shape);
    primary.shape.len() == candidate.shape.len()
        && dims.into_iter().all(|(of, own)| own.is_none() || own == of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::tensor::Datatype;

    fn settings(text: &str) -> config::Model {
        let config = Config::parse("", std::path::Path::new("."), []).unwrap();
        config.model("m", Some(text)).unwrap()
    }

    fn signature(dim: Option<usize>) -> Signature {
        let spec = |name: &str| TensorSpec {
            name: name.to_owned(),
            datatype: Datatype::Fp32,
            shape: vec![None, dim],
        };
        Signature { inputs: vec![spec("x")], outputs: vec![spec("y")] }
    }

    fn choose(text: &str, steering: Option<&Steering>, live: &[u64]) -> Chosen {
        let settings = settings(text);
        let (of, other) = (signature(Some(4)), signature(Some(5)));
        let wanted = Wanted { model: "m", settings: &settings, steering, before: None };
        wanted.choose(live, |version| Some(if version == 9 { &other } else { &of }))
    }

    #[test]
    fn a_candidate_is_not_the_primary_because_it_is_the_latest() {
        let text =
            "[traffic]\ncanaries = { 3 = 0.1 }\nshadows = { next = 1.0 }\n[aliases]\nnext = 4";
        let chosen = choose(text, None, &[1, 2, 3, 4]);
        let policy = chosen.policy.unwrap();
        assert_eq!((policy.primary, policy.canaries), (2, vec![(3, 0.1)]));
        assert_eq!(policy.shadows, [(4, 1.0)]);
        assert!(chosen.problems.is_empty() && chosen.unfit.is_empty());
        // Alone it has to answer.
        assert_eq!(choose(text, None, &[3]).policy.unwrap().primary, 3);
    }

    #[test]
    fn a_candidate_of_another_signature_gets_nothing_and_says_why() {
        let chosen =
            choose("primary = 1\n[traffic]\nshadows = { 9 = 1.0, 2 = 0.5 }", None, &[1, 2, 9]);
        assert_eq!(chosen.policy.unwrap().shadows, [(2, 0.5)]);
        let [(9, reason)] = chosen.unfit.as_slice() else { panic!("{:?}", chosen.unfit) };
        assert_eq!(
            reason,
            "named as a shadow of version 1, but its inputs are x FP32 [-1,5], the primary's are x FP32 [-1,4]"
        );
    }

    #[test]
    fn steering_goes_before_the_settings() {
        let text = "primary = 1\n[traffic]\ncanaries = { 2 = 0.5 }";
        let steering = Steering { warm: vec![1], ..Steering::primary(3) };
        let policy = choose(text, Some(&steering), &[1, 2, 3]).policy.unwrap();
        assert_eq!((policy.primary, policy.canaries.len(), policy.is_steered), (3, 0, true));
        let chosen = choose(text, Some(&steering), &[1, 2]);
        assert_eq!(chosen.policy.unwrap().primary, 2);
        assert_eq!(chosen.problems, ["primary 3 (steered) does not serve; the highest is primary"]);
    }

    #[test]
    fn a_candidate_may_take_more_shapes_than_the_primary() {
        assert_eq!(difference(&signature(Some(4)), &signature(None)), None);
        assert!(difference(&signature(None), &signature(Some(4))).is_some());
    }
}
