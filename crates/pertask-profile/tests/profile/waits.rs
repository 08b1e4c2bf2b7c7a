//! Time off the CPU: what a user reads of it, and what it never changes of CPU time.

use std::time::Duration;

use pertask_profile::{
    Bounds, Comparison, Filter, Function, GroupBy, Line, Location, LocationId, Lost, Part,
    PprofFile, Profile, ProfileBuilder, ReadLimits, RootBy, Sample, State, Subject, SummaryStyle,
    TaskRef, Times,
};

use crate::example::{amount, builder, pprof, task};
use crate::go;

const TOKIO: &str = "/r/registry/src/index-1/tokio-1.54.1/src/sync.rs";
const LOCK: &str = "tokio::sync::Mutex<T>::lock";

/// `GET /render` computes for 50 ms, and waits for a lock 30 times, 600 ms in all, until `GET /hash` ends that, after which it is ready for
/// 20 ms. `GET /hash` waits for that lock 10 times, for 300 ms, sleeps twice, for 100 ms, and is blocked for 80 ms.
pub fn profile() -> Profile {
    profile_with(30)
}

/// Returns the profile with another number of waits for the lock by `GET /render`, of 20 ms each.
pub fn profile_with(waits: u64) -> Profile {
    let mut builder = builder();
    let main = place(&mut builder, "app::main", "src/main.rs", 7);
    let render = place(&mut builder, "app::render", "src/app.rs", 20);
    let query = place(&mut builder, "app::query::{{closure}}", "src/app.rs", 41);
    let lock = place(&mut builder, LOCK, TOKIO, 100);
    let sleep = place(&mut builder, "<Sleep as Future>::poll", TOKIO, 200);
    let pause = place(&mut builder, "app::pause::{{closure}}", "src/app.rs", 52);
    let words = place(&mut builder, "(off the CPU in a poll)", "", 0);
    let [first, second] = [(1, "GET /render", 80), (2, "GET /hash", 81)]
        .map(|(id, name, line)| Some(task(&mut builder, id, name, line)));
    let ms = |state, count, ms: u64| Sample { state, count, time_ns: ms * 1_000_000, ..amount(0) };
    let at_lock = vec![lock, query, main];
    let unlocked = second.clone().map(|task| TaskRef { id: None, ..task });
    let until_unlocked = Sample { woken_by: unlocked, ..ms(State::Waiting, waits, waits * 20) };
    for (sample, task, stack) in [
        (amount(5), &first, &[render, main][..]),
        (until_unlocked, &first, &at_lock),
        (ms(State::Ready, 0, 20), &first, &at_lock),
        (ms(State::Waiting, 10, 300), &second, &at_lock),
        (ms(State::Waiting, 2, 100), &second, &[sleep, pause, main]),
        (ms(State::Blocked, 0, 80), &second, &[words]),
    ] {
        builder.add(Sample { task: task.clone(), stack: stack.to_vec(), ..sample });
    }
    builder.finish(Duration::from_millis(2_500))
}

pub fn place(builder: &mut ProfileBuilder, name: &str, file: &str, line: u32) -> LocationId {
    let (name, file) = (builder.text(name), builder.text(file));
    let function = builder.function(Function { name, file, ..Function::default() });
    builder.location(Location { lines: vec![Line { function, line }], ..Location::default() })
}

fn text(profile: &Profile, by: &GroupBy) -> String {
    profile.summary(by).table(SummaryStyle::default()).to_string()
}

#[test]
fn places_say_what_is_awaited_where_and_by_whom() {
    let expected = "\
Places (% of 1.00 s of waiting time)
WAITING%  WAITING  WAITS  TASK       PLACE                        AT
   90.0%   900 ms     40  (several)  tokio::sync::Mutex<T>::lock  src/app.rs:41
   10.0%   100 ms      2  GET /hash  Sleep                        src/app.rs:52";
    let waiting = profile().in_state(State::Waiting);
    assert_eq!(text(&waiting, &GroupBy::Place), expected);
    let whole = SummaryStyle { whole_names: true, ..SummaryStyle::default() };
    let whole = waiting.summary(&GroupBy::Place).table(whole).to_string();
    assert!(whole.contains("<Sleep as Future>::poll      src/app.rs:52"), "{whole}");
}

