//! How the program is told of a poll.

use super::support::{self, alone};
use super::{THRESHOLD, options, rows};
use pertask::watch::{BlockingPoll, Watch};
use pertask::{BlockedState, TaskExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A poll that goes on until the program is told of it.
fn block_until_told(told: &AtomicBool) {
    while !told.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(200));
    }
}

/// How many polls are tried until one is told of as blocked. Beside other programs, a poll may still have no CPU to begin its sleep with.
const TRIES: u32 = 50;

#[test]
fn the_program_is_told_while_the_poll_lasts_and_when_it_is_over() {
    let _alone = alone();
    assert!((0..TRIES).any(|_| is_told_of_a_blocked_poll()), "none of {TRIES} polls was blocked");
}

/// Runs a poll, and checks what the program is told of it. Returns whether that was a poll that blocks, not one without a CPU.
fn is_told_of_a_blocked_poll() -> bool {
    let told = Arc::new(AtomicBool::new(false));
    let polls: Arc<Mutex<Vec<(BlockingPoll, String)>>> = Arc::default();
    let tell = {
        let (told, polls) = (Arc::clone(&told), Arc::clone(&polls));
        move |poll: &BlockingPoll| {
            let thread = thread::current().name().unwrap_or_default().to_owned();
            polls.lock().unwrap().push((poll.clone(), thread));
            told.store(true, Ordering::Relaxed);
        }
    };
    let watch = Watch::start_with(options(), tell).unwrap();
    let task = async { block_until_told(&told) }.task("told").labels([("tenant", "acme")]);
    let id = task.handle().unwrap().id();
    support::run(task);
    let report = watch.stop();
    let polls = polls.lock().unwrap();
    let [(first, thread), (last, _)] = &polls[..] else { panic!("{polls:#?}") };
    assert_eq!(thread, "pertask-watch");
    assert!(!first.has_ended() && last.has_ended());
    assert_eq!((first.task(), first.tid()), (id, support::thread_number()));
    assert_eq!(first.labels().get("tenant"), Some("acme"));
    assert_eq!(first.site().name.as_deref(), Some("told"));
    assert!(last.duration() >= first.duration());
    let row = rows(&report, "told")[0];
    assert_eq!(u128::from(row.max_ns), last.duration().as_nanos());
    assert_eq!((&*row.labels[0].key, &*row.labels[0].value), ("tenant", "acme"));
    if first.state() == BlockedState::NotScheduled {
        return false;
    }
    assert_eq!((first.state(), first.call()), (BlockedState::Blocked, Some("clock_nanosleep")));
    let line = first.to_string();
    assert!(line.starts_with("told blocks its worker for "), "{line}");
    assert!(
        line.contains(" ms, blocked in clock_nanosleep at ") && line.contains("told.rs:"),
        "{line}"
    );
    assert!(last.to_string().starts_with("told blocked its worker for "), "{last}");
    true
}

#[test]
fn a_panic_of_the_programs_function_ends_there_and_is_counted() {
    let _alone = alone();
    let told = Arc::new(AtomicU64::new(0));
    let tell = {
        let told = Arc::clone(&told);
        move |_: &BlockingPoll| {
            told.fetch_add(1, Ordering::Relaxed);
            panic!("on purpose");
        }
    };
    let watch = Watch::start_with(options(), tell).unwrap();
    // Each poll is told of twice, of its end perhaps while the next one lasts.
    for first in [1, 3] {
        let lasts = async {
            while told.load(Ordering::Relaxed) < first {
                thread::sleep(THRESHOLD);
            }
        };
        support::run(lasts.task("panics"));
    }
    let report = watch.stop();
    assert_eq!(rows(&report, "panics").iter().map(|row| row.polls).sum::<u64>(), 2);
    let counted = "the function that is told of blocking polls panicked 4 times";
    assert!(report.remarks.iter().any(|remark| remark == counted), "{:?}", report.remarks);
}

#[cfg(feature = "tracing")]
#[test]
fn tracing_is_told() {
    use pertask::watch::trace;
    use std::fmt::Debug;
    use tracing::field::{Field, Visit};
    use tracing_subscriber::layer::{Context, SubscriberExt};
    use tracing_subscriber::{Layer, Registry};

    #[derive(Default)]
    struct Fields(Vec<(String, String)>);
    impl Visit for Fields {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            self.0.push((field.name().to_owned(), format!("{value:?}")));
        }
    }
    struct Told(Arc<AtomicBool>, Arc<Mutex<Vec<Fields>>>);
    impl Layer<Registry> for Told {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, Registry>) {
            if event.metadata().target() == "pertask::watch" {
                let mut fields = Fields::default();
                event.record(&mut fields);
                // Before the event can be seen: whoever has seen it may take this back for the next poll.
                self.0.store(true, Ordering::Relaxed);
                self.1.lock().unwrap().push(fields);
            }
        }
    }

    let _alone = alone();
    let (told, events) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let layer = Told(Arc::clone(&told), Arc::clone(&events));
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let watch = Watch::start_with(options(), trace).unwrap();
    let mut first = Fields::default();
    for _ in 0..TRIES {
        told.store(false, Ordering::Relaxed);
        support::run(async { block_until_told(&told) }.task("traced"));
        support::wait_until("it is told twice", || events.lock().unwrap().len() >= 2);
        let [begun, _] = <[Fields; 2]>::try_from(std::mem::take(&mut *events.lock().unwrap()))
            .unwrap_or_else(|events| panic!("{} events", events.len()));
        first = begun;
        if !first.0.iter().any(|(name, it)| name == "state" && it.contains("not_scheduled")) {
            break;
        }
    }
    drop(watch);
    let has = |name: &str, text: &str| {
        let text = text.to_owned();
        assert!(first.0.iter().any(|(known, it)| known == name && it.contains(&text)), "{name}");
    };
    has("message", "traced blocks its worker for");
    has("name", "traced");
    has("state", "blocked");
    has("call", "clock_nanosleep");
    has("ended", "false");
    has("at", "told.rs:");
    has("duration_ms", ".");
}
