//! Perf events per task: what a task does is counted for that task, whatever the machine offers to count with.

#![cfg(target_os = "linux")]

mod support;

use pertask::{
    Counter, CounterEvent, CounterSource, Counters, Error, Event, Inherit, Report, SessionOptions,
    TaskExt, Tracked,
};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::process::Command;
use std::sync::mpsc;
use std::task::{Context, Poll};
use support::{Puppet, alone, loudly, poll_once, run};

fn events(names: &[&str]) -> Vec<CounterEvent> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// A future that runs `turn` at each poll, and is never ready.
struct Turns<F>(F);

impl<F: FnMut() + Unpin> Future for Turns<F> {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        (self.0)();
        Poll::Pending
    }
}

/// Touches fresh pages: each is a fault.
fn touch_pages(pages: usize) {
    let length = pages * 4096;
    // SAFETY: a new private mapping, at an address of the kernel's choice.
    let memory = unsafe {
        let memory = libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(memory, libc::MAP_FAILED);
        // Huge pages would make one fault of many.
        libc::madvise(memory, length, libc::MADV_NOHUGEPAGE);
        memory.cast::<u8>()
    };
    for page in 0..pages {
        // SAFETY: within the mapping.
        unsafe { memory.add(page * 4096).write_volatile(1) };
    }
    // SAFETY: mapped above, not used any more.
    unsafe { libc::munmap(memory.cast(), length) };
}

fn attach<F>(counters: &Counters, task: &Tracked<F>) -> Event<pertask::CountersPmu> {
    counters.handle().attach_task(task.handle().unwrap(), Inherit::No).unwrap()
}

fn value<'a>(values: &'a [Counter], event: &str) -> &'a Counter {
    values.iter().find(|counter| counter.event == event).unwrap()
}

fn source<'a>(sources: &'a [CounterSource], event: &str) -> &'a CounterSource {
    sources.iter().find(|source| source.event == event).unwrap()
}

/// Page faults of a task that has 300 and of one that has none, polled in turn; `with` selects how they are counted.
fn faults_of_two_tasks(with: &[&str]) -> (u64, u64) {
    let counters = Counters::open(&events(with)).unwrap();
    let mut busy = pin!(Turns(|| touch_pages(100)).task("busy"));
    let mut idle = pin!(Turns(|| ()).task("idle"));
    let (of_busy, of_idle) = (attach(&counters, &busy), attach(&counters, &idle));
    for _ in 0..3 {
        let _ = poll_once(busy.as_mut());
        let _ = poll_once(idle.as_mut());
    }
    let faults =
        |event: &Event<_>| value(&counters.values(&event.read()), "page-faults").count.unwrap();
    (faults(&of_busy), faults(&of_idle))
}

#[test]
fn page_faults_are_the_tasks_that_had_them() {
    let _turn = alone();
    // By getrusage, and, beside an event that only perf has, by a group; where perf is refused, by getrusage too.
    for with in [&["page-faults"][..], &["page-faults", "task-clock"]] {
        let (busy, idle) = faults_of_two_tasks(with);
        assert!((300..320).contains(&busy), "{with:?}: {busy}");
        assert!(idle < 10, "{with:?}: {idle}");
    }
}

#[test]
fn context_switches_are_counted_also_where_perf_shows_none() {
    let _turn = alone();
    let counters = Counters::open(&events(&["context-switches", "task-clock"])).unwrap();
    let wait = || {
        // Waits for another thread: at least one switch.
        std::thread::scope(|scope| drop(scope.spawn(|| black_box(1)).join()));
    };
    let mut waits = pin!(Turns(wait).task("waits"));
    let event = attach(&counters, &waits);
    for _ in 0..50 {
        let _ = poll_once(waits.as_mut());
    }
    let switches = value(&counters.values(&event.read()), "context-switches").count.unwrap();
    assert!(switches >= 25, "{switches} in 50 waits");
}

