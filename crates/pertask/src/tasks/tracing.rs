//! Scopes from [`tracing`](https://docs.rs/tracing)'s spans: whoever has instrumented a program need not do so again.
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
//! While nobody records scopes, entering a span costs a look at a number more than without the layer. While somebody does,
//! it takes no lock and allocates nothing, but for the first time that a span's place in the source is met.

use crate::pmus::call_stack::{self, CallStack};
use papaya::HashMap;
use std::sync::LazyLock;
use tracing_core::span::Id;
use tracing_core::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// The numbers of spans' names, by where the spans' metadata is: one for each place in the source that makes spans.
static NUMBERS: LazyLock<HashMap<usize, u32>> = LazyLock::new(HashMap::new);

/// A layer that enters a scope of a span's name when a task enters the span, and leaves it when the task leaves the span.
///
/// A task keeps its spans while others run, also those that a guard wrongly holds across `.await`. Spans may be left in another
/// order than that in which they were entered, as far as the stack is no deeper than [`MAX_SCOPES`](crate::MAX_SCOPES). An
/// instrumented future leaves its span after each poll: entered again, the span is where it was, outside the scopes that are
/// open in it. A span that was entered while nobody recorded scopes is not known later.
///
/// To have scopes of some spans only, filter it as any layer:
/// `ScopeLayer::new().with_filter(LevelFilter::INFO)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScopeLayer(());

impl ScopeLayer {
    /// The layer.
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
