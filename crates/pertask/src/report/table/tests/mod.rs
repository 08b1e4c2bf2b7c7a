//! What a reader of the printed report sees.

mod examples;

use self::examples::*;
use super::super::{
    LabelReport, LabelValueReport, LifeReport, Lost, ProcessMemory, SiteReport, SpawnSite,
    TaskReport, ThreadReport, TreeReport, Usage, WakeReport,
};
use super::*;
use crate::pmus::counters::Counter;
use crate::pmus::memory::count::MemoryCount;
use pertask_text::text::width;

#[test]
fn numbers_end_and_texts_begin_under_their_titles() {
    for columns in [60, 80, 100, 160] {
        let shown = print(&busy_service(), plain(columns));
        for (title, rows) in [("Tasks by spawn site", 9), ("Live tasks", 4), ("Threads", 5)] {
            let lines = section(&shown, title);
            assert_eq!(lines.len(), 2 + rows, "{shown}");
            lines[2..].iter().for_each(|row| assert_aligned(lines[1], row));
        }
    }
}

#[test]
fn sites_are_shown_as_given_with_all_columns_where_there_is_room() {
    let shown = print(&busy_service(), TableStyle::default());
    let lines = section(&shown, "Tasks by spawn site");
    let titles: Vec<_> = lines[1].split_whitespace().collect();
    let expected = "CPU% CPU WALL POLLS CPU/POLL MAX POLL STARTED LIVE TASK SITE";
    assert_eq!(titles.join(" "), expected);
    let row: Vec<_> = lines[3].split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    let expected =
        "22.7%|5.31 s|5.40 s|1.20M|4.41 µs|12.9 ms|18.2k|12|GET /api/v1/search|src/search.rs:141";
    assert_eq!(row.join("|"), expected);
    let sites = busy_service().sites;
    for (line, site) in lines[2..].iter().zip(&sites) {
        assert!(line.ends_with(&format!("{}:{}", site.site.file, site.site.line)), "{line}");
    }
}

#[test]
fn a_tree_stands_in_place_of_the_sites_and_is_indented() {
    let shown = print(&busy_service(), TableStyle { tree: true, ..plain(80) });
    assert!(!shown.contains("Tasks by spawn site"), "{shown}");
    let lines = section(&shown, "Tasks by spawn path");
    assert_eq!(
        lines[1].split_whitespace().collect::<Vec<_>>().join(" "),
        "CPU% INCL OWN POLLS TASK SITE"
    );
    let task = lines[1].find("TASK").expect("its title");
    let names = ["accept ", "  GET /api/v1/search ", "    resize_image ", "kafka_consumer "];
    for (line, name) in lines[2..].iter().zip(names) {
        let from_task: String = line.chars().skip(task).collect();
        assert!(from_task.starts_with(name), "{shown}");
        assert!(line.ends_with("connections.rs:141"), "{shown}");
    }
    assert!(lines[3].starts_with("47.8%  11.2 s    200 µs  "), "{shown}");
    // Too deep for blanks.
    assert!(lines[6].contains("            7: far below "), "{shown}");
    let shown = print(&busy_service(), TableStyle { tree: true, ..TableStyle::default() });
    let titles: Vec<_> = section(&shown, "Tasks by spawn path")[1].split_whitespace().collect();
    assert_eq!(titles.join(" "), "CPU% INCL OWN POLLS STARTED LIVE TASK SITE");
}

#[test]
fn paths_beyond_the_maximum_are_counted_with_their_own_time() {
    let style = TableStyle { tree: true, max_sites: 1, ..TableStyle::default() };
    let shown = print(&busy_service(), style);
    let lines = section(&shown, "Tasks by spawn path");
    assert_eq!((lines.len(), lines[3]), (4, "… and 4 more, 12.2 s CPU"));
}

