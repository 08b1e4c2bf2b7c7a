//! The events that can be counted, by perf's names.

use crate::os::perf::What;
use perf_event_open_sys::bindings as sys;
use std::fmt;
use std::str::FromStr;

/// An event to count for each task, named as in `perf list`.
///
/// A modifier limits the event to a mode, as in perf: `instructions:u` counts in user mode, `instructions:k` in the kernel. A
/// raw event of the processor is `r` followed by its code in hexadecimal: `r00c0`.
///
/// ```
/// use pertask::CounterEvent;
///
/// let event: CounterEvent = "branch-misses:u".parse()?;
/// assert_eq!(event.name(), "branch-misses:u");
///
/// let unknown = "cylces".parse::<CounterEvent>().unwrap_err();
/// assert!(unknown.to_string().contains("cycles, "));
/// # Ok::<(), pertask::UnknownEvent>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CounterEvent {
    name: String,
    pub(super) what: What,
    /// Whether the name itself says in which modes to count.
    pub(super) modes_given: bool,
}

/// The error for a name that no event has.
///
/// Its message lists the names that there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownEvent {
    name: String,
}

/// An event that has a name.
#[derive(Clone, Copy, Debug)]
struct Known {
    name: &'static str,
    alias: Option<&'static str>,
    kind: u32,
    config: u64,
}

const fn hardware(name: &'static str, alias: Option<&'static str>, config: u32) -> Known {
    Known { name, alias, kind: sys::PERF_TYPE_HARDWARE, config: config as u64 }
}

const fn software(name: &'static str, alias: Option<&'static str>, config: u32) -> Known {
    Known { name, alias, kind: sys::PERF_TYPE_SOFTWARE, config: config as u64 }
}

const fn cache(name: &'static str, cache: u32, operation: u32, result: u32) -> Known {
    let config = (cache | operation << 8 | result << 16) as u64;
    Known { name, alias: None, kind: sys::PERF_TYPE_HW_CACHE, config }
}

const fn loads(name: &'static str, of: u32) -> Known {
    cache(name, of, sys::PERF_COUNT_HW_CACHE_OP_READ, sys::PERF_COUNT_HW_CACHE_RESULT_ACCESS)
}

const fn load_misses(name: &'static str, of: u32) -> Known {
    cache(name, of, sys::PERF_COUNT_HW_CACHE_OP_READ, sys::PERF_COUNT_HW_CACHE_RESULT_MISS)
}

const fn stores(name: &'static str, of: u32) -> Known {
    cache(name, of, sys::PERF_COUNT_HW_CACHE_OP_WRITE, sys::PERF_COUNT_HW_CACHE_RESULT_ACCESS)
}

const fn store_misses(name: &'static str, of: u32) -> Known {
    cache(name, of, sys::PERF_COUNT_HW_CACHE_OP_WRITE, sys::PERF_COUNT_HW_CACHE_RESULT_MISS)
}

const KNOWN: [Known; 36] = [
    hardware("cycles", Some("cpu-cycles"), sys::PERF_COUNT_HW_CPU_CYCLES),
    hardware("instructions", None, sys::PERF_COUNT_HW_INSTRUCTIONS),
    hardware("cache-references", None, sys::PERF_COUNT_HW_CACHE_REFERENCES),
    hardware("cache-misses", None, sys::PERF_COUNT_HW_CACHE_MISSES),
    hardware("branches", Some("branch-instructions"), sys::PERF_COUNT_HW_BRANCH_INSTRUCTIONS),
    hardware("branch-misses", None, sys::PERF_COUNT_HW_BRANCH_MISSES),
    hardware("bus-cycles", None, sys::PERF_COUNT_HW_BUS_CYCLES),
    hardware(
        "stalled-cycles-frontend",
        Some("idle-cycles-frontend"),
        sys::PERF_COUNT_HW_STALLED_CYCLES_FRONTEND,
    ),
    hardware(
        "stalled-cycles-backend",
        Some("idle-cycles-backend"),
        sys::PERF_COUNT_HW_STALLED_CYCLES_BACKEND,
    ),
    hardware("ref-cycles", None, sys::PERF_COUNT_HW_REF_CPU_CYCLES),
    loads("L1-dcache-loads", sys::PERF_COUNT_HW_CACHE_L1D),
    load_misses("L1-dcache-load-misses", sys::PERF_COUNT_HW_CACHE_L1D),
    stores("L1-dcache-stores", sys::PERF_COUNT_HW_CACHE_L1D),
    store_misses("L1-dcache-store-misses", sys::PERF_COUNT_HW_CACHE_L1D),
    loads("L1-icache-loads", sys::PERF_COUNT_HW_CACHE_L1I),
    load_misses("L1-icache-load-misses", sys::PERF_COUNT_HW_CACHE_L1I),
    loads("LLC-loads", sys::PERF_COUNT_HW_CACHE_LL),
    load_misses("LLC-load-misses", sys::PERF_COUNT_HW_CACHE_LL),
    stores("LLC-stores", sys::PERF_COUNT_HW_CACHE_LL),
    store_misses("LLC-store-misses", sys::PERF_COUNT_HW_CACHE_LL),
    loads("dTLB-loads", sys::PERF_COUNT_HW_CACHE_DTLB),
    load_misses("dTLB-load-misses", sys::PERF_COUNT_HW_CACHE_DTLB),
    stores("dTLB-stores", sys::PERF_COUNT_HW_CACHE_DTLB),
    store_misses("dTLB-store-misses", sys::PERF_COUNT_HW_CACHE_DTLB),
    loads("iTLB-loads", sys::PERF_COUNT_HW_CACHE_ITLB),
    load_misses("iTLB-load-misses", sys::PERF_COUNT_HW_CACHE_ITLB),
    load_misses("node-load-misses", sys::PERF_COUNT_HW_CACHE_NODE),
    software("cpu-clock", None, sys::PERF_COUNT_SW_CPU_CLOCK),
    software("task-clock", None, sys::PERF_COUNT_SW_TASK_CLOCK),
    software("page-faults", Some("faults"), sys::PERF_COUNT_SW_PAGE_FAULTS),
    software("minor-faults", None, sys::PERF_COUNT_SW_PAGE_FAULTS_MIN),
    software("major-faults", None, sys::PERF_COUNT_SW_PAGE_FAULTS_MAJ),
    software("context-switches", Some("cs"), sys::PERF_COUNT_SW_CONTEXT_SWITCHES),
    software("cpu-migrations", Some("migrations"), sys::PERF_COUNT_SW_CPU_MIGRATIONS),
    software("alignment-faults", None, sys::PERF_COUNT_SW_ALIGNMENT_FAULTS),
    software("emulation-faults", None, sys::PERF_COUNT_SW_EMULATION_FAULTS),
];

