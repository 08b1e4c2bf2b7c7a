//! The memory of the process context, which readers find by its name: a header, and the content behind it.

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous};
use rustix::process::set_virtual_memory_region_name;
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

const BYTES: usize = 128 << 10;

/// The most bytes of content.
pub(super) const MOST_BYTES: usize = BYTES - size_of::<Header>();

const SIGNATURE: u64 = u64::from_ne_bytes(*b"OTEL_CTX");
const VERSION: u32 = 2;

/// The header, version 2.
///
/// INVARIANT: while `published_at_ns` is not 0, `payload_bytes` and `payload` are those of a whole content. Readers look at it before and after
/// they read.
#[repr(C)]
struct Header {
    signature: AtomicU64,
    version: AtomicU32,
    payload_bytes: AtomicU32,
    published_at_ns: AtomicU64,
    payload: AtomicPtr<u8>,
}

/// The memory. It stays until the process ends, and is not in a forked child.
pub(super) struct Mapping(NonNull<Header>);

// SAFETY: the memory belongs to the mapping alone, and stays.
unsafe impl Send for Mapping {}

impl Mapping {
    pub(super) fn new() -> io::Result<Self> {
        let (access, private) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        let start = match file() {
            // SAFETY: the kernel chooses a place where nothing is.
            Ok(file) => unsafe { mmap(ptr::null_mut(), BYTES, access, private, file, 0) },
            // SAFETY: the kernel chooses a place where nothing is.
            Err(_) => unsafe { mmap_anonymous(ptr::null_mut(), BYTES, access, private) },
        }?;
        // SAFETY: the memory is this function's own, and nobody else has it yet.
        unsafe { madvise(start, BYTES, Advice::LinuxDontFork) }?;
        NonNull::new(start.cast()).map(Self).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn header(&self) -> &Header {
        // SAFETY: the memory is mapped for good, is aligned to pages, and was all zero, which is a header.
        unsafe { self.0.as_ref() }
    }

    /// Replaces the content, which has [`MOST_BYTES`] at most. A longer one, which keys and resource together cannot make, changes nothing.
    pub(super) fn publish(&mut self, content: &[u8]) {
        let Ok(bytes) = u32::try_from(content.len()) else { return };
        if content.len() > MOST_BYTES {
            return;
        }
        let header = self.header();
        // SAFETY: the content begins behind the header, in the same mapping.
        let payload = unsafe { self.0.add(1) }.cast::<u8>();
        // Relaxed: only this thread changes it.
        let before = header.published_at_ns.load(Ordering::Relaxed);
        // Relaxed, here and below: readers are other processes, for which the fence and the last store put these stores in order.
        header.published_at_ns.store(0, Ordering::Relaxed);
        // Release: a reader that sees any of the stores below finds the 0, or what comes after all of them, when it looks again.
        fence(Ordering::Release);
        // SAFETY: there are `MOST_BYTES` behind the header. Only this thread uses them, because `self` is borrowed mutably; other processes read
        // what the kernel copies for them.
        unsafe { ptr::copy_nonoverlapping(content.as_ptr(), payload.as_ptr(), content.len()) };
        header.version.store(VERSION, Ordering::Relaxed);
        header.payload_bytes.store(bytes, Ordering::Relaxed);
        header.payload.store(payload.as_ptr(), Ordering::Relaxed);
        header.signature.store(SIGNATURE, Ordering::Relaxed);
        // Release: a reader that finds this number finds all that was stored before. It reads the number first, and by a barrier the rest after it.
        header.published_at_ns.store(now_ns().max(before + 1), Ordering::Release);
        self.name();
    }

    /// Names the memory. Kernels without names for memory refuse it, and still tell readers that somebody has tried.
    fn name(&self) {
        // SAFETY: the memory is mapped. Nothing is read through the slice.
        let memory = unsafe { slice::from_raw_parts(self.0.as_ptr().cast::<u8>(), BYTES) };
        let _ = set_virtual_memory_region_name(memory, Some(c"OTEL_CTX"));
    }
}

/// A file of the memory, by whose name readers find the mapping also where the kernel has no names for memory.
fn file() -> io::Result<OwnedFd> {
    let usual = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Older kernels do not know the last flag.
    let file = memfd_create("OTEL_CTX", usual | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| memfd_create("OTEL_CTX", usual))?;
    ftruncate(&file, BYTES as u64)?;
    Ok(file)
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