#[test]
fn lives_stand_in_the_tree_in_place_of_the_sites() {
    let life = |waiting_ns| Some(LifeReport { waiting_ns, ..LifeReport::default() });
    let mut report = busy_service();
    report.sites[0].life = life(9_000_000);
    for (row, waiting_ns) in report.tree.iter_mut().zip([1_000_000, 0, 7_000_000]) {
        row.life = (waiting_ns > 0).then(|| life(waiting_ns)).flatten();
    }
    let by_site = print(&report, plain(100));
    assert!(by_site.contains("Lives of tasks by spawn site") && !by_site.contains("Own lives"));
    let shown = print(&report, TableStyle { tree: true, ..plain(100) });
    assert!(!shown.contains("Lives of tasks by spawn site"), "{shown}");
    let lines = section(&shown, "Own lives of tasks by spawn path");
    let task = lines[1].find("TASK").expect("its title");
    let rows = [
        ("1.00 ms", "accept "),
        ("-", "  GET /api/v1/search "),
        ("7.00 ms", "    resize_image "),
        ("-", "kafka_consumer "),
    ];
    for (line, (life, name)) in lines[2..].iter().zip(rows) {
        let from_task: String = line.chars().skip(task).collect();
        assert!(line.trim_start().starts_with(life) && from_task.starts_with(name), "{shown}");
    }
    let style = TableStyle { tree: true, max_sites: 2, ..plain(100) };
    assert!(!print(&report, style).contains("7.00 ms"), "it is below the maximum");
    report.tree.iter_mut().for_each(|row| row.life = None);
    let without = print(&report, TableStyle { tree: true, ..plain(100) });
    assert!(!without.contains("lives of"), "{without}");
}

#[test]
fn the_columns_that_matter_least_go_first() {
    let expected = [
        (60, "CPU% CPU MAX POLL TASK SITE"),
        (80, "CPU% CPU POLLS CPU/POLL MAX POLL TASK SITE"),
        (100, "CPU% CPU WALL POLLS CPU/POLL MAX POLL STARTED TASK SITE"),
    ];
    for (columns, titles) in expected {
        let shown = print(&busy_service(), plain(columns));
        let lines = section(&shown, "Tasks by spawn site");
        assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>().join(" "), titles);
        let site = lines[1].find("SITE").expect("its title");
        assert!(columns == 60 || site + 20 <= columns.into(), "too little is left of the site");
    }
}

#[test]
fn a_narrow_terminal_cuts_names_at_their_end_and_paths_at_their_beginning() {
    let shown = print(&busy_service(), plain(60));
    let lines = section(&shown, "Tasks by spawn site");
    assert!(lines[3].contains("  GET /api/v1") && lines[3].contains("…"), "{}", lines[3]);
    assert!(lines[5].ends_with("worker.rs:219"), "{}", lines[5]);
}

#[test]
fn the_units_of_a_column_stand_under_each_other() {
    let shown = print(&busy_service(), plain(60));
    let lines = section(&shown, "Tasks by spawn site");
    assert!(lines[5].starts_with(" 4.4%  1.02 s "), "{}", lines[5]);
    assert!(lines[6].starts_with(" 2.6%   612 ms"), "{}", lines[6]);
    assert!(lines[8].starts_with(" 0.2%  39.1 ms"), "{}", lines[8]);
}

#[test]
fn without_a_poll_the_longest_is_a_dash() {
    let shown = print(&busy_service(), plain(60));
    let row = section(&shown, "Tasks by spawn site")[5];
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(cells[..4], ["4.4%", "1.02", "s", "-"], "{row}");
}

#[test]
fn ended_threads_share_a_named_row() {
    let shown = print(&busy_service(), TableStyle::default());
    let rows = section(&shown, "Threads");
    let ended: Vec<_> = rows[6].split_whitespace().collect();
    assert_eq!(ended.join(" "), "0.9% 210 ms 0.0% other - (ended threads)");
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for report in [busy_service(), nasty(), extreme()] {
        for columns in 60..=200 {
            for (color, tree) in [(false, false), (true, false), (false, true), (true, true)] {
                let shown = print(&report, TableStyle { color, tree, ..plain(columns) });
                for line in without_ansi(&shown).lines() {
                    assert!(width(line) <= columns.into(), "{columns}: {line}");
                }
            }
        }
    }
}

#[test]
fn a_width_below_the_minimum_is_the_minimum() {
    for columns in [0, 1, 59] {
        assert_eq!(print(&nasty(), plain(columns)), print(&nasty(), plain(60)));
    }
}

#[test]
fn names_steer_no_terminal() {
    let shown = print(&nasty(), TableStyle::default());
    assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
    assert!(shown.contains(r"\u{1b}[2Jcleared\n\r\u{7}"), "{shown}");
    assert!(shown.contains(r"two\nlines"), "{shown}");
}

#[test]
fn colour_adds_nothing_but_colour() {
    for columns in [60, 100, 200] {
        for report in [busy_service(), nasty(), extreme()] {
            let colored = print(&report, TableStyle { color: true, ..plain(columns) });
            assert_eq!(without_ansi(&colored), print(&report, plain(columns)));
        }
    }
}