#[test]
fn a_poll_under_way_is_in_the_report() {
    let _turn = alone();
    for names in [&["page-faults"][..], &["page-faults", "task-clock"]] {
        let worker = Puppet::new("worker");
        let (tell, told) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let turn = move || {
            for _ in 0..2 {
                tell.send(()).unwrap();
                may_go_on.recv().unwrap();
                touch_pages(200);
            }
            tell.send(()).unwrap();
            may_go_on.recv().unwrap();
        };
        let ended = worker.begins(move || {
            let _ = poll_once(pin!(Turns(turn).task("long poll")));
        });
        told.recv().unwrap();
        // Attached in the midst of the poll: what comes from here on counts.
        go_on.send(()).unwrap();
        told.recv().unwrap();
        let options = SessionOptions { counters: events(names), ..SessionOptions::default() };
        let session = options.start().unwrap();
        let faults = |report: &Report| {
            value(&support::row(report, "long poll").counters, "page-faults").count.unwrap()
        };
        let before = faults(&session.snapshot());
        go_on.send(()).unwrap();
        told.recv().unwrap();
        let during = faults(&session.snapshot());
        go_on.send(()).unwrap();
        ended.recv().unwrap();
        let after = faults(&session.stop());
        assert!(before < 20, "{names:?}: {before} before");
        assert!((200..240).contains(&during), "{names:?}: {during} during the poll");
        assert!((during..during + 20).contains(&after), "{names:?}: {during}, then {after}");
        worker.ends();
    }
}

#[test]
fn a_session_that_begins_in_a_poll_which_another_saw_begin_counts_from_its_own_start() {
    let _turn = alone();
    for names in [&["page-faults"][..], &["page-faults", "task-clock"]] {
        count_in_a_poll_which_another_session_saw_begin(names);
    }
}

fn count_in_a_poll_which_another_session_saw_begin(names: &[&str]) {
    let session = || {
        let counters = events(names);
        SessionOptions { counters, ..SessionOptions::default() }.start().unwrap()
    };
    let worker = Puppet::new("worker");
    worker.does(|| run(async {}.task("makes it a worker")));
    let (tell, told) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let first = session();
    // What the closed counters had counted is not taken for what the new ones have.
    worker.does(|| touch_pages(500));
    let turn = move || {
        for _ in 0..2 {
            touch_pages(200);
            tell.send(()).unwrap();
            may_go_on.recv().unwrap();
        }
    };
    let ended = worker.begins(move || {
        let _ = poll_once(pin!(Turns(turn).task("longer than a session")));
    });
    told.recv().unwrap();
    drop(first);
    // All counters are closed now, and opened anew.
    let second = session();
    go_on.send(()).unwrap();
    told.recv().unwrap();
    let faults = |report: &Report| {
        let row = support::row(report, "longer than a session");
        value(&row.counters, "page-faults").count.unwrap()
    };
    let during = faults(&second.snapshot());
    go_on.send(()).unwrap();
    ended.recv().unwrap();
    let after = faults(&second.stop());
    assert!((200..240).contains(&during), "{during} during the poll");
    assert!((during..during + 20).contains(&after), "{during}, then {after}");
    worker.ends();
}

#[test]
fn snapshots_beside_short_polls_count_each_poll_once() {
    let _turn = alone();
    let stop = support::StopOnDrop::default();
    let flag = stop.flag();
    let options =
        SessionOptions { counters: events(&["page-faults"]), ..SessionOptions::default() };
    let session = options.start().unwrap();
    let worker = Puppet::new("worker");
    let polls = worker.begins(move || {
        let mut task = pin!(Turns(|| touch_pages(50)).task("short polls"));
        let mut polls = 0;
        while !flag.load(std::sync::atomic::Ordering::SeqCst) {
            let _ = poll_once(task.as_mut());
            polls += 1;
        }
        polls
    });
    let faults = |report: &Report| {
        let row = report.sites.iter().find(|row| row.name.as_deref() == Some("short polls"));
        row.map_or(0, |row| value(&row.counters, "page-faults").count.unwrap())
    };
    let mut last = 0;
    for _ in 0..500 {
        let now = faults(&session.snapshot());
        // One counted twice would be missing from the next.
        assert!(now >= last, "{last}, then {now}");
        last = now;
    }
    drop(stop);
    let polls: u64 = polls.recv().unwrap();
    let all = faults(&session.stop());
    assert!((polls * 50..polls * 51 + 100).contains(&all), "{all} in {polls} polls");
    worker.ends();
}

