//! Updates and keys, and what is shown after them.

mod lives;

use pertask::{Lost, Report, WakeReport};

use crate::top::source::{HotFunction, Request, Sampled, SampledType, Subject, Update};

use super::{
    Action, Column, FunctionsAnswer, Key, Page, Part, State, Value,
    samples::{self, of_sites, path, site, spawn_site, task, worker},
};

/// The state after these reports, in a window of ten rows.
fn after(reports: impl IntoIterator<Item = Report>) -> State {
    let mut state = State::default();
    state.set_height(10);
    reports.into_iter().for_each(|report| state.apply(Update::Report(Box::new(report))));
    state
}

fn press(state: &mut State, keys: &str) -> Option<Action> {
    keys.chars().filter_map(|key| state.press(Key::Char(key))).last()
}

/// The names of the rows in the window.
fn names(state: &State) -> Vec<String> {
    state.window().map(|(row, _)| name(state, row)).collect()
}

fn name(state: &State, row: usize) -> String {
    match state.rows().value(row, Column::Name) {
        Value::Text(name) => name.to_owned(),
        Value::Task(site) => site.name.clone().unwrap_or_default(),
        other => panic!("{other:?} is no name"),
    }
}

fn selected(state: &State) -> Option<String> {
    state.window().find(|(_, selected)| *selected).map(|(row, _)| name(state, row))
}

/// What the row of this name has in a column.
fn value<'a>(state: &'a State, of: &str, column: Column) -> Value<'a> {
    let row = state.window().map(|(row, _)| row).find(|row| name(state, *row) == of);
    state.rows().value(row.expect("a row of this name"), column)
}

#[test]
fn the_first_rates_are_those_since_the_start() {
    let state = after([of_sites(10, &[("busy", 5_000)])]);
    assert_eq!(value(&state, "busy", Column::Cpu), Value::Percent(50.0));
    assert_eq!(state.shown().totals.cpus(), Some(0.5));
}

#[test]
fn later_rates_are_those_since_the_last_report() {
    let state = after([of_sites(10, &[("busy", 5_000)]), of_sites(12, &[("busy", 6_800)])]);
    assert_eq!(value(&state, "busy", Column::Cpu), Value::Percent(90.0));
    assert_eq!(value(&state, "busy", Column::Polls), Value::PerSecond(900.0));
    assert_eq!(value(&state, "busy", Column::CpuPerPoll), Value::Time(1_000_000));
    assert_eq!(value(&state, "busy", Column::Started), Value::PerSecond(0.0));
}

#[test]
fn the_same_report_twice_changes_nothing() {
    let report = of_sites(2, &[("busy", 1_800)]);
    let state = after([of_sites(1, &[("busy", 1_000)]), report.clone(), report]);
    assert_eq!(value(&state, "busy", Column::Cpu), Value::Percent(80.0));
}

#[test]
fn a_site_that_is_new_is_measured_from_the_last_report() {
    let state = after([of_sites(100, &[]), of_sites(101, &[("new", 250)])]);
    assert_eq!(value(&state, "new", Column::Cpu), Value::Percent(25.0));
}

#[test]
fn a_site_that_comes_back_is_measured_from_when_it_was_seen() {
    let present = |seconds, ms| of_sites(seconds, &[("coming", ms), ("other", 1)]);
    let absent = |seconds| of_sites(seconds, &[("other", 1)]);
    let mut state = after([present(10, 9_000), absent(11), absent(12)]);
    assert_eq!(names(&state), ["other"]);
    state.apply(Update::Report(Box::new(present(13, 9_300))));
    let Value::Percent(percent) = value(&state, "coming", Column::Cpu) else { panic!("no rate") };
    assert!((percent - 10.0).abs() < 1e-9, "{percent}");
}

#[test]
fn a_counter_that_goes_back_has_no_rate() {
    let state = after([of_sites(10, &[("again", 900)]), of_sites(11, &[("again", 100)])]);
    assert_eq!(value(&state, "again", Column::Cpu), Value::Unknown);
    assert_eq!(value(&state, "again", Column::CpuPerPoll), Value::Unknown);
}

#[test]
fn another_session_begins_anew() {
    let state = after([of_sites(100, &[("busy", 90_000)]), of_sites(2, &[("busy", 200)])]);
    assert_eq!(value(&state, "busy", Column::Cpu), Value::Percent(10.0));
}

