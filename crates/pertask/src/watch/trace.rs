//! Blocking polls as events of `tracing`.

use super::poll::BlockingPoll;
use crate::report::BlockedState;
use tracing_core::callsite::DefaultCallsite;
use tracing_core::field::{FieldSet, Value, display};
use tracing_core::{Event, Kind, Level, LevelFilter, Metadata, dispatcher, identify_callsite};

/// Tells `tracing` of a blocking poll: a warning with the target `pertask::watch`, for
/// [`Watch::start_with`](super::Watch::start_with).
///
/// The event's fields are `message`, `task` (its number), `name` and `site` of the task, `tid`, `labels`, `state`, `call`, `duration_ms`,
/// `cpu_ms`, `ended` and `at`, the program's own line. While no subscriber is interested, no name is looked up.
///
/// ```
/// use pertask::watch::{Watch, WatchOptions, trace};
///
/// let watch = Watch::start_with(WatchOptions::default(), trace)?;
/// # drop(watch);
/// # Ok::<(), pertask::Error>(())
/// ```
pub fn trace(poll: &BlockingPoll) {
    if Level::WARN > LevelFilter::current() || CALLSITE.interest().is_never() {
        return;
    }
    dispatcher::get_default(|dispatch| {
        if dispatch.enabled(&METADATA) {
            emit(poll);
        }
    });
}

const FIELDS: &[&str] = &[
    "message",
    "task",
    "name",
    "site",
    "tid",
    "labels",
    "state",
    "call",
    "duration_ms",
    "cpu_ms",
    "ended",
    "at",
];

static METADATA: Metadata<'static> = Metadata::new(
    "blocking poll",
    "pertask::watch",
    Level::WARN,
    Some(file!()),
    Some(line!()),
    Some(module_path!()),
    FieldSet::new(FIELDS, identify_callsite!(&CALLSITE)),
    Kind::EVENT,
);

static CALLSITE: DefaultCallsite = DefaultCallsite::new(&METADATA);

fn emit(poll: &BlockingPoll) {
    let (site, at) = (poll.site(), poll.place());
    let at = at.map(|frame| match (frame.file, frame.line, frame.function) {
        (Some(file), Some(line), _) => format!("{file}:{line}"),
        (_, _, function) => function.unwrap_or_default(),
    });
    let state = match poll.state() {
        BlockedState::Computing => "computing",
        BlockedState::Blocked => "blocked",
        BlockedState::NotScheduled => "not_scheduled",
    };
    let message = display(poll);
    let place = format!("{}:{}", site.file, site.line);
    let labels: Vec<_> =
        poll.labels().iter().map(|(key, value)| format!("{key}={value}")).collect();
    let labels = labels.join(" ");
    let (duration_ms, cpu_ms) = (milliseconds(poll.duration()), milliseconds(poll.cpu_time()));
    let (task, tid, ended) = (poll.task().get(), u64::from(poll.tid()), poll.has_ended());
    let (name, call, at) = (site.name.as_deref(), poll.call(), at.as_deref());
    fn some<T: Value>(value: &T) -> Option<&dyn Value> {
        Some(value)
    }
    fn text<'a>(text: &'a Option<&str>) -> Option<&'a dyn Value> {
        text.as_ref().map(|text| text as &dyn Value)
    }
    let values = [
        some(&message),
        some(&task),
        text(&name),
        some(&place),
        some(&tid),
        some(&labels),
        some(&state),
        text(&call),
        some(&duration_ms),
        some(&cpu_ms),
        some(&ended),
        text(&at),
    ];
    let fields = METADATA.fields();
    let field = |at: usize| fields.field(FIELDS[at]).expect("it is one of these");
    let fields_: [_; 12] = std::array::from_fn(field);
    let pairs: [_; 12] = std::array::from_fn(|at| (&fields_[at], values[at]));
    Event::dispatch(&METADATA, &fields.value_set(&pairs));
}

fn milliseconds(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
