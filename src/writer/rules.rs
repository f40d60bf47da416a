//! Which codec each tensor and record of a file gets, by the caller's rules and their order.

use crate::codec::Codec;
use crate::names::name_matches;

/// Codec rules by name, and the codec if none matches.
#[derive(Clone, Debug, Default)]
pub(super) struct Codecs {
    /// None until the caller sets one.
    pub otherwise: Option<Codec>,
    /// Patterns; the last match decides.
    pub rules: Vec<(String, Codec)>,
}

impl Codecs {
    /// The codec of the tensor or record of this name.
    pub fn of(&self, name: &str) -> Codec {
        let rule = self.rules.iter().rfind(|(pattern, _)| name_matches(pattern, name));
        rule.map(|(_, codec)| *codec).or(self.otherwise).unwrap_or_default()
    }

    /// The patterns that match none of these names, in the order of the rules.
    pub fn unmatched<'n>(&self, names: impl Iterator<Item = &'n str> + Clone) -> Vec<String> {
        let fits_none = |pattern: &str| !names.clone().any(|name| name_matches(pattern, name));
        self.rules
            .iter()
            .filter(|(pattern, _)| fits_none(pattern))
            .map(|(pattern, _)| pattern.clone())
            .collect()
    }

    /// Whether everything is raw, for all names.
    pub fn are_raw(&self) -> bool {
        self.rules.iter().map(|(_, codec)| *codec).chain(self.otherwise).all(|codec| codec == Codec::Raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_matching_rule_decides() {
        let rule = |pattern: &str, codec| (pattern.to_owned(), codec);
        let mut codecs = Codecs { otherwise: None, rules: vec![] };
        assert_eq!((codecs.of("w"), codecs.are_raw()), (Codec::Raw, true));
        codecs.otherwise = Some(Codec::Balanced);
        assert_eq!((codecs.of("w"), codecs.are_raw()), (Codec::Balanced, false));
        codecs.rules = vec![rule("optimizer.*", Codec::Max), rule("*.step", Codec::Raw)];
        assert_eq!(codecs.of("optimizer.exp_avg.conv1"), Codec::Max);
        assert_eq!(codecs.of("optimizer.step"), Codec::Raw);
        assert_eq!(codecs.of("conv1.weight"), Codec::Balanced);
        codecs.rules.reverse();
        assert_eq!(codecs.of("optimizer.step"), Codec::Max);
        codecs.otherwise = Some(Codec::Raw);
        assert!(!codecs.are_raw());
        codecs.rules = vec![rule("*", Codec::Raw)];
        assert!(codecs.are_raw());
    }

    #[test]
    fn a_pattern_that_fits_no_name_is_told() {
        let rules = ["optimizer.*", "*.weight", "bias", "optimizer/*"].map(|p| (p.to_owned(), Codec::Max));
        let codecs = Codecs { otherwise: None, rules: rules.into() };
        let names = ["model/fc.weight", "optimizer/step"];
        assert_eq!(codecs.unmatched(names.into_iter()), ["optimizer.*", "bias"]);
        assert_eq!(codecs.unmatched([].into_iter()).len(), 4);
        assert_eq!(Codecs::default().unmatched(names.into_iter()), [""; 0]);
    }
}