#[test]
fn polls_that_hold_a_worker_off_the_cpu_are_noted() {
    let mut report = of_sites(1, &[("fair", 500), ("blocking", 1)]);
    report.sites[1].usage.wall_ns = 300_000_000;
    let state = after([report]);
    assert_eq!(value(&state, "fair", Column::Blocked), Value::Nothing);
    let Value::Percent(percent) = value(&state, "blocking", Column::Blocked) else {
        panic!("not noted")
    };
    assert!((percent - 29.9).abs() < 1e-9, "{percent}");
}

#[test]
fn waits_have_a_column_only_where_they_were_measured() {
    let mut report = of_sites(1, &[("one", 5), ("two", 6)]);
    assert!(!after([report.clone()]).columns().contains(&Column::WakeP99));
    report.sites[1].wakes = Some(WakeReport { p99_ns: Some(5), ..WakeReport::default() });
    assert!(after([report]).columns().contains(&Column::WakeP99));
}

#[test]
fn rows_are_sorted_by_any_column_in_either_direction() {
    let mut state = after([of_sites(1, &[("b", 20), ("c", 30), ("a", 10)])]);
    assert_eq!(names(&state), ["c", "b", "a"]);
    press(&mut state, "r");
    assert_eq!(names(&state), ["a", "b", "c"]);
    press(&mut state, "N");
    assert_eq!(
        (names(&state), state.sort().column),
        (vec!["a", "b", "c"].into_iter().map(str::to_owned).collect(), Column::Name)
    );
    press(&mut state, "N");
    assert_eq!(names(&state), ["c", "b", "a"]);
    press(&mut state, ">");
    assert_eq!(state.sort().column, Column::Place);
    press(&mut state, ">");
    assert_eq!(state.sort().column, Column::Cpu);
    press(&mut state, "<<");
    assert_eq!(state.sort().column, Column::Name);
    press(&mut state, "X");
    assert!(state.note().is_some());
}

#[test]
fn equal_rows_keep_their_places_whatever_the_order_of_the_report() {
    let one = after([of_sites(1, &[("x", 0), ("y", 0), ("z", 0), ("busy", 9)])]);
    let other = after([of_sites(1, &[("z", 0), ("busy", 9), ("x", 0), ("y", 0)])]);
    assert_eq!(names(&one), ["busy", "x", "y", "z"]);
    assert_eq!(names(&one), names(&other));
}

#[test]
fn what_is_not_known_comes_last_in_either_direction() {
    let mut state =
        after([of_sites(1, &[("gone", 900), ("low", 1)]), of_sites(2, &[("gone", 1), ("low", 2)])]);
    assert_eq!(names(&state), ["low", "gone"]);
    press(&mut state, "r");
    assert_eq!(names(&state), ["low", "gone"]);
}

#[test]
fn a_filter_looks_at_names_and_files_in_capitals_or_not() {
    let mut state = after([of_sites(1, &[("GET /users", 3), ("render", 2), ("users_gc", 1)])]);
    press(&mut state, "/USERS");
    assert!(state.is_typing());
    assert_eq!(names(&state), ["GET /users", "users_gc"]);
    state.press(Key::Enter);
    assert!(!state.is_typing());
    press(&mut state, "/");
    (0..5).for_each(|_| drop(state.press(Key::Backspace)));
    press(&mut state, "src/rend");
    assert_eq!(state.filter(), "src/rend");
    assert_eq!(names(&state), ["render"]);
    state.press(Key::Escape);
    assert_eq!((names(&state).len(), state.is_typing()), (3, false));
}

#[test]
fn while_a_filter_is_typed_letters_are_no_commands() {
    let mut state = after([of_sites(1, &[("a", 1)])]);
    assert_eq!(press(&mut state, "/qpt"), None);
    for key in [Key::Left, Key::Right, Key::Function(10), Key::PageDown] {
        assert_eq!(state.press(key), None);
    }
    assert_eq!((state.filter(), state.is_paused()), ("qpt", false));
    assert_eq!(state.press(Key::Interrupt), Some(Action::Quit));
}

