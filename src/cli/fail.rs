//! How a command ends: exit codes, and errors of one or two lines.

use std::process::ExitCode;

/// Exit codes that scripts may lean on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done and good.
    Done,
    /// Ran, and found something wrong.
    Wrong,
    /// Wrong use or configuration.
    Usage,
    /// Could not be done: port taken, disk unreadable, no cluster there.
    Impossible,
    /// A broken invariant or a failed persist: the process stopped itself.
    Broken,
}

impl Exit {
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Wrong => 1,
            Self::Usage => 2,
            Self::Impossible => crate::exit::REFUSED,
            Self::Broken => crate::exit::BROKEN,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error that knows its exit code; any other error is [`Exit::Impossible`].
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub exit: Exit,
    message: String,
}

/// Wrong use or configuration: what, which flag or file, how to mend.
#[must_use]
pub fn usage(message: impl Into<String>) -> Failure {
    Failure { exit: Exit::Usage, message: message.into() }
}

/// Could not be done.
#[must_use]
pub fn impossible(message: impl Into<String>) -> Failure {
    Failure { exit: Exit::Impossible, message: message.into() }
}

/// What a pod needs of its disk could not be had. A disk without room is a failed persist, after which
/// `kassa up` tries again; what cannot be read is refused for good.
#[must_use]
pub fn disk(message: impl Into<String>, lacks_room: bool) -> Failure {
    let exit = if lacks_room { Exit::Broken } else { Exit::Impossible };
    Failure { exit, message: message.into() }
}

/// The exit code that an error asks for.
#[must_use]
pub fn exit_of(error: &anyhow::Error) -> Exit {
    error.downcast_ref::<Failure>().map_or(Exit::Impossible, |failure| failure.exit)
}
