//! Memory as the kernel's versions use it: `perf_ctx_data` from a cache, a task's pointer to it, `refcount_t`, RCU.
//!
//! A pointer is an address, and addresses are reused: the lowest free address is handed out next. So an exchange against an old
//! pointer succeeds where it would succeed in the kernel. But a pointer also remembers which object it was loaded for, so
//! following an old pointer is caught. RCU frees at the first moment the contract allows.
//!
//! Every access to a shared word is a read-modify-write, which sees the newest value. So the models find only faults of
//! interleaving, as on a machine that reorders nothing. A version that passes here has not been shown to have correct barriers;
//! the models of the code that ships are stricter.

use super::kernel::Cpu;
use super::trace::{Fault, fault};
use loom::sync::atomic::Ordering::{AcqRel, Acquire};
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};
use std::fmt;
use std::sync::{Arc, Mutex};

/// An attach that failed: no memory, or too many users.
#[derive(Debug)]
pub(super) struct Refused;

/// How hard an allocation tries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Gfp {
    /// GFP_ATOMIC, GFP_NOWAIT: it may fail even if there is memory.
    Quick,
    /// GFP_KERNEL.
    Wait,
}

/// A `struct perf_ctx_data`, with its data.
pub(super) struct CtxData {
    pub(super) refcount: Refcount,
    global: AtomicBool,
    looks: AtomicUsize,
}

/// A pointer to data. Comparisons see only the address.
#[derive(Clone, Copy)]
pub(super) struct Ptr {
    address: usize,
    object: u64,
}

/// `task->perf_ctx_data`. Zero is NULL.
pub(super) struct Slot(AtomicUsize);

pub(super) struct Memory {
    books: Mutex<Books>,
    /// The word that orders RCU's sections and callbacks.
    grace: AtomicUsize,
}

/// Plain data: loom runs one thread at a time, and no loom operation happens while this is locked.
struct Books {
    /// The memory at address 1, 2, and so on, and the object that lives there.
    cells: Vec<(Arc<CtxData>, Option<u64>)>,
    objects: u64,
    /// How many quick allocations still succeed.
    quick: usize,
    no_memory: bool,
    slob: bool,
    sections: Vec<u64>,
    last_section: u64,
    /// The objects that wait to be freed, each with the sections that may still access it.
    callbacks: Vec<(Vec<u64>, Ptr)>,
}

impl Memory {
    pub(super) fn new() -> Self {
        let books = Books {
            cells: Vec::new(),
            objects: 0,
            quick: usize::MAX,
            no_memory: false,
            slob: false,
            sections: Vec::new(),
            last_section: 0,
            callbacks: Vec::new(),
        };
        Self { books: Mutex::new(books), grace: AtomicUsize::new(0) }
    }

    fn books<R>(&self, f: impl FnOnce(&mut Books) -> R) -> R {
        // A model that failed may have poisoned the lock.
        f(&mut self.books.lock().unwrap_or_else(|failed| failed.into_inner()))
    }

    /// How many objects are not freed.
    pub(super) fn live(&self) -> usize {
        self.books(|books| books.cells.iter().filter(|(_, object)| object.is_some()).count())
    }

    /// How many objects were ever allocated.
    pub(super) fn allocated(&self) -> u64 {
        self.books(|books| books.objects)
    }

    /// Lets only `count` more quick allocations succeed.
    pub(super) fn limit_quick(&self, count: usize) {
        self.books(|books| books.quick = count);
    }

    /// Sets whether every allocation fails.
    pub(super) fn set_empty(&self, empty: bool) {
        self.books(|books| books.no_memory = empty);
    }

    /// `alloc_perf_ctx_data`: the object has one reference.
    pub(super) fn alloc(&self, global: bool, gfp: Gfp) -> Result<Ptr, Refused> {
        self.books(|books| books.take_cell(gfp).map(|cell| books.construct(cell, global)))
    }

    /// Makes SLOB the allocator, for which `kfree` of a cache's object is wrong. It never was for SLAB and SLUB.
    pub(super) fn use_slob(&self) {
        self.books(|books| books.slob = true);
    }

    /// `kfree`, of an object from a cache.
    pub(super) fn kfree(&self, ptr: Ptr) {
        if self.books(|books| books.slob) {
            fault(Fault::WrongAllocator, format_args!("kfree of {ptr}, which is from a cache"));
        }
        self.free(ptr);
    }

    /// `kmem_cache_free`: frees at once.
    pub(super) fn free(&self, ptr: Ptr) {
        self.look(ptr);
        self.books(|books| books.cells[ptr.address - 1].1 = None);
    }

    /// `call_rcu`: frees when no section can access the object any more.
    pub(super) fn free_rcu(&self, ptr: Ptr) {
        self.grace.fetch_add(1, AcqRel);
        self.look(ptr);
        self.books(|books| {
            let holders = books.sections.clone();
            books.callbacks.push((holders, ptr));
        });
        self.run_callbacks();
    }

