//! What is paused, for good or for a time.

use std::fmt;

use serde::de::{Error, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::Timestamp;

/// Whether something is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pause {
    /// It is not.
    #[default]
    No,
    /// It is, until somebody resumes it.
    Forever,
    /// It is, until then.
    Until(Timestamp),
}

/// A text is no point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no point in time with its zone: it takes `true`, `false`, or a time as `2026-11-22T08:00:00Z`", .0.escape_debug())]
pub struct PauseError(String);

impl Pause {
    /// What is left of it at this moment: a pause that is over is none.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Self {
        match self {
            Self::Until(end) if end <= now => Self::No,
            pause => pause,
        }
    }

    /// Whether it holds at this moment.
    pub fn holds(self, now: Timestamp) -> bool {
        self.at(now) != Self::No
    }
}

impl std::str::FromStr for Pause {
    type Err = PauseError;

    fn from_str(text: &str) -> Result<Self, PauseError> {
        match text {
            "true" => Ok(Self::Forever),
            "false" => Ok(Self::No),
            _ => match text.parse::<jiff::Timestamp>() {
                Ok(time) => Ok(Self::Until(time.into())),
                Err(_) => Err(PauseError(text.to_owned())),
            },
        }
    }
}

/// As the configuration has it; a point in time to the second, in UTC.
impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("false"),
            Self::Forever => f.write_str("true"),
            Self::Until(end) => match jiff::Timestamp::try_from(Timestamp::new(end.secs, 0)) {
                Ok(end) => write!(f, "{end}"),
                Err(_) => f.write_str("true"),
            },
        }
    }
}

impl Serialize for Pause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::No => serializer.serialize_bool(false),
            Self::Forever => serializer.serialize_bool(true),
            Self::Until(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Pause {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Pause;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true`, `false` or a point in time")
            }

            fn visit_bool<E: Error>(self, paused: bool) -> Result<Pause, E> {
                Ok(if paused { Pause::Forever } else { Pause::No })
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Pause, E> {
                text.parse().map_err(E::custom)
            }

            /// A time without quotes.
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Pause, A::Error> {
                let time = toml::value::Datetime::deserialize(MapAccessDeserializer::new(map))?;
                self.visit_str(&time.to_string())
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[derive(Debug, Deserialize)]
    struct Text {
        paused: Pause,
    }

    #[rstest]
    #[case("true", Pause::Forever)]
    #[case("false", Pause::No)]
    #[case("\"2026-11-22T08:00:00Z\"", Pause::Until(Timestamp::new(1_795_334_400, 0)))]
    #[case("2026-11-22T09:00:00+01:00", Pause::Until(Timestamp::new(1_795_334_400, 0)))]
    fn is_read(#[case] text: &str, #[case] pause: Pause) {
        assert_eq!(toml::from_str::<Text>(&format!("paused = {text}")).unwrap().paused, pause);
        assert_eq!(pause.to_string().parse(), Ok(pause));
    }

    #[rstest]
    #[case("1")]
    #[case("\"tomorrow\"")]
    #[case("\"2026-11-22T08:00:00\"")]
    #[case("2026-11-22")]
    #[case("{ a = 1 }")]
    fn is_refused(#[case] text: &str) {
        assert!(toml::from_str::<Text>(&format!("paused = {text}")).is_err());
    }

    #[test]
    fn ends_by_itself() {
        let pause = Pause::Until(Timestamp::new(100, 0));
        assert!(pause.holds(Timestamp::new(99, 999_999_999)) && !pause.holds(Timestamp::new(100, 0)));
        assert!(Pause::Forever.holds(Timestamp::new(100, 0)) && !Pause::No.holds(Timestamp::new(100, 0)));
        assert_eq!(pause.to_string(), "1970-01-01T00:01:40Z");
    }
}
