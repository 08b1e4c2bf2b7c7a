//! Lives: switched on and off, and what is shown of them.

use pertask::LifeReport;

use super::*;

/// Milliseconds on the CPU, blocked, ready and waiting.
fn life([on_cpu, blocked, ready, waiting]: [u64; 4]) -> Option<LifeReport> {
    let ns = |ms: u64| ms * 1_000_000;
    let (on_cpu_ns, blocked_ns, ready_ns) = (ns(on_cpu), ns(blocked), ns(ready));
    Some(LifeReport {
        on_cpu_ns,
        blocked_ns,
        ready_ns,
        waiting_ns: ns(waiting),
        ..LifeReport::default()
    })
}

fn with_lives(seconds: u64, lives: &[(&str, [u64; 4])]) -> Report {
    let sites: Vec<_> = lives.iter().map(|(name, [on_cpu, ..])| (*name, *on_cpu)).collect();
    let mut report = of_sites(seconds, &sites);
    for (site, (_, parts)) in report.sites.iter_mut().zip(lives) {
        site.life = life(*parts);
    }
    report
}

/// What the row of a task has as the part of its time in which it waited.
fn waiting(state: &State, id: u64) -> Value<'_> {
    let row =
        (0..state.rows().len()).find(|row| state.rows().value(*row, Column::Id) == Value::Id(id));
    state.rows().value(row.expect("the task"), Column::TasksWaiting)
}

fn begin(state: &mut State, lives: bool) {
    state.apply(Update::Session { lives });
}

fn apply(state: &mut State, report: Report) {
    state.apply(Update::Report(Box::new(report)));
}

#[test]
fn the_key_asks_for_lives_and_then_to_be_without() {
    let mut state = after([of_sites(3, &[("a", 150)])]);
    let ask = |measured| Some(Action::Ask(Request::Lives { measured }));
    assert_eq!(press(&mut state, "i"), ask(true));
    assert_eq!(press(&mut state, "i"), None, "it was asked for already");
    begin(&mut state, true);
    assert!(!state.columns().contains(&Column::Life));
    assert_eq!(value(&state, "a", Column::Cpu), Value::Percent(5.0), "the last figures");
    apply(&mut state, with_lives(3, &[("a", [300, 0, 0, 2_700])]));
    assert!(state.columns().contains(&Column::Life));
    assert_eq!(value(&state, "a", Column::TasksWaiting), Value::Tasks(0.9));
    let Value::History(history) = value(&state, "a", Column::History) else { panic!("no history") };
    assert_eq!(history.last(9).collect::<Vec<_>>(), [5.0, 10.0], "of both sessions");
    assert_eq!(press(&mut state, "i"), ask(false));
    begin(&mut state, false);
    apply(&mut state, of_sites(1, &[("a", 100)]));
    assert!(!state.columns().contains(&Column::Life));
    assert_eq!(press(&mut state, "i"), ask(true));
}

#[test]
fn lives_are_those_of_the_last_interval() {
    let state = after([
        with_lives(10, &[("a", [100, 9_000, 50, 40_000]), ("b", [5, 0, 0, 0])]),
        with_lives(12, &[("a", [600, 9_500, 250, 46_400]), ("b", [5, 0, 0, 0])]),
    ]);
    let numbers = |of| {
        [Column::TasksBlocked, Column::TasksReady, Column::TasksWaiting]
            .map(|column| value(&state, of, column))
    };
    assert_eq!(numbers("a"), [0.25, 0.1, 3.2].map(Value::Tasks));
    assert_eq!(numbers("b"), [0.0; 3].map(Value::Tasks));
    let Value::Life(lived) = value(&state, "a", Column::Life) else { panic!("no life") };
    assert_eq!((lived.of(Part::OnCpu), (lived.all() - 3.8).abs() < 1e-9), (0.25, true));
}

#[test]
fn rows_are_sorted_by_the_parts_of_lives() {
    let mut state = after([with_lives(
        1,
        &[("waits", [1, 0, 10, 900]), ("blocks", [2, 800, 0, 0]), ("queues", [3, 1, 500, 40])],
    )]);
    for (key, first) in [("A", "waits"), ("B", "blocks"), ("R", "queues"), ("E", "waits")] {
        press(&mut state, key);
        assert_eq!(names(&state)[0], first, "{key}");
    }
    assert_eq!(state.sort().column, Column::Life);
    begin(&mut state, false);
    apply(&mut state, of_sites(1, &[("a", 1)]));
    assert_eq!(state.sort().column, Column::Cpu, "there is no such column any more");
    press(&mut state, "B");
    begin(&mut state, true);
    apply(&mut state, with_lives(1, &[("a", [1, 0, 0, 0])]));
    assert_eq!(state.sort().column, Column::Cpu, "nor that one");
}

#[test]
fn paths_and_tasks_have_lives_of_their_own() {
    let mut report = with_lives(1, &[("worker", [100, 0, 0, 900])]);
    report.tree = vec![path(1, None, 0, "server", 1), path(2, Some(1), 1, "worker", 1)];
    report.tree[1].life = life([0, 0, 0, 700]);
    report.tasks = vec![task(7, "worker", 1)];
    report.tasks[0].life = life([0, 250, 0, 750]);
    let mut state = after([report]);
    press(&mut state, "t");
    assert_eq!(value(&state, "worker", Column::TasksWaiting), Value::Tasks(0.7));
    assert_eq!(value(&state, "server", Column::TasksWaiting), Value::Nothing);
    press(&mut state, "t");
    state.press(Key::Enter);
    assert!(state.columns().contains(&Column::Life), "{:?}", state.columns());
    assert_eq!(value(&state, "worker", Column::TasksBlocked), Value::Tasks(0.25));
}

