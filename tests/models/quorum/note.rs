//! What a replica tells the books, and the reader of a way to a violation.

use super::tables::Value;
use kassa_protocols::quorum::{ReadState, Version, Write};
use std::fmt;
use std::sync::Arc;

pub enum Note {
    Committed(Arc<Write>),
    /// A client is told that its write took place, and what was there before.
    Written {
        version: Version,
        value: Value,
        before: Value,
    },
    /// A client is told what it asked for when so many writes were shown, as of that many.
    Read {
        since: u64,
        base: u64,
        value: Value,
    },
    /// Serves, and with it all that it inherited: so many writes.
    Leading(u64),
    Answered {
        state: ReadState,
        written: Version,
        value: Value,
    },
    Said(String),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Committed(write) => write!(f, "commits {}", write.version),
            Self::Written { version, value, before } => {
                write!(f, "a client is told that {version} wrote {value:?} over {before:?}")
            }
            Self::Read { since, base, value } => {
                write!(f, "a client that asked behind {since} writes is told {value:?} as of {base}")
            }
            Self::Leading(seq) => write!(f, "leads, with {seq} writes"),
            Self::Answered { state, written, value } => {
                let (accepted, committed) = (state.accepted, state.committed);
                write!(f, "answers {value:?} of {written}, accepted {accepted}, committed {committed}")
            }
            Self::Said(text) => f.write_str(text),
        }
    }
}
