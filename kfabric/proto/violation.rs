// SPDX-License-Identifier: GPL-2.0

//! What a peer may not do.

use super::wire::Malformed;

/// What a peer did that the protocol forbids. Documentation/wire.rst says what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Bytes that are no frame.
    Malformed(Malformed),
    /// A frame before this one is missing.
    Gap,
    /// A frame of a link that is not open, or a second hello.
    Unexpected,
    /// It acknowledges what was not sent.
    Acknowledged,
    /// It resumes at a frame that it has acknowledged, or that was not sent.
    Resumed,
    /// It resumes with other limits or capabilities.
    Limits,
    /// An operation beyond what it may have outstanding.
    Index,
    /// The index of an operation that has not ended, or whose end it has not acknowledged.
    Busy,
    /// A piece that does not follow the one before, or of another whole.
    Piece,
    /// A reply about nothing, or that does not fit what it is about.
    Reply,
    /// More than it has credit for.
    Credit,
    /// Credit that shrinks.
    Grant,
    /// A receive context that does not exist.
    Context,
    /// A message longer than what was told.
    Long,
}

impl Violation {
    /// All that are not malformed.
    pub const OTHERS: [Violation; 13] = [
        Violation::Gap,
        Violation::Unexpected,
        Violation::Acknowledged,
        Violation::Resumed,
        Violation::Limits,
        Violation::Index,
        Violation::Busy,
        Violation::Piece,
        Violation::Reply,
        Violation::Credit,
        Violation::Grant,
        Violation::Context,
        Violation::Long,
    ];

    /// How many there are.
    pub const COUNT: usize = Malformed::ALL.len() + Violation::OTHERS.len();

    /// All of them, in the order of their indices.
    pub fn all() -> impl Iterator<Item = Violation> {
        let malformed = Malformed::ALL.into_iter().map(Violation::Malformed);
        malformed.chain(Violation::OTHERS)
    }

    /// Its index, below [`Violation::COUNT`], for a table of counts.
    pub fn index(self) -> usize {
        Violation::all()
            .position(|violation| violation == self)
            .unwrap_or(0)
    }

    /// The name it is counted under.
    pub const fn name(self) -> &'static str {
        match self {
            Violation::Malformed(malformed) => malformed.name(),
            Violation::Gap => "gap",
            Violation::Unexpected => "unexpected",
            Violation::Acknowledged => "acknowledged",
            Violation::Resumed => "resumed",
            Violation::Limits => "limits",
            Violation::Index => "index",
            Violation::Busy => "busy",
            Violation::Piece => "piece",
            Violation::Reply => "reply",
            Violation::Credit => "credit",
            Violation::Grant => "grant",
            Violation::Context => "context",
            Violation::Long => "message_too_long",
        }
    }

    /// Whether it is the link's fault: the link is lost, and the session resumes.
    pub const fn is_of_link(self) -> bool {
        matches!(
            self,
            Violation::Gap | Violation::Malformed(Malformed::Checksum)
        )
    }
}

impl From<Malformed> for Violation {
    fn from(malformed: Malformed) -> Self {
        Violation::Malformed(malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_and_an_index_of_its_own() {
        let all: Vec<Violation> = Violation::all().collect();
        assert_eq!(all.len(), Violation::COUNT);
        for (at, one) in all.iter().enumerate() {
            assert_eq!(one.index(), at);
            for other in &all[..at] {
                assert_ne!(one.name(), other.name());
            }
        }
    }
}
