//! Random operations on a system and on a dull model of it: whatever is done, in whatever order, both count the same.
//!
//! After each operation every event's counts, every snapshot, the number
//! of data objects and all figures are compared. *Whole*, *One owner per reference* and *Final counts survive* are
//! among what the comparison implies. The fuzzer's target `protocol` does the same with operations of its own choice.

#![cfg(not(any(pertask_loom, pertask_shuttle)))]

mod common;
#[path = "model/pair.rs"]
mod pair;
#[path = "model/reference.rs"]
mod reference;

use common::share;
use pair::{Op, Pair};
use pertask_core::Inherit;
use proptest::prelude::*;
use reference::{CPUS, NO_LIMIT, PMUS, SITES};

fn op() -> impl Strategy<Value = Op> {
    let (cpu, pmu, site, any) = (0..CPUS, 0..PMUS, 0..SITES, 0..64_usize);
    let inherit = prop_oneof![Just(Inherit::No), Just(Inherit::Children)];
    let limit = prop_oneof![2 => 0..12_usize, 3 => Just(NO_LIMIT)];
    prop_oneof![
        2 => site.clone().prop_map(|site| Op::ForkRoot { site }),
        3 => (cpu.clone(), site.clone()).prop_map(|(cpu, site)| Op::ForkHere { cpu, site }),
        1 => (any.clone(), site).prop_map(|(parent, site)| Op::ForkFrom { parent, site }),
        5 => (cpu.clone(), any.clone()).prop_map(|(cpu, task)| Op::Run { cpu, task }),
        3 => Just(Op::End),
        2 => (cpu.clone(), any.clone()).prop_map(|(cpu, task)| Op::SwitchIn { cpu, task }),
        2 => cpu.prop_map(|cpu| Op::SwitchOut { cpu }),
        4 => (pmu.clone(), any.clone(), inherit)
            .prop_map(|(pmu, task, inherit)| Op::AttachTask { pmu, task, inherit }),
        3 => pmu.clone().prop_map(|pmu| Op::AttachGlobal { pmu }),
        4 => any.clone().prop_map(|event| Op::Detach { event }),
        1 => any.clone().prop_map(|event| Op::Reset { event }),
        3 => any.prop_map(|task| Op::Exit { task }),
        1 => (pmu, limit).prop_map(|(pmu, objects)| Op::Limit { pmu, objects }),
        3 => (1..100_u64).prop_map(|time| Op::Tick { time }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: share(300),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn system_counts_as_the_model_does(ops in prop::collection::vec(op(), 1..120)) {
        Pair::play_all(&ops);
    }
}
