//! `pertask demo`: a web service, its clients, and a session that watches both.

mod clients;
mod routes;
mod service;

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use pertask::{CounterEvent, Report, SessionOptions};
use tokio::{runtime::Runtime, time};

use crate::{
    cli::{DemoOptions, Event},
    demo::{
        clients::{Clients, Tally},
        service::Service,
    },
    error::Error,
    output::{Destination, Format, note},
    progress::Progress,
    stop::Stop,
};

/// Runs the demo and writes its report.
///
/// # Errors
///
/// Whatever keeps the report from being complete and true; see [`Error`].
pub fn run(options: &DemoOptions) -> Result<(), Error> {
    let path = options.output.as_deref();
    let destination = Destination::open(path)?;
    // Kept to the end, because a second Ctrl-C must be heard while the report is written.
    let runtime = Runtime::new().map_err(Error::Runtime)?;
    let seen = runtime.block_on(serve_and_measure(options))?;
    destination.write(&seen.report, Format::choose(options.json, path), options.tree)?;
    seen.complaint.map_or(Ok(()), Err)
}

/// A report, and what went wrong without costing it.
struct Seen {
    report: Report,
    complaint: Option<Error>,
}

async fn serve_and_measure(options: &DemoOptions) -> Result<Seen, Error> {
    let mut stop = Stop::on_signals()?;
    let service = Service::start(options.port).await?;
    note(format_args!("serving on http://{}", service.address()));

    let mut clients = Clients::start(service.address(), options.clients);
    tokio::select! {
        ready = clients.warmed_up() => ready?,
        () = stop.asked() => return Err(Error::StoppedTooSoon),
    }

    let before = clients.tally();
    let measured = SessionOptions {
        counters: counters(&options.events),
        wake_latency: options.wake_latency,
        ..SessionOptions::default()
    };
    let session = measured.start().map_err(Error::Measure)?; // pertask 3/3: measure every task of the process
    note(format_args!(
        "measuring {} for {:?} (Ctrl-C ends it early)",
        names(&options.events),
        options.duration
    ));
    watch(&clients, options.duration, &mut stop).await;
    let report = session.stop();
    let during = clients.tally().since(&before);

    // The service ends after its clients, or it would have to hang up on them.
    let answers = clients.stop().await;
    service.stop().await;
    note(format_args!("{}", summary(&during, Duration::from_nanos(report.duration_ns))));
    Ok(Seen { report, complaint: answers.err() })
}

/// Lets the time pass, showing it, until it is over or the user asks to stop.
async fn watch(clients: &Clients, duration: Duration, stop: &mut Stop) {
    let (started, before) = (Instant::now(), clients.tally());
    let mut progress = Progress::new();
    let mut redraw = time::interval(Progress::PERIOD);
    let mut over = pin!(time::sleep(duration));
    let mut asked = pin!(stop.asked());
    loop {
        tokio::select! {
            () = &mut over => return,
            () = &mut asked => {
                progress.clear();
                return note(format_args!("stopping early (once more to quit without a report)"));
            }
            _ = redraw.tick(), if progress.is_visible() => {
                let (elapsed, so_far) = (started.elapsed(), clients.tally().since(&before));
                progress.draw(&format!("{:.1}s of {duration:?}, {}", elapsed.as_secs_f64(), rate(&so_far, elapsed)));
            }
        }
    }
}

fn summary(tally: &Tally, elapsed: Duration) -> String {
    let failed = match tally.failed {
        0 => "none failed".to_owned(),
        failed => format!("{failed} FAILED"),
    };
    format!("measured {:.1}s: {}, {failed}", elapsed.as_secs_f64(), rate(tally, elapsed))
}

fn rate(tally: &Tally, elapsed: Duration) -> String {
    let per_second = tally.total() as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    format!("{} requests ({per_second:.0}/s)", tally.total())
}

fn counters(events: &[Event]) -> Vec<CounterEvent> {
    let counters = events.iter().filter_map(|event| match event {
        Event::Counter(event) => Some(event.clone()),
        Event::CpuTime => None,
    });
    counters.collect()
}

/// What is measured, each once: asking twice counts no more. CPU time always is.
fn names(events: &[Event]) -> String {
    let mut names = vec![Event::CpuTime.name()];
    for event in events {
        if !names.contains(&event.name()) {
            names.push(event.name());
        }
    }
    names.join(", ")
}
