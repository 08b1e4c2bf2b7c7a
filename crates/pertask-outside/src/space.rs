//! The address space of the process: which files have code there, and how to unwind through it.

use crate::record::u64_at;
use crate::registers::Registers;
use crate::saved::{Saved, Tables};
use crate::tokio::Tokio;
use framehop::{
    CacheNative, ExplicitModuleSectionInfo, FrameAddress, MayAllocateDuringUnwind, Unwinder as _,
    UnwinderNative,
};
#[cfg(feature = "perf-data")]
use pertask_symbols::ModuleRange;
use pertask_symbols::{MappedElf, MappedFiles, Mapping, Memory, Module, mappings_of};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// The most frames of a stack.
const MOST_FRAMES: usize = 512;

/// The address space of the process.
pub(crate) struct Space {
    process: u32,
    mapped: Vec<Mapping>,
    /// All modules so far, also those that are no longer mapped.
    pub(crate) modules: Vec<Module>,
    /// Those that are mapped now.
    present: Vec<Module>,
    unwinder: UnwinderNative<Arc<[u8]>, MayAllocateDuringUnwind>,
    cache: CacheNative<MayAllocateDuringUnwind>,
    /// Whether a file was mapped where another one had been.
    pub(crate) has_replaced: bool,
    /// Where the modules are that are mapped now and have tables.
    covered: Vec<Range<u64>>,
    /// Files with code that could not be read, by path.
    pub(crate) unread: Vec<String>,
    /// Where functions have put registers, by the same tables.
    pub(crate) saved: Saved,
    /// Where tokio is in what is mapped now, if that is wanted.
    pub(crate) tokio: Option<Tokio>,
}

/// A stack that was walked.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// First where the thread was, then where each caller continues.
    pub(crate) addresses: Vec<u64>,
    /// The address behind each of these functions' frames. There is none for a frame that could not be unwound.
    pub(crate) ends: Vec<u64>,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// At the thread's root.
    Root,
    /// Where the sample's part of the stack ends.
    Cut,
    /// Where the unwind tables do not say how to continue.
    Lost,
}

impl Walked {
    /// Where a function was. A caller continues after its call, and the call's own address is wanted.
    pub(crate) fn place(&self, frame: usize) -> u64 {
        self.addresses[frame].saturating_sub(u64::from(frame > 0))
    }
}

impl Space {
    pub(crate) fn new(process: u32) -> Self {
        Self {
            process,
            mapped: Vec::new(),
            modules: Vec::new(),
            present: Vec::new(),
            unwinder: UnwinderNative::new(),
            cache: CacheNative::new(),
            has_replaced: false,
            covered: Vec::new(),
            unread: Vec::new(),
            saved: Saved::default(),
            tokio: None,
        }
    }

    /// As [`new`](Self::new), and looks for tokio as well.
    pub(crate) fn with_tokio(process: u32) -> Self {
        Self { tokio: Some(Tokio::default()), ..Self::new(process) }
    }

    /// Looks which files are mapped now.
    pub(crate) fn look(&mut self) -> io::Result<()> {
        let mapped = mappings_of(self.process)?;
        // A process that has ended has no mappings, and its samples need those that it had.
        if !mapped.is_empty() && mapped != self.mapped {
            let memory = Memory::Files(MappedFiles::of(self.process, &mapped));
            self.set(mapped, &memory);
        }
        Ok(())
    }

