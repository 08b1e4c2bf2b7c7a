//! `pertask demo`: a web service, its clients, and a session that watches both.

mod clients;
mod plain;
mod routes;
mod serve;
mod service;

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use pertask::{
    CounterEvent, Report, SessionOptions, TableStyle,
    profile::{Profile, SummaryStyle},
    sampler::{RawProfile, Sampler, SamplerOptions},
    watch::{Watch, WatchOptions},
};
use pertask_text::human::{self, counted};
use tokio::{runtime::Runtime, time};

use crate::{
    cli::{DemoOptions, Event},
    demo::{
        clients::{Clients, Tally},
        service::Service,
    },
    error::Error,
    output::{Format, note, print, print_report, stdout_style},
    places,
    profile_file::ProfilePath,
    progress::Progress,
    stop::Stop,
};

/// Runs the demo and writes its report.
///
/// # Errors
///
/// Returns an [`Error`] if the report is not complete and true, or a file cannot be written.
pub fn run(options: &DemoOptions) -> Result<(), Error> {
    // This comes before measuring, so that a bad path costs no run.
    options.output.iter().try_for_each(ProfilePath::probe)?;
    if options.serve_plain {
        return plain::serve(options.port);
    }
    if options.plain {
        return plain::run(options);
    }
    if options.serve {
        return serve::run(options);
    }
    // The runtime stays until the end, so that it hears a second Ctrl-C while the report is written.
    let runtime = Runtime::new().map_err(Error::Runtime)?;
    let seen = runtime.block_on(serve_and_measure(options))?;
    let format = if options.json { Format::Json } else { Format::Table };
    print_report(&seen.report, format, options.tree)?;
    if let Some(sampled) = &seen.sampled {
        show_sampled(sampled, options)?;
    }
    seen.complaint.map_or(Ok(()), Err)
}

/// The results of a run, with an error that did not spoil them.
struct Seen {
    report: Report,
    sampled: Option<RawProfile>,
    complaint: Option<Error>,
}

async fn serve_and_measure(options: &DemoOptions) -> Result<Seen, Error> {
    let mut stop = Stop::on_signals()?;
    let service = Service::start(options.port).await?;
    note(format_args!("serving on http://{}", service.address()));

    let mut clients = Clients::start(service.address(), options.clients);
    tokio::select! {
        ready = clients.warmed_up() => ready?,
        _ = stop.asked() => return Err(Error::StoppedTooSoon),
    }

    let before = clients.tally();
    let measured = SessionOptions {
        counters: counters(&options.events),
        wake_latency: options.wake_latency,
        life: options.life,
        memory: options.memory,
        ..SessionOptions::default()
    };
    let watched = start_watch(options)?;
    let sampler = start_sampler(options)?;
    let session = measured.start().map_err(Error::Measure)?; // pertask 3/3: measure every task of the process
    note(format_args!(
        "measuring {} for {:?} (Ctrl-C ends it early)",
        names(&options.events),
        options.duration
    ));
    watch(&clients, options.duration, &mut stop).await;
    let mut report = session.stop();
    let sampled = sampler.map(Sampler::stop);
    // This looks up names, which takes a while.
    report.blocked = watched.map(Watch::stop);
    let during = clients.tally().since(&before);

    // The service stops after its clients, because otherwise it would close their connections.
    let answers = clients.stop().await;
    service.stop().await;
    note(format_args!("{}", summary(&during, Duration::from_nanos(report.duration_ns))));
    Ok(Seen { report, sampled, complaint: answers.err() })
}

/// Starts the sampler if the options ask for a frequency, a file or lives.
fn start_sampler(options: &DemoOptions) -> Result<Option<Sampler>, Error> {
    if options.frequency.is_none() && options.output.is_empty() && !options.life {
        return Ok(None);
    }
    let mut wanted = SamplerOptions::default();
    wanted.frequency_hz = options.frequency.unwrap_or(wanted.frequency_hz);
    wanted.waits = options.life;
    Sampler::start(wanted).map(Some).map_err(Error::Measure)
}

/// Starts to watch for blocked workers if the options ask for them, or for lives.
fn start_watch(options: &DemoOptions) -> Result<Option<Watch>, Error> {
    let start = |threshold| Watch::start(WatchOptions { threshold, ..WatchOptions::default() });
    let default = options.life.then(|| WatchOptions::default().threshold);
    options.blocked.blocked.or(default).map(start).transpose().map_err(Error::Measure)
}

