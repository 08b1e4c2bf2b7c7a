//! What [`tracing`](https://docs.rs/tracing)'s spans tell: scopes, so that a program that has spans needs no scopes of its own
//! ([`ScopeLayer`]); and who holds the locks that tasks wait for ([`LockLayer`], with the feature `sampler`).
//!
//! ```
//! use pertask::{CallStack, TaskExt, current_scopes, tracing::ScopeLayer};
//! use tracing::Instrument;
//! use tracing_subscriber::layer::SubscriberExt;
//!
//! let subscriber = tracing_subscriber::registry().with(ScopeLayer::new());
//! let _subscribed = tracing::subscriber::set_default(subscriber);
//! let recording = CallStack::record()?;
//! let parse = async { assert_eq!(current_scopes().concat(), "parse") };
//! futures::executor::block_on(parse.instrument(tracing::info_span!("parse")).task("GET /"));
//! # Ok::<(), pertask::Error>(())
//! ```
//!
//! While nobody records scopes, `ScopeLayer` adds the cost of one load to entering a span. While scopes are recorded, the layer takes
//! no lock and allocates nothing, except when it meets a span of a new place in the source.

#[cfg(feature = "sampler")]
pub use super::lock_layer::LockLayer;
use crate::pmus::call_stack::{self, CallStack};
use papaya::HashMap;
use std::sync::LazyLock;
use tracing_core::span::Id;
use tracing_core::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// The numbers of spans' names, by the address of the spans' metadata: one for each place in the source that makes spans.
static NUMBERS: LazyLock<HashMap<usize, u32>> = LazyLock::new(HashMap::new);

/// A layer that turns spans into scopes: a task that enters a span enters a scope with the span's name.
///
/// A task keeps its spans while other tasks run, even those that a guard wrongly holds across `.await`. A program may leave spans
/// in any order, as long as the stack is no deeper than [`MAX_SCOPES`](crate::MAX_SCOPES). An instrumented future leaves its span
/// after each poll and enters it again at the next: the span then has its old place, outside the scopes that are open in it. The
/// layer does not know spans that were entered while nobody recorded scopes.
///
/// To turn only some spans into scopes, filter the layer: `ScopeLayer::new().with_filter(LevelFilter::INFO)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScopeLayer(());

impl ScopeLayer {
    /// Makes the layer.
    #[must_use]
    pub fn new() -> Self {
        Self(())
    }
}

impl<S> Layer<S> for ScopeLayer
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        if CallStack::is_recording() {
            context.metadata(id).map(number_of).into_iter().for_each(call_stack::enter_number);
        }
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        if CallStack::is_recording() {
            context.metadata(id).map(number_of).into_iter().for_each(call_stack::leave_number);
        }
    }
}

/// The number of a span's name.
fn number_of(metadata: &'static Metadata<'static>) -> u32 {
    let place = std::ptr::from_ref(metadata).addr();
    let numbers = NUMBERS.pin();
    *numbers.get_or_insert_with(place, || call_stack::number_of(metadata.name()))
}
