//! Who holds locks, from the spans and events in which tokio tells what becomes of them.

use super::locks;
use crate::pmus::waits::are_sampled;
use std::fmt;
use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id};
use tracing_core::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// The name of the span that a lock, or another thing that tasks wait for, has as long as it lives.
const RESOURCE: &str = "runtime.resource";
/// The target of the events that tell of a change of a resource, whose span is open then.
const CHANGE: &str = "runtime::resource::state_update";
/// The target of the events that tell how a poll ended of what awaits a resource.
const POLL: &str = "runtime::resource::poll_op";

/// A layer that knows which task holds the lock that others wait for: `tokio::sync::Mutex`, and `RwLock` where it is locked for writing.
///
/// Sampled waits that [go on](crate::sampler::RawWait::held_by) then name the task that holds the lock: of a task that waits for ever, that
/// is the one to look at. A lock whose guard has moved to another task is held by the task that took it.
///
/// Nothing is said of a lock that was made by `const_new`, which tokio does not tell of, and of one that has been handed to a waiting task
/// which is not polled any more. The layer must see all events from the making of a lock on: one that a filter hides for a while leaves a
/// holder behind. Locks are told apart by the numbers of their spans, so a process should have this layer in one subscriber.
///
/// tokio says so only if the whole program is built with `RUSTFLAGS="--cfg tokio_unstable"` and tokio's feature `tracing`, and then with a
/// span or an event for each step of each lock and channel, which costs far more than this layer. The layer has to be there before a
/// lock is made, and sees spans and events of the level `TRACE`; other layers that do not want them need a filter of their own:
///
/// ```
/// use pertask::tracing::LockLayer;
/// use tracing_subscriber::filter::LevelFilter;
/// use tracing_subscriber::layer::{Layer, SubscriberExt};
///
/// # struct Logs;
/// # impl<S: tracing::Subscriber> Layer<S> for Logs {}
/// let subscriber = tracing_subscriber::registry()
///     .with(LockLayer::new())
///     .with(Logs.with_filter(LevelFilter::INFO));
/// # let _subscribed = tracing::subscriber::set_default(subscriber);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct LockLayer(());

impl LockLayer {
    /// Makes the layer.
    #[must_use]
    pub fn new() -> Self {
        Self(())
    }
}

impl<S> Layer<S> for LockLayer
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        if attributes.metadata().name() == RESOURCE {
            let mut said = Said::default();
            attributes.record(&mut said);
            if said.is_lock {
                locks::made(id.into_non_zero_u64());
            }
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        if are_sampled() && context.metadata(id).is_some_and(|span| span.name() == RESOURCE) {
            locks::entered(id.into_non_zero_u64());
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let target = event.metadata().target();
        if target != CHANGE && target != POLL {
            return;
        }
        let mut said = Said::default();
        event.record(&mut said);
        let resource = || {
            let mut open = context.event_scope(event)?;
            Some(open.find(|span| span.name() == RESOURCE)?.id().into_non_zero_u64())
        };
        match said {
            Said { is_locked: Some(true), .. } => resource().into_iter().for_each(locks::taken),
            Said { is_locked: Some(false), .. } => resource().into_iter().for_each(locks::released),
            Said { is_ready: Some(false), .. } => resource().into_iter().for_each(locks::awaited),
            _ => {}
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        if context.span(&id).is_some_and(|span| span.name() == RESOURCE) {
            locks::gone(id.into_non_zero_u64());
        }
    }
}

/// What the fields of a span or an event say.
#[derive(Default)]
struct Said {
    is_lock: bool,
    is_locked: Option<bool>,
    is_ready: Option<bool>,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.is_lock |= field.name() == "concrete_type" && matches!(value, "Mutex" | "RwLock");
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        match field.name() {
            "locked" | "write_locked" => self.is_locked = Some(value),
            "is_ready" => self.is_ready = Some(value),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}
