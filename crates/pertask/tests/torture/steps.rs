//! The handler, instruction by instruction: that it neither allocates nor takes a lock is seen, not believed.
//!
//! The test puts itself between the kernel and the handler, and lets the processor trap after each of its instructions.

use crate::harness::{action, options, say, set_action, spin, torture};
use object::{Object, ObjectSegment, ObjectSymbol};
use pertask::sampler::{Mechanism, Sampler};
use pertask::{LabelExt, TaskExt, scope};
use std::arch::asm;
use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// So many handlers are looked at. (A step takes some microseconds.)
const HANDLERS: u64 = 2;

/// What a handler may ask the kernel: which thread it is on, and what time it is.
const ALLOWED: [i64; 2] = [libc::SYS_gettid, libc::SYS_clock_gettime];

/// Parts of the names of functions of heaps and locks, and of what hides one: a thread's variables that are made when they
/// are first used, the loader, what is done once.
const FORBIDDEN: [&str; 16] = [
    "malloc",
    "calloc",
    "realloc",
    "memalign",
    "_free",
    "__rust",
    "__rdl",
    "pthread",
    "futex",
    "lll_lock",
    "Mutex",
    "RwLock",
    "::once::",
    "tls_get_addr",
    "dl_iterate",
    "dlsym",
];

/// The handler that is looked at.
static HANDLER: AtomicUsize = AtomicUsize::new(0);
/// How many have been, from the first instruction to the last.
static LOOKED_AT: AtomicU64 = AtomicU64::new(0);
static STEPS: AtomicU64 = AtomicU64::new(0);

/// The addresses of instructions, each in the first free place from its own on.
static ADDRESSES: [AtomicU64; 1 << 17] = [const { AtomicU64::new(0) }; 1 << 17];
static TOO_MANY: AtomicBool = AtomicBool::new(false);
/// A system call that is not allowed, and one; or 0.
static ASKED: AtomicI64 = AtomicI64::new(0);

#[test]
fn the_handler_neither_allocates_nor_locks() {
    torture(|mechanism| {
        // The handler is the same for all, and the trap is used to look at it.
        if mechanism != Mechanism::Timer {
            return;
        }
        set_action(libc::SIGTRAP, (step as Handler as *const ()).addr(), libc::SA_SIGINFO);
        // On a stack that is not deep.
        std::thread::spawn(look_at_some).join().unwrap();
        check();
    });
}

fn look_at_some() {
    while LOOKED_AT.load(Relaxed) < HANDLERS {
        let sampler = Sampler::start(options(Mechanism::Timer, 250)).unwrap();
        // Unwinding remembers what it has seen: most of the first times are not looked at.
        work();
        let handler = action(libc::SIGURG);
        HANDLER.store(handler.sa_sigaction, Relaxed);
        // Until the sampler notices that somebody stands in between, and ends.
        let between = (look as Handler as *const ()).addr();
        set_action(libc::SIGURG, between, libc::SA_SIGINFO | libc::SA_RESTART);
        work();
        set_action(libc::SIGURG, handler.sa_sigaction, handler.sa_flags);
        drop(sampler);
    }
}

/// In a task with labels and scopes, deep below it, and outside.
fn work() {
    #[inline(never)]
    fn down(levels: u32) -> u32 {
        if levels == 0 {
            spin(30);
            return 0;
        }
        black_box(down(levels - 1)) + 1
    }
    let task = async {
        let _scope = scope!("looked at");
        down(3)
    };
    futures::executor::block_on(task.labels([("tenant", "acme")]).task("looked at"));
    spin(10);
}

type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// Calls the handler, with a trap after each instruction.
extern "C" fn look(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the handler that the sampler had installed, with what the kernel has for it; between, a flag of the processor is
    // set and cleared.
    unsafe {
        let handler: Handler = std::mem::transmute(HANDLER.load(Relaxed));
        asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq");
        handler(signal, info, context);
        asm!("pushfq", "and qword ptr [rsp], -0x101", "popfq");
    }
    LOOKED_AT.fetch_add(1, Relaxed);
}