#[test]
fn workers_that_begin_later_are_counted_and_those_that_end_keep_their_counts() {
    let _turn = alone();
    let options = SessionOptions {
        counters: events(&["minor-faults", "task-clock"]),
        ..SessionOptions::default()
    };
    let session = options.start().unwrap();
    for _ in 0..3 {
        let worker = Puppet::new("late");
        worker.does(|| run(async { touch_pages(100) }.task("on a late worker")));
        worker.ends();
    }
    let report = session.stop();
    let row = support::row(&report, "on a late worker");
    let faults = value(&row.counters, "minor-faults").count.unwrap();
    assert!((300..330).contains(&faults), "{faults}");
    assert_eq!(report.lost.workers_without_counters, 0);
    assert_eq!(report.lost.turns_without_counters, 0);
}

#[test]
fn a_session_ends_with_all_its_descriptors_closed() {
    let _turn = alone();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let worker = Puppet::new("worker");
    worker.does(|| run(async {}.task("makes it a worker")));
    let before = open();
    let options = SessionOptions { counters: events(&["task-clock"]), ..SessionOptions::default() };
    let session = options.start().unwrap();
    if source(&session.snapshot().counters, "task-clock").source.is_none() {
        return loudly("SKIPPED: perf is refused, so nothing is opened");
    }
    assert!(open() > before, "nothing was opened");
    drop(session);
    assert_eq!(open(), before);
    worker.ends();
}

#[test]
fn a_set_is_shared_and_a_third_one_is_refused() {
    let _turn = alone();
    let open = |names: &[&str]| Counters::open(&events(names));
    let first = open(&["page-faults", "minor-faults"]).unwrap();
    let again = open(&["minor-faults", "page-faults"]).unwrap();
    let second = open(&["major-faults"]).unwrap();
    let busy = open(&["context-switches"]).unwrap_err();
    assert!(matches!(busy, Error::CountersBusy { sets: 2 }), "{busy}");
    drop(first);
    assert!(open(&["context-switches"]).is_err(), "somebody still uses the first set");
    drop(again);
    drop(open(&["context-switches"]).unwrap());
    // The first place is free, and what is counted in the second is joined there.
    let joined = open(&["major-faults"]).unwrap();
    drop(open(&["context-switches"]).unwrap());
    drop((second, joined));
    let known: Vec<_> = CounterEvent::known().collect();
    let too_many = open(&known).unwrap_err();
    assert!(matches!(too_many, Error::TooManyEvents { limit: 12, .. }), "{too_many}");
}

#[test]
fn counts_come_in_the_order_in_which_they_were_asked_for() {
    let _turn = alone();
    let first = Counters::open(&events(&["page-faults", "minor-faults"])).unwrap();
    let again = Counters::open(&events(&["minor-faults", "page-faults", "faults"])).unwrap();
    let names = |counters: &Counters| {
        counters.sources().into_iter().map(|source| source.event).collect::<Vec<_>>()
    };
    assert_eq!(names(&first), ["page-faults", "minor-faults"]);
    assert_eq!(names(&again), ["minor-faults", "page-faults"], "each once");
    let values = again.values(&pertask::CounterCounts::default());
    assert_eq!(values[0].event, "minor-faults");
}