#[test]
fn colour_marks_polls_that_block_their_worker() {
    let shown = print(&busy_service(), TableStyle { color: true, ..TableStyle::default() });
    assert!(shown.contains("\x1b[31m141 ms\x1b[0m"), "{shown:?}");
    assert!(shown.contains("\x1b[33m12.9 ms\x1b[0m"), "{shown:?}");
    assert!(shown.contains("  9.10 ms  "), "{shown:?}");
}

#[test]
fn the_printed_summary_adds_up_to_the_nanosecond() {
    let equal = Report { other_cpu_ns: 711_802_894, ..busy_service() };
    let too_much = Report { other_cpu_ns: 911_802_894, ..busy_service() };
    for (report, rows) in [(busy_service(), 4), (equal, 3), (too_much, 4), (extreme(), 5)] {
        let shown = print(&report, plain(80));
        let (parts, process) = summed(&shown);
        assert_eq!(parts.len(), rows, "{shown}");
        assert_eq!(parts.iter().sum::<i128>(), process, "{shown}");
        assert_eq!(process, report.process_cpu_ns.into());
        let Report { tasks_cpu_ns, unknown_cpu_ns, workers_cpu_ns, other_cpu_ns, .. } = report;
        let mut told = vec![tasks_cpu_ns, unknown_cpu_ns, workers_cpu_ns, other_cpu_ns];
        told.retain(|ns| *ns > 0);
        assert_eq!(parts[..told.len()], told.into_iter().map(i128::from).collect::<Vec<_>>());
    }
}

#[test]
fn what_no_part_holds_is_said_either_way() {
    let shown = print(&busy_service(), plain(60));
    assert!(shown.contains("0.000012341 s   <0.1%  unattributed"), "{shown}");
    let too_much = Report { other_cpu_ns: 911_802_894, ..busy_service() };
    let shown = print(&too_much, plain(60));
    assert!(shown.contains("-0.200000000 s   -0.9%  unattributed"), "{shown}");
}

#[test]
fn rows_beyond_the_maximum_are_counted_with_their_time() {
    let style = TableStyle { max_sites: 7, max_tasks: 3, max_threads: 0, ..TableStyle::default() };
    let shown = print(&busy_service(), style);
    let sites = section(&shown, "Tasks by spawn site");
    assert_eq!((sites.len(), sites[9]), (10, "… and 2 more, 9.41 ms CPU"));
    let tasks = section(&shown, "Live tasks");
    assert_eq!((tasks.len(), tasks[5]), (6, "… and 1 more, 39.1 ms CPU"));
    assert_eq!(section(&shown, "Threads")[1..], ["… and 5 more, 23.3 s CPU"]);
    assert!(!print(&busy_service(), TableStyle::default()).contains("more"));
}

#[test]
fn losses_are_told_each_by_itself_and_only_when_there_are_any() {
    assert!(!print(&busy_service(), plain(80)).contains("lost"));
    let lost = Lost { tasks_without_data: 12, polls_untracked: 1, ..Lost::default() };
    let shown = print(&Report { lost, ..busy_service() }, plain(100));
    let told: Vec<_> = shown.lines().filter(|line| line.starts_with("lost: ")).collect();
    assert_eq!(
        told,
        [
            "lost: 12 tasks got no data: their time is in “workers, outside tasks”",
            "lost: 1 poll could not be followed: its time is in “workers, outside tasks”",
        ]
    );
    let lost = Lost { tasks_without_site: 3, ..Lost::default() };
    let shown = print(&Report { lost, ..busy_service() }, plain(100));
    assert!(shown.contains("lost: 3 tasks found no place in the table of sites"), "{shown}");
    let lost = Lost { workers_without_counters: 2, turns_without_counters: 1, ..Lost::default() };
    let shown = print(&Report { lost, ..busy_service() }, plain(100));
    assert!(shown.contains("lost: 2 workers have no counters"), "{shown}");
    assert!(shown.contains("lost: 1 turn of a task ran without counters: its events"), "{shown}");
    let lost = Lost { tasks_without_path: 1, ..Lost::default() };
    let shown = print(&Report { lost, ..busy_service() }, plain(100));
    assert!(shown.contains("lost: 1 task found no place in the tree of spawns"), "{shown}");
}

#[test]
fn the_header_tells_how_many_cpus_were_busy() {
    let shown = print(&busy_service(), plain(100));
    let header: Vec<_> = shown.lines().take(2).collect();
    assert_eq!(
        header,
        ["23.4 s of CPU time in 10.0 s: 2.34 CPUs busy", "clock: the thread CPU clock"]
    );
}

