//! Any bytes, as operations on the core, beside the dull model of `pertask-core`'s tests: both count the same after each.
//!
//! Three bytes are one operation: its kind, and two numbers. `cargo fuzz fmt protocol FILE` shows a file's.

#![no_main]

#[path = "../../crates/pertask-core/tests/common/mod.rs"]
mod common;
#[path = "../../crates/pertask-core/tests/model/pair.rs"]
mod pair;
#[path = "../../crates/pertask-core/tests/model/reference.rs"]
mod reference;

use libfuzzer_sys::arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use pair::{Op, Pair};
use pertask_core::Inherit;
use reference::{CPUS, NO_LIMIT, PMUS, SITES};

/// Each operation is followed by a comparison of all that there is.
const MAX_OPS: usize = 200;

#[derive(Debug)]
struct Program(Vec<Op>);

impl<'a> Arbitrary<'a> for Program {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let bytes = bytes.bytes(bytes.len())?;
        Ok(Self(bytes.as_chunks().0.iter().take(MAX_OPS).map(op).collect()))
    }
}

fuzz_target!(|program: Program| {
    let system = Pair::play_all(&program.0);
    // SAFETY: what was played on it is gone, and the last comparison has waited for what was released.
    unsafe { system.dispose() };
});

/// The kinds have the order of `seeds/protocol.py`.
fn op(&[kind, a, b]: &[u8; 3]) -> Op {
    let (a, b) = (usize::from(a), usize::from(b));
    let (cpu, pmu) = (a % CPUS, a % PMUS);
    match kind % 15 {
        0 => Op::ForkRoot { site: a % SITES },
        1 => Op::ForkHere { cpu, site: b % SITES },
        2 => Op::ForkFrom { parent: a, site: b % SITES },
        3 => Op::Run { cpu, task: b },
        4 => Op::End,
        5 => Op::SwitchIn { cpu, task: b },
        6 => Op::SwitchOut { cpu },
        7 => Op::AttachTask { pmu, task: b, inherit: Inherit::No },
        8 => Op::AttachTask { pmu, task: b, inherit: Inherit::Children },
        9 => Op::AttachGlobal { pmu },
        10 => Op::Detach { event: a },
        11 => Op::Reset { event: a },
        12 => Op::Exit { task: a },
        13 => Op::Limit { pmu, objects: if b < 12 { b } else { NO_LIMIT } },
        _ => Op::Tick { time: a as u64 },
    }
}
