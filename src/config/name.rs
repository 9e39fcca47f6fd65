//! The name of a folder or a peer: a word that can stand in a file, in a git ref and on a command line.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` cannot be a name: it takes 1 to {} letters, digits, `-`, `_` and single `.`, a letter or digit first", .0.escape_debug(), Name::LONGEST)]
pub struct NameError(String);

/// The name of a folder or a peer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

impl Name {
    /// The bytes that a name takes at most.
    pub const LONGEST: usize = 64;

    /// The name with this text, if it is fit for one.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let fit = text.len() <= Self::LONGEST
            && text.starts_with(char::is_alphanumeric)
            && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))
            && !text.contains("..")
            && !text.ends_with('.')
            && !text.to_ascii_lowercase().ends_with(".lock");
        if fit { Ok(Self(text.to_owned())) } else { Err(NameError(text.to_owned())) }
    }

    /// The name that is nearest to `text`: what cannot stand in a name becomes `-`. `otherwise` where nothing is left.
    pub fn from_text(text: &str, otherwise: &str) -> Self {
        let mut word = String::new();
        for c in text.chars() {
            let c = if c.is_alphanumeric() || c == '_' { c } else { '-' };
            if word.len() + c.len_utf8() > Self::LONGEST {
                break;
            }
            if c != '-' || (!word.is_empty() && !word.ends_with('-')) {
                word.push(c);
            }
        }
        let word = word.trim_start_matches('_').trim_end_matches('-');
        Self::new(word).unwrap_or_else(|_| Self(otherwise.to_owned()))
    }

    /// This name if it is not `taken`, otherwise the first of `name-2`, `name-3`, ... that is not.
    #[must_use]
    pub fn unique(self, taken: impl Fn(&Name) -> bool) -> Self {
        if !taken(&self) {
            return self;
        }
        let base: String = self
            .0
            .chars()
            .scan(0, |len, c| {
                *len += c.len_utf8();
                (*len <= Self::LONGEST - 8).then_some(c)
            })
            .collect();
        (2..=u32::MAX)
            .map(|n| Self(format!("{base}-{n}")))
            .find(|name| !taken(name))
            .expect("not every number is taken")
    }

    /// The text of the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(&text)
    }
}

impl std::str::FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("nas")]
    #[case("my-laptop_2.local")]
    #[case("Übung")]
    fn accepts(#[case] text: &str) {
        assert_eq!(Name::new(text).expect("a name").as_str(), text);
    }

    #[rstest]
    #[case("")]
    #[case("-x")]
    #[case(".hidden")]
    #[case("a..b")]
    #[case("a/b")]
    #[case("a b")]
    #[case("main.lock")]
    #[case("end.")]
    #[case("\u{202e}x")]
    fn refuses_what_a_ref_or_a_command_line_would_misread(#[case] text: &str) {
        assert!(Name::new(text).is_err());
    }

    #[rstest]
    #[case("My Documents", "My-Documents")]
    #[case("  .config  ", "config")]
    #[case("___", "folder")]
    #[case("***", "folder")]
    #[case("host.example.org", "host-example-org")]
    fn makes_the_nearest_name(#[case] text: &str, #[case] name: &str) {
        assert_eq!(Name::from_text(text, "folder").as_str(), name);
    }

    #[test]
    fn numbers_a_name_that_is_taken() {
        let docs = Name::new("docs").expect("a name");
        assert_eq!(docs.clone().unique(|_| false).as_str(), "docs");
        assert_eq!(docs.unique(|name| matches!(name.as_str(), "docs" | "docs-2")).as_str(), "docs-3");
        let long = Name::new(&"é".repeat(32)).expect("a name");
        let numbered = long.clone().unique(|name| *name == long);
        assert!(Name::new(numbered.as_str()).is_ok());
    }
}
