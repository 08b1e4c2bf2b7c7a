//! What a user reads on terminals of several sizes.

use pertask::{LifeReport, Lost, Report, SpawnSite, WakeReport};
use pertask_text::text::width;
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer, style::Color};

use crate::top::{
    TopOptions,
    source::{HotFunction, Sampled, SampledType, Subject, Update},
    state::{
        Key, State,
        samples::{label, of_sites, path, task, worker},
    },
};

use super::{Palette, draw, rows};

const SMALL: (u16, u16) = (40, 12);
const USUAL: (u16, u16) = (80, 24);
const LARGE: (u16, u16) = (200, 60);

fn options() -> TopOptions {
    TopOptions { program: "image-server".to_owned(), pid: 4_711, lives: false }
}

fn buffer(state: &mut State, size: (u16, u16), color: bool) -> Buffer {
    state.set_height(rows(state, &options(), size));
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).expect("a terminal");
    let palette = Palette { color };
    terminal.draw(|frame| draw(frame, state, &options(), palette)).expect("a frame");
    terminal.backend().buffer().clone()
}

/// The lines of the screen, without the blanks at their ends.
fn screen(state: &mut State, size: (u16, u16)) -> Vec<String> {
    let buffer = buffer(state, size, true);
    let columns = usize::from(size.0);
    let lines = buffer.content.chunks(columns.max(1)).map(|cells| {
        let mut line = String::new();
        let mut skip = 0;
        for cell in cells {
            // The cell after a wide character is covered by it.
            if skip == 0 {
                line.push_str(cell.symbol());
                skip = width(cell.symbol()).max(1);
            }
            skip -= 1;
        }
        line.trim_end().to_owned()
    });
    lines.collect()
}

fn text(state: &mut State, size: (u16, u16)) -> String {
    screen(state, size).join("\n")
}

fn apply(state: &mut State, report: Report) {
    state.apply(Update::Report(Box::new(report)));
}

fn example(seconds: u64) -> Report {
    let ms = seconds * 1_000;
    let mut report = of_sites(seconds, &[("GET /hash", ms), ("GET /render", ms / 4), ("idle", 1)]);
    report.sites[1].usage.max_poll_ns = 141_000_000;
    report.sites[2].site = SpawnSite { name: None, ..report.sites[2].site.clone() };
    report.process_cpu_ns = ms * 2_000_000;
    report.workers_cpu_ns = ms * 500_000;
    report.other_cpu_ns = ms * 250_000;
    report.threads = vec![worker(11, ms, ms * 9 / 10), worker(12, ms / 2, ms / 4)];
    report.tasks = vec![task(18_412, "GET /hash", ms / 2), task(18_413, "GET /hash", ms / 3)];
    report.tree = vec![path(1, None, 0, "server", ms), path(2, Some(1), 1, "GET /hash", ms / 2)];
    report.labels = vec![label(ms / 2, ms / 4)];
    report
}

fn running() -> State {
    let mut state = State::default();
    (1..=5).for_each(|seconds| apply(&mut state, example(seconds)));
    state
}

/// Hashes that queue for the CPU, renderings that block, and an idle task that waits.
fn living() -> State {
    let mut state = State::default();
    state.apply(Update::Session { lives: true });
    for seconds in 1..=5 {
        let ns = |share: u64| share * seconds * 10_000_000;
        let life = |[on_cpu, blocked, ready, waiting]: [u64; 4]| {
            Some(LifeReport {
                on_cpu_ns: ns(on_cpu),
                blocked_ns: ns(blocked),
                ready_ns: ns(ready),
                waiting_ns: ns(waiting),
                ..LifeReport::default()
            })
        };
        let mut report = example(seconds);
        let lives = [[100, 0, 200, 100], [25, 75, 0, 0], [0, 0, 0, 320]].map(life);
        report.sites.iter_mut().zip(lives).for_each(|(site, life)| site.life = life);
        report.tasks[0].life = life([50, 0, 25, 25]);
        report.tree[1].life = life([0, 50, 0, 50]);
        apply(&mut state, report);
    }
    state
}