#[test]
fn the_selection_stays_on_its_row() {
    let mut state = after([of_sites(1, &[("a", 30), ("b", 20), ("c", 10)])]);
    state.press(Key::Down);
    assert_eq!(selected(&state).as_deref(), Some("b"));
    state.apply(Update::Report(Box::new(of_sites(2, &[("b", 21), ("c", 500), ("a", 600)]))));
    assert_eq!(names(&state), ["a", "c", "b"]);
    assert_eq!(selected(&state).as_deref(), Some("b"));
    press(&mut state, "r");
    assert_eq!(selected(&state).as_deref(), Some("b"));
}

#[test]
fn a_selected_row_that_vanishes_leaves_the_selection_where_it_was() {
    let mut state = after([of_sites(1, &[("a", 30), ("b", 20), ("c", 10)])]);
    state.press(Key::End);
    state.apply(Update::Report(Box::new(of_sites(2, &[("a", 60), ("b", 21)]))));
    assert_eq!(selected(&state).as_deref(), Some("b"));
    state.apply(Update::Report(Box::new(of_sites(3, &[("a", 90), ("b", 22), ("c", 11)]))));
    assert_eq!(selected(&state).as_deref(), Some("c"));
}

#[test]
fn nobody_moved_so_the_first_row_is_selected() {
    let mut state = after([of_sites(1, &[("a", 30), ("b", 20)])]);
    assert_eq!(selected(&state).as_deref(), Some("a"));
    state.apply(Update::Report(Box::new(of_sites(2, &[("a", 31), ("b", 200)]))));
    assert_eq!(selected(&state).as_deref(), Some("b"));
}

#[test]
fn the_window_follows_the_selection() {
    let sites: Vec<_> = (0..100).map(|n| (format!("{n:03}"), 1_000 - n)).collect();
    let sites: Vec<_> = sites.iter().map(|(name, ms)| (&**name, *ms)).collect();
    let mut state = after([of_sites(1, &sites)]);
    let shown = |state: &State| names(state).first().cloned().zip(selected(state));
    let expected = |first: &str, selected: &str| Some((first.to_owned(), selected.to_owned()));
    state.press(Key::PageDown);
    assert_eq!(shown(&state), expected("000", "009"));
    state.press(Key::Down);
    assert_eq!(shown(&state), expected("001", "010"));
    state.press(Key::End);
    assert_eq!(shown(&state), expected("090", "099"));
    state.press(Key::PageUp);
    assert_eq!(shown(&state), expected("090", "090"));
    state.set_height(3);
    assert_eq!(shown(&state), expected("090", "090"));
    state.set_height(0);
    state.press(Key::Up);
    state.set_height(200);
    assert_eq!(shown(&state), expected("000", "089"));
    state.press(Key::Home);
    assert_eq!(shown(&state), expected("000", "000"));
    state.press(Key::Up);
    assert_eq!(shown(&state), expected("000", "000"));
}

#[test]
fn a_pause_freezes_the_figures_and_loses_none() {
    let mut state = after([of_sites(1, &[("a", 100)])]);
    press(&mut state, "p");
    state.apply(Update::Report(Box::new(of_sites(2, &[("a", 900)]))));
    state.apply(Update::Report(Box::new(of_sites(3, &[("a", 1_200), ("b", 5)]))));
    assert!(state.is_paused());
    assert_eq!(value(&state, "a", Column::Cpu), Value::Percent(10.0));
    press(&mut state, "r/a");
    assert_eq!(names(&state), ["a"]);
    state.press(Key::Escape);
    press(&mut state, " ");
    assert!(!state.is_paused());
    assert_eq!(value(&state, "a", Column::Cpu), Value::Percent(30.0));
    let Value::History(history) = value(&state, "a", Column::History) else { panic!("no history") };
    let history: Vec<_> = history.last(9).map(f32::round).collect();
    assert_eq!(history, [10.0, 80.0, 30.0]);
}

fn with_tree() -> Report {
    let tree = vec![
        path(1, None, 0, "server", 100),
        path(2, Some(1), 1, "slow", 5),
        path(3, Some(2), 2, "leaf", 2),
        path(4, Some(1), 1, "quick", 40),
        path(5, None, 0, "timer", 1),
    ];
    Report { tree, ..of_sites(1, &[("server", 100)]) }
}