#[test]
fn an_empty_report_is_a_header_a_summary_of_nothing_and_advice() {
    let expected = r#"0 ns of CPU time in 0 ns: - CPUs busy

0.000000000 s       -  in tasks
0.000000000 s       -  workers, outside tasks
0.000000000 s       -  other threads
─────────────
0.000000000 s       -  process

No task was seen: name futures with `.task("..")`, or spawn
    them with `pertask::tokio::spawn`
For tasks that libraries spawn on tokio: build with `--cfg
    tokio_unstable`, and call
    `pertask::tokio::track_runtime`"#;
    assert_eq!(print(&Report::default(), plain(60)), expected);
}

#[test]
fn advice_is_for_programs_whose_tasks_use_nothing_while_threads_do() {
    let advice = |report| print(&report, TableStyle::default()).contains("name futures with");
    assert!(!advice(busy_service()));
    let idle = Report { tasks_cpu_ns: 0, ..busy_service() };
    assert!(advice(idle.clone()));
    // No thread does anything, except for the session.
    let quiet = Report { workers_cpu_ns: 90_000_000, other_cpu_ns: 9_000_000, ..idle };
    assert!(!advice(quiet));
}

#[test]
fn labels_have_their_values_and_the_rest() {
    let value = |value: &str, cpu_ns| LabelValueReport {
        value: value.into(),
        cpu_ns,
        life: None,
        memory: None,
    };
    let tenant = LabelReport {
        key: "tenant".into(),
        values: vec![value("acme", 6_000_000_000), value("zeta", 1_000_000_000), value("b", 400)],
        others_cpu_ns: 100,
        others_life: None,
        others_memory: None,
        without_cpu_ns: 2_000,
        without_life: None,
        without_memory: None,
    };
    let report = Report { labels: vec![tenant], ..busy_service() };
    let shown = print(&report, TableStyle { max_label_values: 2, ..plain(100) });
    let section = shown.split("\n\n").find(|it| it.starts_with("Tasks by label tenant")).unwrap();
    let rows: Vec<_> = section.lines().skip(2).map(|line| line.trim()).collect();
    let percent = human::percent(6_000_000_000, report.process_cpu_ns);
    assert_eq!(rows[0], format!("{percent}   6.00 s  acme"));
    assert!(rows[1].ends_with("1.00 s  zeta"), "{section}");
    assert!(rows[2].ends_with("500 ns  (other values)"), "{section}");
    assert!(rows[3].ends_with("2.00 µs  (without)"), "{section}");

    let key = |n: usize| LabelReport { key: format!("key {n}"), ..report.labels[0].clone() };
    let many = Report { labels: (0..11).map(key).collect(), ..busy_service() };
    let shown = print(&many, plain(100));
    assert!(shown.contains("… and 3 more keys of labels, which JSON has"), "{shown}");
}

#[test]
fn labels_have_lives_where_they_were_measured() {
    let life =
        |waiting_ns, on_cpu_ns| Some(LifeReport { waiting_ns, on_cpu_ns, ..LifeReport::default() });
    let value = |value: &str, life| LabelValueReport {
        value: value.into(),
        cpu_ns: 1_000,
        life,
        memory: None,
    };
    let tenant = LabelReport {
        key: "tenant".into(),
        values: vec![
            value("acme", life(2_000_000_000, 3_000_000_000)),
            value("zeta", life(8_000_000_000, 2_000_000_000)),
            value("never", life(0, 0)),
            value("brief", life(4_000, 1_000)),
        ],
        others_cpu_ns: 100,
        others_life: life(1_000, 0),
        others_memory: None,
        without_cpu_ns: 0,
        without_life: life(0, 7_000_000),
        without_memory: None,
    };
    let report = Report { labels: vec![tenant.clone(), tenant], ..busy_service() };
    let shown = print(&report, TableStyle { max_label_values: 2, ..plain(100) });
    let mut sections = shown.split("\n\n").filter(|it| it.starts_with("Lives by label tenant"));
    let section = sections.next().unwrap();
    let rows: Vec<_> = section.lines().skip(2).map(str::trim).collect();
    assert_eq!(
        rows[0], "10.0 s    20.0%        -      -    80.0%  ████░░░░░░░░░░░░░░░░  zeta",
        "{section}"
    );
    assert!(rows[1].ends_with("████████████░░░░░░░░  acme"), "{section}");
    assert!(rows[2].starts_with("6.00 µs") && rows[2].ends_with("(other values)"), "{section}");
    assert!(rows[3].ends_with("████████████████████  (without)"), "{section}");
    assert!(rows[4].starts_with("█ on cpu"), "{section}");
    assert!(!sections.next().unwrap().contains("on cpu"), "once is enough");
    assert!(!print(&busy_service(), plain(100)).contains("Lives by label"));
}