/// Prints where tasks wait, and writes the profile to each file, even if another one fails.
fn show_sampled(sampled: &RawProfile, options: &DemoOptions) -> Result<(), Error> {
    let shows_waits = options.life && !options.json;
    let profile = (!options.unresolved || shows_waits).then(|| sampled.resolve());
    if let Some(profile) = profile.as_ref().filter(|_| shows_waits) {
        print_waits(profile)?;
    }
    note(format_args!("{}", sampled_line(sampled)));
    let files = options.output.iter();
    let written: Vec<_> = match profile.filter(|_| !options.unresolved) {
        Some(profile) => files.map(|file| file.write(&profile)).collect(),
        None => files.map(|file| file.write_unresolved(sampled)).collect(),
    };
    written.into_iter().collect()
}

fn print_waits(profile: &Profile) -> Result<(), Error> {
    let TableStyle { width, color, .. } = stdout_style();
    let style = SummaryStyle { width, color, ..SummaryStyle::default() };
    places::of_waits(profile, style).map_or(Ok(()), |table| print(&format!("\n{table}\n")))
}

/// `1874 samples for 99.6% of 9.42 s of CPU time, 100.0% of them with whole stacks; perf cpu-clock with SIGTRAP, 199 Hz`
fn sampled_line(sampled: &RawProfile) -> String {
    let RawProfile { samples, unmet, lost, process_cpu_ns, mechanism, .. } = sampled;
    let carried: u64 = samples.iter().map(|sample| sample.cpu_ns).sum();
    let whole = (samples.len() as u64).saturating_sub(lost.incomplete_stacks);
    let without_sample = |kernel| {
        let of_kind = unmet.iter().filter(|unmet| unmet.kernel == kernel);
        of_kind.map(|unmet| unmet.cpu_ns).sum::<u64>()
    };
    let (in_kernel, unmet) = (without_sample(true), without_sample(false));
    let mut line = format!(
        "{} for {} of {} of CPU time, {} of them with whole stacks; {mechanism}",
        counted(samples.len() as u64, "sample"),
        human::percent(carried, *process_cpu_ns),
        human::duration_ns(*process_cpu_ns),
        human::percent(whole, samples.len() as u64),
    );
    if lost.dropped() > 0 {
        line += &format!("; {} dropped", counted(lost.dropped(), "sample"));
    }
    if lost.threads_not_sampled > 0 {
        line += &format!("; {} not sampled", counted(lost.threads_not_sampled, "thread"));
    }
    if in_kernel > 0 {
        let in_kernel = human::duration_ns(in_kernel);
        line += &format!("; {in_kernel} of it in the kernel and not sampled, an estimate");
    }
    if unmet > 0 {
        let unmet = human::duration_ns(unmet);
        line += &format!("; {unmet} of it was measured and has no sample");
    }
    line
}

/// Shows the progress until the time is over or the user asks to stop.
async fn watch(clients: &Clients, duration: Duration, stop: &mut Stop) {
    let (started, before) = (Instant::now(), clients.tally());
    let mut progress = Progress::new();
    let mut redraw = time::interval(Progress::PERIOD);
    let mut over = pin!(time::sleep(duration));
    let mut asked = pin!(stop.asked());
    loop {
        tokio::select! {
            () = &mut over => return,
            _ = &mut asked => {
                progress.clear();
                return note(format_args!("stopping early (press Ctrl-C again to quit without a report)"));
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
    let elapsed_ns = elapsed.as_nanos().try_into().unwrap_or(u64::MAX);
    format!("measured {}: {}, {failed}", human::duration_ns(elapsed_ns), rate(tally, elapsed))
}

fn rate(tally: &Tally, elapsed: Duration) -> String {
    let per_second = tally.total() as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    format!("{} ({per_second:.0}/s)", counted(tally.total(), "request"))
}

fn counters(events: &[Event]) -> Vec<CounterEvent> {
    let counters = events.iter().filter_map(|event| match event {
        Event::Counter(event) => Some(event.clone()),
        Event::CpuTime => None,
    });
    counters.collect()
}

/// Returns the names of what is measured, each once. CPU time is always measured.
fn names(events: &[Event]) -> String {
    let mut names = vec![Event::CpuTime.name()];
    for event in events {
        if !names.contains(&event.name()) {
            names.push(event.name());
        }
    }
    names.join(", ")
}