#[test]
fn a_child_of_fork_goes_on_polling() {
    let _turn = alone();
    let with_pages = || {
        // SAFETY: this process is the test's own, and nothing else of it reads the environment now.
        unsafe { std::env::set_var("PERTASK_CLOCK", "perf-page") }
    };
    if !in_a_process_of_its_own("a_child_of_fork_goes_on_polling", with_pages) {
        return;
    }
    let options = SessionOptions { counters: events(&["task-clock"]), ..SessionOptions::default() };
    let session = options.start().unwrap();
    let mut task = pin!(Turns(|| instructions(100_000)).task("forks"));
    let _ = poll_once(task.as_mut());
    // SAFETY: the child runs this thread alone, which holds no lock, and ends at once.
    let child = unsafe { libc::fork() };
    if child == 0 {
        for _ in 0..100 {
            let _ = poll_once(task.as_mut());
        }
        // SAFETY: ends the child.
        unsafe { libc::_exit(7) };
    }
    let mut status = 0;
    // SAFETY: waits for our child; the status is ours.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "the child: {status:#x}");
    let _ = poll_once(task.as_mut());
    assert!(support::row(&session.stop(), "forks").cpu_ns > 0);
}

#[test]
fn two_sessions_count_the_same_task_each_from_its_own_start() {
    let _turn = alone();
    let options =
        || SessionOptions { counters: events(&["page-faults"]), ..SessionOptions::default() };
    let faults = |report: &Report| {
        value(&support::row(report, "shared").counters, "page-faults").count.unwrap()
    };
    let first = options().start().unwrap();
    let mut task = pin!(Turns(|| touch_pages(100)).task("shared"));
    let _ = poll_once(task.as_mut());
    let second = options().start_on([task.handle().unwrap()], Inherit::No).unwrap();
    let _ = poll_once(task.as_mut());
    let (of_first, of_second) = (faults(&first.stop()), faults(&second.stop()));
    assert!((200..220).contains(&of_first), "{of_first}");
    assert!((100..110).contains(&of_second), "{of_second}");
}

#[test]
fn what_cannot_be_counted_says_why() {
    let _turn = alone();
    let counters = Counters::open(&events(&["context-switches:u", "cpu-migrations:u"])).unwrap();
    for source in counters.sources() {
        assert_eq!(source.source, None, "{source:?}");
        assert!(source.refused.is_some_and(|reason| !reason.is_empty()));
    }
    let mut task = pin!(Turns(|| ()).task("nothing"));
    let event = attach(&counters, &task);
    let _ = poll_once(task.as_mut());
    assert!(counters.values(&event.read()).iter().all(|counter| counter.count.is_none()));
}

