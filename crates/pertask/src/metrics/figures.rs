//! What the answers of one [`Metrics`](super::Metrics) show, and what they have shown.

use super::blocked::BlockedPolls;
use super::shown::Shown;
use super::sites::Sites;
use super::threads::ThreadTimes;
use crate::report::{Lost, Report};
use std::time::{Duration, SystemTime};

/// All figures. No counter among them ever falls.
#[derive(Debug)]
pub(super) struct Figures {
    /// When counting began, since 1970.
    pub(super) started: Duration,
    /// Whether waits are measured.
    pub(super) measures_waits: bool,
    /// Whether lives are measured.
    pub(super) measures_lives: bool,
    /// Whether polls that block their worker are counted.
    pub(super) counts_blocked: bool,
    pub(super) sites: Sites,
    pub(super) process_cpu_ns: Shown,
    pub(super) unknown_cpu_ns: Shown,
    pub(super) threads: ThreadTimes,
    /// What could not be counted.
    pub(super) lost: [(&'static str, Shown); LOSSES],
    /// The answers so far, and the CPU time that they took.
    pub(super) scrapes: u64,
    pub(super) scrapes_cpu_ns: u64,
}

const LOSSES: usize = 6;

impl Figures {
    pub(super) fn new(max_sites: usize, measures_waits: bool) -> Self {
        let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            started: started.unwrap_or_default(),
            measures_waits,
            measures_lives: false,
            counts_blocked: false,
            sites: Sites::new(max_sites),
            process_cpu_ns: Shown::default(),
            unknown_cpu_ns: Shown::default(),
            threads: ThreadTimes::default(),
            lost: losses(&Lost::default()).map(|(what, _)| (what, Shown::default())),
            scrapes: 0,
            scrapes_cpu_ns: 0,
        }
    }

    pub(super) fn update(&mut self, report: &Report, blocked: &[BlockedPolls]) {
        self.sites.update(&report.sites, blocked);
        self.process_cpu_ns.raise(report.process_cpu_ns);
        self.unknown_cpu_ns.raise(report.unknown_cpu_ns);
        self.threads.update(report);
        for ((_, shown), (_, now)) in self.lost.iter_mut().zip(losses(&report.lost)) {
            shown.raise(now);
        }
    }

    pub(super) fn add_scrape(&mut self, cpu_ns: u64) {
        self.scrapes += 1;
        self.scrapes_cpu_ns += cpu_ns;
    }
}

fn losses(lost: &Lost) -> [(&'static str, u64); LOSSES] {
    // Without `..`, so that a new loss is thought of here.
    let Lost {
        tasks_without_data,
        tasks_without_site,
        tasks_without_path,
        label_sets_without_place,
        polls_untracked,
        polls_out_of_order,
        // The session counts no events.
        turns_without_counters: _,
        workers_without_counters: _,
    } = lost;
    [
        ("tasks_without_data", *tasks_without_data),
        ("tasks_without_site", *tasks_without_site),
        ("tasks_without_path", *tasks_without_path),
        ("label_sets_without_place", *label_sets_without_place),
        ("polls_untracked", *polls_untracked),
        ("polls_out_of_order", *polls_out_of_order),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{SiteReport, SpawnSite, ThreadReport, Usage};

    /// A report of nothing but these rows and threads.
    fn report(sites: Vec<SiteReport>, threads: Vec<ThreadReport>) -> Report {
        let sum = |worker: bool| {
            threads.iter().filter(|it| it.worker == worker).map(|it| it.cpu_ns).sum::<u64>()
        };
        Report {
            workers_cpu_ns: sum(true),
            other_cpu_ns: sum(false),
            sites,
            threads,
            ..Report::default()
        }
    }

    fn site(name: &str, line: u32, count: u64) -> SiteReport {
        let file = "a.rs".to_owned();
        SiteReport {
            site: SpawnSite { name: Some(name.to_owned()), file, line },
            tasks_started: count,
            tasks_live: count,
            usage: Usage { polls: count, cpu_ns: count, wall_ns: count, max_poll_ns: count },
            counters: Vec::new(),
            wakes: None,
            life: None,
            memory: None,
        }
    }

    fn thread(tid: u32, worker: bool, cpu_ns: u64) -> ThreadReport {
        ThreadReport { name: String::new(), tid: Some(tid), worker, cpu_ns, tasks_cpu_ns: 0 }
    }

    /// For each series its labels, the highest values, and the live tasks.
    fn shown(figures: &Figures) -> Vec<(String, u64, u64)> {
        let values = figures.sites.series().map(|series| {
            let all = [&series.wall_ns, &series.polls, &series.started, &series.longest_poll_ns];
            assert!(all.iter().all(|shown| **shown == series.cpu_ns), "{series:?}");
            (series.labels.clone(), series.cpu_ns.get(), series.live)
        });
        values.collect()
    }

    fn row(labels: &str, highest: u64, live: u64) -> (String, u64, u64) {
        (labels.to_owned(), highest, live)
    }

    #[test]
    fn what_falls_or_goes_is_shown_as_it_was() {
        let mut figures = Figures::new(9, false);
        let a = r#"name="a",site="a.rs:1""#;
        figures.update(&report(vec![site("a", 1, 5)], vec![]), &[]);
        figures.update(&report(vec![site("a", 1, 3)], vec![]), &[]);
        assert_eq!(shown(&figures), [row(a, 5, 3)]);
        figures.update(&report(vec![], vec![]), &[]);
        assert_eq!(shown(&figures), [row(a, 5, 0)]);
        figures.update(&report(vec![site("a", 1, 6)], vec![]), &[]);
        assert_eq!(shown(&figures), [row(a, 6, 6)]);
    }

    #[test]
    fn what_the_process_uses_and_loses_does_not_fall() {
        let mut figures = Figures::new(9, false);
        let with = |amount: u64| {
            let lost = Lost { tasks_without_data: amount, ..Lost::default() };
            let empty = report(vec![], vec![]);
            Report { process_cpu_ns: amount, unknown_cpu_ns: amount, lost, ..empty }
        };
        figures.update(&with(5), &[]);
        figures.update(&with(4), &[]);
        let shown = [figures.process_cpu_ns, figures.unknown_cpu_ns, figures.lost[0].1];
        assert_eq!(shown.map(Shown::get), [5, 5, 5]);
    }

    #[test]
    fn rows_of_one_name_and_line_are_one_series() {
        let mut figures = Figures::new(9, false);
        let rows = vec![site("a", 1, 5), site("a", 1, 5), site("a", 2, 1)];
        figures.update(&report(rows, vec![]), &[]);
        let series: Vec<_> = figures.sites.series().collect();
        let polls: Vec<_> = series.iter().map(|it| it.polls.get()).collect();
        assert_eq!((polls, series[0].longest_poll_ns.get()), (vec![10, 1], 5));
    }

    #[test]
    fn blocking_polls_are_those_of_their_site_and_do_not_fall() {
        let mut figures = Figures::new(1, false);
        let of = |line, polls| BlockedPolls {
            site: site("a", line, 0).site,
            polls,
            total_ns: 10 * polls,
        };
        let mut shown = |polls: &[BlockedPolls]| {
            figures.update(&report(vec![site("a", 1, 1)], vec![]), polls);
            let series = figures.sites.series();
            series.map(|it| (it.blocking_polls.get(), it.blocking_ns.get())).collect::<Vec<_>>()
        };
        assert_eq!(shown(&[of(1, 3), of(2, 5), of(3, 1)]), [(3, 30), (6, 60)]);
        assert_eq!(shown(&[of(1, 2)]), [(3, 30), (6, 60)]);
        assert_eq!(figures.sites.folded(), 0, "that is of the sites of the report");
    }

    #[test]
    fn a_site_keeps_the_series_that_it_came_to() {
        let mut figures = Figures::new(1, false);
        let other = r#"name="(other)",site="""#;
        figures.update(&report(vec![site("a", 1, 1)], vec![]), &[]);
        figures.update(&report(vec![site("b", 1, 9), site("a", 1, 2)], vec![]), &[]);
        assert_eq!(shown(&figures), [row(r#"name="a",site="a.rs:1""#, 2, 2), row(other, 9, 9)]);
        // Where the core has no place, the site has no file.
        let beyond = SiteReport { site: SpawnSite::default(), ..site("(other)", 0, 9) };
        figures.update(&report(vec![beyond, site("b", 1, 9)], vec![]), &[]);
        let series: Vec<_> = figures.sites.series().collect();
        assert_eq!((series[1].polls.get(), series[1].live), (18, 18));
        assert_eq!((figures.sites.own(), figures.sites.folded()), (1, 1));
    }

    #[test]
    fn a_thread_takes_along_nothing_when_it_becomes_a_worker() {
        let mut figures = Figures::new(9, false);
        let mut after = |threads: &[ThreadReport]| {
            figures.update(&report(vec![], threads.to_vec()), &[]);
            let ThreadTimes { workers_ns, others_ns, workers, others, .. } = figures.threads;
            (workers_ns.get(), others_ns.get(), workers, others)
        };
        assert_eq!(after(&[thread(1, false, 100), thread(2, false, 7)]), (0, 107, 0, 2));
        assert_eq!(after(&[thread(1, true, 130), thread(2, false, 8)]), (30, 108, 1, 1));
        assert_eq!(after(&[thread(1, true, 140), thread(2, false, 9)]), (40, 109, 1, 1));
        // A new thread has an old one's number: it never was another thread.
        let ended = ThreadReport { tid: None, ..thread(0, false, 9) };
        assert_eq!(after(&[thread(1, true, 150), thread(2, true, 5), ended]), (55, 109, 2, 0));
    }
}