#[test]
fn the_tree_sorts_siblings_and_keeps_them_below_their_parents() {
    let mut state = after([with_tree()]);
    press(&mut state, "t");
    assert_eq!(names(&state), ["server", "quick", "slow", "leaf", "timer"]);
    press(&mut state, "r");
    assert_eq!(names(&state), ["timer", "server", "slow", "leaf", "quick"]);
    press(&mut state, "/leaf");
    assert_eq!(names(&state), ["server", "slow", "leaf"]);
    state.press(Key::Enter);
    press(&mut state, "t");
    assert_eq!((state.page(), state.filter()), (&Page::Sites, "leaf"));
}

#[test]
fn a_tree_that_makes_no_sense_is_shown_all_the_same() {
    let tree = vec![
        path(1, Some(2), 9, "a", 1),
        path(2, Some(1), u32::MAX, "b", 1),
        path(2, Some(2), 0, "c", 1),
    ];
    let mut state = after([Report { tree, ..of_sites(1, &[]) }]);
    press(&mut state, "t");
    assert_eq!(names(&state).len(), 3);
}

fn with_tasks(seconds: u64, tasks: &[(u64, u64)], live: u64) -> Report {
    let mut report = of_sites(seconds, &[("worker", 100), ("other", 1)]);
    report.sites[0].tasks_live = live;
    report.sites[1].tasks_live = 0;
    report.tasks = tasks.iter().map(|(id, ms)| task(*id, "worker", *ms)).collect();
    report.tasks.push(task(99, "other", 1));
    report
}

fn ids(state: &State) -> Vec<u64> {
    let id = |row| match state.rows().value(row, Column::Id) {
        Value::Id(id) => id,
        other => panic!("{other:?} is no number"),
    };
    state.window().map(|(row, _)| id(row)).collect()
}

#[test]
fn enter_shows_a_sites_tasks_and_then_asks_for_functions() {
    let mut state = after([
        with_tasks(1, &[(7, 50), (8, 30)], 2),
        with_tasks(2, &[(8, 230), (7, 60), (9, 10)], 3),
    ]);
    assert_eq!(state.press(Key::Enter), None);
    assert_eq!(state.page(), &Page::Tasks(spawn_site("worker")));
    assert_eq!(ids(&state), [8, 7, 9]);
    let rates: Vec<_> =
        state.window().map(|(row, _)| state.rows().value(row, Column::Cpu)).collect();
    assert_eq!(rates, [20.0, 1.0, 1.0].map(Value::Percent));

    let of = Subject::Task(8);
    assert_eq!(state.press(Key::Enter), Some(Action::Ask(Request::Stacks { of: of.clone() })));
    assert_eq!(press(&mut state, "s"), None, "the first answer is not there yet");
    let found = vec![HotFunction { function: "spin".to_owned(), share: 0.75 }];
    state.apply(Update::Stacks { of: Subject::Task(1), found: Ok(Vec::new()) });
    assert!(matches!(state.answer_shown(), Some(FunctionsAnswer::Awaited)));
    state.apply(Update::Stacks { of: of.clone(), found: Ok(found) });
    assert_eq!(names(&state), ["spin"]);
    assert_eq!(value(&state, "spin", Column::Share), Value::Percent(75.0));
    assert!(state.facts().contains(&("CPU now", Value::Percent(20.0))));
    assert!(press(&mut state, "s").is_some());

    state.apply(Update::Report(Box::new(with_tasks(3, &[(9, 11)], 1))));
    assert!(state.seen_task().is_some_and(|seen| !seen.present && seen.task.id == 8));
    assert!(state.facts().contains(&("CPU now", Value::Unknown)));
    state.press(Key::Escape);
    state.press(Key::Escape);
    assert_eq!(state.page(), &Page::Sites);
    state.press(Key::Escape);
    assert_eq!(state.page(), &Page::Sites);
}

#[test]
fn a_task_that_was_below_the_last_row_has_no_rate_yet() {
    let mut state =
        after([with_tasks(1, &[(7, 50)], 900), with_tasks(2, &[(8, 70), (7, 60)], 900)]);
    state.press(Key::Enter);
    assert_eq!(ids(&state), [7, 8]);
    assert_eq!(state.rows().value(0, Column::Cpu), Value::Unknown);
}

#[test]
fn labels_stand_below_their_keys() {
    let labels = vec![samples::label(600, 200)];
    let mut state = after([Report { labels, ..of_sites(1, &[("a", 1)]) }]);
    press(&mut state, "l");
    assert_eq!(names(&state), ["tenant", "acme", "(other values)", "(without)"]);
    assert_eq!(value(&state, "tenant", Column::Cpu), Value::Percent(80.0));
    press(&mut state, "l");
    assert_eq!(state.page(), &Page::Sites);
}

