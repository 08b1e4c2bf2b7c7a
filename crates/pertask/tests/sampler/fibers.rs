//! Work on stacks that are no thread's: those of coroutines.

use super::support::{alone, loudly};
use super::{outermost, sample_enough};
use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use pertask::sampler::{Mechanism, RawProfile, RawSample};

/// Whether the sample was taken below `outermost`.
fn is_inside(sample: &&RawSample) -> bool {
    let outer = (outermost as fn(u64) as *const ()).addr() as u64;
    sample.stack.iter().any(|at| (outer..outer + 256).contains(at))
}

/// How many samples were taken inside.
fn inside<T>(profile: &RawProfile, _: &T) -> usize {
    profile.samples.iter().filter(is_inside).count()
}

/// Samples of stacks that the sampler knew when it took them.
fn check(profile: &RawProfile, good: impl Fn(&RawSample) -> bool) {
    let inside: Vec<_> = profile.samples.iter().filter(is_inside).collect();
    let good = inside.iter().filter(|sample| good(sample)).count();
    loudly(&format!("{good} of {} stacks, {:?}", inside.len(), profile.lost));
    // One may be taken at the very beginning or end.
    assert!((good + 2) * 100 >= inside.len() * 99, "{good} of {}", inside.len());
    let one = profile.samples.iter().filter(|sample| sample.stack.len() == 1).count();
    assert!(profile.lost.unknown_stacks <= one as u64 && !inside.is_empty());
}

/// This library's unwind tables, or frame pointers, lead from the coroutine to the thread that has resumed it. The stack is smaller
/// than unwinding needs.
#[test]
fn stacks_of_coroutines_lead_to_who_has_resumed_them() {
    let _alone = alone();
    for mechanism in Mechanism::ALL {
        let work = |times| {
            let stack = DefaultStack::new(32 << 10).unwrap();
            let turns = move |yielder: &Yielder<(), ()>, ()| {
                for _ in 0..10 {
                    outermost(20 * times);
                    yielder.suspend(());
                }
            };
            let mut fiber = Coroutine::with_stack(stack, turns);
            while let CoroutineResult::Yield(()) = fiber.resume(()) {}
        };
        let Some((profile, ())) = sample_enough(mechanism, 20, work, inside) else { continue };
        check(&profile, |sample| sample.complete);
    }
}

/// A stack of its own whose first frame leads nowhere.
#[cfg(target_arch = "x86_64")]
mod rootless {
    use super::*;
    use std::arch::asm;
    use std::cell::Cell;

    thread_local! {
        /// The resumer's stack pointer, and the milliseconds of work.
        static RESUMER: Cell<u64> = const { Cell::new(0) };
        static WORK: Cell<u64> = const { Cell::new(0) };
    }

    extern "C" fn on_fiber() -> ! {
        outermost(WORK.get());
        // SAFETY: the stack of the resumer, on which `resume` has left where it goes on.
        unsafe { asm!("mov rsp, {}", "ret", in(reg) RESUMER.get(), options(noreturn)) }
    }

    /// Works on a stack of its own, at whose top `root` stands where other frames have their caller's address.
    fn resume(top: u64, root: u64) {
        let saved = RESUMER.with(Cell::as_ptr);
        // SAFETY: the fiber comes back to the label with this stack pointer, and all registers but those kept here are declared.
        unsafe {
            asm!(
                "push rbx", "push rbp", "lea rax, [rip + 2f]", "push rax", "mov [rdi], rsp",
                "mov rsp, rsi", "xor ebp, ebp", "push rdx", "jmp {fiber}",
                "2:", "pop rbp", "pop rbx",
                in("rdi") saved, in("rsi") top, in("rdx") root,
                fiber = sym on_fiber,
                out("r12") _, out("r13") _, out("r14") _, out("r15") _, clobber_abi("C"),
            );
        }
    }

    #[test]
    fn a_fibers_stack_ends_at_its_root_and_says_so() {
        let _alone = alone();
        // Some libraries write 0 there, and others nothing.
        for root in [0, 0x10] {
            let work = |times| {
                let stack = DefaultStack::new(64 << 10).unwrap();
                let top = corosensei::stack::Stack::base(&stack).get() as u64;
                WORK.set(100 * times);
                resume(top - 64, root);
            };
            let sampled = sample_enough(Mechanism::PerfTrap, 20, work, inside);
            let Some((profile, ())) = sampled else { return };
            check(&profile, |sample| sample.complete && sample.fiber);
        }
    }
}
