//! `pertask record`: samples of a program, by its agent, or from outside if it has nothing of pertask in it.

mod inside;
mod live;
mod options;
mod program;

use std::{
    os::unix::process::ExitStatusExt,
    process::{Child, ExitCode, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use pertask::{
    profile::{Profile, SummaryStyle},
    sampler::SamplerOptions,
};
use pertask_outside::{Launch, Recorder};
use pertask_text::human::counted;
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;

use crate::{
    agent::Agent,
    error::Error,
    output::{note, print, stdout_style},
    places,
    profile_file::ProfilePath,
    progress::Progress,
    report::{Shown, group_by, show_types},
    stop::Stop,
};

pub use live::Samples;
pub use program::Files;

pub use options::{ABOUT, HELP, LONG_ABOUT, RecordOptions};

/// No signal.
pub const NOT_ASKED: i32 = 0;

/// The longest wait for samples, and for the end of a program.
const TURN: Duration = Duration::from_millis(50);

/// Records a program, and shows its tasks.
///
/// # Errors
///
/// Returns an [`Error`] if nothing can be recorded, or a file cannot be written.
pub fn run(options: &RecordOptions) -> Result<ExitCode, Error> {
    // This comes before recording, so that a bad path costs no run.
    options.output.iter().try_for_each(ProfilePath::probe)?;
    // The runtime stays until the end, so that it hears a second Ctrl-C while the tables are printed.
    let runtime = Runtime::new().map_err(Error::Runtime)?;
    let asked = stopped(&runtime)?;
    run_until(options, &asked)
}

/// Records a program until somebody asks to stop, and shows its tasks.
///
/// # Errors
///
/// Returns an [`Error`] if nothing can be recorded, or a file cannot be written.
pub fn run_until(options: &RecordOptions, asked: &AtomicI32) -> Result<ExitCode, Error> {
    let process = options.pid.unwrap_or(0);
    let agent = options.pid.map_or(Ok(None), |pid| agent_of(pid, options))?;
    if let Some(agent) = agent {
        note(format_args!("recording process {process} by its agent (Ctrl-C ends it)"));
        let files = Files::of(process);
        finish(inside::profile(&agent, options, asked)?, &files, options)?;
        return Ok(ExitCode::SUCCESS);
    }
    for (is_asked, what, option) in [
        (options.waits, "where its tasks wait", "--waits"),
        (options.allocations, "where its tasks allocate", "--allocations"),
    ] {
        if is_asked {
            return Err(Error::Agent(format!(
                "process {process} has no agent, and from outside nobody sees {what}: call pertask::init() in its main, or leave out {option}"
            )));
        }
    }
    let (mut recorder, child) = start(options)?;
    record(&mut recorder, options.duration, asked)?;
    let files = Files::of(recorder.process());
    finish(recorder.finish(), &files, options)?;
    child.map_or(Ok(ExitCode::SUCCESS), |child| status(child, asked))
}

/// Returns the agent that records the process, if it has one.
fn agent_of(process: u32, options: &RecordOptions) -> Result<Option<Agent>, Error> {
    if options.outside {
        return Ok(None);
    }
    let agent = Agent::find(process).unwrap_or_else(|why| {
        note(format_args!("recording from outside, as its agent does not answer: {why}"));
        None
    });
    if agent.is_some() && options.frequency > SamplerOptions::HIGHEST_HZ {
        return Err(Error::Agent(format!(
            "the agent of process {process} takes at most {} samples a second: lower -F, or add --outside",
            SamplerOptions::HIGHEST_HZ
        )));
    }
    Ok(agent)
}

/// Returns what becomes the number of the signal by which the user asks to stop.
///
/// # Errors
///
/// Returns [`Error::Signals`] if nobody can listen for signals.
pub fn stopped(runtime: &Runtime) -> Result<Arc<AtomicI32>, Error> {
    let asked = Arc::new(AtomicI32::new(NOT_ASKED));
    let mut stop = runtime.block_on(async { Stop::on_signals() })?;
    let tell = Arc::clone(&asked);
    runtime.spawn(async move {
        let signal = stop.asked().await;
        // Relaxed: nothing else depends on when it is seen.
        tell.store(signal, Ordering::Relaxed);
    });
    Ok(asked)
}

fn start(options: &RecordOptions) -> Result<(Recorder, Option<Child>), Error> {
    let wanted = options.recorder();
    let Some((program, arguments)) = options.program.split_first() else {
        let recorder =
            Recorder::attach(options.pid.unwrap_or(0), &wanted).map_err(Error::Record)?;
        note(format_args!("recording process {} (Ctrl-C ends it)", recorder.process()));
        return Ok((recorder, None));
    };
    let Launch { child, recorder } =
        Launch::start(program, arguments, &wanted).map_err(Error::Record)?;
    note(format_args!("recording {} (process {})", program.display(), recorder.process()));
    Ok((recorder, Some(child)))
}

/// Records until the time is over, the process has ended, or the user asks to stop.
fn record(recorder: &mut Recorder, most: Option<Duration>, asked: &AtomicI32) -> Result<(), Error> {
    let began = Instant::now();
    let (mut progress, mut drawn) = (Progress::new(), began);
    // Relaxed: see `stopped`.
    while asked.load(Ordering::Relaxed) == NOT_ASKED && recorder.is_alive() {
        let left = most.map(|most| most.saturating_sub(began.elapsed()));
        if left == Some(Duration::ZERO) {
            break;
        }
        recorder.turn(left.map_or(TURN, |left| left.min(TURN))).map_err(Error::Record)?;
        if progress.is_visible() && drawn.elapsed() >= Progress::PERIOD {
            drawn = Instant::now();
            let samples = counted(recorder.samples(), "sample");
            progress.draw(&format!("{:.1}s, {samples}", began.elapsed().as_secs_f64()));
        }
    }
    Ok(())
}

/// Writes the profile, and shows it if its names are wanted.
fn finish(profile: Profile, files: &Files, options: &RecordOptions) -> Result<(), Error> {
    match options.unresolved {
        true => options.output.iter().try_for_each(|file| file.write(&profile)),
        false => show(profile, files, options),
    }
}

/// Finds the names, prints the tables, and writes the files.
fn show(profile: Profile, files: &Files, options: &RecordOptions) -> Result<(), Error> {
    let mut profile = options.symbols.named_from(profile, files.folders());
    if options.full_names {
        show_types(&mut profile);
    }
    let terminal = stdout_style();
    let max_rows = if options.top == 0 { usize::MAX } else { options.top };
    let (width, color) = (terminal.width, terminal.color);
    let style = SummaryStyle { width, color, max_rows, whole_names: options.full_names };
    let shown = Shown { whole: &profile, part: None };
    print(&shown.text(&group_by(&options.by, &profile), style))?;
    if let Some(table) = places::of_waits(&profile, style) {
        print(&format!("\n{table}\n"))?;
    }
    if let Some(table) = places::of_allocations(&profile, style) {
        print(&format!("\n{table}\n"))?;
    }
    // One file that fails does not keep the others from being written.
    let written: Vec<_> = options.output.iter().map(|file| file.write(&profile)).collect();
    written.into_iter().collect()
}

/// Waits for the program that was started, and returns its status.
///
/// # Errors
///
/// Returns [`Error::Wait`] if the kernel does not say how it ended.
pub fn status(mut child: Child, asked: &AtomicI32) -> Result<ExitCode, Error> {
    if let Some(ended) = child.try_wait().map_err(Error::Wait)? {
        return Ok(code(ended));
    }
    note(format_args!("the program goes on; waiting for its end"));
    let mut is_told = false;
    loop {
        // A terminal's Ctrl-C has reached the program itself. Whoever asks with SIGTERM knows this process alone.
        // Relaxed: see `stopped`.
        if !is_told && asked.load(Ordering::Relaxed) == Signal::TERM.as_raw() {
            is_told = true;
            let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            // It may have ended by now.
            let _ = process.map(|process| kill_process(process, Signal::TERM));
        }
        if let Some(ended) = child.try_wait().map_err(Error::Wait)? {
            return Ok(code(ended));
        }
        thread::sleep(TURN);
    }
}

fn code(ended: ExitStatus) -> ExitCode {
    let by_signal = || ended.signal().map(|signal| 128 + signal);
    let code = ended.code().or_else(by_signal).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