#[test]
fn a_task_that_no_report_listed_may_have_lived_for_long() {
    let report = |seconds, tasks: &[(u64, [u64; 4])], live| {
        let tasks_used: Vec<_> = tasks.iter().map(|(id, [on_cpu, ..])| (*id, *on_cpu)).collect();
        let mut report = with_tasks(seconds, &tasks_used, live);
        report.tasks.iter_mut().zip(tasks).for_each(|(task, (_, parts))| task.life = life(*parts));
        report.sites[0].life = life([1, 0, 0, 1]);
        report.tasks.pop();
        report
    };
    let then = [(7, [1, 0, 0, 900]), (8, [0, 0, 0, 800])];
    let now = [(7, [1, 0, 0, 1_900]), (8, [0, 0, 0, 1_300]), (9, [0, 0, 0, 400])];
    let mut state = after([report(1, &then, 2), report(2, &now, 3)]);
    state.press(Key::Enter);
    assert_eq!([7, 8, 9].map(|id| waiting(&state, id)), [1.0, 0.5, 0.4].map(Value::Tasks));
    let mut state = after([report(1, &then, 3), report(2, &now, 3)]);
    state.press(Key::Enter);
    assert_eq!(waiting(&state, 8), Value::Tasks(0.5));
    assert_eq!(waiting(&state, 9), Value::Unknown, "it may be as old as the others");
    assert_eq!(state.rows().value(0, Column::Cpu), Value::Percent(0.0));
}

#[test]
fn a_subject_has_all_parts_with_their_shares() {
    let mut report = with_lives(2, &[("a", [100, 0, 0, 1_900])]);
    report.sites[0].usage.wall_ns = 1_000_000_000;
    report.tasks = vec![task(7, "a", 1)];
    report.tasks[0].life = life([0, 500, 0, 1_500]);
    report.tasks[0].life.as_mut().unwrap().inside_ns = 1;
    let mut state = after([report]);
    let share = |ns, of_ns| Value::Share { ns, of_ns };
    press(&mut state, "s");
    let facts = state.life_facts();
    assert_eq!(facts[0], ("lived", Value::Time(2_000_000_000)));
    assert_eq!(facts[1], ("on CPU", share(100_000_000, 2_000_000_000)));
    assert_eq!(facts[4], ("waiting", share(1_900_000_000, 2_000_000_000)));
    assert_eq!(facts.len(), 5, "no rare part that is nothing");
    assert!(state.facts().iter().all(|(words, _)| *words != "blocked"));
    assert!(state.lived().is_some_and(|lived| lived.of(Part::Waiting) == 0.95));
    state.press(Key::Escape);
    state.press(Key::Enter);
    press(&mut state, "s");
    let facts = state.life_facts();
    assert_eq!(facts[2], ("blocked", share(500_000_000, 2_000_000_001)));
    assert_eq!(facts[5], ("inside", share(1, 2_000_000_001)));
    assert!(state.facts().iter().all(|(words, _)| *words != "blocked in polls"));
    assert!(state.lived().is_some_and(|lived| lived.of(Part::Blocked) == 0.25));
}

#[test]
fn who_cannot_measure_lives_is_asked_in_vain() {
    let mut state = after([of_sites(3, &[("a", 100)])]);
    begin(&mut state, false);
    press(&mut state, "i");
    state.apply(Update::LivesRefused("no parameter life".to_owned()));
    assert_eq!(state.note(), Some("lives: no parameter life"));
    assert!(press(&mut state, "i").is_some(), "it can be asked again");
    // An agent that ignores the question.
    begin(&mut state, true);
    assert!(!state.shown().lacks_lives());
    apply(&mut state, of_sites(1, &[("a", 100)]));
    assert!(state.shown().lacks_lives());
    assert_eq!(names(&state), ["a"]);
    state.apply(Update::Ended("the process has ended".to_owned()));
    assert_eq!(press(&mut state, "i"), None);
    assert!(state.note().is_some());
    let mut state = after([]);
    state.apply(sampled(1, 100));
    assert_eq!(press(&mut state, "i"), None);
    assert!(state.note().is_some_and(|note| note.contains("pertask::init()")));
}

#[test]
fn a_pause_keeps_the_figures_and_says_so() {
    let mut state = after([of_sites(3, &[("a", 100)])]);
    press(&mut state, "p");
    assert!(press(&mut state, "i").is_some());
    assert!(state.note().is_some_and(|note| note.contains("p goes on")));
    begin(&mut state, true);
    apply(&mut state, with_lives(1, &[("a", [300, 0, 0, 700])]));
    assert!(!state.columns().contains(&Column::Life));
    press(&mut state, "p");
    assert_eq!(value(&state, "a", Column::TasksWaiting), Value::Tasks(0.7));
}

#[test]
fn lives_near_the_end_of_their_range_do_no_harm() {
    const MAX: u64 = u64::MAX;
    let mut huge = with_lives(1, &[("a", [1, 1, 1, 1])]);
    huge.sites[0].life = Some(LifeReport { on_cpu_ns: MAX, waiting_ns: MAX, ..Default::default() });
    let mut state = after([huge, with_lives(2, &[("a", [1, 1, 1, 1])])]);
    assert_eq!(value(&state, "a", Column::Life), Value::Unknown);
    press(&mut state, "s");
    assert!(!state.life_facts().is_empty());
}