#[test]
fn wakers_say_who_ends_waits() {
    let expected = "\
Who ends waits (% of 1.00 s of waiting time)
WAITING%  WAITING  WAITS  TASK         WOKEN BY
   60.0%   600 ms     30  GET /render  GET /hash
   40.0%   400 ms     12  GET /hash    (no task)";
    assert_eq!(text(&profile().in_state(State::Waiting), &GroupBy::Waker), expected);
}

/// Who holds what a task waits for at the end has not ended the wait, and is no waker.
#[test]
fn holders_of_locks_are_told_from_those_that_ended_waits() {
    let mut builder = builder();
    let query = place(&mut builder, "app::query::{{closure}}", "src/app.rs", 41);
    let [first, second] = [(1, "GET /render", 80), (2, "GET /hash", 81)]
        .map(|(id, name, line)| Some(task(&mut builder, id, name, line)));
    let other = second.map(|task| TaskRef { id: None, ..task });
    let wait = Sample {
        count: 1,
        time_ns: 40_000_000,
        state: State::Waiting,
        stack: vec![query],
        task: first,
        ..Sample::default()
    };
    builder.add(Sample { woken_by: other.clone(), ..wait.clone() });
    builder.add(Sample { held_by: other, time_ns: 60_000_000, ..wait });
    let profile = builder.finish(Duration::from_millis(100)).in_state(State::Waiting);
    let expected = "\
Who ends waits (% of 100 ms of waiting time)
WAITING%  WAITING  WAITS  TASK         WOKEN BY
   60.0%  60.0 ms      1  GET /render  holds lock: GET /hash
   40.0%  40.0 ms      1  GET /render  GET /hash";
    assert_eq!(text(&profile, &GroupBy::Waker), expected);
    let rows = profile.summary(&GroupBy::Waker).rows;
    let subjects = rows.iter().map(|row| row.subject.to_string()).collect::<Vec<_>>();
    assert_eq!(
        subjects,
        ["GET /render, waiting for a lock that GET /hash holds", "GET /render, woken by GET /hash"]
    );
}

#[test]
fn columns_say_what_the_time_is() {
    let waiting = "\
Tasks by site (% of 1.00 s of waiting time)
WAITING%  WAITING  WAITS  TASK         SITE
   60.0%   600 ms     30  GET /render  src/service.rs:80
   40.0%   400 ms     12  GET /hash    src/service.rs:81";
    // They have no counts, so they have no column for them.
    let ready = "\
Tasks by site (% of 20.0 ms of ready time)
READY%    READY  TASK         SITE
100.0%  20.0 ms  GET /render  src/service.rs:80";
    let blocked = "\
Tasks by site (% of 80.0 ms of blocked time)
BLOCKED%  BLOCKED  TASK       SITE
  100.0%  80.0 ms  GET /hash  src/service.rs:81";
    let of = [(State::Waiting, waiting), (State::Ready, ready), (State::Blocked, blocked)];
    for (state, expected) in of {
        assert_eq!(text(&profile().in_state(state), &GroupBy::Site), expected, "{state:?}");
    }
    let functions = text(&profile().in_state(State::Waiting), &GroupBy::Function);
    assert!(functions.starts_with("Functions (% of 1.00 s of waiting time)\nSELF%"), "{functions}");
    assert!(functions.contains("TOTAL  WAITS  FUNCTION"), "{functions}");
    let top = SummaryStyle { max_rows: 1, ..SummaryStyle::default() };
    let cut = profile().in_state(State::Waiting).summary(&GroupBy::Site).table(top).to_string();
    assert!(cut.ends_with("\n… and 1 more row, 400 ms waiting"), "{cut}");
}