    /// `rcu_read_lock`.
    pub(super) fn rcu_read_lock(&self) -> Section<'_> {
        self.grace.fetch_add(1, AcqRel);
        let number = self.books(|books| {
            books.last_section += 1;
            books.sections.push(books.last_section);
            books.last_section
        });
        Section { memory: self, number }
    }

    fn run_callbacks(&self) {
        let ripe = self.books(|books| {
            let running = &books.sections;
            let ripe = books
                .callbacks
                .extract_if(.., |(holders, _)| !holders.iter().any(|h| running.contains(h)));
            ripe.collect::<Vec<_>>()
        });
        ripe.into_iter().for_each(|(_, ptr)| self.free(ptr));
    }

    /// Follows a pointer.
    pub(super) fn look(&self, ptr: Ptr) -> Arc<CtxData> {
        // Shows loom that an access and a free may come in either order.
        self.find(ptr).looks.fetch_add(1, AcqRel);
        self.find(ptr)
    }

    fn find(&self, ptr: Ptr) -> Arc<CtxData> {
        let (data, object) = self.books(|books| books.cells[ptr.address - 1].clone());
        match object {
            Some(object) if object == ptr.object => data,
            Some(_) => fault(
                Fault::AddressReused,
                format_args!("{ptr} was freed, and other, live data is there now"),
            ),
            None => fault(Fault::UseAfterFree, format_args!("{ptr} was freed")),
        }
    }

    fn pointer(&self, address: usize) -> Option<Ptr> {
        let cell = address.checked_sub(1)?;
        let object = self.books(|books| books.cells[cell].1.unwrap_or(0));
        Some(Ptr { address, object })
    }
}

impl Books {
    fn take_cell(&mut self, gfp: Gfp) -> Result<usize, Refused> {
        let quick = gfp == Gfp::Quick;
        if self.no_memory || quick && self.quick == 0 {
            return Err(Refused);
        }
        self.quick -= usize::from(quick);
        let free = self.cells.iter().position(|(_, object)| object.is_none());
        Ok(free.unwrap_or(self.cells.len()))
    }

    fn construct(&mut self, cell: usize, global: bool) -> Ptr {
        self.objects += 1;
        let content = (Arc::new(CtxData::new(global)), Some(self.objects));
        match self.cells.get_mut(cell) {
            Some(place) => *place = content,
            None => self.cells.push(content),
        }
        Ptr { address: cell + 1, object: self.objects }
    }
}

/// An RCU read-side section.
pub(super) struct Section<'a> {
    memory: &'a Memory,
    number: u64,
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        self.memory.books(|books| books.sections.retain(|number| *number != self.number));
        if !std::thread::panicking() {
            self.memory.run_callbacks();
        }
    }
}

impl CtxData {
    fn new(global: bool) -> Self {
        let looks = AtomicUsize::new(0);
        Self { refcount: Refcount::new(1), global: AtomicBool::new(global), looks }
    }

    /// A plain field in the kernel; `set_global` writes the same one.
    pub(super) fn is_global(&self) -> bool {
        self.global.fetch_or(false, AcqRel)
    }

    pub(super) fn set_global(&self, global: bool) {
        self.global.swap(global, AcqRel);
    }
}

impl Slot {
    pub(super) fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// `rcu_dereference`.
    pub(super) fn load(&self, cpu: &Cpu) -> Option<Ptr> {
        cpu.memory().pointer(self.0.fetch_or(0, AcqRel))
    }

    /// `try_cmpxchg`: fully ordered. On failure, returns what it found instead.
    pub(super) fn try_cmpxchg(
        &self,
        cpu: &Cpu,
        old: Option<Ptr>,
        new: Option<Ptr>,
    ) -> Result<(), Option<Ptr>> {
        let [old, new] = [old, new].map(|ptr| ptr.map_or(0, |ptr| ptr.address));
        let result = self.0.compare_exchange(old, new, AcqRel, Acquire);
        result.map(drop).map_err(|found| cpu.memory().pointer(found))
    }

    /// `rcu_assign_pointer`, under a lock.
    pub(super) fn assign(&self, new: Option<Ptr>) {
        self.0.swap(new.map_or(0, |ptr| ptr.address), AcqRel);
    }
}

/// A `refcount_t`. Whatever the kernel warns of is a fault here.
pub(super) struct Refcount(AtomicU32);

impl Refcount {
    pub(super) fn new(count: u32) -> Self {
        Self(AtomicU32::new(count))
    }

    pub(super) fn read(&self) -> u32 {
        self.0.fetch_or(0, AcqRel)
    }

    pub(super) fn set(&self, count: u32) {
        self.0.swap(count, AcqRel);
    }

    /// `refcount_add`. Returns the count before.
    pub(super) fn add(&self, references: u32) -> u32 {
        let before = self.0.fetch_add(references, AcqRel);
        if before == 0 {
            fault(Fault::Revived, "a reference was taken to dead data");
        }
        before
    }

    /// `atomic_inc`, for a counter that does not count owners.
    pub(super) fn add_from_any(&self, number: u32) {
        self.0.fetch_add(number, AcqRel);
    }

    /// `refcount_inc_not_zero`. Returns the count after.
    pub(super) fn inc_not_zero(&self) -> Option<u32> {
        let inc = |count| if count == 0 { None } else { Some(count + 1) };
        self.0.fetch_update(AcqRel, Acquire, inc).map(|before| before + 1).ok()
    }

    /// `refcount_sub_and_test`. Returns the count after.
    pub(super) fn sub(&self, references: u32) -> u32 {
        let before = self.0.fetch_sub(references, AcqRel);
        before.checked_sub(references).unwrap_or_else(|| {
            fault(Fault::Underflow, format_args!("{references} dropped, of {before}"))
        })
    }

    /// `refcount_dec_and_test`. Returns the count after.
    pub(super) fn dec(&self) -> u32 {
        self.sub(1)
    }

    /// `refcount_dec_not_one`.
    pub(super) fn dec_not_one(&self) -> bool {
        let dec = |count| if count == 1 { None } else { Some(count - 1) };
        self.0.fetch_update(AcqRel, Acquire, dec).is_ok()
    }
}

impl fmt::Display for Ptr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "data {} (at address {})", self.object, self.address)
    }
}