#[test]
fn lives_are_bars_and_numbers_on_a_usual_terminal() {
    let screen = screen(&mut living(), USUAL);
    assert_eq!(
        screen[4],
        "Tasks by spawn site  (3)  █on CPU ▓blocked ▒ready ░waiting =inside -new ·unknown"
    );
    assert_eq!(screen[5], " ▼CPU%  LIFE          BLOCKED   READY  WAITING  MAX POLL  NAME");
    assert!(
        screen[6].starts_with(" 100.0  ███▒▒▒▒▒▒░░░     0.00    2.00     1.00   1.50 ms"),
        "{}",
        screen[6]
    );
    assert!(
        screen[7].starts_with("  25.0  ███▓▓▓▓▓▓▓▓▓     0.75    0.00     0.00"),
        "{}",
        screen[7]
    );
    assert!(screen[8].contains("░░░░░░░░░░░░     0.00    0.00     3.20"), "{}", screen[8]);
    assert!(screen[6].ends_with("  GET /hash"), "{}", screen[6]);
}

#[test]
fn a_narrow_terminal_keeps_the_picture_of_lives() {
    let screen = screen(&mut living(), SMALL);
    let titles = screen.iter().find(|line| line.contains("NAME")).expect("titles");
    let words: Vec<_> = titles.split_whitespace().collect();
    assert_eq!(words, ["▼CPU%", "LIFE", "NAME"], "{screen:#?}");
    assert!(screen.iter().all(|line| width(line) <= 40), "{screen:#?}");
    assert!(!screen.concat().contains("█on CPU"), "half a legend is none: {screen:#?}");
}

#[test]
fn lives_are_in_the_tree_the_tasks_and_the_detail() {
    let mut state = living();
    state.press(Key::Char('t'));
    let tree = text(&mut state, USUAL);
    assert!(tree.contains("below  (2)  █on CPU ▓blocked ▒ready ░waiting\n"), "{tree}");
    let row = tree.lines().find(|line| line.ends_with("    GET /hash"));
    assert!(row.is_some_and(|row| row.contains("▓▓▓▓▓░░░░░")), "{tree}");
    state.press(Key::Char('t'));
    state.press(Key::Enter);
    let tasks = text(&mut state, USUAL);
    assert!(tasks.contains("███████▒▒▒░░░     0.00    0.25     0.25"), "{tasks}");
    state.press(Key::Enter);
    let task = text(&mut state, USUAL);
    assert!(
        task.contains("lived 5.00 s   on CPU 2.50 s (50.0%)   blocked -   ready 1.25 s (25.0%)\n"),
        "{task}"
    );
    assert!(task.contains("last interval █████████████▒▒▒▒▒▒▒░░░░░░  █on CPU ▓blocked"), "{task}");
}

#[test]
fn lives_have_colours_only_where_those_are_wanted() {
    let mut state = living();
    let colors: Vec<Color> = vec![Color::Green, Color::Red, Color::Yellow, Color::Blue];
    let colored = buffer(&mut state, USUAL, true);
    let is_marked = |color: Color, mark: &str| {
        colored.content.iter().any(|cell| cell.fg == color && cell.symbol() == mark)
    };
    for (color, mark) in colors.into_iter().zip(["█", "▓", "▒", "░"]) {
        assert!(is_marked(color, mark), "{mark}");
    }
    let plain = buffer(&mut state, USUAL, false);
    assert!(plain.content.iter().all(|cell| cell.fg == Color::Reset));
}

#[test]
fn why_there_are_no_lives_is_said_in_a_line() {
    let mut state = State::default();
    state.apply(Update::Session { lives: true });
    apply(&mut state, example(1));
    let shown = text(&mut state, USUAL);
    assert!(shown.contains("lives: the program's pertask does not measure them"), "{shown}");
    assert!(shown.contains("POLLS/S") && shown.contains("GET /hash"), "{shown}");
    let mut state = State::default();
    state.apply(Update::Sampled(Sampled { duration_ns: 1_000_000_000, ..Sampled::default() }));
    let size = (120, 24);
    let options = TopOptions { lives: true, ..options() };
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).expect("a terminal");
    let palette = Palette { color: false };
    terminal.draw(|frame| draw(frame, &state, &options, palette)).expect("a frame");
    let shown: String =
        terminal.backend().buffer().content.iter().map(|cell| cell.symbol()).collect();
    assert!(shown.contains("lives: samples do not tell"), "{shown}");
    state.apply(Update::LivesRefused("no\u{1b}[2J".to_owned()));
    assert!(text(&mut state, USUAL).contains("lives: no\\u{1b}[2J"));
}

