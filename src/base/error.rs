//! What a failure means to a script: the exit codes, and the error that carries one.

use std::fmt;

/// Every exit code that a script may rely on, as the manual page lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Something failed; the message says what is done and what is left.
    Failed = 1,
    /// Changes are pending (only where `--exit-code` asks).
    Pending = 2,
    /// The command line is wrong.
    Usage = 64,
    /// An input file can't be used: a certificate, a saved plan.
    Unusable = 65,
    /// A needed service or the network can't be reached.
    Unreachable = 69,
    /// Something of somebody else is in the way.
    CannotCreate = 73,
    /// Reading or writing failed.
    Io = 74,
    /// Another run holds the lock.
    Locked = 75,
    /// Only root may do this.
    NoPermission = 77,
    /// The settings are wrong.
    Settings = 78,
}

impl Exit {
    /// An error with this exit code.
    pub(crate) fn because(self, message: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Failure { exit: self, message: message.into() })
    }

    /// The same error with this exit code, where it asks for none itself.
    pub(crate) fn give_to(self, why: anyhow::Error) -> anyhow::Error {
        match Exit::of(&why) {
            Exit::Failed => self.because(format!("{why:#}")),
            _ => why,
        }
    }

    /// The exit code that an error asks for, wherever in its chain it says so.
    pub fn of(error: &anyhow::Error) -> Exit {
        if let Some(failure) = error.downcast_ref::<Failure>() {
            return failure.exit;
        }
        let denied = error.chain().any(|cause| {
            cause.downcast_ref::<nix::errno::Errno>() == Some(&nix::errno::Errno::EACCES)
                || cause
                    .downcast_ref::<std::io::Error>()
                    .is_some_and(|why| why.kind() == std::io::ErrorKind::PermissionDenied)
        });
        if denied && !nix::unistd::geteuid().is_root() {
            return Exit::NoPermission;
        }
        let io = error.chain().any(|cause| cause.is::<std::io::Error>() || cause.is::<nix::errno::Errno>());
        if io { Exit::Io } else { Exit::Failed }
    }
}

/// An error that the administrator can act on, with the exit code that it maps to.
#[derive(Debug, thiserror::Error)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What, where, why, and the next move.
    pub(crate) message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