#[test]
fn labels_have_memory_where_it_was_counted() {
    let memory = |allocated_bytes, allocations| {
        Some(MemoryCount { allocated_bytes, allocations, ..MemoryCount::default() })
    };
    let value = |value: &str, memory| LabelValueReport {
        value: value.into(),
        cpu_ns: 1_000,
        life: None,
        memory,
    };
    let tenant = LabelReport {
        key: "tenant".into(),
        values: vec![
            value("acme", memory(1 << 20, 4)),
            value("zeta", memory(3 << 20, 2)),
            value("never", memory(0, 0)),
            value("brief", memory(1_024, 1)),
        ],
        others_cpu_ns: 100,
        others_life: None,
        others_memory: memory(1_024, 1),
        without_cpu_ns: 0,
        without_life: None,
        without_memory: memory(512, 8),
    };
    let process = MemoryCount { allocated_bytes: 8 << 20, ..MemoryCount::default() };
    let memory = Some(ProcessMemory { process, ..ProcessMemory::default() });
    let report = Report { labels: vec![tenant], memory, ..busy_service() };
    let shown = print(&report, TableStyle { max_label_values: 2, ..plain(100) });
    let section = shown.split("\n\n").find(|it| it.starts_with("Memory by label tenant")).unwrap();
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(
        section.lines().skip(2).map(words).collect::<Vec<_>>(),
        [
            "37.5% 3.00 MiB 2 1.50 MiB 0 B 0 zeta",
            "12.5% 1.00 MiB 4 256 KiB 0 B 0 acme",
            "<0.1% 2.00 KiB 2 1.00 KiB 0 B 0 (other values)",
            "<0.1% 512 B 8 64 B 0 B 0 (without)",
        ]
    );
    assert!(!print(&busy_service(), plain(100)).contains("Memory by label"));
}

#[test]
fn any_style_prints_any_report() {
    for report in [Report::default(), busy_service(), nasty(), extreme()] {
        for columns in [None, Some(0), Some(1), Some(60), Some(u16::MAX)] {
            for max in [0, 1, usize::MAX] {
                let maxima = (max, max, max);
                let (max_sites, max_tasks, max_threads) = maxima;
                for tree in [false, true] {
                    let style = TableStyle {
                        width: columns,
                        color: true,
                        tree,
                        max_sites,
                        max_tasks,
                        max_label_values: max,
                        max_threads,
                    };
                    assert!(print(&report, style).contains("process"));
                }
            }
        }
    }
}

#[test]
fn a_report_displays_as_its_default_table() {
    let report = busy_service();
    assert_eq!(report.to_string(), print(&report, TableStyle::default()));
}

#[test]
fn events_have_a_list_of_their_own_with_the_ratios_they_make() {
    let shown = print(&counted(), TableStyle::default());
    let lines = section(&shown, "Events by spawn site");
    let titles: Vec<_> = lines[1].split_whitespace().collect();
    assert_eq!(titles.join(" "), "CYCLES INSTRUCTIONS IPC CACHE-MISSES MPKI TASK-CLOCK TASK SITE");
    let row: Vec<_> = lines[2].split_whitespace().collect();
    assert_eq!(row.join(" "), "2.00M ~3.00M ~1.50 4500 ~1.50 7.00 ms hash src/hash.rs:8");
    let tasks = section(&shown, "Events of the live tasks");
    assert!(tasks[2].ends_with("7.00 ms   7  hash"), "{}", tasks[2]);
}

#[test]
fn what_counts_each_event_is_said_and_what_does_not() {
    let shown = print(&counted(), plain(80));
    let sources = section(&shown, "cycles: perf, a read at each switch");
    let all = sources.join(" ");
    assert!(all.contains("bus-cycles: not counted (ENOENT: no such event)"), "{all}");
    assert!(all.contains("~ an estimate"), "{all}");
    assert!(!shown.contains("BUS-CYCLES"), "a column of nothing: {shown}");
}

#[test]
fn what_is_counted_in_user_mode_alone_says_so_in_its_title() {
    let mut report = counted();
    report.counters[0].modes = "u".into();
    let shown = print(&report, TableStyle::default());
    assert!(
        section(&shown, "Events by spawn site")[1].starts_with("CYCLES:U  INSTRUCTIONS"),
        "{shown}"
    );
}

