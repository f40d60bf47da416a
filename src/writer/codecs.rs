//! Which codec each tensor and record of a file gets. Owns: the caller's rules, and their order. Knows names, not bytes.

use crate::codec::Codec;
use crate::names::name_matches;

/// Rules by name, and what holds where none fits.
#[derive(Clone, Debug, Default)]
pub(super) struct Codecs {
    /// None until somebody chooses.
    pub otherwise: Option<Codec>,
    /// Patterns; the last one that fits decides.
    pub rules: Vec<(String, Codec)>,
}

impl Codecs {
    /// The codec of the tensor or record of this name.
    pub fn of(&self, name: &str) -> Codec {
        let rule = self.rules.iter().rfind(|(pattern, _)| name_matches(pattern, name));
        rule.map(|(_, codec)| *codec).or(self.otherwise).unwrap_or_default()
    }

    /// Whether there is nothing to encode, whatever the names.
    pub fn are_raw(&self) -> bool {
        self.rules.iter().map(|(_, codec)| *codec).chain(self.otherwise).all(|codec| codec == Codec::Raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rule_that_fits_decides_and_without_one_the_general_choice() {
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
}
