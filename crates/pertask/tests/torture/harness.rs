//! What the scenarios share: a child process for each, a watchdog, and sessions whose sums are checked.

use pertask::sampler::{Mechanism, RawProfile, Sampler, SamplerOptions};
use std::any::type_name;
use std::hint::black_box;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Names the scenario and the mechanism to a child.
const SCENARIO: &str = "PERTASK_TORTURE_SCENARIO";

/// What a child says when all is well. A child that ran no test would say nothing.
const SURVIVED: &str = "survived to the end";

/// What it says when there is something that it could not do.
const SKIPPED: &str = "NOT TESTED";

/// A scenario that takes longer hangs: some hundred times what it takes on an idle machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// The rate, unless a scenario is about rates.
pub const HZ: u32 = 4_000;

/// How a child ended, and what it said.
pub struct Ending {
    pub status: ExitStatus,
    pub output: String,
}

/// Runs the scenario for each mechanism, in a child, which must survive.
#[track_caller]
pub fn torture<F: FnOnce(Mechanism)>(scenario: F) {
    torture_how(scenario, |mechanism, ending| {
        let survived = ending.status.success() && ending.output.contains(SURVIVED);
        assert!(survived, "{mechanism}: {}\n{}", ending.status, ending.output);
    });
}

/// The same, but `judge` says how it should end.
#[track_caller]
pub fn torture_how<F: FnOnce(Mechanism)>(scenario: F, judge: impl Fn(Mechanism, &Ending)) {
    torture_with(scenario, |_| {}, judge);
}

/// The same, of a child that is started in a certain way.
#[track_caller]
pub fn torture_with<F: FnOnce(Mechanism)>(
    scenario: F,
    prepare: impl Fn(&mut Command),
    judge: impl Fn(Mechanism, &Ending),
) {
    // The closure's name has the test's in it.
    let name = type_name::<F>();
    let name = name.split_once("::").map_or(name, |(_, name)| name);
    let test = name.strip_suffix("::{{closure}}").unwrap_or(name);
    if let Ok(wanted) = std::env::var(SCENARIO) {
        let which: usize = wanted.parse().expect("a mechanism's number");
        scenario(Mechanism::ALL[which]);
        say(SURVIVED);
        return;
    }
    for (which, mechanism) in Mechanism::ALL.into_iter().enumerate() {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", test, "--nocapture"]).env(SCENARIO, which.to_string());
        prepare(&mut child);
        let ending = watch(&mut child);
        for line in ending.output.lines().filter(|line| line.contains(SKIPPED)) {
            say(&format!("{test}: {mechanism}: {line}"));
        }
        judge(mechanism, &ending);
    }
}

/// Whether this is a scenario's child.
pub fn in_child() -> bool {
    std::env::var_os(SCENARIO).is_some()
}

/// Runs it to its end, and kills it when there is none: a hang is a failure.
#[track_caller]
pub fn watch(command: &mut Command) -> Ending {
    let (mut read, write) = std::io::pipe().unwrap();
    command.stdin(Stdio::null()).stdout(write.try_clone().unwrap()).stderr(write);
    // A group of its own, to be killed with all that it has started.
    let mut child = command.process_group(0).spawn().unwrap();
    // The write ends that the command still has.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let number = child.id();
    let (tell, told) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut output = Vec::new();
        let _ = read.read_to_end(&mut output);
        String::from_utf8_lossy(&output).into_owned()
    });
    thread::spawn(move || tell.send(child.wait()));
    let ended = told.recv_timeout(PATIENCE);
    let hung = ended.is_err().then(|| threads_of(number));
    // SAFETY: kills the group that was made above: what is left of it.
    unsafe { libc::kill(-number.cast_signed(), libc::SIGKILL) };
    let status = ended.unwrap_or_else(|_| told.recv().unwrap()).unwrap();
    let output = reader.join().unwrap();
    if let Some(threads) = hung {
        panic!("hangs:\n{threads}\n{output}");
    }
    Ending { status, output }
}

/// What each of a process's threads is waiting for.
fn threads_of(process: u32) -> String {
    let all = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    all.map(|thread| {
        let file = |name| read(thread.path().join(name)).trim().to_owned();
        let number = thread.file_name();
        let (name, waits, call) = (file("comm"), file("wchan"), file("syscall"));
        format!("{}: {name} in {waits} {call}\n", number.to_string_lossy())
    })
    .collect()
}