#[test]
fn each_ratio_is_of_the_modes_before_it() {
    let count =
        |event: &str, count| Counter { event: event.into(), count: Some(count), estimated: false };
    let mut report = counted();
    let counters =
        [("cycles", 100), ("instructions", 50), ("cycles:u", 10), ("instructions:u", 30)];
    report.counters = counters
        .map(|(event, _)| CounterSource { event: event.into(), ..report.counters[0].clone() })
        .into();
    report.sites[0].counters = counters.map(|(event, n)| count(event, n)).into();
    let shown = print(&report, TableStyle::default());
    let lines = section(&shown, "Events by spawn site");
    let row: Vec<_> = lines[2].split_whitespace().collect();
    assert_eq!(row[..6].join(" "), "100 50 0.50 10 30 3.00", "{}", lines[1]);
}

#[test]
fn a_report_without_events_does_not_speak_of_them() {
    assert!(!print(&busy_service(), TableStyle::default()).contains("Events"));
}

#[test]
fn waits_have_a_list_of_their_own_where_they_are_measured() {
    let mut report = busy_service();
    let us = |us: u64| Some(us * 1_000);
    report.sites[1].wakes = Some(WakeReport {
        count: 12_345,
        p50_ns: us(10),
        p90_ns: us(40),
        p99_ns: us(160),
        max_ns: None,
        histogram: Vec::new(),
    });
    let shown = print(&report, TableStyle::default());
    let lines = section(&shown, "Waits between wake and poll");
    let titles: Vec<_> = lines[1].split_whitespace().collect();
    assert_eq!(titles.join(" "), "WAKES P50 P90 P99 MAX TASK SITE");
    let row: Vec<_> = lines[2].split_whitespace().collect();
    assert_eq!(row[..8].join(" "), "12.3k 10.0 µs 40.0 µs 160 µs -");
    assert!(!print(&busy_service(), TableStyle::default()).contains("Waits"));
}

fn print(report: &Report, style: TableStyle) -> String {
    report.table(style).to_string()
}

fn plain(columns: u16) -> TableStyle {
    TableStyle { width: Some(columns), ..TableStyle::default() }
}

/// The lines of the section whose first line begins with `title`.
fn section<'a>(shown: &'a str, title: &str) -> Vec<&'a str> {
    let section = shown.split("\n\n").find(|section| section.starts_with(title));
    section.expect("no such section").lines().collect()
}

/// Numbers end where their title ends, texts begin where theirs begins.
fn assert_aligned(titles: &str, row: &str) {
    let cells: Vec<char> = row.chars().collect();
    for title in ["CPU%", "POLLS", "STARTED", "LIVE", "ID", "PARENT", "IN TASKS", "TID"] {
        let Some(start) = find_word(titles, title) else { continue };
        let end = start + title.len();
        assert!(cells[end - 1] != ' ' && cells[end] == ' ', "{title}\n{titles}\n{row}");
    }
    for title in ["TASK", "SITE", "KIND", "THREAD"] {
        let Some(start) = find_word(titles, title) else { continue };
        assert!(cells[start - 1] == ' ' && cells[start] != ' ', "{title}\n{titles}\n{row}");
    }
}

fn find_word(line: &str, word: &str) -> Option<usize> {
    format!("{line} ").match_indices(&format!("{word} ")).map(|(at, _)| at).find(|&at| {
        let before = line[..at].chars().last();
        before.is_none_or(|c| c == ' ')
    })
}

/// The printed parts and the printed process, read back as nanoseconds.
fn summed(shown: &str) -> (Vec<i128>, i128) {
    let lines: Vec<_> = shown.split("\n\n").nth(1).expect("a summary").lines().collect();
    let nanos = |line: &&str| {
        let seconds = line.split_whitespace().next().expect("a time");
        seconds.replace('.', "").parse::<i128>().expect("a number")
    };
    let rule = lines.iter().position(|line| line.starts_with('─')).expect("a rule");
    (lines[..rule].iter().map(nanos).collect(), nanos(&lines[rule + 1]))
}

fn without_ansi(shown: &str) -> String {
    let mut pieces = shown.split("\x1b[");
    let first = pieces.next().unwrap_or("").to_owned();
    first
        + &pieces
            .map(|piece| piece.split_once('m').map_or(piece, |(_, text)| text))
            .collect::<String>()
}
