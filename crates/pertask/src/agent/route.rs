//! What a path is.

use super::asked::{Asked, Parameter, Refusal};
use pertask_agent::Answer;

/// A path, and who answers it.
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) what: &'static str,
    pub(super) parameters: &'static [&'static [Parameter]],
    /// Whether it is a path that other people's tools know, whose parameters are ignored if they are not known here.
    pub(super) is_lenient: bool,
    pub(super) answer: fn(&Asked<'_>) -> Result<Answer, Refusal>,
}