#[test]
fn an_overview_counts_waits_and_how_many_tasks_waited() {
    let overview = |state| profile().in_state(state).overview(SummaryStyle::default()).to_string();
    assert_eq!(
        overview(State::Waiting),
        "1.00 s of waiting time in 42 waits over 2.50 s: 0.40 tasks waiting on average\n\
         from 2023-11-14 22:13:20 UTC; all stacks whole"
    );
    assert_eq!(
        overview(State::Blocked),
        "80.0 ms of blocked time over 2.50 s: 0.03 tasks blocked on average\n\
         from 2023-11-14 22:13:20 UTC"
    );
    assert!(overview(State::Ready).contains("20.0 ms of ready time over 2.50 s: 0.01 tasks ready"));
}

#[test]
fn lives_have_all_states_and_add_up() {
    let profile = profile();
    let lives = profile.lives(&GroupBy::Site);
    let expected = "\
Tasks by site: whole lives (% of each row)
  LIFE  ON CPU  BLOCKED  READY  WAITING                        TASK         SITE
670 ms    7.5%        -   3.0%    89.6%  █▒░░░░░░░░░░░░░░░░░░  GET /render  src/service.rs:80
480 ms       -    16.7%      -    83.3%  ▓▓▓░░░░░░░░░░░░░░░░░  GET /hash    src/service.rs:81
█ on cpu  ▓ blocked  ▒ ready  ░ waiting";
    assert_eq!(lives.table(SummaryStyle::default()).to_string(), expected);
    use GroupBy::{Function, Place, Scope, Site, Task, Thread, Waker};
    for by in [Site, Task, Function, Place, Thread, Waker, Scope] {
        let lives = profile.lives(&by);
        let mut sum = Times::default();
        for row in &lives.rows {
            sum.on_cpu_ns += row.own.on_cpu_ns;
            sum.blocked_ns += row.own.blocked_ns;
            sum.ready_ns += row.own.ready_ns;
            sum.waiting_ns += row.own.waiting_ns;
        }
        assert_eq!((sum, sum), (lives.whole, profile.times()), "{by:?}");
    }
    let of_life = profile.overview(SummaryStyle::default()).of_whole_life().to_string();
    let first = "1.15 s in all states over 2.50 s: 50.0 ms of CPU time, 80.0 ms of blocked time, 20.0 ms of ready time, 1.00 s of waiting time";
    assert_eq!(of_life.lines().next(), Some(first));
}

/// It tells of all that lived, also where no sample of CPU time has it.
#[test]
fn an_overview_of_lives_is_of_the_samples_of_all_states() {
    let mut builder = builder();
    let main = place(&mut builder, "app::main", "src/main.rs", 7);
    let waited = Sample {
        state: State::Waiting,
        count: 3,
        time_ns: 30_000_000,
        task: Some(task(&mut builder, 1, "GET /", 80)),
        labels: vec![(builder.text("tenant"), builder.text("acme"))],
        complete: false,
        ..Sample::default()
    };
    for sample in [amount(1), waited] {
        builder.add(Sample { stack: vec![main], ..sample });
    }
    builder.not_sampled(0, 3_000_000);
    let profile = builder.finish(Duration::from_millis(2_500));
    let overview =
        |profile: &Profile| profile.overview(SummaryStyle::default()).of_whole_life().to_string();
    assert_eq!(
        overview(&profile),
        "40.0 ms in all states (and 3.00 ms of CPU time not in the profile) over 2.50 s: 10.0 ms of CPU time, 30.0 ms of waiting time\n\
         from 2023-11-14 22:13:20 UTC; by hand; a sample each 10.0 ms of CPU time; 25.0% of the time in whole stacks\n\
         labels: tenant"
    );
    // Nobody asks a table of times for numbers of samples.
    let uncounted = Profile { has_counts: false, ..profile };
    assert!(!overview(&uncounted).contains("samples: "), "{}", overview(&uncounted));
}