/// Notes the instruction that comes next.
extern "C" fn step(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    const SYSCALL: u16 = 0x050f;
    // SAFETY: the context that the kernel has given, and the code that is about to run.
    let (at, instruction, number) = unsafe {
        let registers = &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let at = registers[libc::REG_RIP as usize].cast_unsigned();
        (at, (at as *const u16).read_unaligned(), registers[libc::REG_RAX as usize])
    };
    STEPS.fetch_add(1, Relaxed);
    if instruction == SYSCALL && !ALLOWED.contains(&number) {
        ASKED.store(number + 1, Relaxed);
    }
    let own = (at as usize).wrapping_mul(0x9e37_79b9) % ADDRESSES.len();
    let mut places = ADDRESSES[own..].iter().chain(&ADDRESSES[..own]);
    let free = |place: &&AtomicU64| [0, at].contains(&place.load(Relaxed));
    match places.find(free) {
        Some(place) => place.store(at, Relaxed),
        None => TOO_MANY.store(true, Relaxed),
    }
}

fn check() {
    assert!(!TOO_MANY.load(Relaxed), "there is no room for so many addresses");
    let functions = functions();
    let ran = |part: &str| functions.iter().filter(|name| name.contains(part)).collect::<Vec<_>>();
    let what = format!("{STEPS:?} steps in {} functions", functions.len());
    assert!(!ran("pertask::sampler::handler::").is_empty(), "{what}: {functions:#?}");
    assert!(!ran("framehop::").is_empty(), "{what}: {functions:#?}");
    let forbidden: Vec<_> = FORBIDDEN.iter().flat_map(|part| ran(part)).collect();
    assert!(forbidden.is_empty(), "{what}: {forbidden:#?}");
    assert_eq!(ASKED.load(Relaxed), 0, "a system call, and one");
    say(&what);
}

/// The functions that ran, as far as they have names. Those of the kernel's page have none here.
fn functions() -> BTreeSet<String> {
    let addresses: BTreeSet<u64> = ADDRESSES.iter().map(|place| place.load(Relaxed)).collect();
    let mappings = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut files = BTreeMap::new();
    let mut names = BTreeSet::new();
    for mapping in mappings.lines().filter_map(Mapping::parse) {
        for at in addresses.range(mapping.addresses.clone()) {
            let file = files.entry(mapping.file).or_insert_with(|| Symbols::read(mapping.file));
            names.extend(file.name(at - mapping.addresses.start + mapping.offset));
        }
    }
    names
}

/// A line of `/proc/self/maps` that is a file's.
struct Mapping<'a> {
    addresses: Range<u64>,
    offset: u64,
    file: &'a str,
}

impl<'a> Mapping<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let offset = number(fields.nth(1)?)?;
        let file = fields.nth(2).filter(|file| file.starts_with('/'))?;
        Some(Self { addresses: number(start)?..number(end)?, offset, file })
    }
}

/// A file's functions, by where they are in the file.
struct Symbols(Vec<(Range<u64>, String)>);

impl Symbols {
    fn read(path: &str) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let in_file = |address: u64| {
            file.segments().find_map(|segment| {
                let behind = address.checked_sub(segment.address())?;
                (behind < segment.size()).then(|| segment.file_range().0 + behind)
            })
        };
        let functions = file.symbols().chain(file.dynamic_symbols());
        let functions = functions.filter_map(|symbol| {
            let start = in_file(symbol.address())?;
            let name = rustc_demangle::demangle(symbol.name().ok()?).to_string();
            Some((start..start + symbol.size(), name))
        });
        Self(functions.collect())
    }

    fn name(&self, offset: u64) -> Option<String> {
        let (_, name) = self.0.iter().find(|(function, _)| function.contains(&offset))?;
        Some(name.clone())
    }
}
