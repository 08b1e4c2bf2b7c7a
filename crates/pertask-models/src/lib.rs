//! Models of the races in pertask's own shared data: the files that ship, with loom's atomics in place of the standard library's. (Of a cut,
//! `Cut::begin` is not among them: `World::cut` takes its steps in the same order.)
//!
//! loom runs every interleaving of a model's threads, with every value that a load may return under the C11 memory model, and at most
//! `PREEMPTIONS` preemptions; `LOOM_MAX_PREEMPTIONS` sets another bound.

#![cfg(test)]
#![allow(dead_code, reason = "of each file, the models use a part")]
#![allow(unsafe_code)]

mod sync;

mod os {
    pub(crate) mod clock;
}

mod pmus {
    pub(crate) mod by_tag;

    pub(crate) mod life {
        #[path = "../../../../pertask/src/pmus/life/books.rs"]
        mod books;
        #[path = "../../../../pertask/src/pmus/life/count.rs"]
        mod count;
        #[path = "../../../../pertask/src/pmus/life/data.rs"]
        mod data;
        #[path = "../../../../pertask/src/pmus/life/ended.rs"]
        mod ended;
        mod models;
        #[path = "../../../../pertask/src/pmus/life/state.rs"]
        mod state;
    }

    pub(crate) mod memory {
        mod meter;
        mod models;
        #[path = "../../../../pertask/src/pmus/memory/sampling.rs"]
        mod sampling;

        loom::lazy_static! {
            /// The meter of the one worker.
            static ref METER: meter::Meter = meter::Meter::new();
        }

        /// The PMU.
        struct Memory;

        impl Memory {
            fn for_each_meter(f: impl FnOnce(&meter::Meter)) {
                f(&METER);
            }
        }
    }
}

/// The most preemptions in a run of a model. With two, all models together take some seconds. docs/MUTATIONS.md lists what they catch.
const PREEMPTIONS: usize = 2;

/// Runs a model.
fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(PREEMPTIONS));
    builder.check(model);
}