/// In a state, the tasks at a place are those of that state. Together they are several.
#[test]
fn a_place_is_one_row_whatever_tasks_each_state_has_there() {
    let lives = profile().lives(&GroupBy::Place);
    let at_lock = lives.rows.iter().filter(|row| row.subject.to_string() == LOCK);
    let at_lock: Vec<_> = at_lock.collect();
    assert_eq!(at_lock.len(), 1);
    assert!(matches!(at_lock[0].subject, Subject::Place { task: None, .. }));
    assert_eq!((at_lock[0].own.ready_ns, at_lock[0].own.waiting_ns), (20_000_000, 900_000_000));
}

/// In a terminal of 80 columns, too, a place says what is awaited.
#[test]
fn names_of_places_are_short() {
    for (name, shown) in [
        (
            "<tokio::sync::oneshot::Receiver<T> as core::future::Future>::poll",
            "oneshot::Receiver<T>",
        ),
        ("<Queue<T> as app::Wait>::wait::{{closure}}::{{closure}}", "Queue<T>::wait"),
        ("<<T as A>::B as core::future::future::Future>::poll", "<T as A>::B"),
        ("<Queue>::pop", "<Queue>::pop"),
    ] {
        let mut builder = builder();
        let stack = vec![place(&mut builder, name, "", 0)];
        builder.add(Sample { stack, ..amount(1) });
        let text = text(&builder.finish(Duration::ZERO), &GroupBy::Place);
        assert!(text.contains(&format!("{shown}  -")), "{text}");
    }
}

/// The nearest line of the program's own code, the innermost function's own included; else the nearest that is known.
#[test]
fn a_place_is_at_the_programs_own_line() {
    let at = |stack: &[(&str, &str, u32)]| {
        let mut builder = builder();
        let stack = stack.iter().map(|(name, file, line)| place(&mut builder, name, file, *line));
        let stack = stack.collect();
        builder.add(Sample { stack, ..amount(1) });
        let rows = builder.finish(Duration::ZERO).summary(&GroupBy::Place).rows;
        match &rows[0].subject {
            Subject::Place { at, .. } => at.as_ref().map(|at| format!("{}:{}", at.file, at.line)),
            subject => Some(subject.to_string()),
        }
    };
    let (own, lib) = (("app::f", "src/app.rs", 5), ("tokio::f", TOKIO, 9));
    let std = ("core::f", "/rustc/0a1b/library/core/src/a.rs", 3);
    let unknown = ("memcpy", "", 0);
    let line = |text: &str| Some(text.to_owned());
    assert_eq!(at(&[lib, std, own, ("app::main", "src/main.rs", 1)]), line("src/app.rs:5"));
    assert_eq!(at(&[own, ("app::main", "src/main.rs", 1)]), line("src/main.rs:1"));
    assert_eq!(at(&[own, lib]), line("src/app.rs:5"));
    assert_eq!(at(&[lib, std]), line("/rustc/0a1b/library/core/src/a.rs:3"));
    assert_eq!(at(&[lib, unknown]), line(&format!("{TOKIO}:9")));
    assert_eq!(at(&[unknown]), None);
    assert_eq!(at(&[]), line("(no stack)"));
}

#[test]
fn a_full_profile_keeps_the_state_of_what_it_folds() {
    for folded_samples in [0, 8] {
        let bounds = Bounds { samples: 0, folded_samples, ..Bounds::default() };
        let mut builder = ProfileBuilder::with_bounds("by hand", 1, bounds);
        let text = |at: u64| format!("task {at}").into();
        for (at, state) in (0..).zip([State::OnCpu, State::Waiting, State::Blocked]) {
            let labels = vec![("key".into(), text(at))];
            builder.add(Sample { state, labels, time_ns: 10 + at, complete: false, ..amount(1) });
        }
        let profile = builder.finish(Duration::ZERO);
        let expected = Times { on_cpu_ns: 10, waiting_ns: 11, blocked_ns: 12, ready_ns: 0 };
        assert_eq!(profile.times(), expected);
        // Waits are no samples.
        assert_eq!(profile.lost.stacks_incomplete, 1);
    }
}

