//! Reports for tests.

use pertask::{
    LabelReport, LabelValueReport, Report, SiteReport, SpawnSite, TaskReport, ThreadReport,
    TreeReport, Usage,
};

/// A report of nothing.
pub fn report() -> Report {
    let clock = "rseq + CPU counter at 2100.0 MHz + thread CPU clock".to_owned();
    Report { clock, ..Report::default() }
}

/// A report after so many seconds, of sites that have used so many milliseconds of CPU time each.
pub fn of_sites(seconds: u64, sites: &[(&str, u64)]) -> Report {
    let sites: Vec<_> = sites.iter().map(|(name, ms)| site(name, *ms)).collect();
    let tasks_cpu_ns = sites.iter().map(|site| site.usage.cpu_ns).sum();
    Report {
        duration_ns: seconds * 1_000_000_000,
        process_cpu_ns: tasks_cpu_ns,
        tasks_cpu_ns,
        sites,
        ..report()
    }
}

/// A site whose tasks have used so many milliseconds, in a poll each.
pub fn site(name: &str, ms: u64) -> SiteReport {
    SiteReport {
        site: spawn_site(name),
        tasks_started: 2,
        tasks_live: 1,
        usage: usage(ms),
        counters: Vec::new(),
        wakes: None,
        life: None,
        memory: None,
    }
}

/// A site in `src/NAME.rs`.
pub fn spawn_site(name: &str) -> SpawnSite {
    SpawnSite { name: Some(name.to_owned()), file: format!("src/{name}.rs"), line: 7 }
}

/// Milliseconds of CPU time, in a poll each.
pub fn usage(ms: u64) -> Usage {
    let cpu_ns = ms * 1_000_000;
    Usage { polls: ms, cpu_ns, wall_ns: cpu_ns, max_poll_ns: 1_500_000 }
}

/// A live task of a site.
pub fn task(id: u64, name: &str, ms: u64) -> TaskReport {
    TaskReport {
        id,
        parent: Some(1),
        site: spawn_site(name),
        usage: usage(ms),
        counters: Vec::new(),
        wakes: None,
        life: None,
        memory: None,
    }
}

/// A spawn path below another one.
pub fn path(id: u32, parent: Option<u32>, depth: u32, name: &str, ms: u64) -> TreeReport {
    TreeReport {
        id,
        parent,
        depth,
        site: spawn_site(name),
        tasks_started: 2,
        tasks_live: 1,
        usage: usage(ms),
        memory: None,
        inclusive_memory: None,
        inclusive_cpu_ns: ms * 2_000_000,
        life: None,
    }
}

/// A worker, with its CPU time and the part of that in tasks.
pub fn worker(tid: u32, ms: u64, in_tasks_ms: u64) -> ThreadReport {
    ThreadReport {
        name: format!("worker-{tid}"),
        tid: Some(tid),
        worker: true,
        cpu_ns: ms * 1_000_000,
        tasks_cpu_ns: in_tasks_ms * 1_000_000,
    }
}

/// The label `tenant` with two values.
pub fn label(acme_ms: u64, others_ms: u64) -> LabelReport {
    LabelReport {
        key: "tenant".to_owned(),
        values: vec![LabelValueReport {
            value: "acme".to_owned(),
            cpu_ns: acme_ms * 1_000_000,
            life: None,
            memory: None,
        }],
        others_cpu_ns: others_ms * 1_000_000,
        others_life: None,
        others_memory: None,
        without_cpu_ns: 1_000_000,
        without_life: None,
        without_memory: None,
    }
}
