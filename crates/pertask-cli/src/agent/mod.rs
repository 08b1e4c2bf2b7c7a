//! What is asked of a program's agent: `pertask ps`, `pertask stat`, `pertask tasks`, `pertask top`.

mod ps;
mod question;
mod stat;
mod tasks;
mod top;

pub use ps::{PsOptions, run as ps};
pub use question::{Agent, Question};
pub use stat::{StatOptions, run as stat};
pub use tasks::{TasksOptions, run as tasks};
pub use top::{TopOptions, hottest, run as top};

/// The texts of the commands' helps.
pub mod help {
    pub use super::ps::{ABOUT as PS, LONG_ABOUT as PS_LONG};
    pub use super::stat::{ABOUT as STAT, HELP as STAT_HELP, LONG_ABOUT as STAT_LONG};
    pub use super::tasks::{ABOUT as TASKS, HELP as TASKS_HELP, LONG_ABOUT as TASKS_LONG};
    pub use super::top::{ABOUT as TOP, HELP as TOP_HELP, LONG_ABOUT as TOP_LONG};
}