#[test]
fn workers_are_as_busy_as_their_threads() {
    let threads = |ms| vec![worker(12, ms, ms / 2), worker(11, 10, 10)];
    let report = |seconds, ms| Report { threads: threads(ms), ..of_sites(seconds, &[]) };
    let mut state = after([report(1, 100), report(2, 900)]);
    let busy = state.shown().threads.workers();
    assert_eq!((busy[0].in_tasks, busy[0].outside), (0.0, 0.0));
    assert!((busy[1].in_tasks - 0.4).abs() < 1e-9 && (busy[1].outside - 0.4).abs() < 1e-9);
    press(&mut state, "w");
    assert_eq!(value(&state, "worker-12", Column::InTasks), Value::Percent(50.0));
    assert_eq!(value(&state, "worker-11", Column::InTasks), Value::Unknown);
}

fn sampled(seconds: u64, ms: u64) -> Update {
    let row = SampledType { name: "~axum::serve".to_owned(), cpu_ns: ms * 1_000_000, samples: ms };
    Update::Sampled(Sampled {
        duration_ns: seconds * 1_000_000_000,
        process_cpu_ns: 2 * ms * 1_000_000,
        tasks_cpu_ns: ms * 1_000_000,
        types: vec![row],
        lost: 0,
    })
}

#[test]
fn a_program_without_an_agent_has_types() {
    let mut state = after([]);
    state.apply(sampled(1, 100));
    state.apply(sampled(2, 400));
    assert_eq!(state.page(), &Page::Types);
    assert_eq!(value(&state, "~axum::serve", Column::Cpu), Value::Percent(30.0));
    assert_eq!(state.shown().totals.cpus(), Some(0.6));
    press(&mut state, "t");
    assert!(state.note().is_some_and(|note| note.contains("pertask::init()")));
    assert_eq!(state.page(), &Page::Types);
    let of = Subject::Type("~axum::serve".to_owned());
    assert_eq!(state.press(Key::Enter), Some(Action::Ask(Request::Stacks { of })));
    state.press(Key::Escape);
    assert_eq!(state.page(), &Page::Types);
}

#[test]
fn the_end_leaves_the_last_figures_and_answers_what_was_asked() {
    let mut state = after([of_sites(1, &[("a", 100)])]);
    assert!(press(&mut state, "s").is_some());
    state.apply(Update::Ended("the program has ended".to_owned()));
    state.apply(Update::Ended("no more figures come".to_owned()));
    assert_eq!(state.ended(), Some("the program has ended"));
    assert!(matches!(state.answer_shown(), Some(FunctionsAnswer::Refused(_))));
    state.press(Key::Escape);
    assert_eq!(names(&state), ["a"]);
    assert_eq!(press(&mut state, "s"), None, "nobody is there to ask");
    assert!(!state.note_silence(Some(9)));
    assert_eq!(press(&mut state, "q"), Some(Action::Quit));
}

#[test]
fn help_is_closed_by_any_key() {
    let mut state = after([of_sites(1, &[("a", 1)])]);
    press(&mut state, "h");
    assert!(state.is_help());
    assert_eq!(press(&mut state, "q"), None);
    assert!(!state.is_help());
}

#[test]
fn numbers_near_the_end_of_their_range_do_no_harm() {
    let mut huge = Report {
        process_cpu_ns: u64::MAX,
        tasks_cpu_ns: u64::MAX,
        workers_cpu_ns: u64::MAX,
        lost: Lost { polls_untracked: u64::MAX, ..Lost::default() },
        labels: vec![samples::label(u64::MAX / 1_000_000, u64::MAX / 1_000_000)],
        ..of_sites(1, &[])
    };
    huge.sites = vec![site("a", 1), site("b", 1)];
    for site in &mut huge.sites {
        (site.usage.cpu_ns, site.usage.polls, site.tasks_live) = (u64::MAX, 1, u64::MAX);
    }
    let state = after([huge, Report { duration_ns: u64::MAX, ..of_sites(2, &[("a", 5)]) }]);
    assert_eq!(value(&state, "a", Column::Cpu), Value::Unknown);
}