#[test]
fn a_usual_terminal_shows_where_the_cpu_time_goes() {
    let screen = screen(&mut running(), USUAL);
    assert_eq!(screen.len(), 24);
    assert_eq!(screen[0], "image-server  pid 4711  0:05  3 tasks");
    assert_eq!(
        screen[1],
        "2.00 CPUs   62.5% in tasks   25.0% workers outside tasks   12.5% other threads"
    );
    assert_eq!(screen[2], "2 workers  ███████▒ 100%  ██▒▒····  50%");
    assert_eq!(screen[4], "Tasks by spawn site  (3)");
    assert_eq!(screen[5], " ▼CPU%  HISTORY    POLLS/S  MAX POLL  BLOCKED  NAME           SITE");
    assert_eq!(
        screen[6],
        " 100.0      █████     1000   1.50 ms           GET /hash      src/GET /hash.rs:7"
    );
    assert!(screen[8].contains("<0.1") || screen[8].contains("0.0"), "{}", screen[8]);
    assert!(screen[8].contains("src/idle.rs:7"), "{}", screen[8]);
    assert!(screen[23].starts_with("q quit  h help  Enter tasks"), "{}", screen[23]);
}

#[test]
fn a_wide_terminal_has_room_for_every_column() {
    let mut report = example(6);
    report.sites[0].wakes = Some(WakeReport { p99_ns: Some(1_310_720), ..WakeReport::default() });
    let mut state = running();
    apply(&mut state, report);
    let screen = text(&mut state, LARGE);
    for title in
        ["▼CPU%", "HISTORY", "CPU/POLL", "BLOCKED", "START/S", "LIVE", "WAKE P99", "NAME", "SITE"]
    {
        assert!(screen.contains(title), "{title}: {screen}");
    }
    assert!(screen.contains("1.31 ms"), "{screen}");
}

#[test]
fn a_narrow_terminal_keeps_the_name_and_what_matters_most() {
    let screen = screen(&mut running(), SMALL);
    assert!(screen.iter().all(|line| width(line) <= 40), "{screen:#?}");
    let titles = screen.iter().find(|line| line.contains("NAME")).expect("titles");
    assert!(titles.contains("CPU%") && titles.contains("MAX POLL"), "{titles}");
    assert!(!titles.contains("SITE"), "{titles}");
    let all = screen.join("\n");
    assert!(all.contains("GET /hash") && all.contains("src/idle.rs:7"), "{all}");
}

#[test]
fn no_size_is_too_small() {
    for page in ["", "t", "l", "w", "h", "/x", "\n", "\n\n", "s", "p", "E", "A\n\n"] {
        let mut state = if page.contains(['E', 'A']) { living() } else { running() };
        for key in page.chars() {
            state.press(if key == '\n' { Key::Enter } else { Key::Char(key) });
        }
        for columns in (0..=24).chain([40, 79, 81]) {
            for lines in (0..=24).chain([60]) {
                let screen = screen(&mut state, (columns, lines));
                assert!(screen.iter().all(|line| width(line) <= columns.into()), "{screen:#?}");
            }
        }
    }
}

#[test]
fn a_few_lines_still_have_a_name() {
    let screen = screen(&mut running(), (30, 2));
    assert!(screen[0].contains("GET /hash") && screen[1].contains("GET /render"), "{screen:#?}");
}

