//! `pertask record`: samples of a program that has nothing of pertask in it.

mod options;

use std::{
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, ExitCode, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use pertask::profile::{GroupBy, Profile, SummaryStyle};
use pertask_outside::{Launch, Recorder};
use pertask_text::human::counted;
use tokio::runtime::Runtime;

use crate::{
    error::Error,
    output::{note, print, stdout_style},
    profile_file::ProfilePath,
    progress::Progress,
    report::{Shown, show_types},
    stop::Stop,
};

pub use options::{ABOUT, HELP, LONG_ABOUT, RecordOptions};

/// The longest wait for samples.
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
pub fn run_until(options: &RecordOptions, asked: &AtomicBool) -> Result<ExitCode, Error> {
    let (mut recorder, child) = start(options)?;
    record(&mut recorder, options.duration, asked)?;
    // Where the process sees its files, as long as it is there.
    let folder = PathBuf::from(format!("/proc/{}/root", recorder.process()));
    let profile = recorder.finish();
    match options.unresolved {
        true => options.output.iter().try_for_each(|file| file.write(&profile))?,
        false => show(profile, folder, options)?,
    }
    child.map_or(Ok(ExitCode::SUCCESS), |child| status(child, asked))
}

/// Returns what becomes true once the user asks to stop.
///
/// # Errors
///
/// Returns [`Error::Signals`] if nobody can listen for signals.
pub fn stopped(runtime: &Runtime) -> Result<Arc<AtomicBool>, Error> {
    let asked = Arc::new(AtomicBool::new(false));
    let mut stop = runtime.block_on(async { Stop::on_signals() })?;
    let tell = Arc::clone(&asked);
    runtime.spawn(async move {
        stop.asked().await;
        // Relaxed: nothing else depends on when it is seen.
        tell.store(true, Ordering::Relaxed);
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
fn record(
    recorder: &mut Recorder,
    most: Option<Duration>,
    asked: &AtomicBool,
) -> Result<(), Error> {
    let began = Instant::now();
    let (mut progress, mut drawn) = (Progress::new(), began);
    // Relaxed: see `stopped`.
    while !asked.load(Ordering::Relaxed) && recorder.is_alive() {
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

/// Finds the names, prints the tables, and writes the files.
fn show(profile: Profile, folder: PathBuf, options: &RecordOptions) -> Result<(), Error> {
    let mut profile = options.symbols.named_from(profile, &[folder]);
    if options.full_names {
        show_types(&mut profile);
    }
    let terminal = stdout_style();
    let max_rows = if options.top == 0 { usize::MAX } else { options.top };
    let (width, color) = (terminal.width, terminal.color);
    let style = SummaryStyle { width, color, max_rows, whole_names: options.full_names };
    let shown = Shown { whole: &profile, part: None };
    print(&shown.text(&[GroupBy::Site, GroupBy::Function], style))?;
    // One file that fails does not keep the others from being written.
    let written: Vec<_> = options.output.iter().map(|file| file.write(&profile)).collect();
    written.into_iter().collect()
}

/// Waits for the program that was started, and returns its status.
fn status(mut child: Child, asked: &AtomicBool) -> Result<ExitCode, Error> {
    let ended = child.try_wait().map_err(Error::Wait)?;
    let ended = match ended {
        Some(ended) => ended,
        None => {
            // Relaxed: see `stopped`.
            if !asked.load(Ordering::Relaxed) {
                note(format_args!("the program goes on; waiting for its end"));
            }
            child.wait().map_err(Error::Wait)?
        }
    };
    Ok(code(ended))
}

fn code(ended: ExitStatus) -> ExitCode {
    let by_signal = || ended.signal().map(|signal| 128 + signal);
    let code = ended.code().or_else(by_signal).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