    /// Takes these mappings for what there is now.
    pub(crate) fn set(&mut self, mapped: Vec<Mapping>, memory: &Memory) {
        let images: Vec<_> = MappedElf::all(&mapped, memory).collect();
        let present: Vec<_> = images.iter().map(MappedElf::module).collect();
        self.remove_gone(&present);
        for (image, module) in images.iter().zip(&present) {
            if self.present.contains(module) {
                continue;
            }
            if let Some(sections) = image.unwind_sections() {
                let tables = Tables::of(sections);
                self.covered.push(tables.code.clone());
                self.unwinder.add_module(unwinding(&module.path, &tables));
                self.saved.add(tables);
            }
            if let Some(tokio) = &mut self.tokio {
                tokio.add(image, module, memory);
            }
            self.modules.push(module.clone());
        }
        let read = |path: &str| present.iter().any(|module| module.path == path);
        let code = mapped.iter().filter(|it| it.executable && it.path.starts_with('/'));
        let unread: Vec<_> = code.map(|it| &it.path).filter(|path| !read(path)).cloned().collect();
        for path in unread {
            if !self.unread.contains(&path) {
                self.unread.push(path);
            }
        }
        (self.present, self.mapped) = (present, mapped);
    }

    /// Forgets the tables of modules that are no longer mapped.
    fn remove_gone(&mut self, present: &[Module]) {
        for gone in self.present.iter().filter(|module| !present.contains(module)) {
            self.has_replaced = true;
            if let Some(tokio) = &mut self.tokio {
                tokio.remove(gone);
            }
            // The unwinder knows modules by where their code begins.
            if let Some(range) = gone.ranges.first() {
                self.unwinder.remove_module(range.addresses.start);
                self.saved.remove(range.addresses.start);
                self.covered.retain(|covered| covered.start != range.addresses.start);
            }
        }
    }

    /// Notes code of a file that is not here.
    #[cfg(feature = "perf-data")]
    pub(crate) fn add_unread(&mut self, code: Mapping, build_id: Vec<u8>) {
        let range = ModuleRange::new(code.range, code.offset);
        let module = Module::new(code.path.clone(), build_id, vec![range]);
        if !self.modules.contains(&module) {
            self.modules.push(module);
        }
        if !self.unread.contains(&code.path) {
            self.unread.push(code.path);
        }
    }

    /// Walks a sample's stack.
    pub(crate) fn walk(
        &mut self,
        registers: Option<Registers>,
        stack: &[u8],
        found: &mut Walked,
    ) -> End {
        let Some(mut registers) = registers else { return End::Lost };
        let start = registers.stack;
        let (mut is_cut, mut is_guessed) = (false, false);
        let mut read = |address: u64| {
            let at = address.checked_sub(start).and_then(|at| usize::try_from(at).ok());
            let word = at.and_then(|at| u64_at(stack, at));
            is_cut |= word.is_none() && address >= start;
            word.ok_or(())
        };
        let mut frame = FrameAddress::from_instruction_pointer(registers.instruction);
        while found.addresses.len() < MOST_FRAMES {
            found.addresses.push(frame.address());
            // Without tables, the unwinder takes a register for a frame pointer, which may be anything.
            let place = frame.address_for_lookup();
            is_guessed |= !self.covered.iter().any(|range| range.contains(&place));
            let next = self.unwinder.unwind_frame(
                frame,
                &mut registers.unwind,
                &mut self.cache,
                &mut read,
            );
            if next.is_ok() {
                found.ends.push(registers.unwind.sp());
            }
            frame = match next.map(|next| next.and_then(FrameAddress::from_return_address)) {
                Ok(Some(caller)) => caller,
                Ok(None) if !is_guessed => return End::Root,
                Ok(None) => return End::Lost,
                Err(_) if is_cut => return End::Cut,
                Err(_) => return End::Lost,
            };
        }
        End::Cut
    }
}

fn unwinding(path: &str, tables: &Tables) -> framehop::Module<Arc<[u8]>> {
    let Tables { code, bias, frames, frames_bytes, index, index_bytes } = tables.clone();
    let sections = ExplicitModuleSectionInfo {
        eh_frame: Some(frames_bytes),
        eh_frame_svma: Some(frames),
        eh_frame_hdr: Some(index_bytes),
        eh_frame_hdr_svma: Some(index),
        ..ExplicitModuleSectionInfo::default()
    };
    framehop::Module::new(path.to_owned(), code, bias, sections)
}
