//! What the exit code says, and how the codes of several things done in one run become one.

/// How a run ended. The order is that of gravity: of two, the later one is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum ExitCode {
    /// All was done.
    #[default]
    Done,
    /// It was done, but something was left out or is in conflict.
    LeftOut,
    /// Another process is at work in the folder: try again.
    Busy,
    /// A peer could not be reached.
    Unreachable,
    /// It failed.
    Failed,
    /// The command or the configuration is wrong.
    Usage,
    /// It was refused: by rights, by a brake, or because a peer was hostile.
    Refused,
    /// A repository or a bundle is damaged.
    Damaged,
}

impl ExitCode {
    /// All codes, from the lightest to the gravest.
    pub const ALL: [Self; 8] = [
        Self::Done,
        Self::LeftOut,
        Self::Busy,
        Self::Unreachable,
        Self::Failed,
        Self::Usage,
        Self::Refused,
        Self::Damaged,
    ];

    /// The number that the shell sees.
    pub const fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::LeftOut => 3,
            Self::Unreachable => 4,
            Self::Damaged => 5,
            Self::Refused => 6,
            Self::Busy => 75,
        }
    }

    /// What it means, for the manual.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "Done.",
            Self::Failed => "Failed.",
            Self::Usage => "Wrong usage, or a mistake in the configuration.",
            Self::LeftOut => "Done, but something was left out or is in conflict.",
            Self::Unreachable => "A peer could not be reached.",
            Self::Damaged => "The repository or a bundle is damaged.",
            Self::Refused => "Refused, because rights are missing, a brake held, or a peer sent what it must not.",
            Self::Busy => "Another process is at work in the folder; try again.",
        }
    }

    /// The graver of the two.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.max(other)
    }

    /// [`ExitCode::LeftOut`] if so, otherwise [`ExitCode::Done`].
    pub const fn left_out_if(left_out: bool) -> Self {
        if left_out { Self::LeftOut } else { Self::Done }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        code.number().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(ExitCode::Done, ExitCode::LeftOut, 3)]
    #[case(ExitCode::Unreachable, ExitCode::LeftOut, 4)]
    #[case(ExitCode::Unreachable, ExitCode::Failed, 1)]
    #[case(ExitCode::Damaged, ExitCode::Unreachable, 5)]
    #[case(ExitCode::Refused, ExitCode::Busy, 6)]
    fn the_graver_one_is_told(#[case] one: ExitCode, #[case] other: ExitCode, #[case] number: u8) {
        assert_eq!(one.and(other).number(), number);
        assert_eq!(other.and(one).number(), number);
    }

    #[test]
    fn all_are_listed_in_order_with_numbers_of_their_own() {
        assert!(ExitCode::ALL.is_sorted());
        for (at, code) in ExitCode::ALL.iter().enumerate() {
            assert!(ExitCode::ALL[at + 1..].iter().all(|other| other.number() != code.number()));
            assert_eq!(code.and(ExitCode::Done), *code);
            assert_eq!(code.and(*code), *code);
        }
    }
}