/// Runs one test of this file again, in a process of its own, after `prepare` has run there.
fn in_a_process_of_its_own(test: &str, prepare: impl FnOnce()) -> bool {
    const CHILD: &str = "PERTASK_TEST_CHILD";
    if std::env::var(CHILD).is_ok_and(|child| child == test) {
        prepare();
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    text.lines().filter(|line| line.contains("SKIPPED")).for_each(loudly);
    false
}

/// From here on, this thread and those that it starts are refused `perf_event_open`, as by a container's filter.
fn forbid_perf() {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    let rules = [(libc::SYS_perf_event_open, Vec::new())].into();
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

#[test]
fn with_perf_refused_by_a_filter_the_rest_is_counted_and_the_report_says_so() {
    if !in_a_process_of_its_own(
        "with_perf_refused_by_a_filter_the_rest_is_counted_and_the_report_says_so",
        forbid_perf,
    ) {
        return;
    }
    let names = ["page-faults", "context-switches", "cpu-migrations", "task-clock", "cycles"];
    let options = SessionOptions { counters: events(&names), ..SessionOptions::default() };
    let session = options.start().unwrap();
    run(async { touch_pages(100) }.task("touches"));
    let report = session.stop();
    let row = support::row(&report, "touches");
    let faults = value(&row.counters, "page-faults");
    assert!((100..120).contains(&faults.count.unwrap()) && !faults.estimated, "{faults:?}");
    assert!(value(&row.counters, "cpu-migrations").estimated);
    for event in ["task-clock", "cycles"] {
        assert_eq!(value(&row.counters, event).count, None);
        let refused = source(&report.counters, event).refused.clone().unwrap();
        assert!(refused.contains("EPERM") && refused.contains("seccomp"), "{refused}");
    }
    let switches = source(&report.counters, "context-switches");
    assert!(switches.source.as_ref().unwrap().contains("getrusage"), "{switches:?}");
}

#[test]
fn an_unprivileged_user_sees_no_zero_that_is_none() {
    let become_nobody = || {
        // SAFETY: plain calls; this process is the test's own.
        let refused = unsafe { libc::setgid(65534) != 0 || libc::setuid(65534) != 0 };
        if refused {
            loudly("this user cannot become another: the test runs as who it is");
        }
    };
    if !in_a_process_of_its_own("an_unprivileged_user_sees_no_zero_that_is_none", become_nobody) {
        return;
    }
    let names = ["context-switches", "cpu-migrations", "task-clock", "page-faults"];
    let options = SessionOptions { counters: events(&names), ..SessionOptions::default() };
    let session = options.start().unwrap();
    let wait = || std::thread::scope(|scope| drop(scope.spawn(|| black_box(1)).join()));
    let mut waits = pin!(Turns(wait).task("waits"));
    for _ in 0..50 {
        let _ = poll_once(waits.as_mut());
    }
    let report = session.stop();
    let counters = &support::row(&report, "waits").counters;
    let switches = value(counters, "context-switches").count.unwrap();
    assert!(switches >= 25, "{switches} in 50 waits: {:?}", report.counters);
    let clock = source(&report.counters, "task-clock");
    let paranoid =
        std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    if paranoid.trim().parse::<i32>().is_ok_and(|level| level == 2) {
        assert!(clock.source.as_ref().unwrap().contains("user mode only"), "{clock:?}");
        assert!(clock.refused.as_ref().unwrap().contains("perf_event_paranoid is 2"), "{clock:?}");
        assert!(value(counters, "cpu-migrations").estimated);
    } else {
        loudly(&format!("SKIPPED in part: kernel.perf_event_paranoid is {paranoid}"));
    }
}

#[test]
fn a_worker_whose_counters_do_not_open_is_reported_with_the_reason() {
    let few_descriptors = || {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: one rlimit, ours; this process is the test's own.
        unsafe {
            libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
            limit.rlim_cur = 16;
            assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
        }
    };
    let test = "a_worker_whose_counters_do_not_open_is_reported_with_the_reason";
    if !in_a_process_of_its_own(test, few_descriptors) {
        return;
    }
    let workers: Vec<_> = (0..12).map(|_| Puppet::new("worker")).collect();
    for worker in &workers {
        worker.does(|| run(async {}.task("makes it a worker")));
    }
    let options = SessionOptions { counters: events(&["task-clock"]), ..SessionOptions::default() };
    let session = options.start().unwrap();
    if source(&session.snapshot().counters, "task-clock").source.is_none() {
        return loudly("SKIPPED: perf is refused, so nothing is opened");
    }
    for (n, worker) in workers.iter().enumerate() {
        worker.does(|| run(async { black_box(1) }.task("short of descriptors")));
        worker.does(move || run(async { black_box(1) }.task(format!("only on {n}"))));
    }
    let report = session.stop();
    let row = support::row(&report, "short of descriptors");
    let clock = value(&row.counters, "task-clock");
    assert!(clock.estimated && clock.count.is_some(), "some of the turns were counted: {clock:?}");
    let lost = &report.lost;
    assert!((1..12).contains(&lost.workers_without_counters), "{lost:?}");
    assert_eq!(lost.turns_without_counters, 2 * lost.workers_without_counters, "{lost:?}");
    // What ran there alone has no count; that is not zero.
    let only = report
        .sites
        .iter()
        .filter(|row| row.name.as_ref().is_some_and(|name| name.starts_with("only on")));
    let (counted, not): (Vec<_>, Vec<_>) =
        only.map(|row| value(&row.counters, "task-clock").count).partition(Option::is_some);
    assert_eq!(not.len() as u64, lost.workers_without_counters, "{counted:?}");
    let refused = source(&report.counters, "task-clock").refused.clone().unwrap();
    assert!(refused.contains("EMFILE") && refused.contains("ulimit -n"), "{refused}");
    // The rest is the program's.
    let left: Vec<_> = (0..4).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    drop(left);
}

/// Executes four instructions for each of `turns`, and some to get there.
#[inline(never)]
fn instructions(turns: u64) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: counts a register down.
    unsafe {
        std::arch::asm!("2:", "nop", "nop", "dec {0}", "jnz 2b", inout(reg) turns => _, options(nomem, nostack));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: counts a register down.
    unsafe {
        std::arch::asm!("2:", "nop", "nop", "subs {0}, {0}, #1", "b.ne 2b", inout(reg) turns => _, options(nomem, nostack));
    }
}

/// The hardware events that count here, if the machine has any at all; with `PERTASK_COUNTERS_ALL` it must.
fn hardware(names: &[&str]) -> Option<Counters> {
    let counters = Counters::open(&events(names)).unwrap();
    let refused = |source: &CounterSource| source.source.is_none();
    if let Some(none) = counters.sources().iter().find(|source| refused(source)) {
        let reason = none.refused.as_deref().unwrap_or_default();
        assert!(std::env::var_os("PERTASK_COUNTERS_ALL").is_none(), "{}: {reason}", none.event);
        loudly(&format!("SKIPPED: no hardware event {} here: {reason}", none.event));
        return None;
    }
    Some(counters)
}

/// By how much a turn's count may differ from another's with the same instructions: a page that had to be read again.
const UNEVEN: u64 = 200;

/// What a turn is charged beyond its own instructions: what stands between the two readings. Measured by a task whose turns
/// have next to none; a debug build has some thousands.
fn cost_of_a_turn(counters: &Counters, turns: u64) -> u64 {
    let mut empty = pin!(Turns(|| instructions(1)).task("empty"));
    let event = attach(counters, &empty);
    for _ in 0..turns {
        let _ = poll_once(empty.as_mut());
    }
    counters.values(&event.read())[0].count.unwrap() / turns - 4
}

#[test]
fn a_task_is_charged_its_own_instructions_whatever_runs_between_and_wherever_it_runs() {
    let _turn = alone();
    let Some(counters) = hardware(&["instructions:u", "cycles:u"]) else { return };
    const TURNS: u64 = 20;
    let cost = cost_of_a_turn(&counters, TURNS);
    let mut known = Box::pin(Turns(|| instructions(50_000)).task("known"));
    let event = attach(&counters, &known);
    let workers = [Puppet::new("one"), Puppet::new("two")];
    for turn in 0..TURNS {
        // Others run between its turns, as tasks and as none; and every third turn is on another thread.
        instructions(10_000 * turn + 1);
        run(async move { instructions(20_000 * turn + 1) }.task("other"));
        if turn % 3 == 0 {
            let worker = &workers[usize::try_from(turn).unwrap() % 2];
            known = worker.does(move || {
                let _ = poll_once(known.as_mut());
                known
            });
        } else {
            let _ = poll_once(known.as_mut());
        }
    }
    let values = counters.values(&event.read());
    let counted = value(&values, "instructions:u");
    assert!(!counted.estimated, "{counted:?}");
    let (count, own) = (counted.count.unwrap(), TURNS * 50_000 * 4);
    let off = count.abs_diff(own + TURNS * cost);
    assert!(off <= TURNS * UNEVEN, "{count}, not {own} and {TURNS} times {cost}");
    assert!(value(&values, "cycles:u").count.unwrap() > 0);
    let by = source(&counters.sources(), "instructions:u").source.clone().unwrap_or_default();
    loudly(&format!("{own} instructions in {TURNS} turns: {off} off, beside {cost} a turn; {by}"));
    workers.into_iter().for_each(Puppet::ends);
}

#[test]
fn nested_tasks_are_charged_each_their_own_instructions() {
    let _turn = alone();
    let Some(counters) = hardware(&["instructions:u"]) else { return };
    let cost = cost_of_a_turn(&counters, 10);
    let mut inner = Box::pin(Turns(|| instructions(1_000_000)).task("inner"));
    let of_inner = attach(&counters, &inner);
    let mut outer = pin!(
        Turns(|| {
            instructions(300_000);
            let _ = poll_once(inner.as_mut());
            instructions(300_000);
        })
        .task("outer")
    );
    let of_outer = attach(&counters, &outer);
    let _ = poll_once(outer.as_mut());
    for (event, own) in [(&of_inner, 4_000_000), (&of_outer, 2_400_000)] {
        let count = counters.values(&event.read())[0].count.unwrap();
        assert!((own..own + 4 * (cost + UNEVEN)).contains(&count), "{count}, not {own}");
    }
}

#[test]
fn more_events_than_counters_are_multiplexed_scaled_and_marked() {
    let _turn = alone();
    // Turns longer than the kernel's between groups, and much shorter ones.
    for (turns, loops) in [(40, 3_000_000), (1_500, 40_000)] {
        let Some(single) = hardware(&["instructions:u"]) else { return };
        let cost = cost_of_a_turn(&single, 10);
        drop(single);
        // Twelve, so that no usual processor counts all at once; the raw ones are what they like.
        let names = [
            "instructions:u",
            "cycles:u",
            "r8:u",
            "r11:u",
            "r0:u",
            "r1:u",
            "r2:u",
            "r3:u",
            "r4:u",
            "r10:u",
            "r12:u",
            "r13:u",
        ];
        let Some(counters) = hardware(&names) else { return };
        let mut known = pin!(Turns(|| instructions(loops)).task("known"));
        let event = attach(&counters, &known);
        for _ in 0..turns {
            let _ = poll_once(known.as_mut());
        }
        let values = counters.values(&event.read());
        if values.iter().all(|counter| !counter.estimated) {
            return loudly("SKIPPED: this processor counts twelve events at once");
        }
        let counted = value(&values, "instructions:u");
        let (count, own) = (counted.count.unwrap(), turns * (loops * 4 + cost));
        let off = count.abs_diff(own) as f64 / own as f64;
        let estimated = counted.estimated;
        loudly(&format!(
            "{turns} turns, multiplexed: {:.2} % off, estimated: {estimated}",
            off * 100.0
        ));
        assert!(off < 0.15, "{count}, not {own}");
        assert!(estimated || off < 0.01, "{counted:?}");
    }
}

#[test]
fn a_forced_read_counts_the_same_as_user_space() {
    // SAFETY: this process is the test's own, and has one thread that looks.
    let force = || unsafe { std::env::set_var("PERTASK_COUNTERS", "read") };
    if !in_a_process_of_its_own("a_forced_read_counts_the_same_as_user_space", force) {
        return;
    }
    let Some(counters) = hardware(&["instructions:u"]) else { return };
    let how = source(&counters.sources(), "instructions:u").source.clone().unwrap();
    assert_eq!(how, "perf, a read at each switch");
    let cost = cost_of_a_turn(&counters, 10);
    let mut known = pin!(Turns(|| instructions(1_000_000)).task("known"));
    let event = attach(&counters, &known);
    let _ = poll_once(known.as_mut());
    let count = counters.values(&event.read())[0].count.unwrap();
    let off = count.abs_diff(4_000_000 + cost);
    assert!(off <= UNEVEN, "{count}, not 4,000,000 and {cost}");
}
