//! Why `pertask top` cannot be shown.

use std::{fmt, io};

/// A failure that ends the command with status 1.
#[derive(Debug)]
pub enum Error {
    /// Standard input or output is no terminal.
    NoTerminal,
    /// The terminal cannot move its cursor.
    DumbTerminal,
    /// The terminal, or the thread that reads from it, does not do what is asked.
    Terminal(io::Error),
    /// The handlers for signals could not be installed.
    Signals(io::Error),
    /// A part of the command panicked. The message has been printed.
    Panicked,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTerminal => f.write_str(
                "pertask top needs a terminal; for text use `pertask stat -I 1000`",
            ),
            Self::DumbTerminal => f.write_str(
                "pertask top needs a terminal that can move its cursor, and TERM is dumb; for text use `pertask stat -I 1000`",
            ),
            Self::Terminal(cause) => write!(f, "cannot use the terminal: {cause}"),
            Self::Signals(cause) => write!(
                f,
                "cannot listen for signals: {cause}. Check the limit on open files (ulimit -n)."
            ),
            Self::Panicked => f.write_str("pertask top has broken down, as said above"),
        }
    }
}

impl std::error::Error for Error {}
