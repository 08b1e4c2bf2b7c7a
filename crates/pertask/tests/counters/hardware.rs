//! Hardware events: instructions, of which it is known how many there are.

use crate::support::process::in_a_process_of_its_own;
use crate::support::{Puppet, alone, loudly, poll_once, run};
use crate::{Turns, attach, events, instructions, source, value};
use pertask::{CounterSource, Counters, TaskExt};
use std::pin::pin;

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
    if !in_a_process_of_its_own("hardware::a_forced_read_counts_the_same_as_user_space", force) {
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