#[test]
fn hostile_names_reach_no_terminal() {
    let names = [
        "\u{1b}[2J\u{1b}]0;owned\u{7}",
        "a\nb\r\tc",
        "\u{202e}reversed\u{200b}",
        "画像処理ワーカー画像処理ワーカー画像処理ワーカー",
        "👨‍👩‍👧‍👦❤️👨‍👩‍👧‍👦❤️👨‍👩‍👧‍👦❤️👨‍👩‍👧‍👦❤️",
        &"long_".repeat(10_000),
        "e\u{301}\u{301}\u{301}\u{301}",
    ];
    let sites: Vec<_> = names.iter().map(|name| (*name, 5)).collect();
    let mut report = of_sites(1, &sites);
    report.tree = names.iter().zip(0..).map(|(name, id)| path(id, None, 50, name, 5)).collect();
    report.threads = vec![worker(1, 5, 5)];
    report.threads[0].name = names[0].to_owned();
    report.labels = vec![label(5, 5)];
    report.labels[0].key = names[0].to_owned();
    report.clock = format!("thread CPU clock ({})", names[0]);
    for keys in ["", "t", "l", "w", "s", "\n", "/\u{1b}[2J"] {
        let mut state = State::default();
        apply(&mut state, report.clone());
        for key in keys.chars() {
            state.press(if key == '\n' { Key::Enter } else { Key::Char(key) });
        }
        state.apply(Update::Ended(names[0].to_owned()));
        for size in [SMALL, USUAL, LARGE] {
            let text = text(&mut state, size);
            let harmful = |c: char| c != '\n' && pertask_text::text::is_harmful(c);
            assert!(!text.contains(harmful), "{text:?}");
            assert!(text.lines().all(|line| width(line) <= size.0.into()), "{text}");
        }
    }
}

#[test]
fn without_colour_nothing_is_coloured_and_the_selection_is_still_seen() {
    let mut report = example(6);
    report.lost = Lost { polls_untracked: 12, ..Lost::default() };
    let mut state = running();
    apply(&mut state, report);
    let plain = buffer(&mut state, USUAL, false);
    assert!(plain.content.iter().all(|cell| (cell.fg, cell.bg) == (Color::Reset, Color::Reset)));
    let marked =
        |cell: &&ratatui::buffer::Cell| cell.modifier.contains(ratatui::style::Modifier::REVERSED);
    assert_eq!(plain.content.iter().filter(marked).count(), 80);
    let colored = buffer(&mut state, USUAL, true);
    assert!(colored.content.iter().any(|cell| cell.fg == Color::Red), "the longest poll");
    assert!(colored.content.iter().all(|cell| cell.bg == Color::Reset));
}

#[test]
fn what_is_lost_is_said_even_on_a_low_terminal() {
    let mut report = example(6);
    report.lost = Lost { polls_untracked: 12, tasks_without_data: 1, ..Lost::default() };
    report.clock = "thread CPU clock, a system call at each switch (refused: rseq: no)".to_owned();
    let mut state = running();
    apply(&mut state, report);
    let text = text(&mut state, USUAL);
    assert!(text.contains("lost: 1 task without data, 12 polls not followed"), "{text}");
    assert!(text.contains("clock: thread CPU clock"), "{text}");
    let low = screen(&mut state, (80, 8)).join("\n");
    assert!(low.contains("lost: ") && !low.contains("clock: "), "{low}");
}

#[test]
fn the_header_says_that_figures_are_old() {
    let mut state = running();
    state.press(Key::Char('p'));
    state.note_silence(Some(5));
    let first = screen(&mut state, USUAL)[0].clone();
    assert!(first.ends_with("no figures for 5 s   PAUSED"), "{first}");
    state.apply(Update::Ended("the connection broke".to_owned()));
    let text = text(&mut state, USUAL);
    assert!(text.contains(" ENDED"), "{text}");
    assert!(text.contains("the connection broke: these are the last figures. q leaves"), "{text}");
}

#[test]
fn nothing_is_explained() {
    let mut state = State::default();
    assert!(text(&mut state, USUAL).contains("waiting for the first figures"));
    apply(&mut state, of_sites(1, &[]));
    assert!(text(&mut state, USUAL).contains("no task was seen: name futures"));
    let mut state = running();
    "/zzz".chars().for_each(|key| drop(state.press(Key::Char(key))));
    let text = text(&mut state, USUAL);
    assert!(text.contains("no name or file contains “zzz”"), "{text}");
    assert!(text.contains("/zzz_   Enter keeps the filter"), "{text}");
}

#[test]
fn the_tree_is_indented() {
    let mut state = running();
    state.press(Key::Char('t'));
    let text = text(&mut state, USUAL);
    assert!(text.contains("  server"), "{text}");
    assert!(text.contains("    GET /hash"), "{text}");
    assert!(text.contains("▼INCL%"), "{text}");
}

