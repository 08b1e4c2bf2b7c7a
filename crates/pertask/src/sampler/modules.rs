//! The modules: which code is mapped where, and how to unwind through it. They are read again when libraries are loaded or
//! unloaded.

use framehop::{ExplicitModuleSectionInfo, MustNotAllocateDuringUnwind, Unwinder as _};
use pertask_symbols::{MappedElf, Memory, Module, UnwindSections};
use std::io;

/// An unwinder that allocates nothing. It has copies of the modules' unwind sections, so a handler never reads memory of a
/// library that is being unloaded.
pub(super) type Unwinder = framehop::UnwinderNative<Vec<u8>, MustNotAllocateDuringUnwind>;

/// The modules, as they were last read.
pub(super) struct Modules {
    known: Vec<Known>,
    memory: Memory,
    /// How often libraries had been loaded and unloaded before the modules were read.
    changes: Changes,
}

struct Known {
    module: Module,
    unwinding: Option<framehop::Module<Vec<u8>>>,
}

/// How often libraries have been loaded and unloaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    loaded: u64,
    unloaded: u64,
}

impl Modules {
    /// Reads the modules. The caller has asked for `changes` before, so that a change during the read causes another one.
    pub(super) fn read(changes: Changes) -> io::Result<Self> {
        let mut modules = Self { known: Vec::new(), memory: Memory::open()?, changes };
        modules.read_mappings()?;
        Ok(modules)
    }

    /// Reads the modules again if libraries have been loaded or unloaded. Returns whether it has.
    pub(super) fn refresh(&mut self, changes: Changes) -> bool {
        if changes == self.changes {
            return false;
        }
        self.changes = changes;
        self.read_mappings().is_ok()
    }

    /// The modules that were mapped at the last read.
    pub(super) fn list(&self) -> impl Iterator<Item = &Module> {
        self.known.iter().map(|known| &known.module)
    }

    /// Makes an unwinder for the modules.
    pub(super) fn unwinder(&self) -> Unwinder {
        let mut unwinder = Unwinder::new();
        let unwindings = self.known.iter().filter_map(|known| known.unwinding.clone());
        unwindings.for_each(|module| unwinder.add_module(module));
        unwinder
    }

    fn read_mappings(&mut self) -> io::Result<()> {
        let mappings = pertask_symbols::mappings()?;
        let images = MappedElf::all(&mappings, &self.memory);
        self.known = images.map(|image| self.known(&image)).collect();
        Ok(())
    }

    /// The module of this image. The unwind sections are those of the last read if the module is the same.
    fn known(&self, image: &MappedElf<'_>) -> Known {
        let module = image.module();
        let before = self.known.iter().find(|known| known.module == module);
        let unwinding = match before {
            Some(before) => before.unwinding.clone(),
            None => image.unwind_sections().map(unwinding),
        };
        Known { module, unwinding }
    }
}

impl Changes {
    /// Asks the loader. It may be at work on another thread, so the caller must hold no lock that a library's constructor could
    /// want.
    #[allow(unsafe_code)]
    pub(super) fn now() -> Self {
        unsafe extern "C" fn note(
            info: *mut libc::dl_phdr_info,
            _: usize,
            data: *mut libc::c_void,
        ) -> libc::c_int {
            // SAFETY: the loader passes a valid entry, and the pointer that it was given, which is to a `Changes` of the
            // caller's.
            unsafe {
                let info = &*info;
                *data.cast::<Changes>() =
                    Changes { loaded: info.dlpi_adds, unloaded: info.dlpi_subs };
            }
            // The first entry has the counts, so the loader need not go on.
            1
        }
        let mut changes = Self::default();
        // SAFETY: the callback has the right type, and the pointer is to a `Changes`, which outlives the call.
        unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut changes).cast()) };
        changes
    }
}

/// What the unwinder takes of a module.
pub(super) fn unwinding(sections: UnwindSections) -> framehop::Module<Vec<u8>> {
    let UnwindSections { path, code, bias, frames, frames_bytes, index, index_bytes, .. } =
        sections;
    let sections = ExplicitModuleSectionInfo {
        eh_frame: Some(frames_bytes),
        eh_frame_svma: Some(frames),
        eh_frame_hdr: Some(index_bytes),
        eh_frame_hdr_svma: Some(index),
        ..ExplicitModuleSectionInfo::default()
    };
    framehop::Module::new(path, code, bias, sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_itself_is_among_them_and_can_be_unwound_through() {
        let modules = Modules::read(Changes::now()).unwrap();
        let here = (unwinding as fn(_) -> _ as *const ()).addr() as u64;
        let holds =
            |module: &Module| module.ranges.iter().any(|range| range.addresses.contains(&here));
        let own = modules.known.iter().find(|known| holds(&known.module)).unwrap();
        assert_eq!(own.module.path, std::env::current_exe().unwrap().to_str().unwrap());
        assert!(own.unwinding.is_some());
        assert!(modules.list().any(|module| module.path == "[vdso]"));
        assert!(modules.unwinder().max_known_code_address() > here);
    }

    #[test]
    fn nothing_is_read_again_while_nothing_changes() {
        let mut modules = Modules::read(Changes::now()).unwrap();
        assert!(!modules.refresh(Changes::now()));
        modules.changes = Changes::default();
        assert!(modules.refresh(Changes::now()));
    }
}