#[test]
fn a_wait_without_room_keeps_who_ended_it() {
    let bounds = Bounds { samples: 0, ..Bounds::default() };
    let mut builder = ProfileBuilder::with_bounds("by hand", 1, bounds);
    let [waits, wakes] = [(1, "GET /", 80), (2, "writer", 81)]
        .map(|(id, name, line)| task(&mut builder, id, name, line));
    builder.add(Sample {
        state: State::Waiting,
        task: Some(waits),
        woken_by: Some(wakes.clone()),
        ..amount(1)
    });
    let profile = builder.finish(Duration::ZERO);
    let expected = TaskRef { id: None, ..wakes };
    assert_eq!(profile.off_cpu[0].woken_by, Some(expected), "by name and site");
    let rows = profile.in_state(State::Waiting).summary(&GroupBy::Waker).rows;
    assert_eq!(rows[0].subject.to_string(), "GET /, woken by writer");
}

/// What a profile lacks is counted in samples, and waits are none.
#[test]
fn waits_are_not_counted_as_lost_samples() {
    let bounds = Bounds { samples: 1, depth: 1, labels: 1, ..Bounds::default() };
    let mut builder = ProfileBuilder::with_bounds("by hand", 1, bounds);
    let main = place(&mut builder, "app::main", "src/main.rs", 7);
    let labels = ["a", "b"].map(|key| (builder.text(key), builder.text("1"))).to_vec();
    for (state, count) in [(State::OnCpu, 5), (State::Waiting, 7), (State::Blocked, 0)] {
        let sample = Sample { state, stack: vec![main; 2], labels: labels.clone(), ..amount(1) };
        builder.add(Sample { count, ..sample });
    }
    let profile = builder.finish(Duration::ZERO);
    let lost = Lost { stacks_incomplete: 5, samples_folded: 5, stacks_cut: 5, ..Lost::default() };
    assert_eq!(profile.lost, lost);
    // A part of the waits lacks nothing either.
    let waits = profile.in_state(State::Waiting);
    let filter = Filter { functions: vec!["main".to_owned()], ..Filter::default() };
    assert_eq!((waits.samples[0].complete, waits.filtered(&filter).lost), (false, Lost::default()));
    assert_eq!(profile.filtered(&filter).lost, lost);
}

#[test]
fn waits_that_a_reader_cuts_are_not_lost_samples() {
    let file = pprof(&profile());
    let read = |depth| {
        let limits = ReadLimits { depth, ..ReadLimits::default() };
        Profile::from_pprof_within(&file[..], &limits).expect("it is cut")
    };
    let waits = read(2);
    assert_eq!(waits.lost, Lost::default(), "samples have stacks of two");
    assert!(waits.off_cpu.iter().any(|sample| !sample.complete));
    assert_eq!(read(1).lost, Lost { stacks_cut: 5, stacks_incomplete: 5, ..Lost::default() });
}

#[test]
fn waiting_time_is_compared_by_the_numbers_of_waits() {
    let [before, after] = [30, 60].map(|waits| profile_with(waits).in_state(State::Waiting));
    let comparison = Comparison::of(&before, &after);
    let text = comparison.overview("a", "b", SummaryStyle::default()).to_string();
    assert!(
        text.contains("~ marks changes that chance explains, by the numbers of waits"),
        "{text}"
    );
    assert!(text.contains("waiting time per second of recording: 400 ms before, 640 ms after"));
    let difference = comparison.difference(&GroupBy::Place, Part::Own);
    let rows: Vec<_> =
        difference.rows.iter().map(|row| (row.subject.to_string(), row.is_noise())).collect();
    let noise = [(LOCK.to_owned(), true), ("<Sleep as Future>::poll".to_owned(), true)];
    assert_eq!(rows, noise, "30 and 60 waits could be chance among two rows");
    let table = difference.table(SummaryStyle { max_rows: usize::MAX, ..SummaryStyle::default() });
    let table = table.to_string();
    assert!(table.contains("Places (waiting time per second; % of 1.00 s and 1.60 s)"), "{table}");
    assert!(table.contains("WAITS") && table.contains("40 → 70"), "{table}");
    // The same with ten times the waits is none.
    let [before, after] = [300, 600].map(|waits| profile_with(waits).in_state(State::Waiting));
    let difference = Comparison::of(&before, &after).difference(&GroupBy::Place, Part::Own);
    assert!(!difference.rows[0].is_noise());
}