#[test]
fn a_task_has_its_figures_and_its_functions() {
    let mut state = running();
    state.press(Key::Enter);
    let tasks = text(&mut state, USUAL);
    assert!(tasks.contains("Live tasks of GET /hash  src/GET /hash.rs:7  (2)"), "{tasks}");
    assert!(tasks.contains("18412"), "{tasks}");
    state.press(Key::Enter);
    assert!(text(&mut state, USUAL).contains("sampling: the hottest functions will be here"));
    let function = "core::fmt::write".to_owned();
    let found = Ok(vec![HotFunction { function, share: 0.625 }]);
    state.apply(Update::Stacks { of: Subject::Task(18_412), found });
    let text = text(&mut state, USUAL);
    assert!(text.contains("Task 18412  GET /hash"), "{text}");
    assert!(text.contains("CPU now 50.0%   CPU in all 2.50 s   polls/s 500"), "{text}");
    assert!(text.contains("  62.5  core::fmt::write"), "{text}");
    let refused = Err("sampling is off\u{1b}[2J".to_owned());
    state.apply(Update::Stacks { of: Subject::Task(18_412), found: refused });
    assert!(self::text(&mut state, USUAL).contains("no functions: sampling is off\\u{1b}"));
}

#[test]
fn estimates_are_called_estimates() {
    let mut state = State::default();
    let row = SampledType { name: "~axum::serve".to_owned(), cpu_ns: 250_000_000, samples: 25 };
    let sampled = Sampled {
        duration_ns: 1_000_000_000,
        process_cpu_ns: 500_000_000,
        tasks_cpu_ns: 250_000_000,
        types: vec![row],
        lost: 3,
    };
    state.apply(Update::Sampled(sampled));
    let text = text(&mut state, USUAL);
    assert!(text.contains("0.50 CPUs   50.0% in tasks"), "{text}");
    assert!(text.contains("estimates from samples. One line in main, pertask::init(),"), "{text}");
    assert!(text.contains("lost: 3 samples"), "{text}");
    assert!(text.contains("  25.0  "), "{text}");
    assert!(text.contains("~axum::serve"), "{text}");
}

#[test]
fn the_help_fits_the_usual_terminal() {
    let mut state = running();
    state.press(Key::Char('?'));
    let screen = screen(&mut state, USUAL);
    assert!(screen.contains(&"Any key closes this help.".to_owned()), "{screen:#?}");
    assert!(screen.iter().all(|line| !line.contains('…')), "{screen:#?}");
}

#[test]
fn many_workers_are_a_character_each() {
    let mut state = running();
    let mut report = example(6);
    report.threads = (0..64).map(|tid| worker(tid, u64::from(tid) * 90, 0)).collect();
    apply(&mut state, report);
    let screen = screen(&mut state, USUAL);
    assert!(screen[2].starts_with("64 workers  ") && screen[2].contains('▇'), "{}", screen[2]);
}

#[test]
fn blocked_workers_have_a_line_where_they_are_asked_for() {
    let mut state = running();
    assert!(!text(&mut state, LARGE).contains("blocked workers"));
    let row = |name: &str| pertask::BlockedRow {
        site: SpawnSite { name: Some(name.to_owned()), ..SpawnSite::default() },
        state: pertask::BlockedState::Blocked,
        call: Some("fsync".to_owned()),
        polls: 2,
        under_way: 0,
        total_ns: 30_000_000,
        max_ns: 20_000_000,
        at_least: false,
        cpu_ns: 0,
        task: 1,
        tid: 2,
        labels: Vec::new(),
        place: None,
        stack: Vec::new(),
        stack_complete: true,
    };
    let mut report = example(6);
    let (threshold_ns, rows) = (10_000_000, vec![row("GET /\u{1b}[31m")]);
    let blocked = pertask::BlockedReport { threshold_ns, polls: 2, rows, ..Default::default() };
    report.blocked = Some(blocked);
    apply(&mut state, report);
    let screen = text(&mut state, LARGE);
    let line = "blocked workers: 2 polls of 10.0 ms or longer; the longest 20.0 ms by GET /";
    assert!(screen.contains(line) && !screen.contains('\u{1b}'), "{screen}");
}