impl Ending {
    pub fn skipped(&self) -> bool {
        self.output.contains(SKIPPED)
    }

    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

/// To the terminal, whatever captures prints.
pub fn say(what: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// Says that something was not tested, and why.
pub fn skip(why: &str) {
    say(&format!("{SKIPPED}: {why}"));
}

/// `count`, or more of it for a long soak.
pub fn rounds(count: usize) -> usize {
    let factor = std::env::var("PERTASK_TORTURE_ROUNDS").ok().and_then(|text| text.parse().ok());
    count * factor.unwrap_or(1)
}

pub fn options(mechanism: Mechanism, frequency_hz: u32) -> SamplerOptions {
    let mut options = SamplerOptions::with_frequency(frequency_hz);
    options.allocations = true;
    options.mechanism = Some(mechanism);
    options
}

/// Begins to sample by that mechanism. `None` after it has said that the machine cannot.
pub fn start(mechanism: Mechanism) -> Option<Sampler> {
    start_with(options(mechanism, HZ))
}

/// The same, as the options say.
pub fn start_with(options: SamplerOptions) -> Option<Sampler> {
    match Sampler::start(options) {
        Ok(sampler) => Some(sampler),
        Err(refused) => {
            skip(&refused.to_string());
            None
        }
    }
}

/// The same, where it could a moment ago: only chance may refuse it now.
pub fn start_again(options: SamplerOptions) -> Option<Sampler> {
    match Sampler::start(options) {
        Ok(sampler) => Some(sampler),
        // A timer's, that no tick has met in time.
        Err(chance) if chance.to_string().contains("no signal comes") => {
            skip(&chance.to_string());
            None
        }
        Err(refused) => panic!("{refused}"),
    }
}

/// Has `work` done in a session of its own, twice as much each time, until so many samples are as `met` counts them: few ticks of a
/// timer's meet a thread that waits for its turn. `None` where that mechanism cannot.
#[track_caller]
pub fn sample_enough(
    mechanism: Mechanism,
    enough: usize,
    work: impl Fn(usize),
    met: impl Fn(&RawProfile) -> usize,
) -> Option<RawProfile> {
    let mut sampler = start(mechanism)?;
    for times in [1, 2, 4, 8, 16] {
        work(times);
        let profile = stop(sampler);
        if met(&profile) >= enough {
            return Some(profile);
        }
        sampler = start_again(options(mechanism, HZ))?;
    }
    panic!("{mechanism}: not {enough} samples of so much work");
}

/// Stops, and checks that there were samples and that their sums are right.
#[track_caller]
pub fn stop(sampler: Sampler) -> RawProfile {
    // Some ticks of a timer's.
    spin(30);
    let profile = sampler.stop();
    check_sums(&profile);
    if profile.samples.is_empty() && missed_by_ticks(&profile) {
        skip(
            "no tick has met a thread of ours: other programs want the CPUs, and take them at ticks",
        );
        return profile;
    }
    assert!(!profile.samples.is_empty(), "{:?} by {}", profile.lost, profile.mechanism);
    profile
}

/// Whether it may be chance that a timer gave no samples: where a thread loses its CPU every millisecond, a tick in twenty
/// was seen to meet it.
fn missed_by_ticks(profile: &RawProfile) -> bool {
    const CERTAIN_NS: u64 = 1_000_000_000;
    profile.mechanism.starts_with(&Mechanism::Timer.to_string())
        && profile.process_cpu_ns < CERTAIN_NS
}

/// No time is told twice, and what is in no sample is told of.
#[track_caller]
pub fn check_sums(profile: &RawProfile) {
    let carried = profile.carried_cpu_ns();
    let whole = profile.process_cpu_ns;
    // What the kernel has not yet counted for the process at the end, on each CPU.
    const UNSEEN: u64 = 20_000_000;
    assert!(carried <= whole + whole / 100 + UNSEEN, "{carried} ns of {whole}: {:?}", profile.lost);
    assert_eq!(profile.lost.unsampled_cpu_ns, whole.saturating_sub(carried));
}

pub fn thread_cpu_ns() -> u64 {
    cpu_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn cpu_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which is ours.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Uses the CPU for so many milliseconds of this thread's time.
#[inline(never)]
pub fn spin(milliseconds: u64) {
    let start = thread_cpu_ns();
    while thread_cpu_ns() - start < milliseconds * 1_000_000 {
        for round in 0..2_000 {
            black_box(round);
        }
    }
}

pub fn gettid() -> u32 {
    // SAFETY: no arguments, no memory.
    unsafe { libc::gettid() }.cast_unsigned()
}

/// Numbers without a pattern, the same each time.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// What the process does with a signal.
pub fn action(signal: i32) -> libc::sigaction {
    // SAFETY: numbers, pointers and bits; the kernel fills it in.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut action);
        action
    }
}

/// Has the process do something else with a signal: a handler, `SIG_DFL` or `SIG_IGN`.
pub fn set_action(signal: i32, handler: usize, flags: i32) {
    // SAFETY: as above, and the tests' handlers are good for any moment.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        (action.sa_sigaction, action.sa_flags) = (handler, flags);
        assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0);
    }
}

/// The handlers of all signals that a program may have.
pub fn all_handlers() -> Vec<usize> {
    let mine = (1..=64).filter(|signal| ![32, 33].contains(signal));
    mine.map(|signal| action(signal).sa_sigaction).collect()
}

/// What the open descriptors refer to, the one that reads the list among them.
pub fn open_files() -> Vec<std::path::PathBuf> {
    let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    all.filter_map(|file| std::fs::read_link(file.path()).ok()).collect()
}

/// How many entries a folder has.
pub fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// The number after that word in `/proc/self/status`.
pub fn status(word: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let rest = text.lines().find_map(|line| line.strip_prefix(word)).unwrap();
    rest.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

/// Blocks all signals in this thread that can be blocked.
pub fn block_all() {
    // SAFETY: a set of ours, filled in before it is used.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Lets all signals reach this thread.
pub fn unblock_all() {
    // SAFETY: as above.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// The status that a child of the process's ended with.
pub fn wait_for(child: i32) -> ExitStatus {
    let mut status = 0;
    loop {
        // SAFETY: a child of ours, and a place for its status.
        let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
        if ended == child {
            return ExitStatus::from_raw(status);
        }
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EINTR));
    }
}