impl CounterEvent {
    /// The event's name, with its modifier.
    ///
    /// For an alias this is perf's own name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names of all events that have a name.
    pub fn known() -> impl Iterator<Item = &'static str> {
        KNOWN.iter().map(|known| known.name)
    }

    /// Whether the kernel counts the event, and not the processor.
    #[must_use]
    pub fn is_software(&self) -> bool {
        self.what.kind == sys::PERF_TYPE_SOFTWARE
    }

    /// Whether the event counts nanoseconds.
    pub(super) fn is_clock(&self) -> bool {
        self.is(sys::PERF_COUNT_SW_CPU_CLOCK) || self.is(sys::PERF_COUNT_SW_TASK_CLOCK)
    }

    /// Whether this is the software event with that number.
    pub(super) fn is(&self, software: u32) -> bool {
        self.is_software() && self.what.config == u64::from(software)
    }
}

impl FromStr for CounterEvent {
    type Err = UnknownEvent;

    fn from_str(name: &str) -> Result<Self, UnknownEvent> {
        let unknown = || UnknownEvent { name: name.to_owned() };
        let (base, modes) = name.split_once(':').map_or((name, None), |(b, m)| (b, Some(m)));
        let (user, kernel) = match modes {
            None | Some("uk" | "ku") => (true, true),
            Some("u") => (true, false),
            Some("k") => (false, true),
            Some(_) => return Err(unknown()),
        };
        let named = |known: &&Known| known.name == base || known.alias == Some(base);
        let (base, kind, config) = match KNOWN.iter().find(named) {
            Some(known) => (known.name, known.kind, known.config),
            None => (base, sys::PERF_TYPE_RAW, raw_code(base).ok_or_else(unknown)?),
        };
        let suffix = modes.map(|modes| format!(":{modes}")).unwrap_or_default();
        Ok(Self {
            name: format!("{base}{suffix}"),
            what: What { kind, config, user, kernel },
            modes_given: modes.is_some(),
        })
    }
}

/// The code of a raw event: `r` followed by hexadecimal digits.
fn raw_code(name: &str) -> Option<u64> {
    let digits = name.strip_prefix('r').filter(|digits| !digits.starts_with('+'))?;
    u64::from_str_radix(digits, 16).ok()
}

impl fmt::Display for CounterEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Display for UnknownEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known: Vec<_> = CounterEvent::known().collect();
        write!(
            f,
            "no event has the name “{}”. The names are {}, and raw codes such as r00c0, each with :u or :k for one mode",
            self.name.escape_debug(),
            known.join(", ")
        )
    }
}

impl std::error::Error for UnknownEvent {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str) -> CounterEvent {
        name.parse().unwrap()
    }

    #[test]
    fn a_name_is_perfs() {
        let cycles = parsed("cycles");
        assert_eq!((cycles.what.kind, cycles.what.config), (0, 0));
        assert_eq!(parsed("cpu-cycles"), cycles, "an alias is the same event");
        let misses = parsed("LLC-load-misses");
        assert_eq!((misses.what.kind, misses.what.config), (3, 0x1_0002), "as perf list -v has it");
        assert!(parsed("page-faults").is_software() && !misses.is_software());
        for name in CounterEvent::known() {
            assert_eq!(parsed(name).name(), name);
        }
    }

    #[test]
    fn a_modifier_limits_the_modes() {
        let modes = |name| (parsed(name).what.user, parsed(name).what.kernel);
        assert_eq!(modes("instructions"), (true, true));
        assert_eq!(modes("instructions:u"), (true, false));
        assert_eq!(modes("instructions:k"), (false, true));
        assert_ne!(parsed("instructions:u"), parsed("instructions"));
    }

    #[test]
    fn a_raw_code_is_hexadecimal() {
        let raw = parsed("r1A8:u");
        assert_eq!((raw.name(), raw.what.kind, raw.what.config), ("r1A8:u", 4, 0x1a8));
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known() {
        for name in [
            "cylces",
            "",
            "r",
            "rxyz",
            "r+1",
            "cycles:",
            "cycles:x",
            "Cycles",
            "r11112222333344445",
        ] {
            let error = name.parse::<CounterEvent>().unwrap_err().to_string();
            assert!(error.contains("cycles, instructions, "), "{name}: {error}");
        }
    }
}