/// Pictures of growth are of what was compared: not of CPU time, if that was not, and of nothing else beside it.
#[test]
fn growth_is_of_the_state_that_is_compared() {
    let [before, after] = [30, 60].map(profile_with);
    let of_cpu = Comparison::of(&before, &after).growth(RootBy::TaskName);
    assert_eq!(of_cpu.profile.times(), Times::default(), "it has not grown");
    let [before, after] = [before, after].map(|profile| profile.in_state(State::Waiting));
    let growth = Comparison::of(&before, &after).growth(RootBy::TaskName).profile;
    assert_eq!(growth.times(), Times { waiting_ns: 600_000_000, ..Times::default() });
}

#[test]
fn what_is_not_counted_cannot_be_judged() {
    let waiting = profile().in_state(State::Waiting);
    assert!(Comparison::of(&waiting, &waiting).has_counts());
    for state in [State::Ready, State::Blocked] {
        let one = profile().in_state(state);
        let comparison = Comparison::of(&one, &one);
        assert!(!comparison.has_counts());
        let text = comparison.overview("a", "b", SummaryStyle::default()).to_string();
        let said = format!("noise cannot be judged: {} is measured, and not counted", state.time());
        assert!(text.contains(&said), "{text}");
        let difference = comparison.difference(&GroupBy::Site, Part::Own);
        assert!(difference.rows.iter().all(|row| row.rate.is_none() && row.share.is_none()));
        let table = difference.table(SummaryStyle { max_rows: usize::MAX, ..Default::default() });
        assert!(!table.to_string().contains("SAMPLES") && !table.to_string().contains("WAITS"));
    }
}

/// Both profiles come back out of the file that `go` makes of them, in each state.
#[test]
fn a_difference_by_go_has_all_states() {
    let [before, after] = [30, 60].map(profile_with);
    let Some([both, net]) = go::differences(&pprof(&before), &pprof(&after)) else { return };
    let read = |file: &[u8]| match PprofFile::read(file).expect("a good file") {
        PprofFile::Difference(two) => *two,
        PprofFile::Profile(profile) => panic!("{profile:?}"),
    };
    let two = read(&both);
    assert!(!two.is_net);
    assert_eq!([two.before.times(), two.after.times()], [before.times(), after.times()]);
    let of_base = |sample: &&Sample| !sample.labels.is_empty();
    let samples =
        |profile: &Profile| profile.samples.iter().chain(&profile.off_cpu).find(of_base).cloned();
    assert_eq!([samples(&two.before), samples(&two.after)], [None, None]);
    // In the other file is only what has changed: 600 ms of waiting.
    let net = PprofFile::read(&net[..]).expect("a good file");
    let PprofFile::Profile(more) = net else { panic!("nothing became less: {net:?}") };
    assert_eq!(more.times(), Times { waiting_ns: 600_000_000, ..Times::default() });
}

#[test]
fn filters_are_for_all_states() {
    let filter = Filter { task: Some("GET /hash".into()), ..Filter::default() };
    let part = profile().filtered(&filter).times();
    let expected = Times { waiting_ns: 400_000_000, blocked_ns: 80_000_000, ..Times::default() };
    assert_eq!(part, expected);
}
